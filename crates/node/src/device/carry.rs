//! Carries the labels that hold past what policy drops: they are said once in years, and readings are kept for weeks. What would go
//! soon is written again, as it was said and with the moment at which it was said, so that nothing changes by it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use tidelog_record::{Batch, SiteName};
use tidelog_store::{Keep, Retention};
use tokio::time::{MissedTickBehavior, interval};

use super::said::series;
use super::{Said, said};
use crate::asking::Unanswered;
use crate::clock::EARLIEST_MS;
use crate::command::NS_PER_MS;
use crate::context::NodeContext;

/// How often it is looked what would go soon.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Devices whose labels are written as one record; those of one take some kilobytes at most.
const DEVICES_A_RECORD: usize = 64;

/// Where bytes or a full disk decide what goes, it is written again after so long.
const WITHOUT_AGE: Duration = Duration::from_secs(24 * 3600);

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Carried {
    /// What holds.
    said: Said,
    /// When that was written down last, ns.
    written_ns: i64,
    /// When anything else was written down last, ns.
    other_ns: Option<i64>,
}

impl Carried {
    fn of(said: Said, written_ns: i64) -> Self {
        Self { said, written_ns, other_ns: None }
    }

    fn add(&mut self, said: Said, at_ns: i64) {
        if said == self.said {
            self.written_ns = self.written_ns.max(at_ns);
            return;
        }
        let mut other_ns = at_ns;
        if said > self.said {
            other_ns = self.written_ns;
            *self = Self { said, written_ns: at_ns, other_ns: self.other_ns };
        }
        self.other_ns = self.other_ns.max(Some(other_ns));
    }

    /// Whether it is to be written again, where what was written goes after `lasts_ns`.
    fn is_due(&self, now_ns: i64, lasts_ns: i64) -> bool {
        // What was overruled must not outlive what overruled it: another node may have carried it on before it heard.
        let is_outlived = self.other_ns.is_some_and(|other_ns| other_ns > self.written_ns);
        let is_old = now_ns.saturating_sub(self.written_ns) >= lasts_ns / 2;
        is_outlived || (is_old && !self.said.labels.is_empty())
    }
}

/// For how long a site keeps what is written now, at least, ns; none where everything is kept.
fn lasts_ns(keep: Keep, drop_when_full: bool, horizon_ns: Option<i64>, now_ns: i64) -> Option<i64> {
    let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let by_age = keep.age.map(ns);
    let by_room = (keep.bytes.is_some() || drop_when_full).then(|| {
        let shown = horizon_ns.map_or(i64::MAX, |horizon_ns| now_ns.saturating_sub(horizon_ns));
        shown.min(ns(WITHOUT_AGE * 2))
    });
    by_age.into_iter().chain(by_room).min()
}

/// Starts to carry the labels of all sites of which not everything is kept, if there are such.
pub(crate) fn start(context: &NodeContext, retention: Retention) {
    let keeps_all = |keep: &Keep| *keep == Keep::default();
    let all_are_kept = keeps_all(&retention.all) && retention.sites.values().all(keeps_all);
    if all_are_kept && !retention.drop_when_full {
        return;
    }
    let (this, shutdown) = (Carrier { context: context.clone(), retention }, context.shutdown.clone());
    context.tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = this.run() => {}
        }
    });
}

#[derive(Clone)]
struct Carrier {
    context: NodeContext,
    retention: Retention,
}

