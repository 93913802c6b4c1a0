//! What stands above a gap: who hears of it, what is asked for because of it, and what is refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn, NodeId, Record, StreamId};
use tidelog_replication::*;

use crate::stand::{
    ONE, RUN, Stand, TWO, US, chain, fork_of, head, hello, hold, ms, peer_node, records, site, stream,
};

pub fn range(first: u64, last: u64) -> Range {
    Range { first: Lsn(first), last: Lsn(last) }
}

fn above(stream: &StreamId, ranges: &[Range]) -> Message {
    Message::Above(vec![Above { stream: stream.clone(), ranges: ranges.to_vec() }])
}

/// A session with a peer that speaks versions up to this one, and what it is told first.
fn begin(stand: &mut Stand, session: SessionId, version: u16) -> Vec<Message> {
    stand.connect(session, peer_node(session), Sites::All, true);
    let Message::Hello(hello) = hello(session) else { panic!("no hello") };
    stand.hear(session, Message::Hello(Hello { version_max: version, ..hello })).unwrap();
    said_to(stand, session)
}

/// What is said to a peer within a second beside hellos and keepalives.
pub fn said_to(stand: &mut Stand, session: SessionId) -> Vec<Message> {
    let quiet = |message: &Message| matches!(message, Message::Hello(_) | Message::Keepalive);
    let said = stand.wait(1_000).into_iter().filter(|(to, message)| *to == session && !quiet(message));
    said.map(|(_, message)| message).collect()
}

/// What a node has on its disk of one stream: any records, in order of LSN.
type Shelf = BTreeMap<Lsn, Record>;

fn contiguous(shelf: &Shelf) -> Head {
    let held = shelf.values().zip(1..).take_while(|(record, lsn)| record.lsn.0 == *lsn);
    held.last().map_or(Head::default(), |(record, _)| Head { lsn: record.lsn, chain: record.chain })
}

fn ranges_of(shelf: &Shelf) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for lsn in shelf.keys().filter(|lsn| **lsn > contiguous(shelf).lsn) {
        match ranges.last_mut().filter(|range| range.last.next() == Some(*lsn)) {
            Some(range) => range.last = *lsn,
            None => ranges.push(Range { first: *lsn, last: *lsn }),
        }
    }
    ranges
}

/// Machines that are joined as told, with the shelf of one stream each, and what travels between them.
struct Nodes {
    stream: StreamId,
    stands: Vec<Stand>,
    shelves: Vec<Shelf>,
    /// Records that came to each.
    travelled: Vec<Vec<Lsn>>,
    /// What was told of ranges, by whom.
    told: Vec<(usize, Vec<Range>)>,
    messages: usize,
}

impl Nodes {
    fn new(stream: &StreamId, shelves: Vec<Shelf>, links: &[(usize, usize)], versions: &[u16]) -> Self {
        let mut stands = Vec::new();
        for (node, shelf) in shelves.iter().enumerate() {
            let id = Self::id(node);
            let options = Options::new(id, RUN, Sites::All, 1);
            let mut replica = Replica::new(options, [(stream.clone(), contiguous(shelf))]);
            replica.committed(Duration::ZERO, stream, contiguous(shelf), &ranges_of(shelf));
            stands.push(Stand { replica, now: Duration::ZERO });
        }
        let travelled = vec![Vec::new(); shelves.len()];
        let mut nodes =
            Self { stream: stream.clone(), stands, shelves, travelled, told: Vec::new(), messages: 0 };
        for (a, b) in links {
            for (node, other) in [(*a, *b), (*b, *a)] {
                nodes.stands[node].connect(Self::session(other), Self::id(other), Sites::All, node == *a);
                let hello = Hello {
                    version_min: PROTOCOL_VERSION_MIN,
                    // A machine speaks the newest one; what it hears decides, and both ends of a link hear the same.
                    version_max: versions[node].min(versions[other]),
                    node: Self::id(other),
                    credit_bytes: 1 << 20,
                    instance: 1,
                };
                nodes.stands[node].hear(Self::session(other), Message::Hello(hello)).unwrap();
            }
        }
        nodes
    }

