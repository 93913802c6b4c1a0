//! What the machine asks of the disk and what it is told. It never waits: a request has a ticket, the reply brings
//! it back.

use alloc::vec::Vec;

use tidelog_record::{ChainHash, Lsn, Record, StreamId};

use crate::stream::Head;

/// Names one request until its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Work for the disk. Adoptions of one stream must reach the store in the order in which they are polled.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskRequest {
    /// Read records of a stream behind `after`, in order, without a gap: at least one, then up to `bytes_max` of
    /// bodies, each of which counts [`RECORD_COST_BYTES`](crate::RECORD_COST_BYTES) more. What is read beyond that is read again.
    Read {
        /// Goes back with the reply.
        ticket: Ticket,
        /// The stream.
        stream: StreamId,
        /// The LSN before the first that is wanted.
        after: Lsn,
        /// Most bytes of bodies, beyond the first record.
        bytes_max: usize,
    },
    /// Make these records of one stream durable; they are contiguous and their chain is verified.
    Adopt {
        /// Goes back with the reply.
        ticket: Ticket,
        /// The records.
        records: Vec<Record>,
    },
    /// Note durably that the records of a stream behind `after` up to `to` were never held here and are gone elsewhere, so that it goes
    /// on behind them. In order with the adoptions of the stream; answered as one of them.
    Skip {
        /// Goes back with the reply.
        ticket: Ticket,
        /// The stream.
        stream: StreamId,
        /// The end of what is held.
        after: Head,
        /// The last record that is passed over, and the chain hash there.
        to: Head,
    },
}

/// Why records could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// Not held, or rotten: this node cannot serve them.
    Unreadable,
    /// Policy dropped them, or a peer's did before they came here.
    Dropped {
        /// The last record of those that are gone without one between that is here, and the chain hash there.
        floor: Head,
        /// The chain hash at the record before the first that was wanted, where it is still known.
        before: Option<ChainHash>,
    },
}

/// Why records could not be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptFailure {
    /// The store holds other bytes there.
    Fork,
    /// The store takes nothing now (full, or failed): try again after a pause.
    Refused,
}

/// The disk's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskReply {
    /// To [`DiskRequest::Read`].
    Read {
        /// The request's ticket.
        ticket: Ticket,
        /// The records.
        outcome: Result<Vec<Record>, ReadFailure>,
    },
    /// To [`DiskRequest::Adopt`] and [`DiskRequest::Skip`]: all of it is durable, or not.
    Adopted {
        /// The request's ticket.
        ticket: Ticket,
        /// Whether it is durable.
        outcome: Result<(), AdoptFailure>,
    },
}
