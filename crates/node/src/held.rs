//! What other nodes are known to hold of this node's streams: for people, how many peers hold a stream, and for whoever
//! acknowledges, up to where the cloud holds this node's own records. Peering writes it; who waits is woken by what is written, and is
//! forgotten when it stops waiting. It knows neither sockets nor why somebody asks.
//!
//! What was confirmed is remembered until the process ends, also when the peer that said so is gone: it said that it is on its disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_record::{Lsn, StreamId};
use tokio::sync::oneshot;

/// Who can say that a record is in the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// Nobody: this node replicates with no one.
    #[default]
    Nowhere,
    /// Peers, while they are there.
    Peers,
    /// This node, whose own certificate says that it is of the cloud.
    Here,
}

/// Who else holds a stream, at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBy {
    /// Peers in session that hold all of it that this node holds.
    pub peers: usize,
    /// How far the peers of the cloud that are in session told to hold it.
    pub cloud_lsn: Lsn,
}

/// What others hold. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct HeldElsewhere(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cloud: Cloud,
    /// Sessions with peers of the cloud.
    cloud_sessions: usize,
    held_by: BTreeMap<StreamId, HeldBy>,
    /// This node's own streams, as far as anything was confirmed of them or is waited for.
    own: BTreeMap<StreamId, Confirmed>,
    next_waiter: u64,
}

#[derive(Debug, Default)]
struct Confirmed {
    upto: Lsn,
    /// In order of what they wait for.
    waiting: BTreeMap<(Lsn, u64), oneshot::Sender<()>>,
}

impl HeldElsewhere {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says who can confirm. Whoever waits on a node that comes to be of the cloud has what it waited for.
    pub fn open(&self, cloud: Cloud) {
        let mut state = self.lock();
        state.cloud = cloud;
        if cloud == Cloud::Here {
            for own in state.own.values_mut() {
                for (_, waiting) in std::mem::take(&mut own.waiting) {
                    waiting.send(()).unwrap_or_default();
                }
            }
        }
    }

    /// Who can confirm.
    #[must_use]
    pub fn cloud(&self) -> Cloud {
        self.lock().cloud
    }

    /// Sessions with peers of the cloud, at the last look.
    #[must_use]
    pub fn cloud_sessions(&self) -> usize {
        self.lock().cloud_sessions
    }

    /// Puts down a look at all sessions.
    pub fn looked(&self, cloud_sessions: usize, held_by: BTreeMap<StreamId, HeldBy>) {
        let mut state = self.lock();
        state.cloud_sessions = cloud_sessions;
        state.held_by = held_by;
    }

    /// Who else holds a stream, at the last look.
    #[must_use]
    pub fn held_by(&self, stream: &StreamId) -> HeldBy {
        self.lock().held_by.get(stream).copied().unwrap_or_default()
    }

    /// Up to where the cloud holds a stream of this node.
    #[must_use]
    pub fn confirmed(&self, stream: &StreamId) -> Lsn {
        self.lock().own.get(stream).map_or(Lsn::ZERO, |own| own.upto)
    }

    /// The cloud holds a stream of this node up to `upto`, the same bytes. Wakes those who waited for that; never goes back.
    pub fn confirm(&self, stream: &StreamId, upto: Lsn) {
        let mut state = self.lock();
        if !state.own.contains_key(stream) {
            state.own.insert(stream.clone(), Confirmed::default());
        }
        let Some(own) = state.own.get_mut(stream) else { return };
        own.upto = own.upto.max(upto);
        while let Some(first) = own.waiting.first_entry().filter(|first| first.key().0 <= upto) {
            // Who stopped waiting in this moment needs no word.
            first.remove().send(()).unwrap_or_default();
        }
    }

    /// Waits until the cloud holds a stream of this node up to `upto`. Dropped, it leaves nothing behind.
    pub fn wait(&self, stream: &StreamId, upto: Lsn) -> Waiting {
        let mut state = self.lock();
        let here = state.cloud == Cloud::Here;
        state.next_waiter += 1;
        let key = (upto, state.next_waiter);
        let (told, word) = oneshot::channel();
        let own = state.own.entry(stream.clone()).or_default();
        let word = if here || own.upto >= upto {
            None
        } else {
            own.waiting.insert(key, told);
            Some(word)
        };
        drop(state);
        Waiting { held: self.clone(), stream: stream.clone(), key, word }
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.lock().own.values().map(|own| own.waiting.len()).sum()
    }
}

/// Somebody who waits for a confirmation.
#[derive(Debug)]
pub struct Waiting {
    held: HeldElsewhere,
    stream: StreamId,
    key: (Lsn, u64),
    word: Option<oneshot::Receiver<()>>,
}

impl Waiting {
    /// Returns once it is confirmed.
    pub async fn confirmed(&mut self) {
        if let Some(word) = &mut self.word {
            // The sender is kept as long as this waits, so nothing but the word ends it.
            word.await.unwrap_or_default();
            self.word = None;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(own) = self.held.lock().own.get_mut(&self.stream) {
            own.waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    use tidelog_record::{NodeId, Run};

    fn stream(site: &str) -> StreamId {
        StreamId { site: site.parse().unwrap(), node: NodeId([1; 16]), run: Run(1) }
    }

    fn is_done(waiting: &mut Waiting) -> bool {
        let mut future = std::pin::pin!(waiting.confirmed());
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_node_of_the_cloud_waits_for_nobody() {
        let held = HeldElsewhere::default();
        let mut waiting = held.wait(&stream("a"), Lsn(1));
        assert!(!is_done(&mut waiting));
        held.open(Cloud::Here);
        assert!(is_done(&mut waiting));
        assert!(is_done(&mut held.wait(&stream("a"), Lsn(1))));
        assert_eq!(held.waiters(), 0);
    }

    proptest! {
        #[test]
        fn exactly_those_are_told_whose_records_are_confirmed_and_none_is_left_behind(
            steps in proptest::collection::vec((0u8..4, 0usize..2, 1u64..20), 1..80)
        ) {
            let held = HeldElsewhere::default();
            let streams = [stream("a"), stream("b")];
            let mut upto = [0u64; 2];
            let mut waiting: Vec<(usize, u64, Waiting)> = Vec::new();
            for (what, of, lsn) in steps {
                match what {
                    0 | 1 => waiting.push((of, lsn, held.wait(&streams[of], Lsn(lsn)))),
                    2 => {
                        held.confirm(&streams[of], Lsn(lsn));
                        upto[of] = upto[of].max(lsn);
                    }
                    _ => drop(waiting.pop()),
                }
                for (of, lsn, waiting) in &mut waiting {
                    prop_assert_eq!(is_done(waiting), upto[*of] >= *lsn);
                }
                let open = waiting.iter().filter(|(of, lsn, _)| upto[*of] < *lsn).count();
                prop_assert_eq!(held.waiters(), open);
                prop_assert_eq!(held.confirmed(&streams[of]), Lsn(upto[of]));
            }
            waiting.clear();
            prop_assert_eq!(held.waiters(), 0);
        }
    }
}
