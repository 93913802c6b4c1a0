//! Retention: whole segments of a site go when they are older than the site keeps, or when the site takes more bytes than it
//! may; and, where the configuration says so, when the disk is full (invariant 10). Each leaves a note (invariant 6). What a
//! query sees ends at the horizon, which follows from policy and time, never from when a file went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidelog_record::{SiteName, StreamId};

use super::{Keeper, UpkeepError, io};
use crate::disk::{OpenMode, write_atomically};
use crate::gap::{Gap, GapReason};
use crate::index::Index;
use crate::sealed::{GAP_SUFFIX, SEGMENT_DIR, Sealed, range_name};
use crate::shared::{Shared, WriteState, read_locked, write_locked};
use crate::writer::is_full;

/// A file that only takes room, until the disk is full.
const BALLAST_FILE: &str = "ballast";
const BALLAST_BYTES: usize = 64 * 1024;

/// How much of a site is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Points older than this go; `None`: no point is too old.
    pub age: Option<Duration>,
    /// The oldest segments go while the site's segments take more bytes than this; `None`: they may take all there is.
    pub bytes: Option<u64>,
}

/// What is kept of each site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of sites that are not named.
    pub all: Keep,
    /// Of sites that are.
    pub sites: BTreeMap<SiteName, Keep>,
    /// When the disk is full, the oldest segment of all goes. Otherwise writes are refused until there is room.
    pub drop_when_full: bool,
}

impl Retention {
    /// What is kept of a site.
    #[must_use]
    pub fn of(&self, site: &SiteName) -> Keep {
        self.sites.get(site).copied().unwrap_or(self.all)
    }

    fn horizon(&self, site: &SiteName, now_ns: i64) -> Option<i64> {
        let age = self.of(site).age?;
        Some(now_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
    }
}

struct Victim {
    stream: StreamId,
    sealed: Arc<Sealed>,
    reason: GapReason,
}

impl Keeper {
    /// Drops what policy no longer keeps. `now_ns` is a clock that can be trusted, Unix time; without one nothing is too old.
    pub fn retain(&mut self, now_ns: Option<i64>) -> Result<(), UpkeepError> {
        if let Some(now_ns) = now_ns {
            let mut index = write_locked(&self.shared.index);
            let sites: Vec<SiteName> = index.sites.keys().cloned().collect();
            for site in sites {
                if let Some(horizon) = self.options.retention.horizon(&site, now_ns) {
                    index.raise_horizon(&site, horizon);
                }
            }
        }
        while let Some(victim) = self.victim(now_ns) {
            if victim.reason == GapReason::Pressure && std::mem::replace(&mut self.has_ballast, false) {
                let ballast = self.shared.dir.join(BALLAST_FILE);
                self.shared.disk.remove(&ballast).map_err(io("throw off the ballast"))?;
            }
            self.drop_segment(victim)?;
        }
        self.hold_ballast()
    }

    /// Takes some room while there is some, so that on a full disk there is enough to note what is dropped.
    fn hold_ballast(&mut self) -> Result<(), UpkeepError> {
        let is_wanted = self.options.retention.drop_when_full && !self.has_ballast;
        if is_wanted && self.shared.write_state() == WriteState::Ready {
            let file = self.shared.disk.open(&self.shared.dir.join(BALLAST_FILE), OpenMode::Create);
            let file = file.map_err(io("take ballast"))?;
            match file.write_all_at(&vec![0x5a; BALLAST_BYTES], 0).and_then(|()| file.sync_data()) {
                Ok(()) => self.has_ballast = true,
                // There is room for what is more urgent, and none for this.
                Err(error) if is_full(&error) => {
                    let ballast = self.shared.dir.join(BALLAST_FILE);
                    self.shared.disk.remove(&ballast).map_err(io("throw off the ballast"))?;
                }
                Err(error) => return Err(io("take ballast")(error)),
            }
        }
        Ok(())
    }

