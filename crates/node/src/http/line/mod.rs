//! `POST /api/v2/write` and `POST /write`: InfluxDB line protocol, as its clients and Telegraf send it.
//!
//! The answer is 204 when every line is durable, on this node or in the cloud as the client wants (invariant 2). A body with bad lines is a partial write, as in
//! InfluxDB: the good lines are stored, and the 400 that comes when they are durable names the first bad ones. A line without time
//! gets the time of the request's arrival: the node is its source then. The grammar is [`parse`]'s, [`quick`] reads its most common part, the names
//! of series are [`naming`]'s, those met before [`known`]'s, and the way to records is [`gather`]'s; how many bytes a body may become is decided here.

mod dialect;
mod gather;
mod known;
mod naming;
mod parse;
mod quick;

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flate2::read::MultiGzDecoder;
use tidelog_record::{BatchError, SiteName};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::level::{Level, Positions, Reserved, unconfirmed};
use super::once::{self, Name, Print};
use super::partial::Taken;
use super::write::{SMALL_BODY_BYTES_MAX, append, collect, durable};
use crate::context::NodeContext;
pub(super) use dialect::Dialect;
use dialect::Target;
use gather::{Full, Gather};
use parse::{BadLine, Line, LineFault, Lines};

/// How the counters name this way in.
const VIA: &str = "line";

/// Characters of a bad line that an answer repeats.
const BAD_LINE_CHARS_TOLD_MAX: usize = 80;

/// Records of one request that wait for the disk together.
const RECORDS_WAITING_MAX: usize = 2;

/// What the records of one body may take, as a multiple of the greatest body: long tags before many short fields become
/// many long series.
const RECORDS_PER_BODY_MAX: u64 = 8;

/// Size of the pieces in which a compressed body is expanded, in bytes. Memory is granted piece by piece.
const PIECE_BYTES: u32 = 64 * 1024;

/// Gathers that are kept from request to request, with the names they know.
const GATHERS_KEPT_MAX: usize = 4;

/// What the names known to one gather may take, as a part of the greatest body.
const KNOWN_PER_BODY: usize = 2;

/// What requests leave behind for the next ones: the names they met. Each request has a gather of its own while it is read.
#[derive(Clone, Debug)]
pub(super) struct Gathers {
    kept: Arc<Mutex<Vec<Gather>>>,
    known_bytes_max: usize,
}

impl Gathers {
    pub fn new(body_bytes_max: u32) -> Self {
        let known_bytes_max = usize::try_from(body_bytes_max).unwrap_or(usize::MAX) / KNOWN_PER_BODY;
        Self { kept: Arc::default(), known_bytes_max }
    }

    fn take(&self) -> Gather {
        // A gather is whole whenever it is here.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Gather::new(self.known_bytes_max))
    }

    fn keep(&self, gather: Gather) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < GATHERS_KEPT_MAX {
            kept.push(gather);
        }
    }
}

/// `POST /api/v2/write`.
pub(super) async fn write_v2(
    State(api): State<Api>,
    visitor: Visitor,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(Dialect::V2, &api, &visitor, &uri, &headers, body).await
}

/// `POST /write`.
pub(super) async fn write_v1(
    State(api): State<Api>,
    visitor: Visitor,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(Dialect::V1, &api, &visitor, &uri, &headers, body).await
}

async fn answer(
    dialect: Dialect,
    api: &Api,
    visitor: &Visitor,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let answered = async {
        let context = api.running()?;
        let target = Target::read(dialect, visitor, uri.query().unwrap_or_default(), &context.site)?;
        let gzip = is_gzip(headers)?;
        let name = Name::of(visitor, headers)?;
        let reserved = target.wanted.reserve(api, context)?;
        let (body, permit) = collect(api, headers, body).await?;
        let Some(name) = name else {
            return take_in(api, &target, reserved, gzip, body, permit).await;
        };
        let (again, print) = (api.clone(), Print::of(uri, headers, &body));
        let work = async move {
            let taken = take_in(&again, &target, reserved, gzip, body, permit).await;
            taken.unwrap_or_else(|error| refused(dialect, &again, &error))
        };
        once::answer(&api.once, &api.metrics, VIA, &context.tasks, (name, print), work).await
    };
    answered.await.unwrap_or_else(|error| refused(dialect, api, &error))
}

fn refused(dialect: Dialect, api: &Api, error: &ApiError) -> Response {
    api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc();
    error.answered(dialect.error_body(error))
}

/// Stores a body's lines, and answers when they are as durable as they are to be.
async fn take_in(
    api: &Api,
    target: &Target,
    reserved: Reserved,
    gzip: bool,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let context = api.running()?;
    let (taken, positions) =
        read_lines(api, context, &target.site, target.unit_ns, gzip, body, permit).await?;
    api.metrics.points_in.with_label_values(&[VIA]).inc_by(taken.points);
    // Who is refused a line is told so at once: there is nothing to wait for that would change it.
    if let Some(refusal) = taken.refusal() {
        return Err(refusal);
    }
    Ok(match reserved.reach(context, &positions).await {
        Level::Node | Level::Cloud => StatusCode::NO_CONTENT.into_response(),
        Level::Unconfirmed(known) => unconfirmed(taken.points, known),
    })
}

