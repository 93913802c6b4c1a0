//! One record of SenML as it is written: texts name its fields in JSON, numbers in CBOR (RFC 8428 sections 5 and 6). What the fields mean
//! together is not known here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Encoding, RECORDS_MAX, SenmlError};

/// Longest account of a syntax error, in characters: it may quote the pack.
const REASON_CHARS_MAX: usize = 160;

/// Depth of arrays and maps in CBOR beyond which a pack is refused; a record lies two deep.
const DEPTH_MAX: usize = 16;

/// The fields of a record.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub base_name: Option<String>,
    pub base_time: Option<f64>,
    pub base_unit: Option<String>,
    pub base_value: Option<f64>,
    pub base_sum: Option<f64>,
    pub base_version: Option<u64>,
    pub name: Option<String>,
    pub unit: Option<String>,
    pub value: Option<f64>,
    pub text: Option<String>,
    pub truth: Option<bool>,
    /// Whether there is a value of bytes.
    pub bytes: bool,
    pub sum: Option<f64>,
    pub time: Option<f64>,
    /// A field that is not known here and must be.
    pub must_understand: Option<String>,
}

/// All records of a pack.
pub(super) fn read(encoding: Encoding, pack: &[u8]) -> Result<Vec<Fields>, SenmlError> {
    let syntax = |text: String| SenmlError::Syntax(text.chars().take(REASON_CHARS_MAX).collect());
    let Pack(records) = match encoding {
        Encoding::Json => serde_json::from_slice(pack).map_err(|error| syntax(error.to_string()))?,
        Encoding::Cbor => {
            let mut rest = pack;
            let read = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX);
            let read = read.map_err(|error| syntax(error.to_string()))?;
            if !rest.is_empty() {
                return Err(syntax(format!("{} bytes behind the records", rest.len())));
            }
            read
        }
    };
    if records.len() > RECORDS_MAX { Err(SenmlError::TooMany) } else { Ok(records) }
}

/// Records, one more than there may be at most.
struct Pack(Vec<Fields>);

impl<'de> Deserialize<'de> for Pack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Records;
        impl<'de> Visitor<'de> for Records {
            type Value = Pack;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of SenML records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pack, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = seq.next_element()? {
                    if records.len() <= RECORDS_MAX {
                        records.push(record);
                    }
                }
                Ok(Pack(records))
            }
        }
        deserializer.deserialize_seq(Records)
    }
}

/// What a field is called.
enum Label {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Label, E> {
                Ok(Label::Number(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Label, E> {
                i64::try_from(number).map(Label::Number).map_err(E::custom)
            }

            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(Label::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A number of any kind: SenML has one.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The number that CBOR has for a field's name (RFC 8428 section 6, table 4).
const NUMBERS: [(i64, &str); 15] = [
    (-6, "bs"),
    (-5, "bv"),
    (-4, "bu"),
    (-3, "bt"),
    (-2, "bn"),
    (-1, "bver"),
    (0, "n"),
    (1, "u"),
    (2, "v"),
    (3, "vs"),
    (4, "vb"),
    (5, "s"),
    (6, "t"),
    (7, "ut"),
    (8, "vd"),
];

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SenML record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(label) = map.next_key::<Label>()? {
                    let name = match &label {
                        Label::Text(name) => name.as_str(),
                        Label::Number(number) => {
                            NUMBERS.iter().find(|(of, _)| of == number).map_or("", |(_, name)| name)
                        }
                    };
                    take(&mut fields, name, &mut map)?;
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Takes the value of a field.
fn take<'de, A: MapAccess<'de>>(fields: &mut Fields, name: &str, map: &mut A) -> Result<(), A::Error> {
    let is_again = match name {
        "bn" => fields.base_name.replace(map.next_value()?).is_some(),
        "bt" => fields.base_time.replace(map.next_value::<Number>()?.0).is_some(),
        "bu" => fields.base_unit.replace(map.next_value()?).is_some(),
        "bv" => fields.base_value.replace(map.next_value::<Number>()?.0).is_some(),
        "bs" => fields.base_sum.replace(map.next_value::<Number>()?.0).is_some(),
        "bver" => fields.base_version.replace(map.next_value()?).is_some(),
        "n" => fields.name.replace(map.next_value()?).is_some(),
        "u" => fields.unit.replace(map.next_value()?).is_some(),
        "v" => fields.value.replace(map.next_value::<Number>()?.0).is_some(),
        "vs" => fields.text.replace(map.next_value()?).is_some(),
        "vb" => fields.truth.replace(map.next_value()?).is_some(),
        "s" => fields.sum.replace(map.next_value::<Number>()?.0).is_some(),
        "t" => fields.time.replace(map.next_value::<Number>()?.0).is_some(),
        "vd" => {
            map.next_value::<IgnoredAny>()?;
            std::mem::replace(&mut fields.bytes, true)
        }
        unknown => {
            if unknown.ends_with('_') {
                fields.must_understand.get_or_insert_with(|| unknown.to_owned());
            }
            map.next_value::<IgnoredAny>()?;
            false
        }
    };
    if is_again { Err(A::Error::custom(format!("{name:?} stands twice"))) } else { Ok(()) }
}