    fn id(node: usize) -> NodeId {
        NodeId([u8::try_from(node).unwrap() + 20; 16])
    }

    /// Each node calls the session with another by its number.
    fn session(other: usize) -> SessionId {
        SessionId(other as u64 + 1)
    }

    /// Whatever is said arrives at once and in order, and every disk answers at once.
    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            for stand in &mut self.stands {
                stand.now += ms(1);
                stand.replica.handle_timeout(stand.now);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let mut on_the_way = VecDeque::new();
            for (node, stand) in self.stands.iter_mut().enumerate() {
                on_the_way
                    .extend(stand.said().into_iter().map(|(session, message)| (node, session, message)));
            }
            let mut idle = on_the_way.is_empty();
            for (from, session, message) in on_the_way {
                let to = usize::try_from(session.0).unwrap() - 1;
                match &message {
                    Message::Hello(_) => continue,
                    Message::Records(records) => {
                        self.travelled[to].extend((records.first.0..).take(records.bodies.0.len()).map(Lsn));
                    }
                    Message::Above(above) => {
                        self.told.extend(above.iter().map(|told| (from, told.ranges.clone())));
                    }
                    _ => {}
                }
                self.messages += usize::from(message != Message::Keepalive);
                self.stands[to].hear(Self::session(from), message).unwrap();
            }
            for node in 0..self.stands.len() {
                idle &= !self.disk(node);
            }
            if idle {
                return;
            }
        }
    }

    fn disk(&mut self, node: usize) -> bool {
        let mut worked = false;
        while let Some(request) = self.stands[node].replica.poll_disk() {
            worked = true;
            let (stand, shelf) = (&mut self.stands[node], &mut self.shelves[node]);
            match request {
                DiskRequest::Read { ticket, after, bytes_max, .. } => {
                    let mut bytes = 0;
                    let held = shelf.range(after.next().unwrap()..).zip(after.0 + 1..).take_while(
                        |((lsn, record), due)| {
                            bytes += record.body.len();
                            lsn.0 == *due && (bytes <= bytes_max || *due == after.0 + 1)
                        },
                    );
                    let records: Vec<Record> = held.map(|((_, record), _)| record.clone()).collect();
                    let outcome = if records.is_empty() { Err(ReadFailure::Unreadable) } else { Ok(records) };
                    stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome });
                }
                DiskRequest::Adopt { ticket, records } => {
                    shelf.extend(records.into_iter().map(|record| (record.lsn, record)));
                    stand.replica.handle_disk(stand.now, DiskReply::Adopted { ticket, outcome: Ok(()) });
                    let (head, ranges) = (contiguous(shelf), ranges_of(shelf));
                    stand.replica.committed(stand.now, &self.stream, head, &ranges);
                }
                DiskRequest::Skip { .. } => panic!("nobody dropped anything"),
            }
        }
        worked
    }
}

fn shelf(all: &[Record], held: impl Fn(u64) -> bool) -> Shelf {
    let held = all.iter().filter(|record| held(record.lsn.0));
    held.map(|record| (record.lsn, record.clone())).collect()
}

fn lsns(range: std::ops::RangeInclusive<u64>) -> Vec<Lsn> {
    range.map(Lsn).collect()
}

const NOW: u16 = PROTOCOL_VERSION;
const BEFORE: u16 = RANGES_SINCE_VERSION - 1;

#[test]
fn a_third_node_gets_all_from_two_with_other_gaps_that_never_meet() {
    let s = stream("s", 9);
    let all = chain(&s, 300, 999, 0);
    // 0 and 1 are not joined, and 0 hears of nobody who closes its gap but the one between.
    let (a, b) = (shelf(&all, |lsn| lsn <= 100 || lsn > 200), shelf(&all, |lsn| lsn <= 200));
    let mut nodes = Nodes::new(&s, vec![a, b, Shelf::new()], &[(0, 2), (1, 2)], &[NOW; 3]);
    nodes.run(2_000);
    for shelf in &nodes.shelves {
        assert_eq!(shelf.len(), 300);
    }
    assert_eq!(nodes.travelled[0], lsns(101..=200), "only the gap");
    assert_eq!(nodes.travelled[1], lsns(201..=300));
    assert_eq!(nodes.travelled[2], lsns(1..=300), "each once");
}

