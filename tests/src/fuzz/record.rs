//! Bodies, series, MessagePack and the uplink of sensors.

use std::hint::black_box;

use tidelog_record::msgpack::{Reader, Token, Writer};
use tidelog_record::uplink::{
    Act, Answer, BatchEncoder, Command, CommandId, METRICS_MAX, Metric, OwnedSchema, Reading, Registration,
    Sample, Schema, Uplink, encode_registration,
};
use tidelog_record::{
    BATCH_BYTES_MAX, Batch, Body, BodyReader, BodyWriter, Boot, DeviceId, Entry, Foretells, Lsn, Opened,
    Origin, Packer, Relay, Seal, Series, Spelling, Unpacker, Value,
};

/// A batch of each kind of value.
pub(super) fn batch() -> Batch {
    let series = |name: &str| Series::new(name, [("room", "cellar")]).unwrap();
    Batch {
        authored_ms: 1_795_000_000_000,
        origin: Some(Origin { device: DeviceId([1; 8]), epoch: 3, first_seq: 9, count: 2 }),
        series: vec![
            (series("temperature"), vec![(1_000, Value::F64(21.5)), (2_000, Value::F64(-0.0))]),
            (series("battery"), vec![(1_000, Value::I64(i64::MIN)), (2_000, Value::I64(3_000))]),
            (series("open"), vec![(1_000, Value::Bool(true))]),
            (series("note"), vec![(i64::MAX, Value::Text("hällo".to_owned()))]),
        ],
    }
}

pub(super) fn body_seeds() -> Vec<Vec<u8>> {
    let empty = Batch { series: Vec::new(), origin: None, ..batch() };
    let seal = Seal { first: Lsn(3), last: Lsn(900), ordinal: 4, parts: 16, hash: [9; 16] };
    let boot = Boot { started_ms: 1_795_000_000_000, findings: 1, program: "tidelog 0.1.0".to_owned() };
    let points = [batch().encode().unwrap(), empty.encode().unwrap()];
    [&points[..], &[seal.encode(), boot.encode(), vec![200, 1, 2]]].concat()
}

/// What decodes is written again, and means the same then.
pub(super) fn body(bytes: &[u8]) {
    // A relay that is understood stands before a body that may not be.
    drop(Relay::of_body(bytes));
    if let Ok(Some(seal)) = Seal::of_body(bytes) {
        assert_eq!(Seal::of_body(&seal.encode()), Ok(Some(seal)));
    }
    if let Ok(Some(boot)) = Boot::of_body(bytes) {
        assert_eq!(Boot::of_body(&boot.encode()), Ok(Some(boot)));
    }
    let Ok(Body::Points(batch)) = Body::decode(bytes) else { return };
    let again = batch.encode().expect("what was read fits");
    let Ok(Body::Points(read)) = Body::decode(&again) else { panic!("what was written is read") };
    assert_eq!(read, batch);
}

/// Bodies as they are, and bodies that were packed one behind the other, each behind its length.
pub(super) fn packing_seeds() -> Vec<Vec<u8>> {
    let (mut packer, mut bodies) = (Packer::default(), vec![1]);
    for later in 0..3 {
        let body = Batch { authored_ms: batch().authored_ms + later, ..batch() }.encode().unwrap();
        let mut packed = Vec::new();
        assert!(packer.pack(&body, &mut packed).is_some());
        bodies.extend_from_slice(&u16::try_from(packed.len()).unwrap().to_le_bytes());
        bodies.extend_from_slice(&packed);
    }
    let body = batch().encode().unwrap();
    let mut group = vec![3, 4];
    let packed = Packer::bounded(Foretells::Across, usize::MAX, usize::MAX)
        .pack_many([body.as_slice(); 4], &mut group);
    assert_eq!(packed, 4);
    let plain = body_seeds().into_iter();
    let plain = plain.flat_map(|body| [0, 2].map(|kind| [&[kind], body.as_slice()].concat()));
    plain.chain([bodies, group]).collect()
}

/// What a writer makes of what can be read in a body; `None` where that has an end.
fn written_again(body: &[u8]) -> Option<Vec<u8>> {
    let Ok(Opened::Points(mut reader)) = BodyReader::open(body) else { return None };
    let mut writer = BodyWriter::new(reader.head(), reader.entries());
    let mut entry = Entry::default();
    while reader.next(&mut entry).ok()? {
        writer.entry(&entry.canonical, &entry.times, &entry.values).expect("what was read fits");
    }
    Some(writer.finish().expect("what was read fits"))
}

/// What is packed comes back; what nobody packed is refused, or is some body of bounded length.
pub(super) fn packing(bytes: &[u8]) {
    let Some((kind, mut rest)) = bytes.split_first() else { return };
    if kind & 2 != 0 {
        return groups(kind & 1 == 0, rest);
    }
    let (mut packer, mut unpacker, mut out) = (Packer::default(), Unpacker::default(), Vec::new());
    if kind & 1 == 0 {
        for body in [batch().encode().unwrap().as_slice(), rest, rest] {
            let mut packed = Vec::new();
            let Some(spelling) = packer.pack(body, &mut packed) else { return };
            unpacker.unpack(&packed, &mut out).expect("what was packed is unpacked");
            assert_eq!(out, body);
            if spelling == Spelling::Canonical {
                assert!(
                    written_again(body).is_none_or(|again| again == body),
                    "canonical, and written otherwise"
                );
            }
        }
        return;
    }
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (packed, more) = more.split_at(usize::from(u16::from_le_bytes(*length)).min(more.len()));
        if unpacker.unpack(packed, &mut out).is_err() {
            return;
        }
        assert!(out.len() <= BATCH_BYTES_MAX);
        rest = more;
    }
}

