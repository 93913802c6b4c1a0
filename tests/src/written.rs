//! What the process that gets killed writes, number by number, and what its store must hold afterwards. The process and its judge share
//! nothing but these functions and what went through the pipe.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a judge fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tidelog_record::{Batch, ChainHash, Lsn, NodeId, Record, Run, Series, SiteName, StreamId, Value};
use tidelog_store::{LOG_FILE_BYTES_MIN, Position, Store, StoreOptions, UpkeepOptions};

/// The node whose store it is.
pub const NODE: NodeId = NodeId([7; 16]);
/// The cursor that is moved along.
pub const CURSOR: &str = "bridge";

/// Log files as small as they get, and small segments, so that something is begun, packed, merged or taken away all the time.
#[must_use]
pub fn options() -> StoreOptions {
    let upkeep = UpkeepOptions {
        seal_points: 600,
        seal_when_idle: Duration::ZERO,
        log_keep_bytes_max: 4 * LOG_FILE_BYTES_MIN,
        ..UpkeepOptions::default()
    };
    StoreOptions { log_file_bytes_max: LOG_FILE_BYTES_MIN, upkeep, ..StoreOptions::new(NODE) }
}

/// The site that the record of this number is for.
#[must_use]
pub fn site(number: u64) -> SiteName {
    if number.is_multiple_of(3) { "house" } else { "plant" }.parse().unwrap()
}

/// The body of this number: no two are alike, and some are long.
#[must_use]
pub fn body(number: u64) -> Vec<u8> {
    let series = Series::new("written", [("by", format!("n{}", number % 5))]).unwrap();
    let time = i64::try_from(number).unwrap();
    let count = if number.is_multiple_of(7) { 400 } else { 1 + time % 20 };
    let points = (0..count).map(|n| (time * 1_000 + n, Value::I64(time * n))).collect();
    Batch { authored_ms: time, series: vec![(series, points)], ..Batch::default() }.encode().unwrap()
}

/// The first `count` records of another node.
#[must_use]
pub fn others(count: u64) -> Vec<Record> {
    let stream = StreamId { site: "plant".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) };
    let mut before = ChainHash::GENESIS;
    let mut record = |lsn| {
        let body = body(u64::MAX / 4_000 + lsn);
        before = before.after(&stream.key(), Lsn(lsn), &body);
        Record { stream: stream.clone(), lsn: Lsn(lsn), chain: before, body }
    };
    (1..=count).map(&mut record).collect()
}

/// An acknowledgement as it goes through the pipe, a line each: stream, LSN, chain hash, and the number of the body.
#[must_use]
pub fn line(stream: &StreamId, lsn: Lsn, chain: ChainHash, number: u64) -> String {
    format!("{stream} {lsn} {chain} {number}\n")
}

/// What was acknowledged so far: by stream and LSN as text, chain hash and number.
#[derive(Debug, Default)]
pub struct Acknowledged(BTreeMap<(String, String), (String, u64)>);

impl Acknowledged {
    /// Takes in what came through the pipe. A last line without an end was never said.
    pub fn hear(&mut self, said: &str) {
        for line in said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let [stream, lsn, chain, number] = words[..] else { panic!("no acknowledgement: {line:?}") };
            let place = (stream.to_owned(), lsn.to_owned());
            let what = (chain.to_owned(), number.parse().unwrap());
            if let Some(before) = self.0.insert(place, what.clone()) {
                assert_eq!(before, what, "{line}: acknowledged as something else before");
            }
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Opens the store and holds it to them: each is there byte for byte, nothing stands twice, every chain is whole, and the
    /// cursor does not stand beyond what there is. How many records are held.
    ///
    /// # Panics
    /// When it does not hold.
    #[must_use]
    pub fn judge(&self, dir: &Path) -> usize {
        let (store, recovery) = Store::open(dir, options()).unwrap();
        let mut held = BTreeMap::new();
        for (_, record) in store.follow(Position::ZERO, usize::MAX).unwrap() {
            let place = (record.stream.to_string(), record.lsn.to_string());
            let twice = held.insert(place, record);
            assert!(twice.is_none(), "{twice:?} stands twice; {recovery:?}");
        }
        for (place, (chain, number)) in &self.0 {
            let found = held.get(place).unwrap_or_else(|| panic!("{place:?} is lost; {recovery:?}"));
            assert_eq!((&found.chain.to_string(), &found.body), (chain, &body(*number)), "{place:?} changed");
        }
        for (stream, upto, chain) in store.vector() {
            let read = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
            assert_eq!(read.len() as u64, upto.0);
            let mut before = ChainHash::GENESIS;
            for record in &read {
                assert!(record.follows(before), "{stream} {}", record.lsn);
                before = record.chain;
            }
            assert_eq!(before, chain);
        }
        assert!(store.cursor(CURSOR).unwrap() <= store.head());
        store.close().unwrap();
        held.len()
    }
}
