//! A stream with two branches heals. Each side of a session looks by halves for the last record that both share, and writes its own branch
//! again from there as a stream of the same author under a run that the branch's first chain hash names: whoever holds the branch writes
//! the same stream, byte for byte, and passes it on as any other. So both branches come to be held everywhere, nothing is taken back,
//! and nobody needs the author for it (invariants 1 and 10). It never looks into a body.

use alloc::vec::Vec;

use tidelog_record::{ChainHash, Lsn, Record, Run, StreamId};

use super::Replica;
use super::pulling::Adopting;
use crate::disk::{DiskRequest, ReadFailure, Ticket};
use crate::event::{Event, Fork, Violation};
use crate::limits::{BRANCHES_MAX, FORK_CHECKS_MAX, MESSAGE_BYTES_MAX, RECORD_COST_BYTES};
use crate::message::{Message, Pull};
use crate::peer::SessionId;
use crate::session::{Search, Step};
use crate::stream::{Head, Stream};

/// A stream and the last LSN that its branches share.
pub(super) type BranchId = (StreamId, Lsn);

/// What a peer says of a fork.
#[derive(Debug)]
pub(super) struct Claim {
    session: SessionId,
    stream: StreamId,
    lsn: Lsn,
    chain: ChainHash,
}

/// A branch that is written again.
#[derive(Debug, Default)]
pub(super) struct Branch {
    /// Named by the first record, once that is read.
    into: Option<StreamId>,
    /// How far the branch was followed, as it stands in `into`.
    at: Head,
    reading: Option<Ticket>,
    /// Up to here `into` is known to be this branch, where it goes on beyond it.
    compared: Lsn,
    /// What is being read is `into`, to compare.
    comparing: bool,
}

impl Search {
    /// Whether the peer's answer of this stream belongs to the search.
    pub fn is_asked(&self, stream: &StreamId) -> bool {
        self.step == Step::Asked && self.stream == *stream
    }

    fn middle(&self) -> Lsn {
        Lsn(self.low.0 + (self.high.0 - self.low.0) / 2)
    }
}

impl Branch {
    /// The branch has branches itself, and another one came first: this one is named by a record of its own.
    fn rename(&mut self) {
        if let Some(into) = &mut self.into {
            into.run = run_of(self.at.chain);
        }
        self.at = Head::default();
        self.compared = Lsn::ZERO;
    }
}

