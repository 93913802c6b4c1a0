//! Who had better send where: pure, told of the sensors that are served here, of the words of other gateways, and of the time.
//!
//! A sensor is advised to go to another gateway
//! - if that one has fewer sensors by more than a slack (an eighth of those here, at least two), as many as make them even, and
//! - if this one has lost its way to all other nodes, so that what it takes would be nowhere else.
//!
//! Nobody knows whether a sensor is heard elsewhere but the sensor, which tries and comes back. So each is advised once, and again only after
//! an hour, two, four, …: one that cannot leave is left in peace. Advice is worth nothing to a reading: it is durable here before it is given
//! (invariant 2), and whoever does not take it is served on.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tidelog_record::DeviceId;

/// How often a gateway says how many sensors it serves.
pub(crate) const WORD_EVERY: Duration = Duration::from_secs(15);

/// A gateway that said nothing for so long is sent no sensors.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// A sensor that was not served for so long is not counted, and forgotten.
const SENSOR_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Without a way to anyone for so long, this gateway sends its sensors away.
const CUT_OFF_AFTER: Duration = Duration::from_secs(60);

/// How old the last word of a gateway may be to which sensors are sent when nothing is heard of anyone.
const OLDEST_HOPE: Duration = Duration::from_secs(3600);

/// How long a sensor that was advised is left in peace, the first time.
const PEACE: Duration = Duration::from_secs(3600);

/// How often that doubles.
const PEACE_DOUBLINGS_MAX: u32 = 5;

/// For so long after its start a gateway does not claim to have fewer sensors than it had before: they come when they have something to
/// say, and nobody is to send it others in their place.
const MEMORY_MAX: Duration = Duration::from_secs(5 * 60);

/// Fewer sensors too many move nobody.
const SLACK_SENSORS_MIN: u32 = 2;

/// As part of the sensors here.
const SLACK_SHARE: u32 = 8;

/// Sensors remembered; of more, those served longest ago are forgotten.
const SENSORS_MAX: usize = 4096;

/// Other gateways remembered; words of more are passed over.
const GATEWAYS_MAX: usize = 64;

/// What a gateway says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub gateway: DeviceId,
    /// By the gateway's own clock: only whether it is another one is of interest.
    pub at_ns: i64,
    pub sensors: u32,
}

/// Why a sensor had better go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Load,
    CutOff,
}

/// Where a sensor had better go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    pub gateway: DeviceId,
    pub reason: Reason,
}

/// What is known of another gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other {
    pub gateway: DeviceId,
    pub sensors: u32,
    /// When its last word came here; `None` for one that was there before this gateway listened, and may be of any age.
    pub said: Option<Instant>,
    at_ns: i64,
    /// Sensors sent there since that word.
    sent: u32,
    /// One that was sent there came back since that word: nobody hears it there, or nobody is there.
    doubted: bool,
}

impl Other {
    fn load(&self) -> u32 {
        self.sensors.saturating_add(self.sent)
    }

    /// Whether its last word is younger than this, and nothing speaks against it.
    fn is_there(&self, now: Instant, age_max: Duration) -> bool {
        !self.doubted && self.said.is_some_and(|said| now.saturating_duration_since(said) < age_max)
    }
}

/// What a sensor was advised.
#[derive(Clone, Copy, Debug)]
struct Advised {
    at: Instant,
    to: DeviceId,
    /// How often it had been advised before.
    before: u32,
}

#[derive(Debug)]
struct Sensor {
    served: Instant,
    advised: Option<Advised>,
    /// It was advised to go and has not been here since.
    gone: bool,
}

impl Sensor {
    fn is_in_peace(&self, now: Instant) -> bool {
        self.advised.is_some_and(|Advised { at, before, .. }| {
            now.saturating_duration_since(at) < PEACE * (1 << before.min(PEACE_DOUBLINGS_MAX))
        })
    }
}

/// The sensors and gateways of one gateway.
#[derive(Debug)]
pub(crate) struct Share {
    own: DeviceId,
    sensors: HashMap<DeviceId, Sensor>,
    /// As last reviewed, less those that were sent away since, and with those that came.
    load: u32,
    others: BTreeMap<DeviceId, Other>,
    cut_off_since: Option<Instant>,
    /// How many there were before a start, and when that was.
    before: Option<(u32, Instant)>,
}

impl Share {
    pub fn new(own: DeviceId) -> Self {
        Self {
            own,
            sensors: HashMap::new(),
            load: 0,
            others: BTreeMap::new(),
            cut_off_since: None,
            before: None,
        }
    }

