//! Which sensors this node hears: one is there while its last batch is younger than a bound on silence. Pure: it is told of batches and
//! of the time, and answers with what has to be told anew. Topics, brokers and the log are not known here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidelog_record::{DeviceId, SiteName};

/// Sensors remembered. Past it the one heard of longest ago is forgotten, and told to be silent.
pub(super) const SENSORS_MAX: usize = 1024;

/// What has to be told of a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub site: SiteName,
    pub device: DeviceId,
    pub online: bool,
    /// When its last batch was written, Unix milliseconds.
    pub heard_ms: i64,
}

#[derive(Debug)]
struct Heard {
    /// `None` when it was too long ago to matter.
    at: Option<Instant>,
    heard_ms: i64,
    /// What was told last.
    told: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Presence {
    silence: Duration,
    sensors: BTreeMap<(SiteName, DeviceId), Heard>,
    /// What has to be told of sensors that were forgotten.
    parting: Vec<Change>,
}

impl Presence {
    /// A sensor is there until it is silent for so long.
    pub fn new(silence: Duration) -> Self {
        Self { silence, sensors: BTreeMap::new(), parting: Vec::new() }
    }

    /// A batch of a sensor was written at `heard_ms`, by a clock that says `now_ms` now.
    pub fn heard(&mut self, site: &SiteName, device: DeviceId, heard_ms: i64, now_ms: i64, now: Instant) {
        // A clock that was set back since makes it as young as can be.
        let age = Duration::from_millis(now_ms.saturating_sub(heard_ms).max(0).unsigned_abs());
        let at = if age < self.silence { now.checked_sub(age).or(Some(now)) } else { None };
        let key = (site.clone(), device);
        if !self.sensors.contains_key(&key) && self.sensors.len() >= SENSORS_MAX {
            self.forget_the_longest_silent();
        }
        let sensor = self.sensors.entry(key).or_insert(Heard { at: None, heard_ms, told: None });
        sensor.at = sensor.at.max(at);
        sensor.heard_ms = sensor.heard_ms.max(heard_ms);
    }

    fn forget_the_longest_silent(&mut self) {
        let longest = self.sensors.iter().min_by_key(|(_, heard)| heard.at).map(|(key, _)| key.clone());
        let Some((key, heard)) = longest.and_then(|key| self.sensors.remove_entry(&key)) else { return };
        if heard.told != Some(false) {
            let (site, device) = key;
            self.parting.push(Change { site, device, online: false, heard_ms: heard.heard_ms });
        }
    }

    /// Nobody knows what was told before.
    pub fn forget_told(&mut self) {
        self.sensors.values_mut().for_each(|heard| heard.told = None);
    }

    /// What has to be told now; it counts as told.
    pub fn changes(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.parting);
        for ((site, device), heard) in &mut self.sensors {
            let online = heard.at.is_some_and(|at| now.saturating_duration_since(at) < self.silence);
            if heard.told.replace(online) != Some(online) {
                changes.push(Change {
                    site: site.clone(),
                    device: *device,
                    online,
                    heard_ms: heard.heard_ms,
                });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SILENCE_MS: u64 = 1000;
    const START_MS: i64 = 1_700_000_000_000;

    fn site() -> SiteName {
        "plant".parse().unwrap()
    }

    fn presence() -> Presence {
        Presence::new(Duration::from_millis(SILENCE_MS))
    }

    proptest! {
        #[test]
        fn what_was_told_last_is_what_the_youngest_batch_says(
            steps in prop::collection::vec((0u64..700, prop::option::of((0u8..3, 0i64..1500)), any::<bool>()), 0..60),
        ) {
            let (mut presence, began) = (presence(), Instant::now() + Duration::from_secs(3600));
            let (mut passed, mut youngest, mut told) = (0u64, HashMap::new(), HashMap::new());
            for (wait, heard, reconnects) in steps {
                passed += wait;
                let (now, now_ms) = (began + Duration::from_millis(passed), START_MS + passed.cast_signed());
                if let Some((device, age)) = heard {
                    presence.heard(&site(), DeviceId([device; 8]), now_ms - age, now_ms, now);
                    let newest = youngest.entry(device).or_insert(i64::MIN);
                    *newest = (*newest).max(now_ms - age);
                }
                if reconnects {
                    presence.forget_told();
                    told.clear();
                }
                for change in presence.changes(now) {
                    let before = told.insert(change.device.0[0], change.online);
                    prop_assert_ne!(before, Some(change.online), "told twice");
                }
                let expected: HashMap<_, _> = youngest
                    .iter()
                    .map(|(device, at_ms)| (*device, now_ms - at_ms < SILENCE_MS.cast_signed()))
                    .collect();
                prop_assert_eq!(&told, &expected);
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_who_is_forgotten_is_told_to_be_silent() {
        let (mut presence, now) = (presence(), Instant::now());
        for device in 0..=u16::try_from(SENSORS_MAX).unwrap() {
            let [a, b] = device.to_be_bytes();
            presence.heard(
                &site(),
                DeviceId([a, b, 0, 0, 0, 0, 0, 0]),
                START_MS,
                START_MS,
                now + Duration::from_micros(device.into()),
            );
        }
        assert_eq!(presence.sensors.len(), SENSORS_MAX);
        let silent: Vec<_> = presence.changes(now).into_iter().filter(|change| !change.online).collect();
        assert_eq!(silent.iter().map(|change| change.device).collect::<Vec<_>>(), [DeviceId([0; 8])]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_silent() {
        let (mut presence, now) = (presence(), Instant::now());
        presence.heard(&site(), DeviceId([1; 8]), START_MS, START_MS - 1_000_000_000, now);
        assert!(presence.changes(now).iter().all(|change| change.online));
    }
}