impl Carrier {
    async fn run(self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "labels of devices cannot be read; trying on"),
                Err(error) => tracing::error!(%error, "labels of devices: the work broke off"),
            }
        }
    }

    fn look(&self) -> Result<(), Unanswered> {
        let now_ms = self.context.now_ms();
        if now_ms < EARLIEST_MS {
            return Ok(());
        }
        let (store, now_ns) = (&self.context.store, now_ms.saturating_mul(NS_PER_MS));
        for site in store.sites() {
            let (keep, horizon) = (self.retention.of(&site), store.horizon(&site));
            let Some(lasts_ns) = lasts_ns(keep, self.retention.drop_when_full, horizon, now_ns) else {
                continue;
            };
            let mut due = self.all(&site)?;
            due.retain(|_, carried| carried.is_due(now_ns, lasts_ns));
            let due: Vec<(String, Carried)> = due.into_iter().collect();
            for some in due.chunks(DEVICES_A_RECORD) {
                if self.context.shutdown.is_cancelled() {
                    return Ok(());
                }
                self.write(&site, some, now_ms);
            }
        }
        Ok(())
    }

    fn all(&self, site: &SiteName) -> Result<BTreeMap<String, Carried>, Unanswered> {
        let mut all: BTreeMap<String, Carried> = BTreeMap::new();
        said(&self.context.store, site, vec![Vec::new()], |device, at_ns, said| {
            match all.get_mut(device) {
                Some(carried) => carried.add(said, at_ns),
                None => drop(all.insert(device.to_owned(), Carried::of(said, at_ns))),
            }
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    fn write(&self, site: &SiteName, due: &[(String, Carried)], now_ms: i64) {
        let point = |(device, carried): &(String, Carried)| {
            let (series, value) = series(device).ok().zip(carried.said.value())?;
            let behind_ns = carried.other_ns.unwrap_or(i64::MIN).saturating_add(1);
            Some((series, vec![(now_ms.saturating_mul(NS_PER_MS).max(behind_ns), value)]))
        };
        let batch =
            Batch { authored_ms: now_ms, origin: None, series: due.iter().filter_map(point).collect() };
        let written = batch.encode().map_err(|error| error.to_string()).and_then(|record| {
            self.context.store.append_blocking(site, record).map_err(|error| error.to_string())
        });
        if let Err(reason) = written {
            let devices = due.len();
            tracing::warn!(%site, devices, reason, "labels of devices are not written again; trying on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceLabels;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_NS: i64 = 3_600_000_000_000;

    fn said_of(set_ms: i64, location: u8) -> Said {
        let value = if location == 0 { String::new() } else { location.to_string() };
        Said { set_ms, labels: DeviceLabels::new("d", [("location".to_owned(), value)].into()).unwrap() }
    }

    proptest! {
        #[test]
        fn what_is_carried_is_what_holds_in_whatever_order_it_is_read(
            read in prop::collection::vec((0..5i64, 0..3u8, 0..50i64), 1..12),
        ) {
            let mut points = read.iter().map(|(ms, location, at)| (said_of(*ms, *location), *at));
            let (first, at) = points.next().unwrap();
            let mut carried = Carried::of(first, at);
            points.for_each(|(said, at)| carried.add(said, at));
            let all: Vec<(Said, i64)> = read.iter().map(|(ms, location, at)| (said_of(*ms, *location), *at)).collect();
            let holds = all.iter().map(|(said, _)| said).max().unwrap();
            let newest = |is_it: bool| all.iter().filter(|(said, _)| (said == holds) == is_it).map(|(_, at)| *at).max();
            prop_assert_eq!(carried, Carried { said: holds.clone(), written_ns: newest(true).unwrap(), other_ns: newest(false) });
        }
    }

    #[test]
    fn what_would_go_is_due_at_half_of_what_is_kept_and_what_is_kept_for_ever_never() {
        let now = 1_000 * HOUR_NS;
        let keep = |age: Option<Duration>, bytes| Keep { age, bytes };
        assert_eq!(lasts_ns(Keep::default(), false, Some(0), now), None);
        assert_eq!(lasts_ns(keep(Some(HOUR), None), false, None, now), Some(HOUR_NS));
        assert_eq!(lasts_ns(Keep::default(), true, None, now), Some(48 * HOUR_NS));
        assert_eq!(lasts_ns(keep(None, Some(1)), false, Some(now - 8 * HOUR_NS), now), Some(8 * HOUR_NS));
        assert_eq!(lasts_ns(keep(Some(HOUR), Some(1)), false, Some(now - 8 * HOUR_NS), now), Some(HOUR_NS));
        let carried = Carried::of(said_of(0, 1), now - HOUR_NS);
        assert!(carried.is_due(now, 2 * HOUR_NS) && !carried.is_due(now - 1, 2 * HOUR_NS));
    }

    #[test]
    fn labels_that_were_taken_away_are_carried_only_while_others_would_outlive_that() {
        let mut gone = Carried::of(said_of(5, 1), 10);
        gone.add(said_of(7, 0), 20);
        assert!(!gone.is_due(i64::MAX, 2), "it may go after what it took away");
        gone.add(said_of(5, 1), 30);
        assert!(gone.is_due(31, i64::MAX), "carried on by a node that had not heard");
        gone.add(said_of(7, 0), 31);
        assert!(!gone.is_due(i64::MAX, 2));
    }
}
