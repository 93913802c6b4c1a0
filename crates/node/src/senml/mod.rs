//! SenML (RFC 8428): measurements as other people's devices send them, in JSON or CBOR, and the batch that they become.
//!
//! ```text
//! [{"bn": "urn:dev:mac:0024befffe804ff1/", "bt": 1.320067464e+09, "bu": "Cel", "n": "temperature", "v": 23.1}, {"n": "label", "vs": "lab"}]
//! ```
//! A resolved name is cut at its last `/` or `:`: what is before it is the label `device`, what is behind it the metric, in which `-` and
//! `.` become `_`. A name without a cut is a metric of the sender. `urn:dev:mac:0024befffe804ff1_temp` names a component as RFC 9039 has
//! it; without one the metric is `value`. The unit is a label. Numbers are floats, as SenML has them; a sum is the metric with `_sum`
//! behind it. Times are kept to the microsecond, because the sum of two of them is no more exact than that. A value of bytes (`vd`) is
//! refused, and so is what must be understood and is not.

mod record;

use std::collections::BTreeMap;

use tidelog_record::{Batch, Series, SeriesError, Value};

use self::record::Fields;
use crate::reserved::reserved;

/// Records in one pack.
const RECORDS_MAX: usize = 4_096;

/// The newest version of SenML that is understood (RFC 8428 section 4.4).
const VERSION: u64 = 10;

/// Times below this are counted from now (section 4.5.3), in microseconds.
const RELATIVE_BELOW_US: i64 = (1 << 28) * US_PER_S;

const US_PER_S: i64 = 1_000_000;
const NS_PER_US: i64 = 1_000;

/// How a pack is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/senml+json`.
    Json,
    /// `application/senml+cbor`.
    Cbor,
}

impl Encoding {
    /// Content formats of CoAP, as `/.well-known/core` names them.
    pub const CONTENT_FORMATS: &str = "110 112";

    /// The encoding of a content format of CoAP (RFC 8428 section 12.1).
    #[must_use]
    pub const fn of_content_format(number: u32) -> Option<Self> {
        match number {
            110 => Some(Self::Json),
            112 => Some(Self::Cbor),
            _ => None,
        }
    }
}

/// Why a pack is refused, all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenmlError {
    /// Not JSON or CBOR, or not an array of records.
    #[error("no SenML: {0}")]
    Syntax(String),
    /// There are too many records.
    #[error("more than {RECORDS_MAX} records")]
    TooMany,
    /// One record cannot be taken.
    #[error("record {index}: {reason}")]
    Record {
        /// Which, from 0 on.
        index: usize,
        /// Why.
        reason: Unfit,
    },
    /// A metric that nobody but a node writes.
    #[error("{0} is a metric that only nodes write")]
    Reserved(String),
}

/// Why a record cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Written for a later version.
    #[error("version {0}, and {VERSION} is the newest that is understood")]
    Version(u64),
    /// A field that must be understood (its name ends with `_`).
    #[error("the field {0:?} must be understood, and is not")]
    MustUnderstand(String),
    /// No name, or one with other characters than letters, digits and `-:./_`.
    #[error("bad name {0:?}: letters, digits and -:./_, and a letter or digit first")]
    Name(String),
    /// Several values.
    #[error("more than one value")]
    Values,
    /// Neither a value nor a sum.
    #[error("no value")]
    NoValue,
    /// Bytes.
    #[error("a value of bytes (vd), which is not kept")]
    Bytes,
    /// A time that no clock shows.
    #[error("its time is out of range")]
    Time,
    /// A name that gives no series.
    #[error(transparent)]
    Series(#[from] SeriesError),
}

/// Base fields, which hold from the record in which they stand on.
#[derive(Default)]
struct Base {
    name: String,
    time_us: i64,
    unit: Option<String>,
    value: f64,
    sum: Option<f64>,
    version: Option<u64>,
}

/// The points of a pack that `sender` sent, which came at `now_ns` (Unix).
///
/// # Errors
/// [`SenmlError`]; nothing of the pack is to be stored then.
pub fn read(encoding: Encoding, pack: &[u8], sender: &str, now_ns: i64) -> Result<Batch, SenmlError> {
    let records = record::read(encoding, pack)?;
    let mut base = Base::default();
    let mut series: BTreeMap<Series, Vec<(i64, Value)>> = BTreeMap::new();
    for (index, fields) in records.into_iter().enumerate() {
        let resolved = resolve(fields, &mut base, sender, now_ns);
        for (of, time, value) in resolved.map_err(|reason| SenmlError::Record { index, reason })? {
            series.entry(of).or_default().push((time, value));
        }
    }
    if let Some((series, _)) = series.iter().find(|(series, _)| reserved(series.metric()).is_some()) {
        return Err(SenmlError::Reserved(series.metric().to_owned()));
    }
    Ok(Batch {
        authored_ms: now_ns.div_euclid(1_000_000),
        series: series.into_iter().collect(),
        ..Batch::default()
    })
}