    fn victim(&self, now_ns: Option<i64>) -> Option<Victim> {
        let index = read_locked(&self.shared.index);
        let by_policy = index.sites.keys().find_map(|site| {
            let keep = self.options.retention.of(site);
            let horizon = index.horizon(site).filter(|_| now_ns.is_some() && keep.age.is_some());
            let too_old = horizon.and_then(|horizon| {
                of_site(&index, site).find(|(_, sealed)| sealed.segment.time_range().1 < horizon)
            });
            if let Some(found) = too_old {
                return Some((found, GapReason::Age));
            }
            let too_large = keep.bytes.is_some_and(|most| bytes(&index, site) > most);
            let oldest = too_large.then(|| of_site(&index, site).min_by_key(|held| age_rank(held, now_ns)));
            Some((oldest.flatten()?, GapReason::Bytes))
        });
        let is_full =
            || self.options.retention.drop_when_full && self.shared.write_state() == WriteState::Full;
        let found = by_policy.or_else(|| {
            let all = index.sites.keys().flat_map(|site| of_site(&index, site));
            let oldest = is_full().then(|| all.min_by_key(|held| age_rank(held, now_ns)));
            Some((oldest.flatten()?, GapReason::Pressure))
        });
        let ((stream, sealed), reason) = found?;
        Some(Victim { stream: stream.clone(), sealed: Arc::clone(sealed), reason })
    }

    fn drop_segment(&self, victim: Victim) -> Result<(), UpkeepError> {
        let Victim { stream, sealed, reason } = victim;
        let shared = &self.shared;
        let (dir, key, seal) = (shared.dir.join(SEGMENT_DIR), stream.key(), sealed.seal);
        let gap = Gap {
            stream: stream.clone(),
            seal,
            before: sealed.before,
            after: sealed.after,
            reason,
            points: sealed.segment.points(),
            bytes: sealed.segment.bytes(),
            time_ns: sealed.segment.time_range(),
        };
        let (records, points) = (gap.records(), gap.points);
        let note = range_name(&key, seal.first, seal.last, GAP_SUFFIX);
        write_atomically(shared.disk.as_ref(), &dir, &note, &gap.encode())
            .map_err(io("note what is dropped"))?;
        {
            let mut index = write_locked(&shared.index);
            index.dig(&key, gap);
            index.raise_horizon_to_gaps(&stream.site);
        }
        shared.disk.remove(&dir.join(&sealed.name)).map_err(io("drop a segment"))?;
        shared.disk.sync_dir(&dir).map_err(io("sync the segments' folder"))?;
        if reason == GapReason::Pressure {
            // There is room now; the next append finds out whether it is enough.
            shared.set_write_state(WriteState::Ready);
        }
        let counters = &shared.upkeep.counters;
        counters.dropped_segments.fetch_add(1, Ordering::Relaxed);
        counters.dropped_records.fetch_add(records, Ordering::Relaxed);
        counters.dropped_points.fetch_add(points, Ordering::Relaxed);
        tracing::info!(%stream, first = seal.first.0, last = seal.last.0, points, ?reason, "dropped by policy");
        Ok(())
    }
}

type Held<'i> = (&'i StreamId, &'i Arc<Sealed>);

/// The segments of a site.
fn of_site<'i>(index: &'i Index, site: &SiteName) -> impl Iterator<Item = Held<'i>> {
    index.of_site(site).flat_map(|stream| stream.sealed.iter().map(|sealed| (&stream.stream, sealed)))
}

/// By what segments are ordered from the oldest on: their newest point; or their oldest where the newest is in the future, for a clock
/// that runs ahead must not keep its segments for ever at the cost of all others.
fn age_rank((_, sealed): &Held<'_>, now_ns: Option<i64>) -> i64 {
    let (oldest, newest) = sealed.segment.time_range();
    if now_ns.is_some_and(|now_ns| newest > now_ns) { oldest } else { newest }
}

fn bytes(index: &Index, site: &SiteName) -> u64 {
    of_site(index, site).map(|(_, sealed)| sealed.segment.bytes()).sum()
}

impl Shared {
    /// The time before which nothing of a site is shown, ns.
    pub fn horizon(&self, site: &SiteName) -> Option<i64> {
        read_locked(&self.index).horizon(site)
    }
}