/// The same for bodies that go in groups.
fn groups(is_body: bool, rest: &[u8]) {
    let (series_max, learnt_bytes_max) = (1_000, 100_000);
    let mut unpacker = Unpacker::bounded(Foretells::Across, series_max, learnt_bytes_max);
    if !is_body {
        let Some((count, group)) = rest.split_first() else { return };
        drop(unpacker.unpack_many(group, usize::from(*count), &mut |body| body.len() <= BATCH_BYTES_MAX));
        return;
    }
    let mut packer = Packer::bounded(Foretells::Across, series_max, learnt_bytes_max);
    let good = batch().encode().unwrap();
    let bodies = [good.as_slice(), rest, good.as_slice(), rest];
    let mut group = Vec::new();
    let count = packer.pack_many(bodies, &mut group);
    let mut sent = bodies.iter();
    if count > 0 {
        let back = unpacker.unpack_many(&group, count, &mut |body| sent.next() == Some(&body));
        assert_eq!(back, Ok(()));
    }
}

pub(super) fn series_seeds() -> Vec<Vec<u8>> {
    batch().series.iter().map(|(series, _)| series.canonical()).collect()
}

/// A name has one form.
pub(super) fn series(bytes: &[u8]) {
    if let Ok(series) = Series::from_canonical(bytes) {
        assert_eq!(series.canonical(), bytes);
    }
}

pub(super) fn msgpack_seeds() -> Vec<Vec<u8>> {
    let mut out = [0; 128];
    let mut writer = Writer::new(&mut out);
    writer.array(6).unwrap();
    writer.nil().unwrap();
    writer.bool(true).unwrap();
    writer.i64(-70_000).unwrap();
    writer.f64(1.25).unwrap();
    writer.str("text").unwrap();
    writer.bin(&[1, 2, 3]).unwrap();
    vec![writer.written().to_vec()]
}

/// Passing over an element and reading it token by token come to the same place.
pub(super) fn msgpack(bytes: &[u8]) {
    let (mut tokens, mut skipping) = (Reader::new(bytes), Reader::new(bytes));
    while !tokens.rest().is_empty() {
        let before = tokens.rest().len();
        let Ok(token) = tokens.token() else { return };
        assert!(tokens.rest().len() < before);
        if !matches!(token, Token::Array(_) | Token::Map(_)) && skipping.rest().len() == before {
            skipping.skip().expect("what is a token can be passed over");
            assert_eq!(skipping.rest().len(), tokens.rest().len());
        } else {
            skipping = tokens.clone();
        }
    }
}

const METRICS: [Metric<'static>; 2] =
    [Metric { name: "temperature", scale: Some(2) }, Metric { name: "battery", scale: None }];

fn registration() -> (Schema<'static>, Vec<u8>) {
    let schema = Schema::new(1_000_000, &METRICS).unwrap();
    let mut out = [0; 512];
    let length = encode_registration(&mut out, DeviceId([1; 8]), &schema, "1.2.3").unwrap();
    (schema, out.get(..length).unwrap().to_vec())
}

pub(super) fn uplink_seeds() -> Vec<Vec<u8>> {
    let (schema, registration) = registration();
    let mut out = [0; 256];
    let mut encoder = BatchEncoder::new(&mut out, DeviceId([1; 8]), 2, 3, schema, 1_000).unwrap();
    for ticks in [1_000, 2_000, 3_010] {
        let mut sample = Sample { ticks, values: [None; METRICS_MAX] };
        sample.values[0] = Some(Reading::F64(21.53));
        sample.values[1] = Some(Reading::I64(3_000 - ticks));
        encoder.push(&sample).unwrap();
    }
    let length = encoder.length();
    let batch = out.get(..length).unwrap().to_vec();
    let mut out = [0; Answer::BYTES_MAX];
    let id = CommandId::new(1_795_000_000_001, 9).unwrap();
    let command = Command { id, expires_ms: 1_795_000_060_000, act: Act::Switch { output: 3, on: true } };
    let answer = Answer { command: Some(command), ..Answer::new(7, 1_795_000_000_000) };
    let length = answer.encode(&mut out).unwrap();
    let answer = out.get(..length).unwrap().to_vec();
    let schema = Registration::decode(&registration).unwrap().schema_bytes;
    vec![batch, registration, schema, answer]
}

/// A batch, under the schema that it names if it could be ours; a registration; a schema; an answer.
pub(super) fn uplink(bytes: &[u8]) {
    if let Ok(uplink) = Uplink::parse(bytes) {
        let schema = Registration::decode(&registration().1).expect("our own").schema;
        for known in [0, uplink.head().first_seq, u64::MAX] {
            if let Ok(batch) = uplink.batch(&schema, known, 0) {
                drop(batch.encode());
            }
        }
    }
    if let Ok(registration) = Registration::decode(bytes) {
        assert_eq!(OwnedSchema::decode(&registration.schema_bytes), Ok(registration.schema));
    }
    black_box(OwnedSchema::decode(bytes).is_ok());
    if let Ok(answer) = Answer::decode(bytes) {
        let mut out = [0; Answer::BYTES_MAX + 8];
        let length = answer.encode(&mut out).expect("room for any");
        let again = out.get(..length).map(Answer::decode);
        // An act that is not known here is written without its arguments.
        let known = !matches!(answer.command, Some(Command { act: Act::Unknown(_), .. }));
        assert!(!known || again == Some(Ok(answer)), "{answer:?} and then {again:?}");
    }
}
