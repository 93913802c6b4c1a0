//! One machine against a peer played by hand: what it says, what it refuses, when it loses patience.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, SiteName, StreamId};
use tidelog_replication::*;

const US: NodeId = NodeId([5; 16]);
const RUN: Run = Run(1);
const ONE: SessionId = SessionId(1);
const TWO: SessionId = SessionId(2);
const WINDOW: u32 = 1 << 20;

fn peer_node(session: SessionId) -> NodeId {
    NodeId([u8::try_from(session.0).unwrap() + 10; 16])
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn stream(site_name: &str, author: u8) -> StreamId {
    StreamId { site: site(site_name), node: NodeId([author; 16]), run: RUN }
}

/// Records 1 to `count` of a stream; `branch` decides the bytes from LSN `fork` on.
fn chain(stream: &StreamId, count: u64, fork: u64, branch: u8) -> Vec<Record> {
    let mut before = ChainHash::GENESIS;
    let mut record = |lsn: u64| {
        let body = vec![if lsn >= fork { branch } else { 0 }; 10];
        before = before.after(&stream.key(), Lsn(lsn), &body);
        Record { stream: stream.clone(), lsn: Lsn(lsn), chain: before, body }
    };
    (1..=count).map(&mut record).collect()
}

fn head(records: &[Record]) -> Head {
    records.last().map_or(Head::default(), |last| Head { lsn: last.lsn, chain: last.chain })
}

fn hold(stream: &StreamId, head: Head) -> Message {
    Message::Hold(vec![Held { stream: stream.clone(), head }])
}

fn records(records: &[Record]) -> Message {
    Message::Records(Records {
        stream: records[0].stream.clone(),
        first: records[0].lsn,
        chain: records.last().unwrap().chain,
        bodies: Bodies(records.iter().map(|record| BodyBytes(record.body.clone())).collect()),
    })
}

struct Stand {
    replica: Replica,
    now: Duration,
}

impl Stand {
    fn new(vector: Vec<(StreamId, Head)>) -> Self {
        Self { replica: Replica::new(Options::new(US, RUN, Sites::All), vector), now: Duration::ZERO }
    }

    fn connect(&mut self, session: SessionId, node: NodeId, sites: Sites, dialled: bool) {
        self.replica.connected(self.now, session, Peer { node, sites, dialled });
    }

    /// A session with both hellos said and what came of them taken away.
    fn ready(&mut self, session: SessionId) {
        self.connect(session, peer_node(session), Sites::All, true);
        self.hear(session, hello(session)).unwrap();
        self.said();
        self.events();
    }

    fn hear(&mut self, session: SessionId, message: Message) -> Result<(), Violation> {
        self.replica.handle_message(self.now, session, message)
    }

    /// Everything said, each message written at once.
    fn said(&mut self) -> Vec<(SessionId, Message)> {
        let mut said = Vec::new();
        while let Some((session, message)) = self.replica.poll_transmit() {
            self.replica.transmitted(self.now, session);
            said.push((session, message));
        }
        said
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.replica.poll_event()).collect()
    }

    /// Time passes in the steps that the machine asks for; what it said meanwhile.
    fn wait(&mut self, milliseconds: u64) -> Vec<(SessionId, Message)> {
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

    fn pulls(&mut self) -> Vec<(SessionId, Lsn, Lsn)> {
        let pull = |(session, message)| match message {
            Message::Pull(pull) => Some((session, pull.after, pull.until)),
            _ => None,
        };
        self.said().into_iter().filter_map(pull).collect()
    }

    /// Adopts everything that waits for the disk.
    fn disk(&mut self, outcome: Result<(), AdoptFailure>) -> usize {
        let mut records_seen = 0;
        while let Some(request) = self.replica.poll_disk() {
            if let DiskRequest::Adopt { ticket, records } = request {
                records_seen += records.len();
                self.replica.handle_disk(self.now, DiskReply::Adopted { ticket, outcome });
            }
        }
        records_seen
    }

    fn closed_for(&mut self) -> Option<CloseReason> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        })
    }
}

fn hello(session: SessionId) -> Message {
    Message::Hello(Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        node: peer_node(session),
        credit_bytes: WINDOW,
    })
}

