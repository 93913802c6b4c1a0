//! The naive model that judges the store: what was acknowledged, and every answer computed from whole records again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_record::{
    Batch, Body, ChainHash, DeviceId, Lsn, NodeId, Origin, Record, Run, Seal, Series, SiteName, StreamId,
    Value,
};
use tidelog_store::{
    Appended, Held, Position, Recovery, ScanError, StateIn, Store, StoreOptions, UpkeepOptions, at_hand,
};

use crate::sim_disk::SimDisk;

pub const NODE: NodeId = NodeId([7; 16]);

pub fn site() -> SiteName {
    "plant".parse().unwrap()
}

pub fn options() -> StoreOptions {
    StoreOptions::new(NODE)
}

/// Small files and small segments, so that a few records fill several; upkeep when it is asked for, and always as if idle.
pub fn small(seed: u64) -> StoreOptions {
    let upkeep = UpkeepOptions {
        seal_points: 24,
        seal_when_idle: Duration::ZERO,
        log_keep_bytes_max: 8192,
        thread: false,
        ..UpkeepOptions::default()
    };
    // None of the newest records, some, or more than a log file holds.
    let recent_bytes_max = [0, 1000, 6000][usize::try_from(seed % 3).unwrap()];
    // Points by one, by some, or all of a series at once.
    let scan_points_max = [1, 40, 1 << 18][usize::try_from(seed / 3 % 3).unwrap()];
    // Newest points of no series, some, or all.
    let newest_series_max = [0, 3, 1 << 10][usize::try_from(seed / 9 % 3).unwrap()];
    let state = StateIn::Memory;
    StoreOptions {
        log_file_bytes_max: 4096,
        recent_bytes_max,
        scan_points_max,
        newest_series_max,
        state,
        entropy: seed,
        upkeep,
        ..options()
    }
}

/// As [`small`], with each record of the log by itself: what happens to one happens to no other.
pub fn small_unpacked(seed: u64) -> StoreOptions {
    StoreOptions { log_pack_bytes_max: 0, ..small(seed) }
}

/// Whether a record is one that the store wrote by itself.
pub fn is_seal(body: &[u8]) -> bool {
    matches!(Seal::of_body(body), Ok(Some(_)))
}

pub fn open(disk: &SimDisk, options: StoreOptions) -> (Store, Recovery) {
    Store::open_on(Arc::new(disk.clone()), Path::new("/store"), options).unwrap()
}

pub fn body(device: u32, time: i64, value: f64) -> Vec<u8> {
    let series = Series::new("temperature", [("device", format!("{device}"))]).unwrap();
    let batch = Batch { series: vec![(series, vec![(time, Value::F64(value))])], ..Batch::default() };
    batch.encode().unwrap()
}

/// Records of one point each, a second apart.
pub fn seconds(store: &Store, range: std::ops::Range<i64>) {
    for second in range {
        store.append_blocking(&site(), body(1, second * 1_000_000_000, second as f64)).unwrap();
    }
    store.upkeep(Instant::now()).unwrap();
}

/// A body that no other call makes: `number` stands in it.
pub fn random_body(rng: &mut StdRng, number: i64) -> Vec<u8> {
    let mut series =
        vec![(Series::new("number", [("of", "test")]).unwrap(), vec![(number, Value::I64(number))])];
    for _ in 0..rng.random_range(0..3) {
        let labels = [("device", format!("{}", rng.random_range(0..4u8)))];
        let name = Series::new(["temperature", "light"][rng.random_range(0..2)], labels).unwrap();
        let points = (0..rng.random_range(0..8)).map(|_| {
            let value = match rng.random_range(0..4u8) {
                0 => Value::F64(f64::from(rng.random_range(-3..3i8)) / 2.0),
                1 => Value::I64(rng.random_range(-3..3)),
                2 => Value::Bool(rng.random()),
                _ => Value::Text("x".repeat(rng.random_range(0..200))),
            };
            (rng.random_range(-20..20), value)
        });
        series.push((name, points.collect()));
    }
    let origin = rng.random_bool(0.3).then(|| Origin {
        device: DeviceId([rng.random_range(0..3); 8]),
        epoch: 1,
        first_seq: rng.random_range(1..50),
        count: rng.random_range(1..4),
    });
    let mut batch = Batch { authored_ms: number, series, ..Batch::default() };
    batch.origin = origin;
    batch.encode().unwrap()
}

