//! The disk's side: reads on threads of their own, adoptions one after the other in the order in which they were asked for.
//! Nothing here runs on the threads that serve connections.

use tidelog_record::{Lsn, Record, StreamId};
use tidelog_replication::{AdoptFailure, DiskReply, Head, RECORD_COST_BYTES, ReadFailure, Ticket};
use tidelog_store::{AdoptError, READ_RECORD_COST_BYTES, Store};
use tokio::sync::mpsc;

// What the store reads is what a message takes, so that nothing is read twice.
const _: () = assert!(READ_RECORD_COST_BYTES == RECORD_COST_BYTES);

/// Work for the store, of one stream in this order.
pub(super) struct Adoption {
    pub ticket: Ticket,
    pub what: Adopted,
}

/// What a stream grows by.
pub(super) enum Adopted {
    Records(Vec<Record>),
    /// What peers dropped before it came here.
    Skip {
        stream: StreamId,
        after: Head,
        to: Head,
    },
}

/// Adopts until the channel is closed. Both channels are bounded by the credit that peers were given.
pub(super) fn adopt_all(
    store: &Store,
    mut adoptions: mpsc::UnboundedReceiver<Adoption>,
    replies: &mpsc::UnboundedSender<DiskReply>,
) {
    while let Some(Adoption { ticket, what }) = adoptions.blocking_recv() {
        let replies = replies.clone();
        let done = move |outcome: Result<(), AdoptError>| {
            let outcome = outcome.map_err(|error| {
                tracing::warn!(%error, "the store did not take what peers have of a stream");
                match error {
                    AdoptError::Fork { .. } | AdoptError::BrokenChain { .. } => AdoptFailure::Fork,
                    AdoptError::Refused(_) | AdoptError::Gap { .. } | AdoptError::Read(_) => {
                        AdoptFailure::Refused
                    }
                }
            });
            // Nobody waits for it once the node is ending.
            drop(replies.send(DiskReply::Adopted { ticket, outcome }));
        };
        match what {
            Adopted::Records(records) => store.adopt(records, move |outcome| done(outcome.map(drop))),
            Adopted::Skip { stream, after, to } => {
                store.skip(&stream, (after.lsn, after.chain), (to.lsn, to.chain), done);
            }
        }
    }
}

/// Reads for one request.
pub(super) fn read(
    store: &Store,
    ticket: Ticket,
    stream: &StreamId,
    after: Lsn,
    bytes_max: usize,
) -> DiskReply {
    let outcome = store.read(stream, after, bytes_max).map_err(|error| {
        tracing::warn!(%stream, %after, %error, "cannot read records for a peer");
        ReadFailure::Unreadable
    });
    let outcome = match outcome {
        Ok(records) if records.is_empty() => Err(absent(store, stream, after)),
        outcome => outcome,
    };
    DiskReply::Read { ticket, outcome }
}

/// Why there is nothing to read.
fn absent(store: &Store, stream: &StreamId, after: Lsn) -> ReadFailure {
    let Some((lsn, chain)) = store.dropped_behind(stream, after) else { return ReadFailure::Unreadable };
    // Where it cannot be read it is not compared.
    let before = store.chain_at(stream, after).ok().flatten();
    ReadFailure::Dropped { floor: Head { lsn, chain }, before }
}
