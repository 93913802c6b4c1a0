//! Batches of one socket on their way into the log. Small ones that came together become one record, so that many cost little more
//! than one; each is answered for itself all the same. Where one of them keeps the others from being one record, each goes its own way.

use axum::body::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tidelog_record::uplink::{CommandId, CommandState};
use tidelog_record::{Batch, SiteName};

use super::super::Api;
use super::super::error::ApiError;
use super::super::level::{Level, Positions, Reserved, Wanted};
use super::super::line;
use super::super::partial::Taken;
use super::super::posted::{BodyForm, Posted};
use super::super::write::{Outcome, SMALL_BODY_BYTES_MAX, append, durable, take_in};
use super::asked::TextForm;
use super::batch::Stored;
use crate::context::NodeContext;
use crate::reserved::reserved_in;

/// Where the batches of a socket go, and how they are to be answered.
#[derive(Clone)]
pub(super) struct Way {
    pub api: Api,
    pub site: SiteName,
    pub level: Option<Wanted>,
}

/// How a batch's body is to be read: as the URL says, or as MessagePack.
pub(super) type Form = Option<TextForm>;

/// A batch as it came.
#[derive(Debug)]
pub(super) struct Came {
    pub number: u64,
    pub body: Bytes,
}

impl Came {
    /// Whether it is short enough to be read at once, together with others.
    pub fn is_small(&self) -> bool {
        self.body.len() <= SMALL_BODY_BYTES_MAX
    }
}

/// What a device is answered to.
#[derive(Debug)]
pub(super) enum Of {
    /// A batch, by its number, and what became of it.
    Batch(u64, Result<Stored, ApiError>),
    /// What it said of a command, and where that stands now.
    Word(CommandId, Result<CommandState, ApiError>),
}

/// Stores batches of one form in their order. What becomes of them is known when they are as durable as they are to be, or the time for
/// that is over.
pub(super) fn store(
    way: &Way,
    context: &NodeContext,
    form: &Form,
    batches: Vec<Came>,
) -> BoxFuture<'static, Vec<Of>> {
    if !batches.iter().all(Came::is_small) {
        return each(way.clone(), form.clone(), batches).boxed();
    }
    // Whoever cannot be answered as it wants leaves nothing behind.
    let reserved = match way.level.map(|wanted| wanted.reserve(&way.api, context)).transpose() {
        Ok(reserved) => reserved,
        Err(error) => {
            let refused = batches.into_iter().map(|batch| Of::Batch(batch.number, Err(error.clone())));
            return std::future::ready(refused.collect()).boxed();
        }
    };
    let Some(Read { records, outcomes }) = read(way, context, form, &batches) else {
        return each(way.clone(), form.clone(), batches).boxed();
    };
    let waiting: Vec<_> =
        records.into_iter().map(|record| append(&context.store, &way.site, record)).collect();
    let numbers = batches.into_iter().map(|batch| batch.number);
    let numbered: Vec<_> = numbers.zip(outcomes).collect();
    match reserved {
        None => finish(waiting).map(|stands| answered(numbered, stands, None)).boxed(),
        Some(reserved) => {
            let context = context.clone();
            let finished = async move {
                let stands = finish(waiting).await;
                let known = match &stands {
                    Ok(positions) => Some(known(reserved, &context, positions).await),
                    Err(_) => None,
                };
                answered(numbered, stands, known)
            };
            finished.boxed()
        }
    }
}

/// What batches are when they have been read together.
struct Read {
    /// Together they hold what is to be stored of all batches.
    records: Vec<Vec<u8>>,
    /// The points of each batch, or why it is refused, in their order.
    outcomes: Vec<Result<u64, ApiError>>,
}

/// Reads small batches into as few records as hold them; `None` where they cannot stand together.
fn read(way: &Way, context: &NodeContext, form: &Form, batches: &[Came]) -> Option<Read> {
    let bodies = batches.iter().map(|batch| &*batch.body);
    let most = way.api.limits.body_bytes_max;
    let of_lines = |taken: &Taken| taken.refusal().map_or(Ok(taken.points), Err);
    let mut bad_lines = 0;
    let read = match form {
        Some(TextForm::Lines(unit_ns)) => {
            let (taken, records) = line::read_together(&way.api, context, *unit_ns, bodies).ok()?;
            bad_lines = taken.iter().map(|taken| taken.bad_lines).sum();
            Read { records, outcomes: taken.iter().map(of_lines).collect() }
        }
        Some(TextForm::Table(columns)) => {
            merged(context, bodies.map(|body| columns.read(body, most)), |taken, _| {
                bad_lines += taken.bad_lines;
                of_lines(taken)
            })?
        }
        Some(TextForm::Json) | None => {
            let form = if form.is_some() { BodyForm::Json } else { BodyForm::MessagePack };
            let read = bodies.map(|body| Ok((form.read(body, most)?, ())));
            merged(context, read, |(), points| Ok(points as u64))?
        }
    };
    // Of a record with points that only the node may write, all are refused.
    if read.records.iter().any(|record| reserved_in(record).is_some()) {
        return None;
    }
    way.api.metrics.lines_refused.inc_by(bad_lines);
    Some(read)
}

