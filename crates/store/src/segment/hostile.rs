//! Segments whose checksums are right and whose content is not: every decoder must say so, or read something, in bounded time and memory.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tidelog_record::{
    BodyHead, BodyWriter, ChainHash, DeviceId, Lsn, NodeId, Origin, Run, Series, StreamId, Value, Values,
};

use super::blocks::{BlockWriter, Kind};
use super::{Cache, Segment, Span, merge, seal};
use crate::disk::DiskFile;

#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("read only"))
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::Error::other("read only"))
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

fn open(file: Vec<u8>) -> Result<Arc<Segment>, super::SegmentError> {
    Segment::open(Arc::new(MemoryFile(Mutex::new(file))), Arc::new(Cache::new(1 << 20))).map(Arc::new)
}

/// A segment with something in each kind of block.
fn good() -> Vec<u8> {
    let stream = StreamId { site: "s".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) };
    let key = stream.key();
    let mut seed = 1u64;
    let mut next = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut bodies = Vec::new();
    for record in 0..40u32 {
        let device = DeviceId([u8::try_from(next(3)).unwrap(); 8]);
        let origin = Origin { device, epoch: 1, first_seq: u64::from(record), count: 1 };
        let head = BodyHead { authored_ms: i64::from(record) * 1_000, origin: Some(origin), relay: None };
        let mut writer = BodyWriter::new(head, 5);
        for (kind, metric) in ["whole", "decimal", "float", "text", "truth"].into_iter().enumerate() {
            let (mut times, mut values) = (Vec::new(), Values::default());
            for step in 0..20u64 {
                let late = if next(20) == 0 { 400 } else { 0 };
                let time =
                    i64::try_from((u64::from(record) * 20 + step + next(2)).saturating_sub(late)).unwrap();
                times.push(time * 7_000_000_000);
                let number = i64::try_from(next(1_000)).unwrap();
                values.push(match kind {
                    0 => Value::I64(number),
                    1 => Value::F64(number as f64 / 100.0),
                    2 => Value::F64((number as f64).sqrt()),
                    3 => Value::Text(format!("t{number}")),
                    _ => Value::Bool(number > 500),
                });
            }
            let series = Series::new(metric, [("device", device.to_string())]).unwrap();
            writer.entry(&series.canonical(), &times, &values).unwrap();
        }
        bodies.push(writer.finish().unwrap());
        bodies.push(vec![200, u8::try_from(record).unwrap(), 7]);
    }
    let (mut after, mut last) = (ChainHash::GENESIS, Lsn(0));
    for (lsn, body) in (1..).map(Lsn).zip(&bodies) {
        (after, last) = (after.after(&key, lsn, body), lsn);
    }
    let span = Span { stream, ordinal: 0, parts: 1, first: Lsn(1), last, before: ChainHash::GENESIS, after };
    let (mut file, mut bodies) = (Vec::new(), bodies.into_iter());
    seal(&span, &mut || Ok(bodies.next()), &mut |bytes| {
        file.extend_from_slice(bytes);
        Ok(())
    })
    .unwrap();
    file
}

/// Writes a segment's blocks again, each changed as `change` likes, with checksums that fit.
fn rewritten(segment: &Segment, mut change: impl FnMut(usize, &mut Vec<u8>)) -> Vec<u8> {
    let mut file = Vec::new();
    let write = &mut |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    };
    let mut writer = BlockWriter::new(&segment.span().header(), write).unwrap();
    let blocks = segment.blocks();
    for number in 0..blocks {
        let (kind, mut payload) = segment.block(number).unwrap();
        change(number, &mut payload);
        writer.put(kind, &payload).unwrap();
    }
    let table = writer.table().clone();
    let old = segment.footer();
    let mut footer = super::span::Footer {
        points: old.points,
        series: old.series,
        sequences: old.sequences,
        times: old.times,
        pages: old.pages.clone(),
        records: old.records.clone(),
        table,
    }
    .put();
    change(blocks, &mut footer);
    writer.finish(&footer).unwrap();
    file
}

/// Uses everything that decodes. What it says does not matter.
fn exercise(segment: &Arc<Segment>) -> bool {
    let mut good = true;
    let mut all = Vec::new();
    good &= segment.each_series(|name, at, _| all.push((name.to_vec(), at))).is_ok();
    for (name, at) in all {
        good &= segment.find(&name).is_ok() && segment.sections(at).is_ok();
        good &= segment.read(at, 0..usize::MAX, &mut Vec::new(), &mut Values::default()).is_ok();
    }
    good &= segment.origins().is_ok() && segment.relays().is_ok();
    good &= merge(&[Arc::clone(segment)], &mut |_| Ok(())).is_ok();
    good & segment.verify(None, &mut |_| std::ops::ControlFlow::Continue(())).is_ok()
}

#[test]
fn the_segment_that_is_to_be_spoilt_is_good_and_has_all_kinds_of_blocks() {
    let segment = open(good()).unwrap();
    assert!(exercise(&segment));
    assert!(segment.bytes_by_kind().iter().all(|(_, bytes)| *bytes > 0), "{:?}", segment.bytes_by_kind());
    assert_eq!(rewritten(&segment, |_, _| {}), good());
}

proptest! {
    #[test]
    fn wrong_content_under_right_checksums_never_panics(
        block in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        thread_local!(static GOOD: Arc<Segment> = open(good()).unwrap());
        let file = GOOD.with(|good| {
            let chosen = block.index(good.blocks() + 1);
            rewritten(good, |number, payload| {
                if number != chosen {
                    return;
                }
                for (at, byte, how) in &changes {
                    if payload.is_empty() {
                        return;
                    }
                    let at = at.index(payload.len());
                    match how {
                        0 => payload[at] = *byte,
                        1 => payload[at] ^= 1 << (byte % 8),
                        2 => payload.truncate(at),
                        _ => payload.insert(at, *byte),
                    }
                }
            })
        });
        if let Ok(segment) = open(file) {
            exercise(&segment);
        }
    }

    #[test]
    fn noise_in_place_of_a_chunk_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..8) {
        thread_local!(static GOOD: Arc<Segment> = open(good()).unwrap());
        let file = GOOD.with(|good| rewritten(good, |number, payload| {
            if number < good.blocks() && good.block(number).unwrap().0 == super::blocks::KINDS[kind] {
                // What leads to the codec stays, so that it meets the noise.
                let keep = payload.len().min(12);
                payload.truncate(keep);
                payload.extend_from_slice(&noise);
            }
        }));
        if let Ok(segment) = open(file) {
            exercise(&segment);
        }
        let _: Kind = super::blocks::KINDS[kind];
    }
}
