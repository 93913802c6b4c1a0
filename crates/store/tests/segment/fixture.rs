//! The bytes of version 1, frozen: they must come out the same on every CPU and in every later version of this program.

use std::path::Path;

use tidelog_record::{
    BodyHead, BodyWriter, ChainHash, DeviceId, Lsn, NodeId, Origin, Relay, Run, Series, Value, Values,
};

use crate::field::{merged, open, sealed, span_of};

/// A linear congruential generator: the same numbers everywhere, without a crate whose next version draws others.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % most
    }
}

/// Bodies with every kind of value, late and repeated points, copies, and what this version does not understand.
pub fn bodies(count: i64) -> Vec<Vec<u8>> {
    let mut dice = Dice(42);
    let mut bodies = Vec::new();
    let mut level = 2_000i64;
    for record in 0..count {
        if dice.below(16) == 0 {
            bodies.push(vec![201, u8::try_from(record % 256).unwrap(), 3, 4]);
            continue;
        }
        let device = u8::try_from(dice.below(4)).unwrap();
        let origin =
            Origin { device: DeviceId([device; 8]), epoch: 9, first_seq: record.unsigned_abs(), count: 30 };
        let relay =
            Relay { node: NodeId([3; 16]), run: Run(8), lsn: Lsn(record.unsigned_abs()), first_point: None };
        let head = BodyHead {
            authored_ms: 1_795_219_200_000 + record * 30_000 + dice.below(50),
            origin: (dice.below(2) == 0).then_some(origin),
            relay: (dice.below(8) == 0).then_some(relay),
        };
        let late = if dice.below(8) == 0 { 900 } else { 0 };
        let start = 1_795_219_200 + record * 30 - late;
        let times: Vec<i64> =
            (0..30).map(|step| (start + step) * 1_000_000_000 + dice.below(3) * 1_000_000).collect();
        let mut writer = BodyWriter::new(head, 6);
        for metric in ["battery", "co", "door", "mixed", "note", "temperature"] {
            let mut values = Values::default();
            for step in 0..30 {
                level += dice.below(5) - 2;
                values.push(match metric {
                    "battery" => Value::I64(3_600 - record / 8),
                    "co" if dice.below(200) == 0 => Value::F64(f64::from_bits(0x7ff8_0000_0000_0001)),
                    "co" => {
                        Value::F64(f64::from_bits(0x3f50_0000_0000_0000 + dice.below(1 << 40).unsigned_abs()))
                    }
                    "door" => Value::Bool((record + step / 10) % 7 == 0),
                    "mixed" if step % 3 == 0 => Value::I64(i64::MIN + step),
                    "mixed" => Value::F64(-0.0),
                    "note" => Value::Text(
                        ["", "open", "closed", "überall"][usize::try_from(dice.below(4)).unwrap()].into(),
                    ),
                    _ => Value::F64(level as f64 / 100.0),
                });
            }
            let series = Series::new(metric, [("device", format!("d{device}"))]).unwrap();
            writer.entry(&series.canonical(), &times, &values).unwrap();
        }
        bodies.push(writer.finish().unwrap());
    }
    bodies
}

fn check(name: &str, file: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name);
    if std::env::var_os("TIDELOG_WRITE_FIXTURES").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, file).unwrap();
    }
    let frozen = std::fs::read(&path).unwrap();
    assert!(
        frozen == file,
        "{name} came out otherwise; a new format needs a new version, and this file stays"
    );
}

#[test]
fn a_sealed_segment_has_the_frozen_bytes() {
    let bodies = bodies(400);
    let span = span_of(&bodies, 2, Lsn(900), ChainHash([5; 16]));
    let (_, file) = sealed(&span, &bodies);
    check("sealed.seg", &file);
    let segment = open(file);
    assert!(segment.bytes_by_kind().iter().all(|(_, bytes)| *bytes > 0), "every kind of block is in it");
}

#[test]
fn a_merged_segment_has_the_frozen_bytes() {
    let bodies = bodies(240);
    let parts: Vec<Vec<Vec<u8>>> = bodies.chunks(60).map(<[Vec<u8>]>::to_vec).collect();
    check("merged.seg", &merged(&parts, Lsn(1_000)).1);
}