#[test]
fn neighbouring_versions_agree_and_others_are_refused() {
    let cases = [
        (PROTOCOL_VERSION, PROTOCOL_VERSION, Some(PROTOCOL_VERSION)),
        (PROTOCOL_VERSION, PROTOCOL_VERSION + 1, Some(PROTOCOL_VERSION)),
        (0, PROTOCOL_VERSION, Some(PROTOCOL_VERSION)),
        (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2, None),
        (0, PROTOCOL_VERSION_MIN - 1, None),
    ];
    for (version_min, version_max, agreed) in cases {
        let mut stand = Stand::new(vec![]);
        stand.connect(ONE, peer_node(ONE), Sites::All, true);
        let hello = Hello { version_min, version_max, node: peer_node(ONE), credit_bytes: 1 };
        let outcome = stand.hear(ONE, Message::Hello(hello));
        let expected = match agreed {
            Some(_) => Ok(()),
            None => Err(Violation::Version { theirs_min: version_min, theirs_max: version_max }),
        };
        assert_eq!(outcome, expected);
        let ready = stand.events().into_iter().find_map(|event| match event {
            Event::Ready { version, .. } => Some(version),
            _ => None,
        });
        assert_eq!(ready, agreed);
    }
}

#[test]
fn a_session_begins_with_one_hello_of_the_node_that_the_certificate_names() {
    let mut stand = Stand::new(vec![]);
    stand.connect(ONE, peer_node(ONE), Sites::All, true);
    assert_eq!(stand.hear(ONE, Message::Keepalive), Err(Violation::Hello));
    assert_eq!(stand.closed_for(), Some(CloseReason::Violation(Violation::Hello)));
    let last = stand.said().pop().unwrap();
    assert!(matches!(last, (ONE, Message::Close(_))), "{last:?}");

    stand.connect(TWO, peer_node(ONE), Sites::All, true);
    assert_eq!(stand.hear(TWO, hello(TWO)), Err(Violation::WrongNode(peer_node(TWO))));

    stand.ready(SessionId(3));
    assert_eq!(stand.hear(SessionId(3), hello(SessionId(3))), Err(Violation::Hello));

    stand.connect(SessionId(4), US, Sites::All, true);
    stand.events();
    assert_eq!(stand.hear(SessionId(4), Message::Keepalive), Ok(()), "a closed session is not listened to");
}

#[test]
fn a_peer_may_neither_tell_nor_pull_what_it_is_not_granted() {
    let (mine, other) = (stream("granted", 9), stream("other", 9));
    let held = chain(&other, 3, 99, 0);
    for message in [
        hold(&other, head(&held)),
        Message::Pull(Pull { stream: other.clone(), after: Lsn(0), chain: None, until: Lsn(3) }),
    ] {
        let mut stand =
            Stand::new(vec![(other.clone(), head(&held)), (mine.clone(), head(&chain(&mine, 2, 99, 0)))]);
        stand.connect(ONE, peer_node(ONE), Sites::Only([site("granted")].into()), false);
        stand.hear(ONE, hello(ONE)).unwrap();
        let told: BTreeSet<StreamId> = stand
            .said()
            .into_iter()
            .filter_map(|(_, message)| if let Message::Hold(held) = message { Some(held) } else { None })
            .flatten()
            .map(|held| held.stream)
            .collect();
        assert_eq!(told, [mine.clone()].into(), "nothing of the other site is told");
        assert_eq!(stand.hear(ONE, message), Err(Violation::NotGranted(site("other"))));
    }
}

#[test]
fn nobody_writes_this_nodes_own_stream() {
    let own = StreamId { site: site("s"), node: US, run: RUN };
    let held = chain(&own, 2, 99, 0);
    let claimed = chain(&own, 5, 99, 0);
    let mut stand = Stand::new(vec![(own.clone(), head(&held))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&own, head(&claimed))).unwrap();
    assert_eq!(stand.pulls(), []);
    assert!(matches!(
        stand.events().as_slice(),
        [Event::OwnStreamAhead { claimed: Lsn(5), written: Lsn(2), .. }]
    ));
    assert_eq!(stand.hear(ONE, records(&claimed[2..])), Err(Violation::Unasked));
    assert_eq!(stand.disk(Ok(())), 0);

    // Also when nothing of it was written here yet.
    let unknown = StreamId { site: site("t"), ..own };
    stand.ready(TWO);
    stand.hear(TWO, hold(&unknown, Head { lsn: Lsn(7), chain: ChainHash([1; 16]) })).unwrap();
    assert_eq!(stand.pulls(), []);
    assert!(matches!(stand.events().as_slice(), [Event::OwnStreamAhead { claimed: Lsn(7), .. }]));
}

