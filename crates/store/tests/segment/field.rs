//! Files in memory, and bodies of every sort.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tidelog_record::{
    Batch, BodyHead, BodyWriter, ChainHash, DeviceId, Lsn, NodeId, Origin, Relay, Run, Series, StreamId,
    Value, Values,
};
use tidelog_store::DiskFile;
use tidelog_store::segment::{Cache, Sealed, Segment, Span, merge, seal};

#[derive(Debug, Default)]
pub struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryFile {
    pub fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(bytes)))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(bytes.len());
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

pub fn stream() -> StreamId {
    StreamId { site: "plant".parse().unwrap(), node: NodeId([7; 16]), run: Run(0x0102_0304) }
}

/// The span of bodies that begin at `first`, behind `before`.
pub fn span_of(bodies: &[Vec<u8>], ordinal: u64, first: Lsn, before: ChainHash) -> Span {
    let key = stream().key();
    let (mut after, mut last) = (before, first);
    for (lsn, body) in (first.0..).map(Lsn).zip(bodies) {
        after = after.after(&key, lsn, body);
        last = lsn;
    }
    Span { stream: stream(), ordinal, parts: 1, first, last, before, after }
}

pub fn sealed(span: &Span, bodies: &[Vec<u8>]) -> (Sealed, Vec<u8>) {
    let mut file = Vec::new();
    let mut next = bodies.iter().cloned();
    let write = &mut |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    };
    let outcome = seal(span, &mut || Ok(next.next()), write).unwrap();
    (outcome, file)
}

pub fn open(file: Vec<u8>) -> Arc<Segment> {
    Arc::new(Segment::open(MemoryFile::of(file), Arc::new(Cache::new(1 << 20))).unwrap())
}

/// Seals each of `parts` and merges all.
pub fn merged(parts: &[Vec<Vec<u8>>], first: Lsn) -> (Sealed, Vec<u8>) {
    let (mut lsn, mut before) = (first, ChainHash([3; 16]));
    let mut segments = Vec::new();
    for (ordinal, bodies) in (0u64..).zip(parts) {
        let span = span_of(bodies, ordinal, lsn, before);
        segments.push(open(sealed(&span, bodies).1));
        (lsn, before) = (span.last.next().unwrap(), span.after);
    }
    let mut file = Vec::new();
    let outcome = merge(&segments, &mut |bytes| {
        file.extend_from_slice(bytes);
        Ok(())
    });
    (outcome.unwrap(), file)
}

/// Values of the sort that `kind` says, few enough that they repeat.
pub fn value(kind: u8) -> BoxedStrategy<Value> {
    let decimal = (-3_000i64..3_000, 0u32..4)
        .prop_map(|(number, digits)| Value::F64(number as f64 / f64::from(10u32.pow(digits))));
    let odd = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        prop::sample::select(vec![
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            0.0,
            1e15,
            999_999_999_999_999.0,
            f64::MIN_POSITIVE,
            f64::MAX,
            5e-324,
            0.1 + 0.2,
        ]),
        any::<u64>().prop_map(|bits| f64::from_bits(bits | 0x7ff0_0000_0000_0000)),
    ]
    .prop_map(Value::F64);
    let whole = prop_oneof![
        (-40i64..40).prop_map(Value::I64),
        any::<i64>().prop_map(Value::I64),
        prop::sample::select(vec![i64::MIN, i64::MAX, 0]).prop_map(Value::I64),
    ];
    let text = "[a-zé\\x00]{0,9}".prop_map(Value::Text);
    match kind {
        0..=2 => decimal.boxed(),
        3 => odd.boxed(),
        4 => whole.boxed(),
        5 => any::<bool>().prop_map(Value::Bool).boxed(),
        6 => text.boxed(),
        7 => prop_oneof![decimal, odd].boxed(),
        _ => prop_oneof![decimal, odd, whole, any::<bool>().prop_map(Value::Bool), text].boxed(),
    }
}

pub type Entries = Vec<(Series, Vec<(i64, Value)>)>;

/// The series of a number, and of which kind its values are.
fn series(number: usize) -> (Series, u8) {
    let metric = ["m", "ma", "zeta"][number % 3];
    let device = ["", "d1", "d10", "d2", "a longer name"][number / 3 % 5];
    let kind = u8::try_from(number % 10).unwrap();
    (Series::new(metric, [("device", device), ("k", ["", "x"][number % 2])]).unwrap(), kind)
}