/// Stores the lines of a body that a device sent in a batch, and gives how many points they are.
///
/// # Errors
/// Nothing could be stored; or some lines are bad, and the others are stored.
pub(super) async fn store_batch(
    api: &Api,
    site: &SiteName,
    unit_ns: i64,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<(u64, Positions), ApiError> {
    let (taken, positions) = read_lines(api, api.running()?, site, unit_ns, false, body, permit).await?;
    taken.refusal().map_or(Ok((taken.points, positions)), Err)
}

/// Reads the lines of small bodies that came together. Gives what each came to, and the few records in which all good lines stand.
///
/// # Errors
/// Together they are too much.
pub(super) fn read_together<'b>(
    api: &Api,
    context: &NodeContext,
    unit_ns: i64,
    bodies: impl Iterator<Item = &'b [u8]>,
) -> Result<(Vec<Taken>, Vec<Vec<u8>>), ApiError> {
    let reading = Reading::now(api, context, unit_ns);
    let mut records = Vec::with_capacity(1);
    let mut gather = api.gathers.take();
    let taken = reading.read_all(bodies, &mut gather, |record| {
        records.push(record);
        true
    });
    api.gathers.keep(gather);
    Ok((taken?, records))
}

/// Reads a body's lines and stores them; returns when they are durable.
async fn read_lines(
    api: &Api,
    context: &NodeContext,
    site: &SiteName,
    unit_ns: i64,
    gzip: bool,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<(Taken, Positions), ApiError> {
    let reading = Reading::now(api, context, unit_ns);
    let (taken, positions) = if !gzip && body.len() <= SMALL_BODY_BYTES_MAX {
        let mut waiting = Vec::new();
        let mut gather = api.gathers.take();
        let taken = reading.read(&body, &mut gather, |record| {
            waiting.push(append(&context.store, site, record));
            true
        });
        api.gathers.keep(gather);
        drop((body, permit));
        let mut positions = Positions::default();
        for outcome in waiting {
            positions.add(durable(outcome).await?);
        }
        (taken?, positions)
    } else {
        read_beside(api, context, site, reading, gzip, body, permit).await?
    };
    api.metrics.lines_refused.inc_by(taken.bad_lines);
    Ok((taken, positions))
}

/// Reads a body on a thread of its own, which the disk may hold up, and appends its records as they come.
async fn read_beside(
    api: &Api,
    context: &NodeContext,
    site: &SiteName,
    reading: Reading,
    gzip: bool,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<(Taken, Positions), ApiError> {
    let (sender, records) = mpsc::channel(1);
    let memory = api.clone();
    // When an append is refused, the records' receiver goes, and the thread ends at the next one.
    let reader = tokio::task::spawn_blocking(move || {
        let mut permit = permit;
        let body = if gzip { expanded(&memory, &body, &mut permit)? } else { body };
        let mut gather = memory.gathers.take();
        let taken = reading.read(&body, &mut gather, |record| sender.blocking_send(record).is_ok());
        memory.gathers.keep(gather);
        taken
    });
    let positions = store(context, site, records).await?;
    let taken = reader.await.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))??;
    Ok((taken, positions))
}

/// Appends records as they come and returns when all are durable.
async fn store(
    context: &NodeContext,
    site: &SiteName,
    mut records: mpsc::Receiver<Vec<u8>>,
) -> Result<Positions, ApiError> {
    let mut positions = Positions::default();
    let mut waiting = VecDeque::with_capacity(RECORDS_WAITING_MAX);
    while let Some(record) = records.recv().await {
        if waiting.len() == RECORDS_WAITING_MAX
            && let Some(first) = waiting.pop_front()
        {
            positions.add(durable(first).await?);
        }
        waiting.push_back(append(&context.store, site, record));
    }
    for outcome in waiting {
        positions.add(durable(outcome).await?);
    }
    Ok(positions)
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    let Some(coding) = headers.get(header::CONTENT_ENCODING) else { return Ok(false) };
    match coding.to_str().unwrap_or("not text").trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Ok(true),
        "identity" | "" => Ok(false),
        other => {
            let message = format!("Content-Encoding {other:?}: expected gzip or identity");
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
        }
    }
}

/// The body without its compression: as long as a plain one may be, and its memory granted like a plain one's.
fn expanded(api: &Api, body: &[u8], permit: &mut OwnedSemaphorePermit) -> Result<Bytes, ApiError> {
    let most = api.limits.body_bytes_max;
    let mut out = Vec::new();
    let mut decoder = MultiGzDecoder::new(body);
    loop {
        permit.merge(api.body_room(PIECE_BYTES)?);
        let piece = decoder
            .by_ref()
            .take(u64::from(PIECE_BYTES))
            .read_to_end(&mut out)
            .map_err(|error| ApiError::new(ErrorCode::BadBody, format!("gzip: {error}")))?;
        if out.len() as u64 > u64::from(most) {
            let message = format!("the body is longer than {most} bytes when expanded");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        if piece == 0 {
            return Ok(Bytes::from(out));
        }
    }
}

/// How the lines of a request are to be read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    unit_ns: i64,
    arrived_ns: i64,
    authored_ms: i64,
    body_bytes_max: u32,
}