#[test]
fn an_lsn_that_cannot_be_is_refused() {
    for lsn in [0, u64::MAX] {
        let mut stand = Stand::new(vec![]);
        stand.ready(ONE);
        let claim = Head { lsn: Lsn(lsn), chain: ChainHash([1; 16]) };
        assert_eq!(stand.hear(ONE, hold(&stream("s", 9), claim)), Err(Violation::Lsn(Lsn(lsn))));
    }
}

#[test]
fn a_peer_that_tells_of_too_many_streams_is_refused() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    let one = Head { lsn: Lsn(1), chain: ChainHash([1; 16]) };
    let many = u64::try_from(STREAMS_PER_PEER_MAX).unwrap();
    let held = |run| Held { stream: StreamId { run: Run(run), ..stream("s", 9) }, head: one };
    let mut outcome = Ok(());
    for run in 0..=many {
        assert_eq!(outcome, Ok(()), "run {run}");
        outcome = stand.hear(ONE, Message::Hold(vec![held(run)]));
    }
    assert_eq!(outcome, Err(Violation::TooManyStreams));
    assert_eq!(stand.replica.vector().count(), 0);
}

#[test]
fn records_are_taken_only_as_they_were_asked_for() {
    let s = stream("s", 9);
    let all = chain(&s, 9, 99, 0);
    let cases: [(&str, Message); 4] = [
        ("of a stream never asked for", records(&chain(&stream("t", 9), 3, 99, 0))),
        ("with a gap", records(&all[1..3])),
        ("beyond what was asked", records(&all)),
        ("none", {
            let mut empty = records(&all[..1]);
            if let Message::Records(records) = &mut empty {
                records.bodies.0.clear();
            }
            empty
        }),
    ];
    for (what, message) in cases {
        let mut stand = Stand::new(vec![]);
        stand.ready(ONE);
        stand.hear(ONE, hold(&s, head(&all[..5]))).unwrap();
        assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(5))]);
        assert_eq!(stand.hear(ONE, message), Err(Violation::Unasked), "{what}");
        assert_eq!(stand.disk(Ok(())), 0);
    }
}

#[test]
fn more_records_than_the_credit_are_a_violation() {
    let s = stream("s", 9);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    let body = vec![0u8; MESSAGE_BYTES_MAX];
    stand.hear(ONE, hold(&s, Head { lsn: Lsn(1000), chain: ChainHash([1; 16]) })).unwrap();
    let mut at = Head::default();
    let mut taken = 0usize;
    let outcome = loop {
        let lsn = at.lsn.next().unwrap();
        at = Head { lsn, chain: at.chain.after(&s.key(), lsn, &body) };
        let message = Message::Records(Records {
            stream: s.clone(),
            first: lsn,
            chain: at.chain,
            bodies: Bodies(vec![BodyBytes(body.clone())]),
        });
        match stand.hear(ONE, message) {
            Ok(()) => taken += body.len(),
            Err(violation) => break violation,
        }
    };
    assert_eq!(outcome, Violation::Credit);
    assert!(taken <= WINDOW_BYTES_MAX + MESSAGE_BYTES_MAX, "{taken}");
}

#[test]
fn credit_comes_back_as_records_become_durable_and_never_runs_dry() {
    let s = stream("s", 9);
    let all = chain(&s, 3000, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    let mut given = 0u64;
    for part in all.chunks(30) {
        stand.hear(ONE, records(part)).unwrap();
        stand.disk(Ok(()));
        for (_, message) in stand.said() {
            if let Message::Credit(bytes) = message {
                given += u64::from(bytes);
            }
        }
    }
    let cost = 3000 * (10 + RECORD_COST_BYTES as u64);
    assert!(given <= cost && cost - given < (WINDOW_BYTES_MAX / 4) as u64, "{given} of {cost}");
}

#[test]
fn a_stream_is_pulled_from_one_peer_and_goes_on_with_another_when_that_one_is_gone() {
    let s = stream("s", 9);
    let all = chain(&s, 10, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.ready(TWO);
    stand.hear(ONE, hold(&s, head(&all[..6]))).unwrap();
    stand.hear(TWO, hold(&s, head(&all))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(6))]);
    stand.hear(ONE, records(&all[..4])).unwrap();
    stand.replica.disconnected(stand.now, ONE);
    assert_eq!(stand.pulls(), [(TWO, Lsn(4), Lsn(10))], "what was received is not pulled twice");
    stand.hear(TWO, records(&all[4..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 10);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all))));
}

