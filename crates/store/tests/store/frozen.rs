//! Whole store folders of released versions, frozen: every later version opens each of them and gives the answers that stand beside
//! it, letter by letter, without changing a byte; and a file that a newer version wrote is refused by its name.
//!
//! **When a format gets a new version**: add its folder's name to [`FROZEN`], make [`fill`] use what is new in it, and run this test once
//! with `TIDELOG_WRITE_FIXTURES=1`: it writes `fixtures/store/<name>` and `fixtures/store/<name>.txt` where they are not there yet, and
//! never over what is. Read the text before it is committed. Until that version is released both may be deleted and written again;
//! the older folders and texts stay as they are: a change that needs another answer from them is one that loses somebody's data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tidelog_record::{BodyHead, BodyWriter, DeviceId, Lsn, NodeId, Origin, Relay, Run, Series, SiteName};
use tidelog_record::{StreamId, Value, Values};
use tidelog_store::{FileDisk, Keep, OpenError, Position, Store, StoreOptions, verify};

use crate::model::{NODE, small};
use crate::sim_disk::SimDisk;

/// The versions that are read for ever, the newest last: that one is made by [`fill`].
const FROZEN: [&str; 2] = ["v1", "v2"];
/// Where the version stands in every file of a store.
const VERSION_AT: usize = 8;
/// A version that will not be for a while.
const NEWER: u16 = 77;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store")
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

/// Little of the yard is kept, all of the plant.
fn keeping(entropy: u64) -> StoreOptions {
    let mut options = small(entropy);
    options.upkeep.log_keep_bytes_max = 0;
    options.upkeep.retention.sites = BTreeMap::from([(site("yard"), Keep { age: None, bytes: Some(1_000) })]);
    options
}

/// A body with every kind of value, late and repeated points, an origin or a relay now and then.
fn body_of(number: i64) -> Vec<u8> {
    if number % 23 == 7 {
        // Of a kind that no version before knows.
        return vec![200, u8::try_from(number % 256).unwrap(), 1, 2, 3];
    }
    let device = u8::try_from(number % 3).unwrap();
    let first_seq = number.unsigned_abs() * 3;
    let head = BodyHead {
        authored_ms: 1_795_219_200_000 + number * 10_000,
        origin: (number % 4 == 0).then_some(Origin {
            device: DeviceId([device; 8]),
            epoch: 2,
            first_seq,
            count: 3,
        }),
        relay: (number % 11 == 5).then_some(Relay {
            node: NodeId([4; 16]),
            run: Run(4),
            lsn: Lsn(number.unsigned_abs()),
            first_point: None,
        }),
    };
    let late = if number % 9 == 3 { 1_000 } else { 0 };
    let seconds = 1_795_219_200 + number * 10 - late;
    let times: Vec<i64> = [0, 3, 3, 6].iter().map(|more| (seconds + more) * 1_000_000_000).collect();
    let mut writer = BodyWriter::new(head, 5);
    for metric in ["battery", "door", "light", "note", "temperature"] {
        let mut values = Values::default();
        for step in 0..4 {
            values.push(match metric {
                "battery" => Value::I64(3_600 - number),
                "door" => Value::Bool((number + step) % 5 == 0),
                "light" if number % 13 == 0 => Value::F64(f64::from_bits(0x7ff8_0000_0000_0001)),
                "light" => Value::F64((number * 7 + step) as f64 / 3.0),
                "note" => {
                    Value::Text(["", "open", "überall"][usize::try_from((number + step) % 3).unwrap()].into())
                }
                _ => Value::F64((2_000 + (number * 37 + step) % 90) as f64 / 100.0),
            });
        }
        let series = Series::new(metric, [("device", format!("d{device}"))]).unwrap();
        writer.entry(&series.canonical(), &times, &values).unwrap();
    }
    writer.finish().unwrap()
}

fn opened(disk: &SimDisk, options: StoreOptions) -> Store {
    Store::open_on(Arc::new(disk.clone()), Path::new("/store"), options).unwrap().0
}

