//! Records go out: ranges that peers pull, read ahead within the credit they gave (invariants 2, 9, 13).

use alloc::vec::Vec;

use tidelog_record::{Lsn, Record, StreamId};

use super::Replica;
use crate::disk::{DiskRequest, ReadFailure, Ticket};
use crate::event::{Fork, Violation};
use crate::limits::{
    DISK_READS_MAX, RECORD_COST_BYTES, RECORDS_PER_MESSAGE_MAX, REFUSALS_WAITING_MAX,
    SEND_QUEUE_MESSAGES_MAX, SERVE_STREAMS_PER_SESSION_MAX,
};
use crate::message::{Bodies, BodyBytes, Message, Pull, Records, StopReason};
use crate::peer::SessionId;
use crate::session::Serving;

impl Replica {
    pub(super) fn pulled(&mut self, id: SessionId, pull: Pull) -> Result<(), Violation> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        if !self.is_shared(session, &pull.stream.site) {
            return Err(Violation::NotGranted(pull.stream.site));
        }
        let known = self.streams.get(&pull.stream);
        let is_held = known.is_some_and(|known| known.holds_all(pull.after, pull.until));
        let was_told = session.told_above.get(&pull.stream).is_some_and(|told| pull.until <= told.most)
            || known.is_some_and(|known| pull.until <= known.most_held);
        let may_be_gone = was_told && session.data.len() < REFUSALS_WAITING_MAX;
        if pull.after >= pull.until || !is_held && !may_be_gone {
            return Err(Violation::Pull);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Pull { stream, after, chain, until } = pull;
        if !is_held {
            // It is not there any more, and the word of that crosses this one. What was asked for before it ends with it.
            session.serves.remove(&stream);
            session.turns.retain(|turn| *turn != stream);
            session.data.push_back(Message::Stopped { stream, reason: StopReason::Unreadable });
            self.sendable.insert(id);
            return Ok(());
        }
        let full = session.serves.len() >= SERVE_STREAMS_PER_SESSION_MAX;
        match session.serves.get_mut(&stream) {
            Some(serving) if serving.until == after => serving.until = until,
            Some(_) => return Err(Violation::Pull),
            None if full => return Err(Violation::Pull),
            None => {
                session.serves.insert(stream.clone(), Serving { after, check: chain, until, reading: None });
                session.turns.push_back(stream);
            }
        }
        self.want_reads(id);
        Ok(())
    }