#[test]
fn news_of_the_same_peer_lengthen_the_pull_under_way() {
    let s = stream("s", 9);
    let all = chain(&s, 10, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..6]))).unwrap();
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(6)), (ONE, Lsn(6), Lsn(10))]);
    stand.hear(ONE, records(&all)).unwrap();
    assert_eq!(stand.disk(Ok(())), 10);
}

#[test]
fn streams_beyond_the_most_at_a_time_wait_and_have_their_turn() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    let count = PULL_STREAMS_PER_SESSION_MAX + 20;
    let streams: Vec<StreamId> =
        (0..count).map(|i| StreamId { run: Run(i as u64), ..stream("s", 9) }).collect();
    for s in &streams {
        stand.hear(ONE, hold(s, head(&chain(s, 1, 99, 0)))).unwrap();
    }
    assert_eq!(stand.pulls().len(), PULL_STREAMS_PER_SESSION_MAX);
    for s in &streams {
        stand.hear(ONE, records(&chain(s, 1, 99, 0))).unwrap();
        stand.said();
    }
    assert_eq!(stand.disk(Ok(())), count);
}

fn fork_of(events: &[Event]) -> Option<&Fork> {
    events.iter().find_map(|event| if let Event::Fork(fork) = event { Some(fork) } else { None })
}

#[test]
fn a_fork_at_the_same_lsn_is_reported_and_halts_the_stream_between_the_two() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 5, 4, 1), chain(&s, 5, 4, 2));
    let longer = chain(&s, 8, 4, 2);
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&theirs))).unwrap();
    let events = stand.events();
    let fork = fork_of(&events).unwrap();
    assert_eq!(
        (fork.lsn, fork.ours, fork.theirs),
        (Lsn(5), Some(head(&ours).chain), Some(head(&theirs).chain))
    );
    stand.hear(ONE, hold(&s, head(&longer))).unwrap();
    assert_eq!(stand.pulls(), [], "nothing more is taken of the other branch");
    assert_eq!(fork_of(&stand.events()), None, "reported once");
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&ours))));
}

#[test]
fn a_fork_below_is_found_by_the_one_that_serves() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 8, 4, 1), chain(&s, 5, 4, 2));
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    let pull = Pull { stream: s.clone(), after: Lsn(5), chain: Some(head(&theirs).chain), until: Lsn(8) };
    stand.hear(ONE, Message::Pull(pull)).unwrap();
    let Some(DiskRequest::Read { ticket, after: Lsn(5), .. }) = stand.replica.poll_disk() else {
        panic!("no read");
    };
    let outcome = Ok(ours[5..].to_vec());
    stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome });
    let stopped = Message::Stopped { stream: s, reason: StopReason::Forked };
    assert_eq!(stand.said(), [(ONE, stopped)], "and no record");
    assert_eq!(fork_of(&stand.events()).unwrap().lsn, Lsn(5));
}

