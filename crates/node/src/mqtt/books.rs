//! The books of ingest: what was given to the log and not answered for, and which messages are known to be repeats, learned again from the
//! log at the start. How messages come, and what they say, is not known here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use tidelog_record::{Lsn, Relay, StreamId};
use tidelog_store::{AppendError, ReadError, Store};
use tokio::sync::mpsc;
use tracing::error;

use super::foreign::Delivery;
use super::ingest::IN_HAND_MAX;
use super::receipts::Arrival;
use super::recent::{Place, Recent};
use super::sparkplug::{self, Edges, Rebirths};

/// Records of each own stream that are read at the start to learn which were copied from where.
const LEARN_RECORDS_MAX: u64 = 16_384;

/// Most bytes of records read from the log at a time, while learning.
const LEARN_BYTES_MAX: usize = 256 * 1024;

/// Messages of other programs that are known again: twice what may be in hand when a node ends.
const DELIVERIES_MAX: usize = 2 * IN_HAND_MAX as usize;

/// What a record is made of, in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Another node's record.
    Node(Place),
    /// A message of another program, and which one of this process it is.
    Foreign(Delivery, u64),
}

/// What the log said about a copy.
pub(super) struct Answer {
    pub source: Source,
    pub bytes: usize,
    pub points: u64,
    pub result: Result<(), AppendError>,
}

/// The books of ingest. Those of appends outlive a session: an append that was asked for is answered after it too.
pub(super) struct Books {
    pub recent: Recent,
    pub deliveries: Deliveries,
    /// Copies that the log was given and did not answer for, with the messages of this session that wait for each.
    pub asked: HashMap<Source, Vec<Arrival>>,
    pub bytes: usize,
    /// Messages of other programs that were read.
    pub foreign: u64,
    pub edges: Edges,
    pub rebirths: Rebirths,
    /// Edge nodes that are to be asked for their births.
    pub unborn: Vec<sparkplug::Edge>,
    /// When the last message came, Unix nanoseconds.
    pub arrived_ns: i64,
    pub answers: mpsc::Receiver<Answer>,
    pub answer: mpsc::Sender<Answer>,
}

/// The messages of other programs of which records were made last.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    newest: VecDeque<Delivery>,
    held: HashSet<Delivery>,
}

impl Deliveries {
    pub fn hold(&self, delivery: &Delivery) -> bool {
        self.held.contains(delivery)
    }

    pub fn insert(&mut self, delivery: Delivery) {
        if !self.held.insert(delivery) {
            return;
        }
        self.newest.push_back(delivery);
        if self.newest.len() > DELIVERIES_MAX
            && let Some(oldest) = self.newest.pop_front()
        {
            self.held.remove(&oldest);
        }
    }
}

impl Books {
    /// Those of a node that has learned so much from its log.
    pub fn new((recent, deliveries): (Recent, Deliveries)) -> Self {
        let (answer, answers) = mpsc::channel(usize::from(IN_HAND_MAX));
        Self {
            recent,
            deliveries,
            asked: HashMap::new(),
            bytes: 0,
            foreign: 0,
            edges: Edges::default(),
            rebirths: Rebirths::default(),
            unborn: Vec::new(),
            arrived_ns: 0,
            answers,
            answer,
        }
    }

    /// When a message came, Unix nanoseconds: each at a time of its own, for the time may be all that tells its points from the last.
    pub fn arrived(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        self.arrived_ns = now_ns.max(self.arrived_ns.saturating_add(1));
        self.arrived_ns
    }
}

fn place_of(own: &StreamId, relay: &Relay) -> Place {
    let stream = StreamId { site: own.site.clone(), node: relay.node, run: relay.run };
    Place { stream: stream.key(), lsn: relay.lsn, first_point: relay.first_point }
}

/// Learns from the newest records of this node's own streams what they were copied from.
pub(super) async fn learn(store: &Store) -> Result<(Recent, Deliveries), ReadError> {
    let store = store.clone();
    let learned = tokio::task::spawn_blocking(move || {
        let (mut recent, mut deliveries) = <(Recent, Deliveries)>::default();
        for (stream, head, _) in store.vector() {
            if stream.node != store.node() {
                continue;
            }
            let mut after = Lsn(head.0.saturating_sub(LEARN_RECORDS_MAX));
            loop {
                let records = store.read(&stream, after, LEARN_BYTES_MAX)?;
                let Some(last) = records.last() else { break };
                after = last.lsn;
                for record in &records {
                    if let Ok(Some(relay)) = Relay::of_body(&record.body) {
                        match Delivery::of_relay(&relay) {
                            Some(delivery) => deliveries.insert(delivery),
                            None => recent.insert(&place_of(&stream, &relay)),
                        }
                    }
                }
            }
        }
        Ok((recent, deliveries))
    });
    match learned.await {
        Ok(learned) => learned,
        Err(error) => {
            error!(%error, "learning what was taken in before broke off");
            Ok(Default::default())
        }
    }
}