/// The points of one record, and what it changes for those behind it.
fn resolve(
    fields: Fields,
    base: &mut Base,
    sender: &str,
    now_ns: i64,
) -> Result<Vec<(Series, i64, Value)>, Unfit> {
    if let Some(field) = fields.must_understand {
        return Err(Unfit::MustUnderstand(field));
    }
    base.version = fields.base_version.or(base.version);
    if let Some(version) = base.version.filter(|version| *version > VERSION) {
        return Err(Unfit::Version(version));
    }
    if let Some(name) = fields.base_name {
        base.name = name;
    }
    if let Some(time) = fields.base_time {
        base.time_us = microseconds(time)?;
    }
    base.unit = fields.base_unit.or(base.unit.take());
    base.value = fields.base_value.unwrap_or(base.value);
    base.sum = fields.base_sum.or(base.sum);

    let value = match (fields.value, fields.text, fields.truth, fields.bytes) {
        (Some(number), None, None, false) => Some(Value::F64(base.value + number)),
        (None, Some(text), None, false) => Some(Value::Text(text)),
        (None, None, Some(truth), false) => Some(Value::Bool(truth)),
        (None, None, None, true) => return Err(Unfit::Bytes),
        (None, None, None, false) => None,
        _ => return Err(Unfit::Values),
    };
    let sum = fields.sum.map(|sum| sum + base.sum.unwrap_or_default());
    if value.is_none() && sum.is_none() {
        // One with base fields alone says what holds for those behind it.
        let is_base = fields.name.is_none() && fields.time.is_none() && fields.unit.is_none();
        return if is_base { Ok(Vec::new()) } else { Err(Unfit::NoValue) };
    }

    let at_us = fields.time.map_or(Ok(0), microseconds)?.checked_add(base.time_us).ok_or(Unfit::Time)?;
    let time_ns = if at_us < RELATIVE_BELOW_US {
        at_us.checked_mul(NS_PER_US).and_then(|since| now_ns.checked_add(since))
    } else {
        at_us.checked_mul(NS_PER_US)
    };
    let time_ns = time_ns.ok_or(Unfit::Time)?;
    let name = format!("{}{}", base.name, fields.name.unwrap_or_default());
    let (device, metric) = cut(&name, sender).ok_or(Unfit::Name(name.clone()))?;
    let unit = fields.unit.as_deref().or(base.unit.as_deref()).unwrap_or_default();
    let series = |metric: &str| Series::new(metric, [("device", device), ("unit", unit)]);
    let mut points = Vec::new();
    if let Some(value) = value {
        points.push((series(&metric)?, time_ns, value));
    }
    if let Some(sum) = sum {
        points.push((series(&format!("{metric}_sum"))?, time_ns, Value::F64(sum)));
    }
    Ok(points)
}

/// Seconds as microseconds.
#[allow(clippy::cast_possible_truncation, reason = "it is whole and within i64 where it is cast")]
fn microseconds(seconds: f64) -> Result<i64, Unfit> {
    let us = (seconds * US_PER_S as f64).round();
    if us.abs() < 9e18 { Ok(us as i64) } else { Err(Unfit::Time) }
}

/// Device and metric of a resolved name; none if it is no name (section 4.5.1).
fn cut<'n>(name: &'n str, sender: &'n str) -> Option<(&'n str, String)> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
    if !name.bytes().next()?.is_ascii_alphanumeric() || !name.bytes().all(fits) {
        return None;
    }
    let (device, metric) = match name.rsplit_once(['/', ':']) {
        None => (sender, name),
        // The last part is of the device itself.
        Some((before, _))
            if name.starts_with("urn:dev:") && before.split(':').count() == 3 && !before.contains('/') =>
        {
            name.split_once('_').unwrap_or((name, "value"))
        }
        Some(parts) => parts,
    };
    let mut metric = metric.replace(['-', '.'], "_");
    if metric.starts_with(|first: char| first.is_ascii_digit()) {
        metric.insert(0, '_');
    }
    Some((device, metric)).filter(|(device, metric)| !device.is_empty() && !metric.is_empty())
}

#[cfg(test)]
mod tests;
