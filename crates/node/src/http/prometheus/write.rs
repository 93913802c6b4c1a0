//! `POST /api/v1/write`: Prometheus remote write 1.0, a snappy block of protocol buffers, as Prometheus, its agents and the collectors of
//! OpenTelemetry send it.
//!
//! The answer is 204 when every sample is durable, on this node or in the cloud as the client wants (invariant 2). A series that cannot be
//! one here is left out, and so are histograms, which no point can hold: the rest is stored, and the 400 that comes when it is durable names the first of
//! them; a sender does not send such a request again. A sample's bits stay as they are, so the NaN with which Prometheus ends a series ends it here.

use std::collections::BTreeMap;

use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;
use tidelog_record::{Series, SiteName, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::super::Api;
use super::super::error::{ApiError, ErrorCode};
use super::super::guard::Visitor;
use super::super::level::{Asked, Level, Reserved, unconfirmed};
use super::super::once::{self, Name, Print};
use super::super::posted::{NotTaken, Posted, Sorter};
use super::super::question::bad;
use super::super::write::{collect, take_in};
use super::form::site_of;
use super::refusal::Refusal;

/// How the counters name this way in.
const VIA: &str = "remote_write";

/// Series that an answer names.
const LEFT_OUT_TOLD_MAX: usize = 8;

/// Characters of a reason that an answer repeats: names come from the client.
const REASON_CHARS_TOLD_MAX: usize = 120;

/// The label that holds a metric's name.
const METRIC_LABEL: &str = "__name__";

const NS_A_MS: i64 = 1_000_000;

/// Longest series of a request, in bytes: what it takes decoded is a multiple of that, and others wait in their bytes until it is their turn.
const SERIES_BYTES_MAX: usize = 1024 * 1024;

/// The field of a request that holds a series.
const SERIES_FIELD: usize = 1;

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    histograms: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// What of a request is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    series: u64,
    /// The first of them, for people.
    told: Vec<String>,
}

impl LeftOut {
    fn add(&mut self, number: usize, reason: &str) {
        self.series += 1;
        if self.told.len() < LEFT_OUT_TOLD_MAX {
            let shown: String = reason.chars().take(REASON_CHARS_TOLD_MAX).collect();
            self.told.push(format!("series {number}: {shown}"));
        }
    }

    fn refusal(&self) -> Option<ApiError> {
        if self.series == 0 {
            return None;
        }
        let (all, told) = (self.series, self.told.join("; "));
        let message = format!("partial write: {all} series left out, the rest is stored; {told}");
        Some(ApiError::new(ErrorCode::BadPoint, message))
    }
}