#[test]
fn a_fork_told_by_the_one_that_serves_halts_the_stream_and_another_peer_is_asked() {
    let s = stream("s", 9);
    let ours = chain(&s, 3, 99, 0);
    let longer = chain(&s, 6, 99, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    stand.ready(TWO);
    stand.hear(ONE, hold(&s, Head { lsn: Lsn(9), chain: ChainHash([7; 16]) })).unwrap();
    stand.hear(TWO, hold(&s, head(&longer))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(3), Lsn(9))]);
    stand.hear(ONE, Message::Stopped { stream: s, reason: StopReason::Forked }).unwrap();
    assert!(fork_of(&stand.events()).is_some());
    assert_eq!(stand.pulls(), [(TWO, Lsn(3), Lsn(6))]);
    stand.hear(TWO, records(&longer[3..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 3);
}

#[test]
fn records_that_do_not_continue_what_is_held_never_reach_the_disk() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 5, 4, 1), chain(&s, 8, 4, 2));
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&theirs))).unwrap();
    stand.said();
    stand.hear(ONE, records(&theirs[5..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 0);
    assert!(fork_of(&stand.events()).is_some());
    assert_eq!(stand.said(), [(ONE, Message::Stop(s.clone()))]);
    // What was on its way when the pull was taken back is dropped without a quarrel.
    stand.hear(ONE, records(&theirs[5..])).unwrap();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    assert_eq!(stand.pulls(), []);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&ours))));
}

#[test]
fn a_disk_that_refuses_is_left_alone_for_a_while_and_the_records_are_pulled_again() {
    let s = stream("s", 9);
    let all = chain(&s, 6, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    stand.hear(ONE, records(&all[..3])).unwrap();
    stand.disk(Err(AdoptFailure::Refused));
    stand.hear(ONE, records(&all[3..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 0, "what comes after a refusal is dropped");
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    let pulled = |said: Vec<(SessionId, Message)>| said.iter().any(|(_, m)| matches!(m, Message::Pull(_)));
    assert!(!pulled(stand.wait(RETRY_AFTER_DISK_FAILURE_MS - 10)));
    assert!(pulled(stand.wait(20)));
    stand.hear(ONE, records(&all)).unwrap();
    assert_eq!(stand.disk(Ok(())), 6);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all))));
}

#[test]
fn a_gap_that_is_closed_ends_the_pull_of_what_stands_behind_it() {
    let s = stream("s", 9);
    let all = chain(&s, 9, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..8]))).unwrap();
    stand.said();
    stand.hear(ONE, records(&all[..2])).unwrap();
    // Records 3 to 6 were on disk already.
    stand.replica.committed(stand.now, &s, head(&all[..6]));
    assert_eq!(stand.disk(Ok(())), 2);
    stand.hear(ONE, records(&all[2..4])).unwrap();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(6), Lsn(8))]);
    stand.hear(ONE, records(&all[6..8])).unwrap();
    assert_eq!(stand.disk(Ok(())), 2);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all[..8]))));
}

#[test]
fn a_peer_that_cannot_read_a_stream_is_asked_again_only_after_it_tells_of_it_again() {
    let s = stream("s", 9);
    let all = chain(&s, 6, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..5]))).unwrap();
    stand.said();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Unreadable }).unwrap();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    assert_eq!(stand.pulls(), []);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(6))]);
}

#[test]
fn a_reader_that_gives_no_credit_costs_a_bounded_amount() {
    let s = stream("s", 9);
    let body = vec![0u8; 100_000];
    let mut at = Head::default();
    let mut all = Vec::new();
    for _ in 0..200 {
        let lsn = at.lsn.next().unwrap();
        at = Head { lsn, chain: at.chain.after(&s.key(), lsn, &body) };
        all.push(Record { stream: s.clone(), lsn, chain: at.chain, body: body.clone() });
    }
    let mut stand = Stand::new(vec![(s.clone(), at)]);
    stand.ready(ONE);
    let pull = Pull { stream: s, after: Lsn(0), chain: Some(ChainHash::GENESIS), until: Lsn(200) };
    stand.hear(ONE, Message::Pull(pull)).unwrap();
    let mut sent = 0;
    let mut read = 0;
    loop {
        let mut idle = true;
        while let Some(DiskRequest::Read { ticket, after, bytes_max, .. }) = stand.replica.poll_disk() {
            idle = false;
            let from = usize::try_from(after.0).unwrap();
            let part: Vec<Record> = all[from..].iter().take(1 + bytes_max / body.len()).cloned().collect();
            read += part.len() * body.len();
            stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome: Ok(part) });
        }
        for (_, message) in stand.said() {
            idle = false;
            if let Message::Records(records) = message {
                sent += records.bodies.cost_bytes();
            }
        }
        if idle {
            break;
        }
    }
    assert!(sent < WINDOW as usize + MESSAGE_BYTES_MAX, "{sent} sent for {WINDOW} of credit");
    assert!(read < sent + 4 * SEND_QUEUE_BYTES_MAX, "{read} read, {sent} sent");
    stand.hear(ONE, Message::Credit(WINDOW)).unwrap();
    assert!(stand.said().iter().any(|(_, message)| matches!(message, Message::Records(_))));
    stand.hear(ONE, Message::Credit(u32::MAX)).ok();
    stand.hear(ONE, Message::Credit(u32::MAX)).ok();
    assert_eq!(stand.closed_for(), Some(CloseReason::Violation(Violation::Credit)), "credit without end");
}