fn refuse(taken: &mut Taken, bad: &BadLine<'_>) {
    taken.refuse(|| {
        let text = String::from_utf8_lossy(bad.text);
        let mut shown: String = text.chars().take(BAD_LINE_CHARS_TOLD_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        format!("line {}: unable to parse {shown:?}: {}", bad.number, bad.fault)
    });
}

/// The records that a body's good lines become, at fixed times: to a node that has seen no name of them yet, and to one that has
/// just read the same.
pub(crate) fn records_of_lines(body: &[u8]) -> [Vec<Vec<u8>>; 2] {
    let reading = Reading { unit_ns: 1, arrived_ns: 1, authored_ms: 1, body_bytes_max: 8 * 1024 * 1024 };
    let mut gather = Gather::new(1024 * 1024);
    [(); 2].map(|()| {
        let mut records = Vec::new();
        let read = reading.read(body, &mut gather, |record| {
            records.push(record);
            true
        });
        // What was refused as a whole was told to nobody here.
        drop(read);
        records
    })
}

impl Reading {
    /// Of a body that has arrived.
    fn now(api: &Api, context: &NodeContext, unit_ns: i64) -> Self {
        let arrived_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self {
            unit_ns,
            arrived_ns: i64::try_from(arrived_ns).unwrap_or(i64::MAX),
            authored_ms: context.now_ms(),
            body_bytes_max: api.limits.body_bytes_max,
        }
    }

    /// Reads all lines of a body; `send` takes each full record and says whether anybody waits for more.
    fn read(
        self,
        body: &[u8],
        gather: &mut Gather,
        send: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<Taken, ApiError> {
        let taken = self.read_all(std::iter::once(body), gather, send)?;
        Ok(taken.into_iter().next().unwrap_or_default())
    }

    /// As [`Self::read`], of bodies one behind the other, which count as one where they are bounded.
    fn read_all<'b>(
        self,
        bodies: impl Iterator<Item = &'b [u8]>,
        gather: &mut Gather,
        mut send: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<Vec<Taken>, ApiError> {
        let mut bytes = 0;
        let mut close = |gather: &mut Gather| {
            let closed = gather
                .close(self.authored_ms)
                .map_err(|error: BatchError| ApiError::new(ErrorCode::TooLarge, error.to_string()))?;
            let Some(Full { body, name_bytes }) = closed else { return Ok(()) };
            // A name may take one byte in a record and its whole length in whatever reads it.
            bytes += (body.len() + name_bytes) as u64;
            if bytes > RECORDS_PER_BODY_MAX * u64::from(self.body_bytes_max) {
                let message = format!(
                    "the body's points take more than {RECORDS_PER_BODY_MAX} times {} bytes: post it in parts",
                    self.body_bytes_max
                );
                return Err(ApiError::new(ErrorCode::TooLarge, message));
            }
            if send(body) { Ok(()) } else { Err(ApiError::new(ErrorCode::Unavailable, "given up")) }
        };
        gather.begin();
        let taken = bodies.map(|body| self.read_lines(body, gather, &mut close)).collect::<Result<_, _>>()?;
        close(gather)?;
        Ok(taken)
    }

    /// Reads the lines of one body into a gather; `close` takes the record under way when it is full.
    fn read_lines(
        self,
        body: &[u8],
        gather: &mut Gather,
        close: &mut impl FnMut(&mut Gather) -> Result<(), ApiError>,
    ) -> Result<Taken, ApiError> {
        let (mut lines, mut line, mut taken) = (Lines::of(body), Line::default(), Taken::default());
        loop {
            while let Some((behind, points)) = gather.add_plain(lines.rest(), |stated| self.time(stated).ok())
            {
                lines.go_on(behind);
                taken.lines += 1;
                taken.points += points as u64;
                if gather.is_full() {
                    close(gather)?;
                }
            }
            let added = match lines.next_into(&mut line) {
                None => break,
                Some(Ok(())) => self.time(line.timestamp).and_then(|at| gather.add(&line, at)),
                Some(Err(bad)) => {
                    refuse(&mut taken, &bad);
                    continue;
                }
            };
            match added {
                Ok(()) => {
                    taken.lines += 1;
                    taken.points += line.fields.len() as u64;
                }
                Err(fault) => refuse(&mut taken, &lines.bad(fault)),
            }
            // Refused lines leave names behind, too.
            if gather.is_full() {
                close(gather)?;
            }
        }
        Ok(taken)
    }

    fn time(self, stated: Option<i64>) -> Result<i64, LineFault> {
        match stated {
            Some(time) => time.checked_mul(self.unit_ns).ok_or(LineFault::TimestampRange(time)),
            None => Ok(self.arrived_ns - self.arrived_ns.rem_euclid(self.unit_ns)),
        }
    }
}