#[test]
fn what_stands_above_a_gap_is_had_although_nobody_can_close_the_gap_for_its_holder() {
    let s = stream("s", 9);
    let all = chain(&s, 300, 999, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&all[..200]))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..100]))).unwrap();
    stand.hear(ONE, above(&s, &[range(201, 300)])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(200), Lsn(300))]);
    stand.hear(ONE, records(&all[200..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 100);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all))));
    // And the range grows at its end.
    let more = chain(&s, 302, 999, 0);
    stand.hear(ONE, above(&s, &[range(201, 302)])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(300), Lsn(302))]);
    stand.hear(ONE, records(&more[300..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 2);
}

#[test]
fn a_node_with_a_gap_asks_for_the_gap_alone() {
    let s = stream("s", 9);
    let all = chain(&s, 1_000, 9_999, 0);
    for version in [BEFORE, NOW] {
        let gapped = shelf(&all, |lsn| !(101..=110).contains(&lsn) && !(500..=502).contains(&lsn));
        let whole = shelf(&all, |_| true);
        let mut nodes = Nodes::new(&s, vec![gapped, whole], &[(0, 1)], &[version; 2]);
        nodes.run(2_000);
        assert_eq!(nodes.shelves[0].len(), 1_000, "version {version}");
        let gaps = [lsns(101..=110), lsns(500..=502)].concat();
        assert_eq!(nodes.travelled, [gaps, vec![]], "version {version}");
    }
}

#[test]
fn a_pull_ends_where_the_disk_holds_what_follows_and_goes_on_behind_that() {
    let s = stream("s", 9);
    let all = chain(&s, 9, 99, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&all[..2]))]);
    stand.replica.committed(stand.now, &s, head(&all[..2]), &[range(5, 6)]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..3]))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(2), Lsn(3))]);
    stand.hear(ONE, hold(&s, head(&all[..8]))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(3), Lsn(4))], "a pull is lengthened up to there");
    stand.hear(ONE, records(&all[2..4])).unwrap();
    assert_eq!(stand.disk(Ok(())), 2);
    assert_eq!(stand.pulls(), [], "the disk is about to say that it holds more");
    stand.replica.committed(stand.now, &s, head(&all[..6]), &[]);
    assert_eq!(stand.pulls(), [(ONE, Lsn(6), Lsn(8))]);
}

#[test]
fn a_peer_of_the_version_before_hears_of_no_range_and_heals_all_the_same() {
    let s = stream("s", 9);
    let all = chain(&s, 300, 999, 0);
    let shelves =
        || vec![shelf(&all, |lsn| lsn <= 100 || lsn > 200), shelf(&all, |lsn| lsn <= 200), Shelf::new()];
    for (versions, tells) in [([BEFORE, NOW, NOW], vec![]), ([NOW, NOW, BEFORE], vec![]), ([NOW; 3], vec![0])]
    {
        let mut nodes = Nodes::new(&s, shelves(), &[(0, 2), (1, 2)], &versions);
        nodes.run(2_000);
        assert!(nodes.shelves.iter().all(|shelf| shelf.len() == 300), "{versions:?}");
        assert!(nodes.told.iter().map(|(node, _)| *node).eq(tells), "{versions:?}: {:?}", nodes.told);
    }
}