    pub(super) fn credited(&mut self, id: SessionId, bytes: u32) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.credit = session.credit.saturating_add(i64::from(bytes));
        if session.credit > i64::from(u32::MAX) {
            return Err(Violation::Credit);
        }
        self.sendable.insert(id);
        self.want_reads(id);
        Ok(())
    }

    pub(super) fn stop_serving(&mut self, id: SessionId, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.serves.remove(&stream);
        session.turns.retain(|turn| *turn != stream);
        session
            .data
            .retain(|message| !matches!(message, Message::Records(records) if records.stream == stream));
        session.data_bytes = session.data.iter().map(cost_bytes).sum();
        session.data.push_back(Message::Stopped { stream, reason: StopReason::Cancelled });
        self.sendable.insert(id);
        self.want_reads(id);
    }

    /// Queues a session for a disk read.
    pub(super) fn want_reads(&mut self, id: SessionId) {
        let ready = self.sessions.get(&id).is_some_and(|session| {
            let ahead_bytes = session.data_bytes + session.reading * session.message_bytes;
            !session.turns.is_empty()
                && session.credit > 0
                && ahead_bytes < SEND_QUEUE_MESSAGES_MAX * session.message_bytes
        });
        if ready && !self.readers.contains(&id) {
            self.readers.push_back(id);
        }
    }

    /// The next work for the disk, until there is none.
    pub fn poll_disk(&mut self) -> Option<DiskRequest> {
        if let Some(request) = self.requests.pop_front() {
            return Some(request);
        }
        while self.reading.len() < DISK_READS_MAX {
            let id = self.readers.pop_front()?;
            let ticket = self.ticket();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let Some(stream) = session.next_turn() else { continue };
            let Some(serving) = session.serves.get_mut(&stream) else { continue };
            serving.reading = Some(ticket);
            let after = serving.after;
            let bytes_max = session.message_bytes;
            session.reading += 1;
            self.reading.insert(ticket, (id, stream.clone()));
            self.want_reads(id);
            return Some(DiskRequest::Read { ticket, stream, after, bytes_max });
        }
        None
    }

    pub(super) fn was_read(&mut self, ticket: Ticket, outcome: Result<Vec<Record>, ReadFailure>) {
        if let Some(id) = self.searching.remove(&ticket) {
            return self.middle_was_read(id, ticket, outcome);
        }
        if let Some(claim) = self.checking.remove(&ticket) {
            return self.claim_was_read(claim, outcome);
        }
        if let Some(branch) = self.copying.remove(&ticket) {
            return self.branch_was_read(&branch, ticket, outcome);
        }
        let Some((id, stream)) = self.reading.remove(&ticket) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.reading = session.reading.saturating_sub(1);
            self.queue_records(id, &stream, ticket, outcome);
        }
        self.want_reads(id);
    }

    fn queue_records(
        &mut self,
        id: SessionId,
        stream: &StreamId,
        ticket: Ticket,
        outcome: Result<Vec<Record>, ReadFailure>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(serving) = session.serves.get_mut(stream) else { return };
        if serving.reading.take() != Some(ticket) {
            return;
        }
        self.sendable.insert(id);
        let (stop, before) = match &outcome {
            Err(ReadFailure::Dropped { floor, before }) => (StopReason::Dropped(*floor), *before),
            _ => (StopReason::Unreadable, None),
        };
        let records = outcome.unwrap_or_default();
        let after = serving.after;
        let first = records.first().filter(|first| first.lsn.0.checked_sub(1) == Some(after.0));
        if let Some(claimed) = serving.check.take()
            && (first.is_some_and(|first| !first.follows(claimed))
                || before.is_some_and(|before| before != claimed))
        {
            let lsn = serving.after;
            let node = session.peer.node;
            session.serves.remove(stream);
            session.data.push_back(Message::Stopped { stream: stream.clone(), reason: StopReason::Forked });
            let fork = Fork { stream: stream.clone(), node, lsn, ours: None, theirs: Some(claimed) };
            self.halt(id, fork, true);
            return;
        }
        match message_of(stream, serving.after, serving.until, records, session.message_bytes) {
            None => {
                session.serves.remove(stream);
                session.data.push_back(Message::Stopped { stream: stream.clone(), reason: stop });
            }
            Some((last, message)) => {
                serving.after = last;
                if serving.after == serving.until {
                    session.serves.remove(stream);
                } else {
                    session.turns.push_back(stream.clone());
                }
                let message = Message::Records(message);
                session.data_bytes += cost_bytes(&message);
                session.data.push_back(message);
            }
        }
    }
}

/// As many of the records as one message takes, and the last LSN of them. `None` when they are not what was asked for.
fn message_of(
    stream: &StreamId,
    after: Lsn,
    until: Lsn,
    records: Vec<Record>,
    bytes_max: usize,
) -> Option<(Lsn, Records)> {
    let first = after.next()?;
    let mut last = after;
    let mut chain = None;
    let mut bytes = 0usize;
    let mut bodies = Vec::new();
    for record in records {
        if record.stream != *stream || last.next() != Some(record.lsn) {
            return None;
        }
        let cost = record.body.len() + RECORD_COST_BYTES;
        let full = bytes + cost > bytes_max || bodies.len() == RECORDS_PER_MESSAGE_MAX;
        if record.lsn > until || (full && !bodies.is_empty()) {
            break;
        }
        last = record.lsn;
        chain = Some(record.chain);
        bytes += cost;
        bodies.push(BodyBytes(record.body));
    }
    Some((last, Records { stream: stream.clone(), first, chain: chain?, bodies: Bodies(bodies) }))
}

/// What a queued message takes of the credit, in bytes.
pub(super) fn cost_bytes(message: &Message) -> usize {
    match message {
        Message::Records(records) => records.bodies.cost_bytes(),
        _ => 0,
    }
}