fn run_of(chain: ChainHash) -> Run {
    let [a, b, c, d, e, f, g, h, ..] = chain.0;
    Run(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

impl Replica {
    /// The peer says that it holds another branch: compared with the disk before anything is made of it.
    pub(super) fn told_of_fork(
        &mut self,
        id: SessionId,
        stream: StreamId,
        lsn: Lsn,
        chain: ChainHash,
    ) -> Result<(), Violation> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        if !self.is_shared(session, &stream.site) {
            return Err(Violation::NotGranted(stream.site));
        }
        let held = self.streams.get(&stream).map_or(Lsn::ZERO, |known| known.held.lsn);
        let Some(before) = lsn.0.checked_sub(1).filter(|_| lsn <= held) else {
            return Err(Violation::Lsn(lsn));
        };
        if session.halted.contains(&stream) || session.checks >= FORK_CHECKS_MAX {
            return Ok(());
        }
        let ticket = self.ticket();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.checks += 1;
        }
        let (after, of) = (Lsn(before), stream.clone());
        self.checking.insert(ticket, Claim { session: id, stream, lsn, chain });
        self.requests.push_back(DiskRequest::Read { ticket, stream: of, after, bytes_max: 0 });
        Ok(())
    }

    pub(super) fn claim_was_read(&mut self, claim: Claim, outcome: Result<Vec<Record>, ReadFailure>) {
        let Claim { session: id, stream, lsn, chain } = claim;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.checks = session.checks.saturating_sub(1);
        let node = session.peer.node;
        let held = outcome.unwrap_or_default().into_iter().next().filter(|record| record.lsn == lsn);
        if let Some(ours) = held.map(|record| record.chain).filter(|ours| *ours != chain) {
            self.halt(id, Fork { stream, node, lsn, ours: Some(ours), theirs: Some(chain) }, true);
        }
    }

    /// Begins the next search of a session, if none is under way and both sides have the record in which they differ on their disks.
    pub(super) fn search_on(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.search.is_some() || session.forked.is_empty() {
            return;
        }
        let streams = &self.streams;
        let ready = session.forked.iter().position(|(stream, high)| {
            let ours = streams.get(stream).is_some_and(|known| {
                known.held.lsn >= *high && known.pull.is_none_or(|pull| pull.session != id)
            });
            let theirs = session.remote.get(stream).is_some_and(|head| head.lsn >= *high);
            ours && theirs && !session.abandoned.contains_key(stream)
        });
        let Some((stream, high)) = ready.and_then(|at| session.forked.remove(at)) else { return };
        session.search = Some(Search { stream, low: Lsn::ZERO, high, step: Step::Asked });
        self.halve(id);
    }

    /// The next step of a search, or its end.
    fn halve(&mut self, id: SessionId) {
        let ticket = self.ticket();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(search) = &mut session.search else { return };
        if search.low.next() < Some(search.high) {
            search.step = Step::Reading(ticket);
            let after = Lsn(search.middle().0.saturating_sub(1));
            let read = DiskRequest::Read { ticket, stream: search.stream.clone(), after, bytes_max: 0 };
            self.searching.insert(ticket, id);
            self.requests.push_back(read);
            return;
        }
        let (stream, after) = (search.stream.clone(), search.low);
        session.search = None;
        self.branch(stream, after);
        self.search_on(id);
    }

    pub(super) fn middle_was_read(
        &mut self,
        id: SessionId,
        ticket: Ticket,
        outcome: Result<Vec<Record>, ReadFailure>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(search) = session.search.as_mut().filter(|search| search.step == Step::Reading(ticket))
        else {
            return;
        };
        let middle = search.middle();
        let record = outcome.unwrap_or_default().into_iter().next();
        match (record.filter(|record| record.lsn == middle), middle.next()) {
            (Some(record), Some(until)) => {
                search.step = Step::Asked;
                let pull =
                    Pull { stream: search.stream.clone(), after: middle, chain: Some(record.chain), until };
                session.control.push_back(Message::Pull(pull));
                self.sendable.insert(id);
            }
            _ => self.give_up_search(id),
        }
    }

    /// The peer went on from the middle.
    pub(super) fn is_same(&mut self, id: SessionId) {
        if let Some(search) = self.sessions.get_mut(&id).and_then(|session| session.search.as_mut()) {
            search.low = search.middle();
            self.halve(id);
        }
    }

    /// The peer's chain hash in the middle is another.
    pub(super) fn is_other(&mut self, id: SessionId) {
        if let Some(search) = self.sessions.get_mut(&id).and_then(|session| session.search.as_mut()) {
            search.high = search.middle();
            self.halve(id);
        }
    }

    /// The place cannot be found: it is not readable any more, here or there.
    pub(super) fn give_up_search(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.search = None;
        }
        self.search_on(id);
    }

    fn branch(&mut self, stream: StreamId, after: Lsn) {
        let branch = (stream, after);
        if !self.branches.contains_key(&branch) && self.branches.len() < BRANCHES_MAX {
            self.branches.insert(branch, Branch::default());
        }
        self.copy_on();
    }

    /// Reads on in each branch that has more than was written again.
    pub(super) fn copy_on(&mut self) {
        if self.branches.is_empty() || self.paused_until.is_some() {
            return;
        }
        let mut wanted = Vec::new();
        for ((stream, after), branch) in &mut self.branches {
            if branch.reading.is_some() {
                continue;
            }
            if let Some(into) = branch.into.as_ref().and_then(|into| self.streams.get(into)) {
                // Others bring it too; and what the disk refused is followed again from the start.
                if into.received.lsn < branch.at.lsn {
                    branch.at = Head::default();
                }
                if into.received.lsn == branch.at.lsn && (into.pull.is_some() || into.adopting > 0) {
                    continue;
                }
            }
            let held = self.streams.get(stream).map_or(0, |known| known.held.lsn.0);
            let from = Lsn(after.0.saturating_add(branch.at.lsn.0));
            branch.comparing = false;
            if from.0 < held {
                wanted.push(((stream.clone(), *after), stream.clone(), from, MESSAGE_BYTES_MAX));
            } else if let Some(into) = &branch.into
                && branch.compared < branch.at.lsn
                && self.streams.get(into).is_some_and(|known| known.held.lsn > branch.at.lsn)
            {
                branch.comparing = true;
                let before = Lsn(branch.at.lsn.0.saturating_sub(1));
                wanted.push(((stream.clone(), *after), into.clone(), before, 0));
            }
        }
        for (branch, stream, after, bytes_max) in wanted {
            let ticket = self.ticket();
            if let Some(found) = self.branches.get_mut(&branch) {
                found.reading = Some(ticket);
            }
            self.copying.insert(ticket, branch);
            self.requests.push_back(DiskRequest::Read { ticket, stream, after, bytes_max });
        }
    }

    pub(super) fn branch_was_read(
        &mut self,
        id: &BranchId,
        ticket: Ticket,
        outcome: Result<Vec<Record>, ReadFailure>,
    ) {
        let (stream, after) = id;
        let Some(branch) = self.branches.get_mut(id).filter(|branch| branch.reading == Some(ticket)) else {
            return;
        };
        branch.reading = None;
        let records = outcome.unwrap_or_default();
        if core::mem::take(&mut branch.comparing) {
            match records.first() {
                Some(theirs) if theirs.lsn == branch.at.lsn && theirs.chain != branch.at.chain => {
                    branch.rename();
                }
                _ => branch.compared = branch.at.lsn,
            }
            return self.copy_on();
        }
        let due = Lsn(after.0.saturating_add(branch.at.lsn.0)).next();
        let Some(first) = records.first().filter(|first| Some(first.lsn) == due) else {
            // What cannot be read is not asked for again until the next start.
            self.branches.remove(id);
            return;
        };
        if branch.into.is_none() {
            let into = StreamId { run: run_of(first.chain), ..stream.clone() };
            self.events.push_back(Event::Branched {
                stream: stream.clone(),
                after: *after,
                into: into.clone(),
            });
            branch.into = Some(into);
        }
        let Some(into) = branch.into.clone() else { return };
        let before = branch.at;
        let known = self.streams.entry(into.clone()).or_insert_with(|| Stream::new(&into, Head::default()));
        let mut at = before;
        let mut again = Vec::with_capacity(records.len());
        for record in records {
            let Some(lsn) = at.lsn.next() else { break };
            at = Head { lsn, chain: at.chain.after(&known.key, lsn, &record.body) };
            again.push(Record { stream: into.clone(), lsn, chain: at.chain, body: record.body });
            if at.lsn == known.received.lsn {
                break;
            }
        }
        if at.lsn == known.received.lsn && at.chain != known.received.chain {
            branch.at = at;
            branch.rename();
        } else if known.received == before && known.pull.is_none() && known.adopting == 0 && !known.failed {
            branch.at = at;
            known.received = at;
            known.adopting += 1;
            let cost_bytes = again.iter().map(|record| record.body.len() + RECORD_COST_BYTES).sum();
            let ticket = self.ticket();
            self.adopting.insert(ticket, Adopting { session: None, stream: into, head: at, cost_bytes });
            self.requests.push_back(DiskRequest::Adopt { ticket, records: again });
        } else if at.lsn <= known.received.lsn {
            branch.at = at;
        }
        self.copy_on();
    }
}