#[test]
fn ranges_are_told_right_behind_the_contiguous_part_and_again_only_when_they_change() {
    let s = stream("s", 9);
    let all = chain(&s, 99, 999, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&all[..2]))]);
    let commit = |stand: &mut Stand, held: usize, ranges: &[Range]| {
        stand.replica.committed(stand.now, &s, head(&all[..held]), ranges);
    };
    commit(&mut stand, 2, &[range(5, 6), range(9, 20)]);
    assert_eq!(
        begin(&mut stand, ONE, NOW),
        [hold(&s, head(&all[..2])), above(&s, &[range(5, 6), range(9, 20)])]
    );
    assert_eq!(begin(&mut stand, TWO, BEFORE), [hold(&s, head(&all[..2]))]);

    commit(&mut stand, 2, &[range(5, 6), range(9, 20)]);
    assert_eq!(said_to(&mut stand, ONE), [], "nothing changed");
    commit(&mut stand, 2, &[range(5, 6), range(9, 21)]);
    assert_eq!(said_to(&mut stand, ONE), [above(&s, &[range(5, 6), range(9, 21)])], "alone");
    commit(&mut stand, 6, &[range(9, 21)]);
    assert_eq!(
        said_to(&mut stand, ONE),
        [hold(&s, head(&all[..6]))],
        "what the contiguous part took in is known"
    );
    commit(&mut stand, 7, &[range(9, 10), range(12, 21)]);
    let both = [hold(&s, head(&all[..7])), above(&s, &[range(9, 10), range(12, 21)])];
    assert_eq!(said_to(&mut stand, ONE), both);
    commit(&mut stand, 7, &[]);
    assert_eq!(said_to(&mut stand, ONE), [above(&s, &[])], "it rotted too");
    // The lowest alone, and nothing that touches the contiguous part.
    let many: Vec<Range> = (4..=20).map(|at| range(at * 2, at * 2)).collect();
    commit(&mut stand, 7, &many);
    let lowest = &many[1..=RANGES_ABOVE_MAX];
    assert_eq!(said_to(&mut stand, ONE), [above(&s, lowest)]);
    commit(&mut stand, 99, &[]);
    assert_eq!(said_to(&mut stand, ONE), [hold(&s, head(&all))]);
    assert_eq!(stand.closed_for(), None);
}

#[test]
fn of_a_stream_without_a_beginning_the_ranges_alone_are_told() {
    let s = stream("s", 9);
    let mut stand = Stand::new(vec![]);
    stand.replica.committed(stand.now, &s, Head::default(), &[range(5, 6)]);
    assert_eq!(begin(&mut stand, ONE, NOW), [above(&s, &[range(5, 6)])]);
    stand.replica.disconnected(stand.now, ONE);
    assert_eq!(
        begin(&mut stand, TWO, NOW),
        [above(&s, &[range(5, 6)])],
        "it is not forgotten with a session"
    );
}

#[test]
fn ranges_that_cannot_be_end_the_session() {
    let s = stream("s", 9);
    let many: Vec<Range> = (1..=9).map(|at| range(at * 3, at * 3)).collect();
    let cases: [&[Range]; 9] = [
        &[range(6, 5)],
        &[range(0, 5)],
        &[range(1, 5)],
        &[range(5, u64::MAX)],
        &[range(u64::MAX, u64::MAX)],
        &[range(5, 6), range(7, 8)],
        &[range(5, 9), range(7, 12)],
        &[range(15, 16), range(7, 8)],
        &many,
    ];
    for ranges in cases {
        let mut stand = Stand::new(vec![]);
        stand.ready(ONE);
        assert_eq!(stand.hear(ONE, above(&s, ranges)), Err(Violation::Ranges), "{ranges:?}");
        assert_eq!(stand.closed_for(), Some(CloseReason::Violation(Violation::Ranges)));
    }
    let mut stand = Stand::new(vec![]);
    begin(&mut stand, ONE, BEFORE);
    assert_eq!(stand.hear(ONE, above(&s, &[range(5, 6)])), Err(Violation::Ranges), "that version has none");

    stand.connect(TWO, peer_node(TWO), Sites::Only([site("granted")].into()), true);
    stand.hear(TWO, hello(TWO)).unwrap();
    assert_eq!(stand.hear(TWO, above(&s, &[range(5, 6)])), Err(Violation::NotGranted(site("s"))));
}

#[test]
fn a_peer_that_tells_of_ranges_of_too_many_streams_is_refused() {
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    let of = |run: usize| {
        above(&StreamId { run: tidelog_record::Run(run as u64), ..stream("s", 9) }, &[range(5, 6)])
    };
    for run in 0..STREAMS_PER_PEER_MAX {
        stand.hear(ONE, of(run)).unwrap();
    }
    assert_eq!(stand.hear(ONE, of(STREAMS_PER_PEER_MAX)), Err(Violation::TooManyStreams));
    assert_eq!(stand.replica.vector().count(), 0);
}