    /// Is told at a start what this gateway said so long ago, before it ended.
    pub fn remember(&mut self, now: Instant, sensors: u32, age: Duration) {
        self.before = (age < MEMORY_MAX).then_some((sensors, now));
    }

    /// Sensors served here.
    pub fn sensors(&self) -> u32 {
        self.load
    }

    /// The other gateways.
    pub fn others(&self) -> impl Iterator<Item = &Other> {
        self.others.values()
    }

    /// Forgets sensors that are gone, and is told whether the way to all others is lost. How many sensors are served here: the word
    /// to say.
    pub fn review(&mut self, now: Instant, cut_off: bool) -> u32 {
        self.sensors.retain(|_, sensor| {
            now.saturating_duration_since(sensor.served) < SENSOR_AGE_MAX || sensor.is_in_peace(now)
        });
        let here =
            |sensor: &&Sensor| !sensor.gone && now.saturating_duration_since(sensor.served) < SENSOR_AGE_MAX;
        self.load = u32::try_from(self.sensors.values().filter(here).count()).unwrap_or(u32::MAX);
        self.cut_off_since = if cut_off { self.cut_off_since.or(Some(now)) } else { None };
        self.before = self.before.filter(|(_, started)| now.saturating_duration_since(*started) < MEMORY_MAX);
        self.before.map_or(self.load, |(before, _)| self.load.max(before))
    }

    /// Takes the last word of a gateway, which may be known already.
    pub fn handle_word(&mut self, now: Instant, word: Word) {
        let Word { gateway, at_ns, sensors } = word;
        if gateway == self.own {
            return;
        }
        let room = self.others.len() < GATEWAYS_MAX;
        match self.others.get_mut(&gateway) {
            Some(known) if known.at_ns == at_ns => {}
            Some(known) => {
                *known = Other { gateway, sensors, said: Some(now), at_ns, sent: 0, doubted: false };
            }
            None if room => {
                let first = Other { gateway, sensors, said: None, at_ns, sent: 0, doubted: false };
                self.others.insert(gateway, first);
            }
            None => {}
        }
    }

    /// A sensor was served; where it had better go.
    pub fn served(&mut self, now: Instant, sensor: DeviceId) -> Option<Advice> {
        if self.sensors.len() >= SENSORS_MAX && !self.sensors.contains_key(&sensor) {
            let longest_ago =
                self.sensors.iter().min_by_key(|(_, known)| known.served).map(|(sensor, _)| *sensor);
            longest_ago.map(|sensor| self.sensors.remove(&sensor));
        }
        let known = self.sensors.entry(sensor).or_insert_with(|| {
            self.load = self.load.saturating_add(1);
            Sensor { served: now, advised: None, gone: false }
        });
        known.served = now;
        if std::mem::take(&mut known.gone) {
            self.load = self.load.saturating_add(1);
            if let Some(other) = known.advised.and_then(|advised| self.others.get_mut(&advised.to)) {
                other.doubted = true;
            }
        }
        if known.is_in_peace(now) {
            return None;
        }
        let advice = better(&mut self.others, self.load, self.cut_off_since, now)?;
        let before = known.advised.map_or(0, |advised| advised.before + 1);
        known.advised = Some(Advised { at: now, to: advice.gateway, before });
        known.gone = true;
        self.load = self.load.saturating_sub(1);
        Some(advice)
    }
}

/// Where one sensor had better go, which is counted there.
fn better(
    others: &mut BTreeMap<DeviceId, Other>,
    load: u32,
    cut_off_since: Option<Instant>,
    now: Instant,
) -> Option<Advice> {
    let (other, reason) =
        if cut_off_since.is_some_and(|since| now.saturating_duration_since(since) >= CUT_OFF_AFTER) {
            let there = others.values_mut().filter(|other| other.is_there(now, OLDEST_HOPE));
            (there.max_by_key(|other| other.said)?, Reason::CutOff)
        } else {
            let there = others.values_mut().filter(|other| other.is_there(now, SILENT_AFTER));
            let least = there.min_by_key(|other| other.load())?;
            if load.saturating_sub(least.load()) <= (load / SLACK_SHARE).max(SLACK_SENSORS_MIN) {
                return None;
            }
            (least, Reason::Load)
        };
    other.sent = other.sent.saturating_add(1);
    Some(Advice { gateway: other.gateway, reason })
}

#[cfg(test)]
mod tests;