/// Another node that seals what it writes.
fn neighbour() -> Vec<tidelog_record::Record> {
    let disk = SimDisk::default();
    let store = opened(&disk, StoreOptions { node: NodeId([9; 16]), ..small(90) });
    for number in 0..12 {
        store.append_blocking(&site("plant"), body_of(1_000 + number)).unwrap();
        if number == 7 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    let stream = StreamId { site: site("plant"), node: store.node(), run: store.run() };
    store.read(&stream, Lsn::ZERO, usize::MAX).unwrap()
}

/// A store with files of every kind: three runs of its own, another author's stream, segments of one piece and of several, the note of one
/// that policy dropped, maps of log files that were trimmed, and a log.
fn fill() -> SimDisk {
    let disk = SimDisk::default();
    let store = opened(&disk, keeping(71));
    for number in 0..40 {
        store.append_blocking(&site("yard"), body_of(500 + number)).unwrap();
        if number % 9 == 8 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    for number in 0..45 {
        store.append_blocking(&site("plant"), body_of(number)).unwrap();
        if number % 15 == 14 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    store.append_blocking(&site("plant"), body_of(45)).unwrap();
    drop(store);
    take_up(&disk, Run(72));
    let store = opened(&disk, keeping(73));
    assert_eq!(store.run(), Run(72));
    store.adopt_blocking(neighbour()).unwrap();
    store.upkeep(Instant::now()).unwrap();
    for number in 0..2 {
        store.append_blocking(&site("plant"), body_of(60 + number)).unwrap();
    }
    drop(store);
    take_up(&disk, Run(74));
    let store = opened(&disk, keeping(75));
    for number in 0..6 {
        store.append_blocking(&site("plant"), body_of(70 + number)).unwrap();
    }
    drop(store);
    disk
}

/// A node takes up another run where its own history may be lost. Here nothing is.
fn take_up(disk: &SimDisk, run: Run) {
    disk.change(Path::new("/store/identity"), |bytes| {
        bytes[26..34].copy_from_slice(&run.0.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..34]).to_le_bytes();
        bytes[34..].copy_from_slice(&crc);
    });
}

/// Writes what is not frozen yet.
fn write_missing() {
    let name = FROZEN[FROZEN.len() - 1];
    let (dir, text) = (fixtures().join(name), fixtures().join(format!("{name}.txt")));
    if std::env::var_os("TIDELOG_WRITE_FIXTURES").is_none() || text.exists() {
        return;
    }
    let disk = fill();
    for path in disk.files() {
        let target = dir.join(path.strip_prefix("/store").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, disk.bytes(&path)).unwrap();
    }
    let copy = copied(&dir);
    std::fs::write(text, answers(copy.path())).unwrap();
}

fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// A copy of a frozen store to work on.
fn copied(frozen: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in all_files(frozen) {
        let target = dir.path().join(path.strip_prefix(frozen).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
    dir
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as text that is the same on every CPU and tells all values apart.
fn shown(value: &Value) -> String {
    match value {
        Value::F64(float) => format!("{:016x}", float.to_bits()),
        Value::I64(number) => format!("{number}"),
        Value::Bool(truth) => format!("{truth}"),
        Value::Text(text) => format!("{text:?}"),
    }
}

/// Every answer of the store in `dir`.
fn answers(dir: &Path) -> String {
    let mut out = String::new();
    let (store, recovery) = Store::open(dir, keeping(1)).unwrap();
    writeln!(out, "run {:016x} head {} found {:?}", store.run().0, store.head().0, recovery.findings)
        .unwrap();
    for (stream, upto, chain) in store.vector() {
        let records = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
        let more = records.first().map_or(Lsn::ZERO, |record| record.lsn);
        writeln!(out, "\nstream {stream} upto {upto} chain {} read from {more}", hex(&chain.0)).unwrap();
        // Of what policy dropped, the stream goes on behind it.
        let mut after = Lsn::ZERO;
        while let Some(next) = after.next().filter(|next| *next <= upto) {
            for record in store.read(&stream, after, 1).unwrap() {
                assert_eq!(record.lsn, next);
                let (crc, bytes) = (crc32fast::hash(&record.body), record.body.len());
                writeln!(out, "record {next} {} body {crc:08x} of {bytes}", hex(&record.chain.0)).unwrap();
            }
            after = next;
        }
    }
    writeln!(out, "\nin order of arrival").unwrap();
    for (position, record) in store.follow(Position::ZERO, usize::MAX).unwrap() {
        writeln!(out, "{} {} {}", position.0, record.stream, record.lsn).unwrap();
    }
    for site in store.sites() {
        writeln!(out, "\nsite {site} horizon {:?}", store.horizon(&site)).unwrap();
        for (series, points) in store.scan(&site, &|_| true, i64::MIN..=i64::MAX).unwrap() {
            writeln!(out, "{series} {} points", points.len()).unwrap();
            for (time, value) in points {
                writeln!(out, "  {time} {}", shown(&value)).unwrap();
            }
        }
        let series = store.series(&site, &|_| true).unwrap();
        for (series, time, value) in store.last(&site, &series, &|| false).unwrap() {
            writeln!(out, "last {series} {time} {}", shown(&value)).unwrap();
        }
    }
    writeln!(out).unwrap();
    for device in 0..3 {
        let held = store.device_held(DeviceId([device; 8]), 2);
        writeln!(out, "device {device} {:?}", held.iter().collect::<Vec<_>>()).unwrap();
    }
    let stats = store.stats();
    let counts =
        (stats.records, stats.points, stats.opaque_records, stats.segments, stats.files, stats.series);
    writeln!(out, "records, points, opaque records, segments, files, series {counts:?}").unwrap();
    store.close().unwrap();
    let checked = verify(&FileDisk, dir, &mut |_| ControlFlow::Continue(())).unwrap();
    let counts = (
        checked.records,
        checked.records_dropped,
        checked.segments,
        checked.files,
        checked.maps,
        checked.gaps,
    );
    writeln!(
        out,
        "checked: records, dropped, segments, files, maps, gaps {counts:?}, wrong {:?}",
        checked.damage
    )
    .unwrap();
    out
}

#[test]
fn the_store_of_each_version_gives_its_frozen_answers_and_is_not_changed_by_being_asked() {
    write_missing();
    for name in FROZEN {
        let (frozen, text) = (fixtures().join(name), fixtures().join(format!("{name}.txt")));
        let copy = copied(&frozen);
        let found = answers(copy.path());
        let expected = std::fs::read_to_string(&text).unwrap();
        let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert!(found == expected, "{name} is read otherwise: (found, frozen) {differs:?}");
        let mut left = all_files(copy.path());
        left.remove(&copy.path().join("lock"));
        let before = all_files(&frozen);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path| {
            files.keys().map(|path| path.strip_prefix(dir).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&left, copy.path()), names(&before, &frozen));
        assert!(left.values().eq(before.values()), "{name} was changed by being opened");
    }
}

#[test]
fn every_kind_of_file_stands_in_the_newest_frozen_store() {
    let frozen = fixtures().join(FROZEN[FROZEN.len() - 1]);
    let files = all_files(&frozen);
    let of = |suffix: &str| {
        files.keys().filter(|path| path.extension().is_some_and(|found| found == suffix)).count()
    };
    assert!(of("log") >= 2 && of("map") >= 1 && of("seg") >= 3 && of("gap") >= 1, "{:?}", files.keys());
    let logs = files.iter().filter(|(path, _)| path.extension().is_some_and(|found| found == "log"));
    let runs: BTreeSet<_> = logs.map(|(_, bytes)| bytes[32..40].to_vec()).collect();
    assert_eq!(runs.len(), 2, "log files of two runs");
    assert!(files.values().map(Vec::len).sum::<usize>() < 200_000);
}

#[test]
fn the_store_of_each_version_is_written_on() {
    for name in FROZEN {
        let copy = copied(&fixtures().join(name));
        let (store, _) = Store::open(copy.path(), keeping(5)).unwrap();
        let (head, points) = (store.head(), store.stats().points);
        for number in 0..60 {
            store.append_blocking(&site("plant"), body_of(2_000 + number)).unwrap();
        }
        store.upkeep(Instant::now()).unwrap();
        store.upkeep(Instant::now()).unwrap();
        assert!(store.head().0 >= head.0 + 60 && store.stats().points > points);
        let vector = store.vector();
        assert_eq!(store.node(), NODE);
        drop(store);
        let (store, recovery) = Store::open(copy.path(), keeping(6)).unwrap();
        assert_eq!((recovery.findings, store.vector()), (vec![], vector));
        store.close().unwrap();
        let checked = verify(&FileDisk, copy.path(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(checked.is_good(), "{checked:?}");
    }
}

/// Makes a file one of a newer version, whole in every other way.
fn renew(path: &Path, bytes: &mut [u8]) {
    bytes[VERSION_AT..VERSION_AT + 2].copy_from_slice(&NEWER.to_le_bytes());
    let crc_of = |pieces: &[&[u8]]| crc32fast::hash(&pieces.concat()).to_le_bytes();
    match path.extension().and_then(|suffix| suffix.to_str()) {
        // The identity: its last bytes.
        None => {
            let at = bytes.len() - 4;
            let crc = crc_of(&[&bytes[..at]]);
            bytes[at..].copy_from_slice(&crc);
        }
        // Both headers.
        Some("log") => {
            let (first, rest) = bytes.split_at_mut(64);
            let crc = crc_of(&[&first[..60]]);
            first[60..].copy_from_slice(&crc);
            rest[..64].copy_from_slice(first);
        }
        // Behind the fields, whose length stands before them.
        Some("seg") => {
            let at = 12 + usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
            let crc = crc_of(&[&bytes[..at]]);
            bytes[at..at + 4].copy_from_slice(&crc);
        }
        // In the head; over all else.
        Some(suffix) => {
            let at = if suffix == "map" { 54 } else { 10 };
            let crc = crc_of(&[&bytes[..at], &bytes[at + 4..]]);
            bytes[at..at + 4].copy_from_slice(&crc);
        }
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_its_name_and_nothing_is_changed() {
    let frozen = fixtures().join(FROZEN[FROZEN.len() - 1]);
    for path in all_files(&frozen).into_keys() {
        let copy = copied(&frozen);
        let path = copy.path().join(path.strip_prefix(&frozen).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        renew(&path, &mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let before = all_files(copy.path());
        let refused = Store::open(copy.path(), keeping(1)).unwrap_err();
        let text = refused.to_string();
        assert!(
            matches!(&refused, OpenError::Version { path: named, found: NEWER, .. } if *named == path),
            "{path:?}: {text}"
        );
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name) && text.contains("77") && text.contains("newer program"), "{text}");
        let mut after = all_files(copy.path());
        after.remove(&copy.path().join("lock"));
        assert_eq!(before, after);
    }
}
