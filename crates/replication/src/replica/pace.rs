//! When: what is sent next, announcements and their throttle, keepalives and the ends of patience.

use core::ops::Bound;
use core::time::Duration;

use super::Replica;
use super::serving::cost_bytes;
use crate::event::CloseReason;
use crate::limits::{
    ACKNOWLEDGE_INTERVAL_MS, ANNOUNCE_INTERVAL_MS, CONTROL_IN_FLIGHT_MESSAGES_MAX,
    DATA_IN_FLIGHT_MESSAGES_MAX, HELLO_TIMEOUT_MS, HOLD_STREAMS_MAX, KEEPALIVE_INTERVAL_MS,
    SILENCE_TIMEOUT_MS, STALL_TIMEOUT_MS,
};
use crate::message::{Held, Message};
use crate::peer::SessionId;
use crate::session::Session;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Replica {
    /// The next message to send, until there is none. Say [`Replica::transmitted`] for each once it is written: no
    /// session is given more than a few before that. Sessions take turns; control goes before data.
    pub fn poll_transmit(&mut self) -> Option<(SessionId, Message)> {
        if let Some(last_words) = self.parting.pop_front() {
            return Some(last_words);
        }
        loop {
            let after = (Bound::Excluded(self.last_sender), Bound::Unbounded);
            let id = *self.sendable.range(after).next().or_else(|| self.sendable.first())?;
            self.last_sender = id;
            if let Some(message) = self.next_message(id) {
                return Some((id, message));
            }
            self.sendable.remove(&id);
        }
    }

    fn next_message(&mut self, id: SessionId) -> Option<Message> {
        let session = self.sessions.get(&id)?;
        if session.in_flight >= CONTROL_IN_FLIGHT_MESSAGES_MAX {
            return None;
        }
        let now = self.now;
        let due = session.announce_due.is_some_and(|due| due <= now);
        let data_room = session.in_flight < DATA_IN_FLIGHT_MESSAGES_MAX;
        let message = if !session.control.is_empty() {
            self.sessions.get_mut(&id)?.control.pop_front()
        } else if let Some(hold) = due.then(|| self.announcement(id)).flatten() {
            Some(hold)
        } else if data_room {
            self.next_data(id)
        } else {
            None
        };
        let session = self.sessions.get_mut(&id)?;
        if let Some(message) = &message {
            session.in_flight += 1;
            session.flying.push_back((now, cost_bytes(message)));
            session.said_at = now;
        }
        message
    }

    fn next_data(&mut self, id: SessionId) -> Option<Message> {
        let session = self.sessions.get_mut(&id)?;
        let cost = cost_bytes(session.data.front()?);
        if cost > 0 && session.credit <= 0 {
            return None;
        }
        session.credit -= i64::try_from(cost).unwrap_or(i64::MAX);
        session.data_bytes = session.data_bytes.saturating_sub(cost);
        session.sent_bytes = session.sent_bytes.saturating_add(cost as u64);
        let message = session.data.pop_front();
        self.want_reads(id);
        message
    }

    /// News first, then acknowledgements, as many as one message takes; and right behind it what is held above gaps.
    fn announcement(&mut self, id: SessionId) -> Option<Message> {
        let above = self.next_above(id);
        let session = self.sessions.get_mut(&id)?;
        let mut streams = alloc::vec::Vec::new();
        for stream in &above {
            if session.fresh.remove(stream) | session.acknowledge.remove(stream) {
                streams.push(stream.clone());
            }
        }
        while streams.len() < HOLD_STREAMS_MAX {
            let Some(stream) = session.fresh.pop_first().or_else(|| session.acknowledge.pop_first()) else {
                break;
            };
            streams.push(stream);
        }
        session.announced_at = Some(self.now);
        session.announce_due = None;
        self.schedule_announcement(id);
        let held: alloc::vec::Vec<_> = streams.iter().filter_map(|stream| self.held_of(stream)).collect();
        let session = self.sessions.get_mut(&id)?;
        for Held { stream, head } in &held {
            session.told_head(stream, head.lsn);
        }
        let above = self.above_of(id, above);
        if held.is_empty() {
            return above;
        }
        let session = self.sessions.get_mut(&id)?;
        if let Some(above) = above {
            session.control.push_front(above);
        }
        Some(Message::Hold(held))
    }

    /// Sets when the session's peer is told next. The first news after a rest goes at once.
    pub(super) fn schedule_announcement(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let interval = if !session.fresh.is_empty() || !session.fresh_above.is_empty() {
            ms(ANNOUNCE_INTERVAL_MS)
        } else if !session.acknowledge.is_empty() {
            ms(ACKNOWLEDGE_INTERVAL_MS)
        } else {
            return;
        };
        let due = session.announced_at.map_or(self.now, |before| (before + interval).max(self.now));
        if session.announce_due.is_none_or(|already| due < already) {
            session.announce_due = Some(due);
            if due <= self.now {
                self.sendable.insert(id);
            } else {
                self.wake_by(due);
            }
        }
    }

    /// When [`Replica::handle_timeout`] wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.wake_at
    }

    /// Time has passed: announcements, keepalives, and sessions whose patience is at its end.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.tick(now);
        self.wake_at = None;
        if let Some(until) = self.paused_until {
            if until <= self.now {
                self.resume();
            } else {
                self.wake_by(until);
            }
        }
        self.look_at_floors();
        let ids: alloc::vec::Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if let Some(reason) = impatience(session, self.now) {
                self.close(id, reason);
                continue;
            }
            if session.announce_due.is_some_and(|due| due <= now) {
                self.sendable.insert(id);
            }
            // With messages still in flight the connection itself is busy, and a keepalive would only queue behind them.
            if session.said_at + ms(KEEPALIVE_INTERVAL_MS) <= self.now {
                if session.is_ready() && session.in_flight == 0 {
                    session.control.push_back(Message::Keepalive);
                    self.sendable.insert(id);
                }
                session.said_at = self.now;
            }
            self.look_at_deadlines_of(id);
        }
    }

    pub(super) fn look_at_deadlines_of(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let silent = session.heard_at + ms(SILENCE_TIMEOUT_MS);
        let keepalive = session.said_at + ms(KEEPALIVE_INTERVAL_MS);
        let hello = (!session.is_ready()).then(|| session.connected_at + ms(HELLO_TIMEOUT_MS));
        let stalled = (!session.pulls.is_empty()).then(|| session.progress_at + ms(STALL_TIMEOUT_MS));
        let announce = session.announce_due.filter(|due| *due > self.now);
        for due in [Some(silent), Some(keepalive), hello, stalled, announce].into_iter().flatten() {
            self.wake_by(due);
        }
    }

    pub(super) fn wake_by(&mut self, due: Duration) {
        self.wake_at = Some(self.wake_at.map_or(due, |already| already.min(due)));
    }
}

fn impatience(session: &Session, now: Duration) -> Option<CloseReason> {
    if !session.is_ready() && session.connected_at + ms(HELLO_TIMEOUT_MS) <= now {
        Some(CloseReason::NoHello)
    } else if session.heard_at + ms(SILENCE_TIMEOUT_MS) <= now {
        Some(CloseReason::Silent)
    } else if !session.pulls.is_empty() && session.progress_at + ms(STALL_TIMEOUT_MS) <= now {
        Some(CloseReason::Stalled)
    } else {
        None
    }
}