/// Another node that writes one stream.
pub struct Author {
    pub stream: StreamId,
    pub records: Vec<Record>,
}

impl Author {
    pub fn new(number: u8) -> Self {
        let stream = StreamId { site: site(), node: NodeId([number; 16]), run: Run(u64::from(number)) };
        Self { stream, records: Vec::new() }
    }

    pub fn write(&mut self, body: Vec<u8>) {
        let before = self.records.last().map_or(ChainHash::GENESIS, |record| record.chain);
        let lsn = Lsn(self.records.len() as u64 + 1);
        let chain = before.after(&self.stream.key(), lsn, &body);
        self.records.push(Record { stream: self.stream.clone(), lsn, chain, body });
    }
}

/// Everything that the store acknowledged, and everything that it was ever given.
#[derive(Default)]
pub struct Model {
    pub acknowledged: BTreeMap<(StreamId, Lsn), (ChainHash, Vec<u8>)>,
    pub given: BTreeSet<Vec<u8>>,
}

impl Model {
    pub fn append(&mut self, store: &Store, site: &SiteName, body: Vec<u8>) -> Option<Appended> {
        self.given.insert(body.clone());
        let appended = store.append_blocking(site, body.clone()).ok()?;
        self.acknowledged.insert((appended.stream.clone(), appended.lsn), (appended.chain, body));
        Some(appended)
    }

    pub fn adopt(&mut self, store: &Store, records: &[Record]) -> bool {
        self.given.extend(records.iter().map(|record| record.body.clone()));
        let taken = store.adopt_blocking(records.to_vec()).is_ok();
        if taken {
            for r in records {
                self.acknowledged.insert((r.stream.clone(), r.lsn), (r.chain, r.body.clone()));
            }
        }
        taken
    }

    /// Everything acknowledged is held, nothing is held that was never given, and all answers agree with each other.
    pub fn judge(&self, store: &Store) {
        let held = judge_answers(store);
        let followed = store.follow(Position::ZERO, usize::MAX).unwrap();
        let places: BTreeSet<_> = followed.into_iter().map(|(_, r)| (r.stream, r.lsn)).collect();
        assert_eq!(places.len(), held.len(), "all can be followed in the order of arrival");
        for record in &held {
            let known = self.given.contains(&record.body) || is_seal(&record.body);
            assert!(known, "{} {} was never given", record.stream, record.lsn);
        }
        let by_place: BTreeMap<_, _> = held.iter().map(|r| ((r.stream.clone(), r.lsn), r)).collect();
        for (place, (chain, body)) in &self.acknowledged {
            let found = by_place.get(place).unwrap_or_else(|| panic!("{} {} is lost", place.0, place.1));
            assert_eq!((found.chain, &found.body), (*chain, body), "{} {} changed", place.0, place.1);
        }
    }
}

/// What is told above gaps is what can be read there.
fn judge_ranges(store: &Store, held: &[Record]) {
    const MOST: usize = 3;
    let told = store.held(MOST);
    let heads = told.iter().map(|told| (told.stream.clone(), told.upto, told.chain));
    assert!(heads.eq(store.vector()));
    for Held { stream, upto, above, .. } in told {
        let mut naive: Vec<(Lsn, Lsn)> = Vec::new();
        let lsns: BTreeSet<Lsn> = held.iter().filter(|it| it.stream == stream).map(|it| it.lsn).collect();
        for lsn in lsns.into_iter().filter(|lsn| *lsn > upto) {
            match naive.last_mut().filter(|(_, last)| last.next() == Some(lsn)) {
                Some((_, last)) => *last = lsn,
                None => naive.push((lsn, lsn)),
            }
        }
        naive.truncate(MOST);
        assert_eq!(above, naive, "above {upto} of {stream}");
        for (first, last) in above {
            let read = store.read(&stream, Lsn(first.0 - 1), usize::MAX).unwrap();
            assert!(read.iter().map(|record| record.lsn.0).eq(first.0..=last.0));
        }
    }
}