#[test]
fn no_message_is_handed_out_beyond_what_the_connection_takes() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    let streams: Vec<StreamId> = (0..50).map(|i| StreamId { run: Run(i), ..stream("s", 9) }).collect();
    for s in &streams {
        stand.hear(ONE, hold(s, head(&chain(s, 1, 99, 0)))).unwrap();
    }
    let handed = std::iter::from_fn(|| stand.replica.poll_transmit()).count();
    assert_eq!(handed, CONTROL_IN_FLIGHT_MESSAGES_MAX);
    stand.replica.transmitted(stand.now, ONE);
    assert!(stand.replica.poll_transmit().is_some());
    assert!(stand.replica.poll_transmit().is_none());
}

#[test]
fn at_rest_only_keepalives_are_said() {
    let s = stream("s", 9);
    let mut stand = Stand::new(vec![(s.clone(), head(&chain(&s, 3, 99, 0)))]);
    stand.ready(ONE);
    stand.wait(1_000);
    let mut said = Vec::new();
    for _ in 0..10 {
        said.extend(stand.wait(KEEPALIVE_INTERVAL_MS));
        stand.hear(ONE, Message::Keepalive).unwrap();
    }
    assert!(said.iter().all(|(_, message)| *message == Message::Keepalive), "{said:?}");
    assert!((9..=11).contains(&said.len()), "{}", said.len());
}

#[test]
fn a_silent_peer_is_cut_and_one_that_sends_a_long_message_slowly_is_not() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    for _ in 0..10 {
        stand.wait(SILENCE_TIMEOUT_MS - 1_000);
        stand.replica.heard(stand.now, ONE);
    }
    assert_eq!(stand.closed_for(), None);
    stand.wait(SILENCE_TIMEOUT_MS + 1);
    assert_eq!(stand.closed_for(), Some(CloseReason::Silent));
}

#[test]
fn a_peer_without_a_hello_is_cut() {
    let mut stand = Stand::new(vec![]);
    stand.connect(ONE, peer_node(ONE), Sites::All, false);
    stand.wait(HELLO_TIMEOUT_MS - 1);
    assert_eq!(stand.closed_for(), None);
    stand.wait(2);
    assert_eq!(stand.closed_for(), Some(CloseReason::NoHello));
}

#[test]
fn a_peer_that_is_asked_and_never_answers_is_cut_in_the_end() {
    let s = stream("s", 9);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&chain(&s, 3, 99, 0)))).unwrap();
    let mut waited = 0;
    let reason = loop {
        stand.wait(KEEPALIVE_INTERVAL_MS);
        waited += KEEPALIVE_INTERVAL_MS;
        stand.hear(ONE, Message::Keepalive).unwrap();
        if let Some(reason) = stand.closed_for() {
            break reason;
        }
        assert!(waited < 2 * STALL_TIMEOUT_MS);
    };
    assert_eq!(reason, CloseReason::Stalled);
}

#[test]
fn a_newer_session_of_a_node_takes_the_older_ones_place() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.connect(TWO, peer_node(ONE), Sites::All, true);
    let closed = Event::Closed { session: ONE, reason: CloseReason::Replaced };
    assert_eq!(stand.events(), [closed]);
}