#[test]
fn a_range_is_a_hint_and_what_it_brings_is_held_to_the_chain() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 5, 4, 1), chain(&s, 9, 4, 2));
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    stand.hear(ONE, above(&s, &[range(6, 9)])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(5), Lsn(9))]);
    stand.hear(ONE, records(&theirs[5..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 0, "another branch");
    assert!(fork_of(&stand.events()).is_some());
    // A range that does not reach what is lacking next is not asked for.
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    stand.hear(ONE, above(&s, &[range(7, 9)])).unwrap();
    assert_eq!(stand.pulls(), []);
}

#[test]
fn a_pull_is_served_within_one_range_and_held_to_the_claimed_hash() {
    let s = stream("s", 9);
    let all = chain(&s, 20, 99, 0);
    let gapped = || {
        let mut stand = Stand::new(vec![(s.clone(), head(&all[..2]))]);
        stand.replica.committed(stand.now, &s, head(&all[..2]), &[range(5, 8), range(11, 20)]);
        stand.ready(ONE);
        stand
    };
    let pull = |after: u64, until: u64| {
        let chain = after.checked_sub(1).map(|at| all[usize::try_from(at).unwrap()].chain);
        Message::Pull(Pull { stream: s.clone(), after: Lsn(after), chain, until: Lsn(until) })
    };
    for (after, until) in [(4, 8), (4, 6), (5, 6), (10, 20), (0, 2)] {
        let mut stand = gapped();
        stand.hear(ONE, pull(after, until)).unwrap();
        let Some(DiskRequest::Read { ticket, after: from, .. }) = stand.replica.poll_disk() else {
            panic!("nothing is read for {after} to {until}")
        };
        assert_eq!(from, Lsn(after));
        let part = all[usize::try_from(after).unwrap()..usize::try_from(until).unwrap()].to_vec();
        stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome: Ok(part.clone()) });
        assert_eq!(said_to(&mut stand, ONE), [records(&part)]);
    }
    // What was never told.
    for (after, until) in [(10, 21), (20, 21)] {
        assert_eq!(gapped().hear(ONE, pull(after.min(20), until)), Err(Violation::Pull));
    }
    // What was told and is not there any more, or never was beside it: no rule is broken, for the word of it may be on its way.
    for (after, until) in [(3, 8), (2, 4), (8, 11), (5, 20)] {
        let mut stand = gapped();
        stand.hear(ONE, pull(after, until)).unwrap();
        assert_eq!(stand.replica.poll_disk(), None);
        let stopped = Message::Stopped { stream: s.clone(), reason: StopReason::Unreadable };
        assert_eq!(said_to(&mut stand, ONE), [stopped], "{after} to {until}");
    }
    // But not without end, from a peer that takes no answer.
    let mut stand = gapped();
    let mut asked = 0;
    while stand.hear(ONE, pull(3, 8)).is_ok() {
        asked += 1;
    }
    assert_eq!(asked, REFUSALS_WAITING_MAX);
    let mut stand = gapped();
    let other = Pull { stream: s.clone(), after: Lsn(4), chain: Some(ChainHash([7; 16])), until: Lsn(8) };
    stand.hear(ONE, Message::Pull(other)).unwrap();
    let Some(DiskRequest::Read { ticket, .. }) = stand.replica.poll_disk() else { panic!("nothing is read") };
    stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome: Ok(all[4..8].to_vec()) });
    let stopped = Message::Stopped { stream: s.clone(), reason: StopReason::Forked };
    assert_eq!(said_to(&mut stand, ONE), [stopped]);
}

#[test]
fn a_range_that_cannot_be_sent_is_forgotten_until_it_is_told_again() {
    let s = stream("s", 9);
    let all = chain(&s, 9, 99, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&all[..4]))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..2]))).unwrap();
    stand.hear(ONE, above(&s, &[range(4, 6), range(8, 9)])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(4), Lsn(6))]);
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Unreadable }).unwrap();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    assert_eq!(stand.pulls(), []);
    stand.replica.committed(stand.now, &s, head(&all[..7]), &[]);
    assert_eq!(stand.pulls(), [(ONE, Lsn(7), Lsn(9))], "its other range stands");
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Unreadable }).unwrap();
    stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
    stand.hear(ONE, above(&s, &[range(4, 9)])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(7), Lsn(9))]);
}