/// All answers of the store agree with its records read whole; the records.
pub fn judge_answers(store: &Store) -> Vec<Record> {
    let mut held = Vec::new();
    let mut at = Position::ZERO;
    for bytes_max in [1usize, 2000, 100_000].into_iter().cycle() {
        let next = store.follow(at, bytes_max).unwrap();
        let Some((last, _)) = next.last() else { break };
        assert!(next.is_sorted_by(|a, b| a.0 < b.0) && next[0].0 > at);
        at = *last;
        held.extend(next.into_iter().map(|(_, record)| record));
    }
    assert!(at <= store.head());
    // What came back after rot is met in the place that it had and where it arrived again.
    let mut places = BTreeSet::new();
    held.retain(|record: &Record| places.insert((record.stream.clone(), record.lsn)));
    for (stream, upto, chain) in store.vector() {
        let mut read = Vec::new();
        while let Some(more) =
            Some(store.read(&stream, Lsn(read.len() as u64), 200).unwrap()).filter(|m| !m.is_empty())
        {
            read.extend(more);
        }
        assert_eq!(read.len() as u64, upto.0, "a vector claims what can be read, no more and no less");
        let mut before = ChainHash::GENESIS;
        for (record, lsn) in read.iter().zip(1u64..) {
            assert_eq!(record.lsn, Lsn(lsn));
            assert!(record.follows(before));
            before = record.chain;
            assert_eq!(store.chain_at(&stream, record.lsn).unwrap(), Some(before));
        }
        assert_eq!(before, chain);
        // Where rot of the log took a record's place in the order of arrival, a segment may still hold it.
        for record in read {
            if places.insert((record.stream.clone(), record.lsn)) {
                held.push(record);
            }
        }
    }
    assert_eq!(store.stats().records, held.len() as u64);
    judge_ranges(store, &held);
    for site in store.sites() {
        for range in [i64::MIN..=i64::MAX, -5..=5, 30..=40] {
            let answer = store.scan(&site, &|_| true, range.clone()).unwrap();
            let plain: Vec<_> =
                answer.iter().map(|(series, points)| (series.as_ref().clone(), points.clone())).collect();
            assert_eq!(plain, naive_scan(&held, &site, &range));
            assert!(few(store, &site, &range, u64::MAX).unwrap().is_none_or(|few| few == plain));
            assert!(plain.is_empty() || few(store, &site, &range, 0).unwrap().is_none());
            // What was read is mostly still in memory.
            if let Some(answer) = at_hand(|| few(store, &site, &range, u64::MAX)) {
                assert!(answer.unwrap().is_none_or(|few| few == plain));
            }
        }
        let newest: Vec<_> = naive_scan(&held, &site, &(i64::MIN..=i64::MAX))
            .into_iter()
            .filter_map(|(series, points)| points.last().map(|(time, value)| (series, *time, value.clone())))
            .collect();
        // The second time from what was kept of the first.
        for _ in 0..2 {
            let last = store.last(&site, &store.series(&site, &|_| true).unwrap(), &|| false).unwrap();
            assert_eq!(
                last.into_iter().map(|(s, t, v)| (s.as_ref().clone(), t, v)).collect::<Vec<_>>(),
                newest
            );
        }
    }
    held
}

/// A scan of a site, unless it has about more points than it may.
pub fn few(
    store: &Store,
    site: &SiteName,
    range: &std::ops::RangeInclusive<i64>,
    points_max: u64,
) -> Result<Option<Scanned>, ScanError> {
    let mut all = Scanned::new();
    let series = store.series(site, &|_| true)?;
    let told = store.scan_few(site, &series, range.clone(), points_max, |series, points| {
        all.push((series.as_ref().clone(), points.iter().collect()));
        ControlFlow::Continue(())
    })?;
    assert!(told || all.is_empty(), "all, or nothing");
    Ok(told.then_some(all))
}

/// Points by series.
pub type Scanned = Vec<(Series, Vec<(i64, Value)>)>;

/// A scan by reading everything.
fn naive_scan(held: &[Record], site: &SiteName, range: &std::ops::RangeInclusive<i64>) -> Scanned {
    let mut points: BTreeMap<Series, BTreeMap<i64, Value>> = BTreeMap::new();
    for record in held.iter().filter(|record| record.stream.site == *site) {
        let Body::Points(batch) = Body::decode(&record.body).unwrap() else { continue };
        for (series, values) in batch.series {
            for (time, value) in values.into_iter().filter(|(time, _)| range.contains(time)) {
                let at =
                    points.entry(series.clone()).or_default().entry(time).or_insert_with(|| value.clone());
                if value > *at {
                    *at = value;
                }
            }
        }
    }
    points.into_iter().map(|(series, values)| (series, values.into_iter().collect())).collect()
}