#[test]
fn when_both_dial_at_once_both_keep_the_same_connection() {
    // Connection 1 is dialled by the smaller id, connection 2 by the larger; each side sees them in either order.
    let (small, large) = (NodeId([1; 16]), NodeId([2; 16]));
    for order in [[0usize, 1], [1, 0]] {
        for (us, them) in [(small, large), (large, small)] {
            let mut replica = Replica::new(Options::new(us, RUN, Sites::All), []);
            for i in order {
                let dialled = (i == 0) == (us == small);
                let session = SessionId(u64::try_from(i).unwrap() + 1);
                replica.connected(ms(1), session, Peer { node: them, sites: Sites::All, dialled });
            }
            let closed: Vec<Event> = std::iter::from_fn(|| replica.poll_event()).collect();
            assert_eq!(
                closed,
                [Event::Closed { session: TWO, reason: CloseReason::Replaced }],
                "{us} {order:?}"
            );
        }
    }
}

#[test]
fn a_leaving_node_says_so() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.replica.close(ONE, CloseReason::ShuttingDown);
    assert!(
        matches!(stand.said().as_slice(), [(ONE, Message::Close(text))] if text.contains("shutting down"))
    );
    stand.ready(TWO);
    stand.hear(TWO, Message::Close("y".repeat(100_000))).unwrap();
    let Some(CloseReason::ByPeer(text)) = stand.closed_for() else { panic!("not closed") };
    assert_eq!(text.len(), CLOSE_TEXT_BYTES_MAX);
}

fn any_message() -> impl Strategy<Value = Message> {
    let any_stream = (prop::sample::select(vec!["s", "t"]), 4u8..7, 1u64..3)
        .prop_map(|(name, node, run)| StreamId { run: Run(run), ..stream(name, node) });
    let any_head =
        (0u64..8, 0u8..3).prop_map(|(lsn, hash)| Head { lsn: Lsn(lsn), chain: ChainHash([hash; 16]) });
    let held = (any_stream.clone(), any_head).prop_map(|(stream, head)| Held { stream, head });
    let reason =
        prop::sample::select(vec![StopReason::Cancelled, StopReason::Unreadable, StopReason::Forked]);
    let bodies = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4);
    prop_oneof![
        4 => prop::collection::vec(held, 0..4).prop_map(Message::Hold),
        2 => (any_stream.clone(), 0u64..8, prop::option::of(0u8..3), 0u64..8).prop_map(
            |(stream, after, chain, until)| Message::Pull(Pull {
                stream,
                after: Lsn(after),
                chain: chain.map(|hash| ChainHash([hash; 16])),
                until: Lsn(until),
            })
        ),
        2 => (any_stream.clone(), 0u64..8, bodies).prop_map(|(stream, first, bodies)| Message::Records(Records {
            stream,
            first: Lsn(first),
            chain: ChainHash([0; 16]),
            bodies: Bodies(bodies.into_iter().map(BodyBytes).collect()),
        })),
        1 => any::<u32>().prop_map(Message::Credit),
        1 => any_stream.clone().prop_map(Message::Stop),
        1 => (any_stream, reason).prop_map(|(stream, reason)| Message::Stopped { stream, reason }),
        1 => Just(Message::Keepalive),
        1 => Just(hello(ONE)),
    ]
}

proptest! {
    #[test]
    fn nonsense_in_good_frames_changes_nothing_and_costs_a_bounded_amount(
        messages in prop::collection::vec(any_message(), 0..60),
    ) {
        let own = StreamId { site: site("s"), node: US, run: RUN };
        let other = StreamId { run: Run(2), ..stream("t", 6) };
        let vector = vec![
            (own.clone(), head(&chain(&own, 3, 99, 0))),
            (other.clone(), head(&chain(&other, 3, 99, 0))),
        ];
        let mut stand = Stand::new(vector.clone());
        stand.ready(ONE);
        let mut outcome = Ok(());
        for message in messages {
            if outcome.is_ok() {
                outcome = stand.hear(ONE, message);
            }
            stand.said();
            while let Some(request) = stand.replica.poll_disk() {
                match request {
                    DiskRequest::Adopt { .. } => prop_assert!(false, "unproven records reached the disk"),
                    DiskRequest::Read { ticket, stream: s, after, .. } => {
                        let held = chain(&s, 3, 99, 0);
                        let part = held[usize::try_from(after.0).unwrap().min(3)..].to_vec();
                        stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome: Ok(part) });
                    }
                }
            }
            stand.wait(7);
        }
        let told: Vec<(StreamId, Head)> = stand.replica.vector().map(|(id, head)| (id.clone(), head)).collect();
        prop_assert_eq!(told, vector);
    }
}
