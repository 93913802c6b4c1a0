//! Hellos: which version is spoken, which of several sessions with one node stays, and whether two lives of a node are at work. It looks
//! at no stream beyond telling of what is shared.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use tidelog_record::StreamId;

use super::Replica;
use crate::event::{CloseReason, Event, Violation};
use crate::limits::{
    INSTANCE_NODES_MAX, INSTANCES_PER_NODE_MAX, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, SIMULTANEOUS_DIAL_MS,
};
use crate::message::Hello;
use crate::peer::SessionId;

/// The lives of a node, as its hellos tell.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// The latest last.
    seen: VecDeque<u64>,
    /// One came back after another: more than one is at work.
    are_many: bool,
}

impl Replica {
    pub(super) fn hello(&mut self, id: SessionId, hello: &Hello) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if hello.node != session.peer.node {
            return Err(Violation::WrongNode(hello.node));
        }
        if hello.node == self.options.node {
            if hello.instance != self.options.instance {
                self.events.push_back(Event::Cloned { node: hello.node });
            }
            return Err(Violation::Itself);
        }
        let version = PROTOCOL_VERSION.min(hello.version_max);
        if version < PROTOCOL_VERSION_MIN || version < hello.version_min {
            return Err(Violation::Version { theirs_min: hello.version_min, theirs_max: hello.version_max });
        }
        session.version = Some(version);
        session.instance = Some(hello.instance);
        session.credit = i64::from(hello.credit_bytes);
        session.progress_at = self.now;
        let node = session.peer.node;
        self.audience.clear();
        if !self.settle_place(id, hello) {
            return Ok(());
        }
        self.events.push_back(Event::Ready { session: id, node, version });
        let shared: Vec<StreamId> = match self.sessions.get(&id) {
            Some(session) => self
                .vector()
                .filter(|(stream, _)| self.is_shared(session, &stream.site))
                .map(|(stream, _)| stream.clone())
                .collect(),
            None => Vec::new(),
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.fresh.extend(shared);
        }
        self.tell_all_above(id);
        self.schedule_announcement(id);
        self.look_at_deadlines_of(id);
        Ok(())
    }

    /// A session that said hello ends the older ones with the same life of the node, and those of lives that seem to be over. A life
    /// that comes back after another one was there is no restart: both are at work. Whether the session stays itself.
    fn settle_place(&mut self, id: SessionId, hello: &Hello) -> bool {
        let Hello { node, instance, .. } = *hello;
        let known = self.instances.contains_key(&node);
        if !known && self.instances.len() >= INSTANCE_NODES_MAX {
            self.instances.pop_first();
        }
        let lives = self.instances.entry(node).or_default();
        let returned = lives.seen.contains(&instance) && lives.seen.back() != Some(&instance);
        lives.seen.retain(|seen| *seen != instance);
        lives.seen.push_back(instance);
        if lives.seen.len() > INSTANCES_PER_NODE_MAX {
            lives.seen.pop_front();
        }
        lives.are_many |= returned;
        let are_many = lives.are_many;
        if returned {
            self.events.push_back(Event::Cloned { node });
        }
        let Some(this) = self.sessions.get(&id) else { return false };
        let (dialled, connected_at) = (this.peer.dialled, this.connected_at);
        let by_smaller = |dialled: bool| dialled == (self.options.node < node);
        let mut over = Vec::new();
        for (other, session) in &self.sessions {
            let same_life = session.instance == Some(instance);
            if *other == id || session.peer.node != node || !(same_life || session.is_ready() && !are_many) {
                continue;
            }
            let apart = connected_at.abs_diff(session.connected_at);
            let at_once = same_life
                && session.peer.dialled != dialled
                && apart < Duration::from_millis(SIMULTANEOUS_DIAL_MS);
            let other_stays = if at_once {
                by_smaller(session.peer.dialled)
            } else {
                same_life && (session.connected_at, *other) > (connected_at, id)
            };
            over.push(if other_stays { id } else { *other });
        }
        for session in over {
            self.close(session, CloseReason::Replaced);
        }
        self.sessions.contains_key(&id)
    }
}
