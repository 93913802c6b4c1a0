//! A real store on a simulated disk, driven so that every call is waited for and none of its threads decides anything: equal seeds give
//! equal bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_record::{Batch, ChainHash, Lsn, NodeId, Record, Run, Series, SiteName, StreamId, Value, crc32};
use tidelog_replication::{Head, RANGES_ABOVE_MAX, Range};
use tidelog_store::{AdoptError, AppendError, Keep, Retention, StateIn, Store, StoreOptions, UpkeepOptions};

use crate::disk::SimDisk;

const DIR: &str = "/store";

pub(super) struct RealStore {
    pub disk: SimDisk,
    pub store: Store,
}

fn options(node: NodeId, entropy: u64) -> StoreOptions {
    let upkeep = UpkeepOptions {
        seal_points: 16,
        seal_when_idle: Duration::ZERO,
        // Nothing in a run is as old as that.
        seal_after: Duration::from_secs(1 << 30),
        seal_abandoned_after: Duration::from_secs(1 << 30),
        log_keep_bytes_max: 8192,
        // Nothing is old before the store is told the time.
        retention: Retention { all: Keep { age: Some(Duration::ZERO), bytes: None }, ..Retention::default() },
        thread: false,
        ..UpkeepOptions::default()
    };
    StoreOptions {
        log_file_bytes_max: 4096,
        state: StateIn::Memory,
        scan_threads: 1,
        entropy,
        upkeep,
        ..StoreOptions::new(node)
    }
}

/// The file that names a store's node and run (docs/FORMAT.md).
fn identity(node: NodeId, run: Run) -> Vec<u8> {
    let mut out = b"tideid\r\n".to_vec();
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&node.0);
    out.extend_from_slice(&run.0.to_le_bytes());
    out.extend_from_slice(&crc32(&out).to_le_bytes());
    out
}

impl RealStore {
    /// Opens what is on the disk; `run` names another run first.
    pub fn open(disk: SimDisk, node: NodeId, run: Option<Run>, entropy: u64) -> Self {
        if let Some(run) = run {
            disk.put(&Path::new(DIR).join("identity"), &identity(node, run));
        }
        let opened = Store::open_on(Arc::new(disk.clone()), Path::new(DIR), options(node, entropy));
        Self { disk, store: opened.unwrap().0 }
    }

    pub fn append(&self, site: &SiteName, body: Vec<u8>) -> Result<(Lsn, ChainHash), AppendError> {
        let appended = self.store.append_blocking(site, body)?;
        let stream = StreamId { site: site.clone(), node: self.store.node(), run: self.store.run() };
        let lsn = appended.lsn;
        let chain = self.store.chain_at(&stream, lsn).unwrap();
        Ok((lsn, chain.unwrap()))
    }

    pub fn adopt(&self, records: Vec<Record>) -> Result<(), AdoptError> {
        self.store.adopt_blocking(records).map(|_| ())
    }

    /// Drops what is older than `horizon`, once segments hold it.
    pub fn retire(&self, horizon: i64) {
        self.store.trust_clock(horizon);
        self.upkeep();
    }

    /// Of the records behind `after`: up to where policy dropped all.
    pub fn floor(&self, stream: &StreamId, after: Lsn) -> Option<Head> {
        self.store.dropped_behind(stream, after).map(|(lsn, chain)| Head { lsn, chain })
    }

    /// What it holds above gaps.
    pub fn above(&self) -> BTreeMap<StreamId, Vec<Range>> {
        let held = self.store.held(RANGES_ABOVE_MAX).into_iter().filter(|held| !held.above.is_empty());
        let ranges =
            |above: Vec<(Lsn, Lsn)>| above.into_iter().map(|(first, last)| Range { first, last }).collect();
        held.map(|held| (held.stream, ranges(held.above))).collect()
    }

    /// Until the writer's thread has nothing left to do for what it answered.
    pub fn wait(&self) {
        // Nothing to adopt: only its turn is waited for. A store that takes nothing has nothing to do.
        drop(self.store.adopt_blocking(Vec::new()));
    }

    /// Seals, merges and trims what is due.
    pub fn upkeep(&self) {
        self.wait();
        // A round that ends early is begun again with the next one.
        drop(self.store.upkeep(std::time::Instant::now()));
        self.wait();
    }

    /// Every point that it answers with from a time on, which may be another for each site, as text.
    pub fn answer(&self, from: &BTreeMap<SiteName, i64>) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        for site in self.store.sites() {
            let from = from.get(&site).copied().unwrap_or(i64::MIN);
            for (series, points) in self.store.scan(&site, &|_| true, from..=i64::MAX).unwrap() {
                for point in points {
                    writeln!(out, "{site} {series:?} {point:?}").unwrap();
                }
            }
        }
        out
    }
}

/// A body of points in which `id` stands.
pub(super) fn body(author: usize, id: u64) -> Vec<u8> {
    let series = Series::new("written", [("by", format!("{author}"))]).unwrap();
    let value = i64::try_from(id).unwrap();
    Batch { series: vec![(series, vec![(value, Value::I64(value))])], ..Batch::default() }.encode().unwrap()
}
