//! The machine on its stand, and the words that a test puts in its peer's mouth.

use std::time::Duration;

use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, SiteName, StreamId};
use tidelog_replication::*;

pub const US: NodeId = NodeId([5; 16]);
pub const RUN: Run = Run(1);
pub const ONE: SessionId = SessionId(1);
pub const TWO: SessionId = SessionId(2);
pub const WINDOW: u32 = 1 << 20;

pub fn peer_node(session: SessionId) -> NodeId {
    NodeId([u8::try_from(session.0).unwrap() + 10; 16])
}

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

pub fn stream(site_name: &str, author: u8) -> StreamId {
    StreamId { site: site(site_name), node: NodeId([author; 16]), run: RUN }
}

/// Records 1 to `count` of a stream; `branch` decides the bytes from LSN `fork` on.
pub fn chain(stream: &StreamId, count: u64, fork: u64, branch: u8) -> Vec<Record> {
    let mut before = ChainHash::GENESIS;
    let mut record = |lsn: u64| {
        let body = vec![if lsn >= fork { branch } else { 0 }; 10];
        before = before.after(&stream.key(), Lsn(lsn), &body);
        Record { stream: stream.clone(), lsn: Lsn(lsn), chain: before, body }
    };
    (1..=count).map(&mut record).collect()
}

pub fn head(records: &[Record]) -> Head {
    records.last().map_or(Head::default(), |last| Head { lsn: last.lsn, chain: last.chain })
}

pub fn hold(stream: &StreamId, head: Head) -> Message {
    Message::Hold(vec![Held { stream: stream.clone(), head }])
}

pub fn records(records: &[Record]) -> Message {
    Message::Records(Records {
        stream: records[0].stream.clone(),
        first: records[0].lsn,
        chain: records.last().unwrap().chain,
        bodies: Bodies(records.iter().map(|record| BodyBytes(record.body.clone())).collect()),
    })
}

pub struct Stand {
    pub replica: Replica,
    pub now: Duration,
}

impl Stand {
    pub fn new(vector: Vec<(StreamId, Head)>) -> Self {
        Self { replica: Replica::new(Options::new(US, RUN, Sites::All, 1), vector), now: Duration::ZERO }
    }

    pub fn connect(&mut self, session: SessionId, node: NodeId, sites: Sites, dialled: bool) {
        self.replica.connected(self.now, session, Peer { node, sites, dialled });
    }

    /// A session with both hellos said and what came of them taken away.
    pub fn ready(&mut self, session: SessionId) {
        self.connect(session, peer_node(session), Sites::All, true);
        self.hear(session, hello(session)).unwrap();
        self.said();
        self.events();
    }

    pub fn hear(&mut self, session: SessionId, message: Message) -> Result<(), Violation> {
        self.replica.handle_message(self.now, session, message)
    }

    /// Everything said, each message written at once.
    pub fn said(&mut self) -> Vec<(SessionId, Message)> {
        let mut said = Vec::new();
        while let Some((session, message)) = self.replica.poll_transmit() {
            self.replica.transmitted(self.now, session);
            said.push((session, message));
        }
        said
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.replica.poll_event()).collect()
    }

    /// Time passes in the steps that the machine asks for; what it said meanwhile.
    pub fn wait(&mut self, milliseconds: u64) -> Vec<(SessionId, Message)> {
        let end = self.now + ms(milliseconds);
        let mut said = self.said();
        while let Some(due) = self.replica.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.replica.handle_timeout(self.now);
            said.extend(self.said());
        }
        self.now = end;
        said
    }

    pub fn pulls(&mut self) -> Vec<(SessionId, Lsn, Lsn)> {
        let pull = |(session, message)| match message {
            Message::Pull(pull) => Some((session, pull.after, pull.until)),
            _ => None,
        };
        self.said().into_iter().filter_map(pull).collect()
    }

    /// Adopts everything that waits for the disk.
    pub fn disk(&mut self, outcome: Result<(), AdoptFailure>) -> usize {
        let mut records_seen = 0;
        while let Some(request) = self.replica.poll_disk() {
            if let DiskRequest::Adopt { ticket, records } = request {
                records_seen += records.len();
                self.replica.handle_disk(self.now, DiskReply::Adopted { ticket, outcome });
            }
        }
        records_seen
    }

    /// What is to be passed over, from where to where; answered with `outcome`.
    pub fn skips(&mut self, outcome: Result<(), AdoptFailure>) -> Vec<(Head, Head)> {
        let mut skips = Vec::new();
        while let Some(request) = self.replica.poll_disk() {
            if let DiskRequest::Skip { ticket, after, to, .. } = request {
                skips.push((after, to));
                self.replica.handle_disk(self.now, DiskReply::Adopted { ticket, outcome });
            }
        }
        skips
    }

    pub fn closed_for(&mut self) -> Option<CloseReason> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        })
    }
}

pub fn hello(session: SessionId) -> Message {
    Message::Hello(Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        node: peer_node(session),
        credit_bytes: WINDOW,
        instance: session.0,
    })
}

pub fn fork_of(events: &[Event]) -> Option<&Fork> {
    events.iter().find_map(|event| if let Event::Fork(fork) = event { Some(fork) } else { None })
}