pub(super) async fn remote_write(
    State(api): State<Api>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Refusal> {
    answer(&api, &path, request).await.map_err(|error| refused(&api, error))
}

fn refused(api: &Api, error: ApiError) -> Refusal {
    api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc();
    Refusal::from(error)
}

async fn answer(api: &Api, path: &RawPathParams, request: Request) -> Result<Response, ApiError> {
    let context = api.running()?;
    let (parts, body) = request.into_parts();
    let visitor = Visitor::of(&parts.extensions)?;
    let query = parts.uri.query().unwrap_or_default();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let site = site_of(&visitor, context, path, &pairs, &parts.headers)?;
    let mut asked = Asked::default();
    for (name, value) in &pairs {
        if name != "site" && !asked.take(name, value)? {
            return Err(bad(format!("unknown parameter {name:?}: there are site, ack and ack_timeout")));
        }
    }
    let reserved = asked.wanted()?.reserve(api, context)?;
    is_understood(&parts.headers)?;
    let name = Name::of(&visitor, &parts.headers)?;
    let (body, permit) = collect(api, &parts.headers, body).await?;
    let Some(name) = name else { return store(api, site, reserved, body, permit).await };
    let (again, print) = (api.clone(), Print::of(&parts.uri, &parts.headers, &body));
    let work = async move {
        let stored = store(&again, site, reserved, body, permit).await;
        stored.unwrap_or_else(|error| refused(&again, error).into_response())
    };
    once::answer(&api.once, &api.metrics, VIA, &context.tasks, (name, print), work).await
}

/// Stores a request's samples, and answers when they are as durable as they are to be.
async fn store(
    api: &Api,
    site: SiteName,
    reserved: Reserved,
    body: Bytes,
    mut permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let context = api.running()?;
    grant(api, &body, &mut permit)?;
    let (bytes, most) = (body.len(), api.limits.body_bytes_max);
    let (points, positions, left_out) = take_in(context, site, bytes, move || read(&body, most)).await?;
    // Its room is free for others while this one waits.
    drop(permit);
    api.metrics.points_in.with_label_values(&[VIA]).inc_by(points as u64);
    if let Some(refusal) = left_out.refusal() {
        return Err(refusal);
    }
    Ok(match reserved.reach(context, &positions).await {
        Level::Node | Level::Cloud => StatusCode::NO_CONTENT.into_response(),
        Level::Unconfirmed(known) => unconfirmed(points as u64, known),
    })
}

/// Whether the heads speak of version 1. Version 2 has another message under the same type: who sends it falls back at a 415.
fn is_understood(headers: &HeaderMap) -> Result<(), ApiError> {
    let text =
        |name| headers.get(name).map(|value| value.to_str().unwrap_or("not text").to_ascii_lowercase());
    let other = |message: String| Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    let content = text(header::CONTENT_TYPE).unwrap_or_default();
    let mut parts = content.split(';').map(str::trim);
    if parts.next() != Some("application/x-protobuf") {
        return other(format!("Content-Type {content:?}: expected application/x-protobuf"));
    }
    if let Some(message) =
        parts.find_map(|part| part.strip_prefix("proto=")).filter(|m| *m != "prometheus.writerequest")
    {
        return other(format!("message {message:?}: expected prometheus.WriteRequest, of remote write 1.0"));
    }
    match text(header::CONTENT_ENCODING).as_deref() {
        Some("snappy") => Ok(()),
        coding => other(format!("Content-Encoding {:?}: expected snappy", coding.unwrap_or_default())),
    }
}

/// Grants the memory of the expanded body, which may be as long as a plain one.
fn grant(api: &Api, body: &[u8], permit: &mut OwnedSemaphorePermit) -> Result<(), ApiError> {
    let bytes = snap::raw::decompress_len(body).map_err(unsnapped)?;
    let most = api.limits.body_bytes_max;
    let Some(bytes) = u32::try_from(bytes).ok().filter(|bytes| *bytes <= most) else {
        let message = format!("the body is longer than {most} bytes when expanded");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    };
    permit.merge(api.body_room(bytes)?);
    Ok(())
}

fn unsnapped(error: snap::Error) -> ApiError {
    ApiError::new(ErrorCode::BadBody, format!("snappy: {error}"))
}

/// The points of a body, and what of it is left out.
fn read(body: &[u8], body_bytes_max: u32) -> Result<(Posted, LeftOut), ApiError> {
    let mut rest = Bytes::from(snap::raw::Decoder::new().decompress_vec(body).map_err(unsnapped)?);
    let (mut sorter, mut left_out) = (Sorter::new(body_bytes_max), LeftOut::default());
    let mut number = 0;
    while let Some((field, bytes)) = next_field(&mut rest)? {
        if field != SERIES_FIELD {
            continue;
        }
        number += 1;
        if bytes.len() > SERIES_BYTES_MAX {
            let message =
                format!("series {number} takes {} bytes, the most is {SERIES_BYTES_MAX}", bytes.len());
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        let TimeSeries { labels, samples, histograms } =
            TimeSeries::decode(bytes).map_err(|error| malformed(&error))?;
        let series = match series_of(labels) {
            Ok(series) => series,
            Err(reason) => {
                left_out.add(number, &reason);
                continue;
            }
        };
        let mut fault =
            (!histograms.is_empty()).then(|| format!("{}: histograms are not stored", series.metric()));
        for Sample { value, timestamp_ms } in samples {
            let added = match timestamp_ms.checked_mul(NS_A_MS) {
                Some(time) => match sorter.add(series.clone(), time, Value::F64(value)) {
                    Err(full @ NotTaken::Full) => {
                        return Err(ApiError::new(ErrorCode::TooLarge, full.to_string()));
                    }
                    added => added.map_err(|error| error.to_string()),
                },
                None => Err(format!("timestamp {timestamp_ms} ms is out of range")),
            };
            if let Err(reason) = added {
                fault = Some(reason);
            }
        }
        if let Some(reason) = fault {
            left_out.add(number, &reason);
        }
    }
    Ok((sorter.end(), left_out))
}

fn malformed(error: &prost::DecodeError) -> ApiError {
    ApiError::new(ErrorCode::BadBody, error.to_string())
}

/// The next field of a message that has a length, and its bytes; other fields are passed over. `None` at the end.
///
/// Protocol Buffers, "Encoding": a key is a varint of field number and wire type, and so is a length.
fn next_field(rest: &mut Bytes) -> Result<Option<(usize, Bytes)>, ApiError> {
    const VARINT: usize = 0;
    const FIXED64: usize = 1;
    const LENGTH: usize = 2;
    const FIXED32: usize = 5;
    let varint = |rest: &mut Bytes| prost::decode_length_delimiter(rest).map_err(|error| malformed(&error));
    while !rest.is_empty() {
        let key = varint(rest)?;
        let bytes = match key & 7 {
            VARINT => {
                varint(rest)?;
                continue;
            }
            LENGTH => varint(rest)?,
            FIXED64 => 8,
            FIXED32 => 4,
            kind => {
                return Err(ApiError::new(
                    ErrorCode::BadBody,
                    format!("a field of the unknown wire type {kind}"),
                ));
            }
        };
        if bytes > rest.len() {
            return Err(ApiError::new(ErrorCode::BadBody, "the request ends in the middle of a field"));
        }
        let content = rest.split_to(bytes);
        if key & 7 == LENGTH {
            return Ok(Some((key >> 3, content)));
        }
    }
    Ok(None)
}

fn series_of(labels: Vec<Label>) -> Result<Series, String> {
    let (metric, labels): (Vec<_>, Vec<_>) = labels.into_iter().partition(|label| label.name == METRIC_LABEL);
    let mut metric = metric.into_iter();
    let (Some(metric), None) = (metric.next(), metric.next()) else {
        return Err("expected one label __name__".to_owned());
    };
    let mut sorted = BTreeMap::new();
    for Label { name, value } in labels {
        if let Some(before) = sorted.insert(name, value) {
            return Err(format!("a label stands twice, once with {before:?}"));
        }
    }
    Series::new(metric.value, sorted).map_err(|error| error.to_string())
}

/// The batches that a body becomes; none when it is refused.
pub(crate) fn records_of_remote_write(body: &[u8], body_bytes_max: u32) -> Vec<tidelog_record::Batch> {
    read(body, body_bytes_max).map(|(posted, _)| posted.batches).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_body(body: &[u8]) -> Result<(Posted, LeftOut), ApiError> {
        read(body, 8 * 1024 * 1024)
    }
    use proptest::prelude::*;
    use tidelog_record::Values;

    /// A message with these series, encoded by the library, in the form of the wire.
    fn body(series: &[TimeSeries]) -> Vec<u8> {
        #[derive(Clone, PartialEq, Message)]
        struct WriteRequest {
            #[prost(message, repeated, tag = "1")]
            series: Vec<TimeSeries>,
            #[prost(message, repeated, tag = "3")]
            metadata: Vec<Label>,
            #[prost(uint64, tag = "9")]
            number: u64,
            #[prost(fixed64, tag = "10")]
            eight_bytes: u64,
            #[prost(fixed32, tag = "11")]
            four_bytes: u32,
        }
        let metadata = vec![label("not", "ours")];
        let request =
            WriteRequest { series: series.to_vec(), metadata, number: 300, eight_bytes: 1, four_bytes: 2 };
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
    }

    fn label(name: &str, value: &str) -> Label {
        Label { name: name.to_owned(), value: value.to_owned() }
    }

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
        TimeSeries {
            labels: labels.iter().map(|(name, value)| label(name, value)).collect(),
            samples: samples
                .iter()
                .map(|(timestamp_ms, value)| Sample { value: *value, timestamp_ms: *timestamp_ms })
                .collect(),
            histograms: Vec::new(),
        }
    }

    fn all(posted: &Posted) -> Vec<(Series, i64, Value)> {
        let series = posted.batches.iter().flat_map(|batch| &batch.series);
        series
            .flat_map(|(series, points)| points.iter().map(|(t, v)| (series.clone(), *t, v.clone())))
            .collect()
    }

    #[test]
    fn series_become_points_and_what_no_point_can_hold_is_named_and_left_out() {
        let mut histogram = series(&[("__name__", "h")], &[(3, 3.0)]);
        histogram.histograms = vec![Bytes::from_static(b"\x08\x01")];
        let sent = [
            series(&[("__name__", "up"), ("job", "a"), ("empty", "")], &[(1, 0.5), (2, -1.0)]),
            series(&[("job", "nameless")], &[(1, 1.0)]),
            series(&[("__name__", "a.b")], &[(1, 1.0)]),
            series(&[("__name__", "up"), ("job", "a"), ("job", "b")], &[(1, 1.0)]),
            histogram,
            series(&[("__name__", "late")], &[(i64::MAX, 1.0), (7, 7.0)]),
        ];
        let (posted, left_out) = read_body(&body(&sent)).unwrap();
        let named = |metric: &str| Series::new(metric, [("", ""); 0]).unwrap();
        let up = Series::new("up", [("job", "a")]).unwrap();
        let expected = [
            (up.clone(), 1_000_000, Value::F64(0.5)),
            (up, 2_000_000, Value::F64(-1.0)),
            (named("h"), 3_000_000, Value::F64(3.0)),
            (named("late"), 7_000_000, Value::F64(7.0)),
        ];
        assert_eq!(all(&posted), expected);
        let refusal = left_out.refusal().unwrap().message;
        let parts: Vec<&str> = refusal.split("; ").collect();
        assert_eq!(parts.len(), 1 + 5, "{refusal}");
        assert!(refusal.starts_with("partial write: 5 series left out, the rest is stored"), "{refusal}");
        assert!(parts[5].contains("9223372036854775807 ms"), "{refusal}");
    }

    #[test]
    fn the_nan_that_ends_a_series_keeps_its_bits() {
        let stale = f64::from_bits(tidelog_query::promql::STALE_BITS);
        let (posted, _) = read_body(&body(&[series(&[("__name__", "up")], &[(1, stale)])])).unwrap();
        let record = posted.batches[0].encode().unwrap();
        let tidelog_record::Opened::Points(mut reader) = tidelog_record::BodyReader::open(&record).unwrap()
        else {
            panic!("points");
        };
        let mut entry = tidelog_record::Entry::default();
        assert!(reader.next(&mut entry).unwrap());
        let Values::F64(values) = &entry.values else { panic!("floats") };
        assert_eq!(values[0].to_bits(), tidelog_query::promql::STALE_BITS);
    }

    #[test]
    fn a_body_that_is_no_request_is_refused_whole() {
        let whole = snap::raw::Decoder::new()
            .decompress_vec(&body(&[series(&[("__name__", "up")], &[(1, 1.0)])]))
            .unwrap();
        for cut in 1..whole.len() {
            let body = snap::raw::Encoder::new().compress_vec(&whole[..cut]).unwrap();
            if let Ok((posted, left_out)) = read_body(&body) {
                assert!(
                    posted.points <= 1 && left_out == LeftOut::default(),
                    "cut between two fields at {cut}"
                );
            }
        }
        for bad in [&b"\x0f"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x05\x0a"] {
            let body = snap::raw::Encoder::new().compress_vec(bad).unwrap();
            assert_eq!(read_body(&body).unwrap_err().code, ErrorCode::BadBody, "{bad:?}");
        }
        assert_eq!(read_body(b"not snappy").unwrap_err().code, ErrorCode::BadBody);
        let long = series(&[("__name__", "up"), ("l", &"x".repeat(SERIES_BYTES_MAX))], &[]);
        assert_eq!(read_body(&body(&[long])).unwrap_err().code, ErrorCode::TooLarge);
    }

    /// The encoding has no sign for a zero.
    fn sent_float() -> impl Strategy<Value = f64> {
        any::<f64>().prop_map(|value| value + 0.0)
    }

    proptest! {
        #[test]
        fn every_sample_becomes_a_point(
            sent in prop::collection::vec((0u8..5, prop::collection::vec((0i64..1 << 42, sent_float()), 0..20)), 0..20),
        ) {
            let named = |number: &u8| Series::new("m", [("n", number.to_string())]).unwrap();
            let request: Vec<_> = sent.iter().map(|(number, samples)| series(&[("__name__", "m"), ("n", &number.to_string())], samples)).collect();
            let (posted, left_out) = read_body(&body(&request)).unwrap();
            prop_assert_eq!(left_out, LeftOut::default());
            let bits = |(series, time, value): (Series, i64, Value)| {
                let Value::F64(value) = value else { panic!("a float") };
                (series, time, value.to_bits())
            };
            let mut got: Vec<_> = all(&posted).into_iter().map(bits).collect();
            let mut expected: Vec<_> = sent.iter().flat_map(|(number, samples)| {
                samples.iter().map(move |(ms, value)| (named(number), ms * 1_000_000, value.to_bits()))
            }).collect();
            got.sort();
            expected.sort();
            prop_assert_eq!(got, expected);
        }
    }
}