const HOUR_NS: i64 = 3_600_000_000_000;

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => (0i64..40).prop_map(|step| 1_795_219_200_000_000_000 + step * 10_000_000_000),
        8 => (0i64..400).prop_map(|step| 1_795_219_200_000_000_000 + step * HOUR_NS / 7),
        4 => -50i64..50,
        2 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 0]),
    ]
}

fn entry() -> impl Strategy<Value = (Series, Vec<(i64, Value)>)> {
    (0usize..30).prop_flat_map(|number| {
        let (series, kind) = series(number);
        let single = prop::collection::vec((time(), value(kind)), 0..6);
        let row =
            (time(), prop::collection::vec(value(kind), 0..60), 0i64..3).prop_map(|(first, values, step)| {
                let time = |at: i64| first.wrapping_add(step * at * 1_000_000_000);
                (0i64..).zip(values).map(|(at, value)| (time(at), value)).collect()
            });
        (Just(series), prop_oneof![single, row])
    })
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    prop::option::of((0u8..3, 0u32..2, 0u64..100, 0u32..9).prop_map(|(device, epoch, first_seq, count)| {
        Origin { device: DeviceId([device; 8]), epoch, first_seq, count }
    }))
}

fn relay() -> impl Strategy<Value = Option<Relay>> {
    let part = prop::option::of(0u64..9);
    prop::option::of((0u8..3, any::<u64>(), part).prop_map(|(node, lsn, first_point)| Relay {
        node: NodeId([node; 16]),
        run: Run(lsn ^ 5),
        lsn: Lsn(lsn),
        first_point,
    }))
}

pub fn canonical_body(head: BodyHead, entries: &Entries) -> Vec<u8> {
    let mut writer = BodyWriter::new(head, entries.len());
    for (series, points) in entries {
        let times: Vec<i64> = points.iter().map(|(time, _)| *time).collect();
        let mut values = Values::default();
        points.iter().for_each(|(_, value)| values.push(value.clone()));
        writer.entry(&series.canonical(), &times, &values).unwrap();
    }
    writer.finish().unwrap()
}

/// A body, and the points in it.
pub fn body() -> impl Strategy<Value = (Vec<u8>, Entries)> {
    let head = (any::<i64>(), origin(), relay()).prop_map(|(authored_ms, origin, relay)| BodyHead {
        authored_ms,
        origin,
        relay,
    });
    let points = (head, prop::collection::vec(entry(), 0..7))
        .prop_map(|(head, entries)| (canonical_body(head, &entries), entries));
    let unknown = prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut noise| {
        noise.insert(0, 200);
        (noise, Entries::new())
    });
    // A point's metric called by its number where it is the foretold one: valid, and not what a writer would say.
    let otherwise = (any::<i64>(), any::<i8>()).prop_map(|(time, number)| {
        let series = Series::new("m", [("device", "d1")]).unwrap();
        let points = vec![(time, Value::I64(i64::from(number)))];
        let entries = vec![(series.clone(), points.clone()), (series, points)];
        let body = canonical_body(BodyHead::default(), &entries);
        (respelled(&body).unwrap_or(body), entries)
    });
    let malformed = (any::<i64>(), 1usize..20).prop_map(|(authored_ms, cut)| {
        let series = Series::new("cut", [("a", "b")]).unwrap();
        let batch = Batch { authored_ms, origin: None, series: vec![(series, vec![(5, Value::F64(0.5))])] };
        let mut bytes = batch.encode().unwrap();
        bytes.truncate(bytes.len() - cut);
        (bytes, Entries::new())
    });
    prop_oneof![12 => points, 1 => unknown, 1 => otherwise, 1 => malformed]
}

/// The same content with one flag taken back: the second entry's times are spelled out.
pub fn respelled(body: &[u8]) -> Option<Vec<u8>> {
    use tidelog_record::Body;
    let Ok(Body::Points(batch)) = Body::decode(body) else { return None };
    // kind, authored, no origin, two entries, the first entry's head.
    let heads_at = 1 + 8 + 1 + 1;
    (heads_at..body.len()).find_map(|at| {
        let mut other = body.to_vec();
        *other.get_mut(at)? ^= 0x10;
        other.insert(at + 1, 0);
        (matches!(Body::decode(&other), Ok(Body::Points(same)) if same == batch)).then_some(other)
    })
}