/// The points of all bodies that could be read as one record, and what each body comes to.
fn merged<T>(
    context: &NodeContext,
    bodies: impl Iterator<Item = Result<(Posted, T), ApiError>>,
    mut outcome: impl FnMut(&T, usize) -> Result<u64, ApiError>,
) -> Option<Read> {
    let mut together = Batch { authored_ms: context.now_ms(), ..Batch::default() };
    let outcomes = bodies
        .map(|body| {
            let (posted, said) = body?;
            together.series.extend(posted.batches.into_iter().flat_map(|batch| batch.series));
            outcome(&said, posted.points)
        })
        .collect();
    let records = if together.series.is_empty() { Vec::new() } else { vec![together.encode().ok()?] };
    Some(Read { records, outcomes })
}

/// Waits until all records are durable.
async fn finish(waiting: Vec<Outcome>) -> Result<Positions, ApiError> {
    let mut positions = Positions::default();
    for outcome in waiting {
        positions.add(durable(outcome).await?);
    }
    Ok(positions)
}

/// What each batch is answered. Where a record was refused all of them are: any may have stood in it.
fn answered(
    numbered: Vec<(u64, Result<u64, ApiError>)>,
    stands: Result<Positions, ApiError>,
    known: Option<Value>,
) -> Vec<Of> {
    let refused = stands.err();
    let each = |(number, outcome): (u64, Result<u64, ApiError>)| {
        let outcome = match &refused {
            Some(error) => outcome.and(Err(error.clone())),
            None => outcome.map(|points| Stored { points, known: known.clone() }),
        };
        Of::Batch(number, outcome)
    };
    numbered.into_iter().map(each).collect()
}

/// Stores batches one after the other.
async fn each(way: Way, form: Form, batches: Vec<Came>) -> Vec<Of> {
    let mut settled = Vec::with_capacity(batches.len());
    for Came { number, body } in batches {
        settled.push(Of::Batch(number, store_alone(way.clone(), form.clone(), body).await));
    }
    settled
}

async fn store_alone(Way { api, site, level }: Way, form: Form, body: Bytes) -> Result<Stored, ApiError> {
    let context = api.running()?;
    let reserved = level.map(|wanted| wanted.reserve(&api, context)).transpose()?;
    let permit = api.body_room_in_time(u32::try_from(body.len()).unwrap_or(u32::MAX)).await?;
    let most = api.limits.body_bytes_max;
    let (points, positions) = match form {
        Some(TextForm::Lines(unit_ns)) => line::store_batch(&api, &site, unit_ns, body, permit).await?,
        Some(TextForm::Table(columns)) => {
            let (bytes, read) = (body.len(), move || columns.read(&body, most));
            let (points, positions, lines) = take_in(context, site, bytes, read).await?;
            drop(permit);
            api.metrics.lines_refused.inc_by(lines.bad_lines);
            if let Some(refusal) = lines.refusal() {
                return Err(refusal);
            }
            (points as u64, positions)
        }
        Some(TextForm::Json) | None => {
            let form = if form.is_some() { BodyForm::Json } else { BodyForm::MessagePack };
            let (bytes, read) = (body.len(), move || Ok((form.read(&body, most)?, ())));
            let (points, positions, ()) = take_in(context, site, bytes, read).await?;
            drop(permit);
            (points as u64, positions)
        }
    };
    let known = match reserved {
        Some(reserved) => Some(known(reserved, context, &positions).await),
        None => None,
    };
    Ok(Stored { points, known })
}

/// What is known of where batches are durable, as a post would be told.
async fn known(reserved: Reserved, context: &NodeContext, positions: &Positions) -> Value {
    match reserved.reach(context, positions).await {
        Level::Node => json!({"ack": "node"}),
        Level::Cloud => json!({"ack": "cloud"}),
        Level::Unconfirmed(known) => known,
    }
}
