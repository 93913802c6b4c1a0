//! What the bodies that clients post and the tokens that they show become, as functions of bytes alone: for fuzz targets, which neither open a socket nor keep a
//! store. No part of the interface.

use axum::http::{HeaderMap, HeaderValue, header};
use tidelog_record::Batch;

use crate::door::{Token, of_headers, of_influx_query};
use crate::http::untrusted::{
    BodyForm, batches_of_table, records_of_lines as of_lines, records_of_remote_write as of_remote_write,
};

/// Longest body that is tried, in bytes.
const BODY_BYTES_MAX: u32 = 8 * 1024 * 1024;

fn records(form: BodyForm, body: &[u8]) -> Vec<Vec<u8>> {
    encoded(form.read(body, BODY_BYTES_MAX).map(|posted| posted.batches).unwrap_or_default())
}

fn encoded(batches: Vec<Batch>) -> Vec<Vec<u8>> {
    // A batch that was made of posted points fits a record.
    batches.iter().map(Batch::encode).filter_map(Result::ok).collect()
}

/// The records that points in JSON become; none when they are refused.
#[must_use]
pub fn records_of_json(body: &[u8]) -> Vec<Vec<u8>> {
    records(BodyForm::Json, body)
}

/// The records that a request of Prometheus's remote write becomes; none when it is refused.
#[must_use]
pub fn records_of_remote_write(body: &[u8]) -> Vec<Vec<u8>> {
    encoded(of_remote_write(body, BODY_BYTES_MAX))
}

/// The records that points in MessagePack become; none when they are refused.
#[must_use]
pub fn records_of_msgpack(body: &[u8]) -> Vec<Vec<u8>> {
    records(BodyForm::MessagePack, body)
}

/// The records that a table in CSV becomes, bad lines left out; none when it is refused.
#[must_use]
pub fn records_of_table(body: &[u8]) -> Vec<Vec<u8>> {
    encoded(batches_of_table(body, BODY_BYTES_MAX))
}

/// The records that lines of InfluxDB's line protocol become, bad lines left out: read by a node that sees their names for the first time,
/// and again.
#[must_use]
pub fn records_of_lines(body: &[u8]) -> [Vec<Vec<u8>>; 2] {
    of_lines(body)
}

/// The tokens that are found in the value of a request's `Authorization` and in its query, written out.
#[must_use]
pub fn tokens_of_request(authorization: &[u8], query: &str) -> [Option<String>; 2] {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(authorization) {
        headers.insert(header::AUTHORIZATION, value);
    }
    let found = [of_headers(&headers), of_influx_query(query)];
    found.map(|token| token.ok().flatten().as_ref().map(Token::reveal))
}
