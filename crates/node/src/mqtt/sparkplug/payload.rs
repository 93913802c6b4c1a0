//! The messages of Sparkplug B as protobuf has them: of the payload and its metrics, the fields that say what was measured and when (Sparkplug
//! 3.0, section 6.4). What a topic makes of them is not known here.

use prost::Message;
use tidelog_record::Value;

/// `org.eclipse.tahu.protobuf.Payload`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub timestamp_ms: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

/// One metric of it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub timestamp_ms: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    #[prost(oneof = "Written", tags = "10, 11, 12, 13, 14, 15")]
    pub value: Option<Written>,
}

/// A value that a point can have. Data sets, templates, bytes and files are passed over as unknown fields.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Written {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Truth(bool),
    #[prost(string, tag = "15")]
    Text(String),
}

/// The number of the data type `Boolean`.
const BOOLEAN: u32 = 11;

impl Written {
    /// The value, by the number of its data type. Integers travel as bits without a sign, which the type gives back. `None` for what no
    /// point can hold.
    pub fn of_type(&self, datatype: u32) -> Option<Value> {
        Some(match (self, datatype) {
            (Self::Truth(truth), BOOLEAN) => Value::Bool(*truth),
            (Self::Float(number), 9) => Value::F64(f64::from(*number)),
            (Self::Double(number), 10) => Value::F64(*number),
            (Self::Text(text), 12 | 14 | 15) => Value::Text(text.clone()),
            // Senders differ in which of the two they write a short integer as.
            (Self::Int(_) | Self::Long(_), 1..=8 | 13) => {
                let bits = match self {
                    Self::Int(bits) => u64::from(*bits),
                    Self::Long(bits) => *bits,
                    _ => return None,
                };
                Value::I64(signed(bits, datatype)?)
            }
            _ => return None,
        })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the type says how many of the bits are the number's")]
fn signed(bits: u64, datatype: u32) -> Option<i64> {
    Some(match datatype {
        1 => i64::from((bits as u8).cast_signed()),
        2 => i64::from((bits as u16).cast_signed()),
        3 => i64::from((bits as u32).cast_signed()),
        4 => bits.cast_signed(),
        5 => i64::from(bits as u8),
        6 => i64::from(bits as u16),
        7 => i64::from(bits as u32),
        // UInt64 and DateTime.
        _ => i64::try_from(bits).ok()?,
    })
}

/// The payload that asks an edge node for its births (section 5.14).
pub(super) fn rebirth(now_ms: u64) -> Vec<u8> {
    let metric = Metric {
        name: Some(super::REBIRTH.to_owned()),
        timestamp_ms: Some(now_ms),
        datatype: Some(BOOLEAN),
        value: Some(Written::Truth(true)),
        ..Metric::default()
    };
    Payload { timestamp_ms: Some(now_ms), metrics: vec![metric], seq: None }.encode_to_vec()
}