#[test]
fn a_range_of_this_nodes_own_stream_beyond_what_it_wrote_is_told_and_fetched() {
    let own = StreamId { site: site("s"), node: US, run: RUN };
    let all = chain(&own, 9, 99, 0);
    let mut stand = Stand::new(vec![(own.clone(), head(&all[..4]))]);
    stand.ready(ONE);
    stand.hear(ONE, above(&own, &[range(4, 9)])).unwrap();
    let told =
        Event::OwnStreamAhead { node: peer_node(ONE), stream: own.clone(), claimed: Lsn(9), written: Lsn(4) };
    assert_eq!(stand.events(), [told]);
    assert_eq!(stand.pulls(), [(ONE, Lsn(4), Lsn(9))]);
    // What it wrote above a gap of its own is its own.
    let mut stand = Stand::new(vec![(own.clone(), head(&all[..4]))]);
    stand.replica.committed(stand.now, &own, head(&all[..4]), &[range(7, 9)]);
    stand.ready(ONE);
    stand.hear(ONE, above(&own, &[range(8, 9)])).unwrap();
    assert_eq!(stand.events(), []);
}

#[test]
fn nothing_is_said_at_rest() {
    let s = stream("s", 9);
    let all = chain(&s, 300, 999, 0);
    // A gap that nobody can close, and one that is closed.
    let hole = |lsn: u64| (50..60).contains(&lsn);
    let shelves = vec![
        shelf(&all, |lsn| !hole(lsn)),
        shelf(&all, |lsn| !hole(lsn) && lsn < 200),
        shelf(&all, |lsn| lsn < 50),
    ];
    let mut nodes = Nodes::new(&s, shelves, &[(0, 1), (1, 2), (0, 2)], &[NOW; 3]);
    nodes.run(3_000);
    let said = nodes.messages;
    nodes.run(60_000);
    assert_eq!(nodes.messages, said);
    assert_eq!(
        nodes.travelled,
        [vec![], vec![], vec![]],
        "what is behind a gap of one's own cannot be taken"
    );
    assert_eq!(
        nodes.told,
        [
            (0, vec![range(60, 300)]),
            (0, vec![range(60, 300)]),
            (1, vec![range(60, 199)]),
            (1, vec![range(60, 199)])
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_each_lacks_all_come_to_hold_what_is_held_without_a_gap_and_nothing_travels_in_vain(
        lacks in prop::collection::vec(prop::collection::btree_set(1u64..60, 0..25), 2..5),
        versions in prop::collection::vec(BEFORE..=NOW, 5), ring in any::<bool>(),
    ) {
        let s = stream("s", 9);
        let all = chain(&s, 60, 999, 0);
        let shelves: Vec<Shelf> = lacks.iter().map(|lacks| shelf(&all, |lsn| !lacks.contains(&lsn))).collect();
        let nowhere = |lsn: &u64| lacks.iter().all(|lacks| lacks.contains(lsn));
        let reach = (1..=60).find(nowhere).map_or(60, |lsn| lsn - 1);
        let mut links: Vec<(usize, usize)> = (1..lacks.len()).map(|node| (node - 1, node)).collect();
        if ring && lacks.len() > 2 {
            links.push((0, lacks.len() - 1));
        }
        let before = shelves.clone();
        let mut nodes = Nodes::new(&s, shelves, &links, &versions);
        nodes.run(4_000);
        for (node, shelf) in nodes.shelves.iter().enumerate() {
            prop_assert!(contiguous(shelf).lsn.0 >= reach, "node {node} is at {}", contiguous(shelf).lsn);
            let came = &nodes.travelled[node];
            prop_assert!(came.iter().all(|lsn| !before[node].contains_key(lsn)), "node {node} held some of {came:?}");
            let mut once = came.clone();
            once.dedup();
            prop_assert_eq!(came, &once);
        }
    }
}
