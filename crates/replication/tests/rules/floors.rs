//! What peers dropped by policy: who is asked first, how long is waited, and when nobody's word is taken.

use tidelog_record::{ChainHash, Lsn, NodeId, Record, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, RUN, Stand, TWO, US, chain, head, hold, ms, peer_node, records, stream};

fn dropped(stream: &StreamId, all: &[Record], floor: usize) -> Message {
    Message::Stopped { stream: stream.clone(), reason: StopReason::Dropped(head(&all[..floor])) }
}

fn cancelled(stream: &StreamId) -> Message {
    Message::Stopped { stream: stream.clone(), reason: StopReason::Cancelled }
}

/// Time passes and the peers give signs of life; what was asked for meanwhile.
fn pass(stand: &mut Stand, peers: &[SessionId], milliseconds: u64) -> Vec<(SessionId, Lsn, Lsn)> {
    let end = stand.now + ms(milliseconds);
    let mut pulls = Vec::new();
    while stand.now < end {
        let step = (end - stand.now).min(ms(KEEPALIVE_INTERVAL_MS));
        let said = stand.wait(u64::try_from(step.as_millis()).unwrap());
        pulls.extend(said.into_iter().filter_map(|(session, message)| match message {
            Message::Pull(pull) => Some((session, pull.after, pull.until)),
            _ => None,
        }));
        for peer in peers {
            stand.hear(*peer, Message::Keepalive).unwrap();
        }
    }
    pulls
}

/// The peer is asked, names its floor, and confirms the end of the pull.
fn names_floor(stand: &mut Stand, peer: SessionId, stream: &StreamId, all: &[Record], floor: usize) {
    stand.hear(peer, dropped(stream, all, floor)).unwrap();
    stand.hear(peer, cancelled(stream)).unwrap();
}

#[test]
fn everyone_else_is_asked_before_a_stream_goes_on_behind_the_lowest_floor() {
    let s = stream("s", 9);
    let all = chain(&s, 10, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.ready(TWO);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.hear(TWO, hold(&s, head(&all[..9]))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(10))]);
    names_floor(&mut stand, ONE, &s, &all, 7);
    assert_eq!(stand.pulls(), [(TWO, Lsn(0), Lsn(9))], "it may have more");
    names_floor(&mut stand, TWO, &s, &all, 4);
    assert_eq!(pass(&mut stand, &[ONE, TWO], FLOOR_WAIT_MS - 10), [], "both said what they have");
    assert_eq!(stand.skips(Ok(())), [], "somebody else may still come");
    assert_eq!(pass(&mut stand, &[ONE, TWO], 20), [(TWO, Lsn(4), Lsn(9))]);
    assert_eq!(stand.skips(Ok(())), [(Head::default(), head(&all[..4]))]);
    let skipped = Event::Skipped { node: peer_node(TWO), stream: s.clone(), after: Lsn::ZERO, to: Lsn(4) };
    assert!(stand.events().contains(&skipped));
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all[..4]))));
    stand.hear(TWO, records(&all[4..9])).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(9), Lsn(10))], "its floor is no hindrance any more");
    stand.hear(ONE, records(&all[9..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 6);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all))));
    pass(&mut stand, &[ONE, TWO], 2 * FLOOR_WAIT_MS);
    assert_eq!(stand.skips(Ok(())), [], "nothing is lacking");
}

#[test]
fn what_somebody_still_has_is_never_passed_over() {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &s, &all, 5);
    pass(&mut stand, &[ONE], FLOOR_WAIT_MS - 100);
    stand.ready(TWO);
    stand.hear(TWO, hold(&s, head(&all[..3]))).unwrap();
    assert_eq!(stand.pulls(), [(TWO, Lsn(0), Lsn(3))]);
    pass(&mut stand, &[ONE, TWO], FLOOR_WAIT_MS);
    assert_eq!(stand.skips(Ok(())), [], "it was asked and has not answered yet");
    stand.hear(TWO, records(&all[..3])).unwrap();
    assert_eq!(stand.disk(Ok(())), 3);
    pass(&mut stand, &[ONE, TWO], FLOOR_WAIT_MS - 10);
    assert_eq!(stand.skips(Ok(())), [], "it may come to have more");
    pass(&mut stand, &[ONE, TWO], 20);
    assert_eq!(stand.skips(Ok(())), [(head(&all[..3]), head(&all[..5]))]);
}

#[test]
fn what_waits_for_its_turn_with_a_peer_is_not_passed_over() {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.ready(TWO);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &s, &all, 5);
    let others: Vec<StreamId> = (0..PULL_STREAMS_PER_SESSION_MAX)
        .map(|i| StreamId { run: tidelog_record::Run(100 + i as u64), ..s.clone() })
        .collect();
    for other in &others {
        stand.hear(TWO, hold(other, head(&chain(other, 1, 99, 0)))).unwrap();
    }
    assert_eq!(stand.pulls().len(), PULL_STREAMS_PER_SESSION_MAX);
    stand.hear(TWO, hold(&s, head(&all[..3]))).unwrap();
    assert_eq!(stand.pulls(), [], "it is asked for enough");
    pass(&mut stand, &[ONE, TWO], 2 * FLOOR_WAIT_MS);
    assert_eq!(stand.skips(Ok(())), []);
    stand.hear(TWO, records(&chain(&others[0], 1, 99, 0))).unwrap();
    assert_eq!(stand.pulls(), [(TWO, Lsn(0), Lsn(3))]);
}

#[test]
fn what_follows_a_floor_must_continue_its_chain() {
    let s = stream("s", 9);
    let (all, other) = (chain(&s, 8, 99, 0), chain(&s, 8, 2, 1));
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &s, &all, 5);
    pass(&mut stand, &[ONE], FLOOR_WAIT_MS + 10);
    assert_eq!(stand.skips(Ok(())).len(), 1);
    stand.hear(ONE, records(&other[5..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 0);
    assert!(stand.events().iter().any(|event| matches!(event, Event::Fork(_))));
}

#[test]
fn floors_that_contradict_are_a_fork_and_nobody_is_believed() {
    let s = stream("s", 9);
    let (all, other) = (chain(&s, 10, 99, 0), chain(&s, 10, 2, 1));
    // Another floor at the same LSN, or the end of a stream there.
    for (theirs, floor) in [(&other[..10], 6), (&other[..6], 4)] {
        let mut stand = Stand::new(vec![]);
        stand.ready(ONE);
        stand.ready(TWO);
        stand.hear(TWO, hold(&s, head(theirs))).unwrap();
        names_floor(&mut stand, TWO, &s, theirs, floor);
        stand.hear(ONE, hold(&s, head(&all))).unwrap();
        stand.events();
        names_floor(&mut stand, ONE, &s, &all, 6);
        let events = stand.events();
        let forks: Vec<(NodeId, Lsn, Option<ChainHash>)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Fork(fork) => Some((fork.node, fork.lsn, fork.theirs)),
                _ => None,
            })
            .collect();
        let named =
            [(TWO, &other), (ONE, &all)].map(|(peer, all)| (peer_node(peer), Lsn(6), Some(all[5].chain)));
        assert_eq!(forks, named);
        pass(&mut stand, &[ONE, TWO], 3 * FLOOR_WAIT_MS);
        assert_eq!(stand.skips(Ok(())), []);
        // A third that says what one of them said is not believed either.
        let three = SessionId(3);
        stand.ready(three);
        stand.hear(three, hold(&s, head(&all[..9]))).unwrap();
        names_floor(&mut stand, three, &s, &all, 6);
        assert!(stand.events().iter().any(|event| matches!(event, Event::Fork(_))));
        pass(&mut stand, &[ONE, TWO, three], 3 * FLOOR_WAIT_MS);
        assert_eq!(stand.skips(Ok(())), []);
    }
}

#[test]
fn a_floor_beyond_what_the_peer_told_waits_until_it_tells_more() {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all[..4]))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &s, &all, 6);
    assert_eq!(stand.pulls(), []);
    pass(&mut stand, &[ONE], 2 * FLOOR_WAIT_MS);
    assert_eq!(stand.skips(Ok(())), []);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(0), Lsn(8))]);
    names_floor(&mut stand, ONE, &s, &all, 6);
    pass(&mut stand, &[ONE], FLOOR_WAIT_MS + 10);
    assert_eq!(stand.skips(Ok(())).len(), 1);
}

#[test]
fn a_node_never_passes_over_records_of_its_own_run() {
    let own = StreamId { node: US, run: RUN, ..stream("s", 5) };
    let all = chain(&own, 8, 99, 0);
    let mut stand = Stand::new(vec![(own.clone(), head(&all[..2]))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&own, head(&all))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &own, &all, 6);
    pass(&mut stand, &[ONE], 2 * FLOOR_WAIT_MS);
    assert_eq!(stand.skips(Ok(())), []);
    stand.replica.begin_run(stand.now, tidelog_record::Run(77));
    pass(&mut stand, &[ONE], FLOOR_LOOK_AGAIN_MS + 10);
    assert_eq!(
        stand.skips(Ok(())),
        [(head(&all[..2]), head(&all[..6]))],
        "it is a stream like any other now"
    );
}

#[test]
fn a_disk_that_cannot_note_it_is_asked_again_later() {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let mut stand = Stand::new(vec![]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&all))).unwrap();
    stand.said();
    names_floor(&mut stand, ONE, &s, &all, 6);
    pass(&mut stand, &[ONE], FLOOR_WAIT_MS + 10);
    let skip = (Head::default(), head(&all[..6]));
    assert_eq!(stand.skips(Err(AdoptFailure::Refused)), [skip]);
    assert_eq!(stand.replica.vector().next(), None);
    stand.hear(ONE, cancelled(&s)).unwrap();
    pass(&mut stand, &[ONE], FLOOR_WAIT_MS + 10);
    assert_eq!(stand.skips(Ok(())), [skip]);
    assert_eq!(stand.replica.vector().next(), Some((&s, head(&all[..6]))));
}

/// A peer pulls what policy dropped; what it hears.
fn refusal(claimed: ChainHash, before: Option<ChainHash>) -> Vec<(SessionId, Message)> {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let mut stand = Stand::new(vec![(s.clone(), head(&all))]);
    stand.ready(ONE);
    stand.said();
    let pull = Pull { stream: s, after: Lsn(2), chain: Some(claimed), until: Lsn(8) };
    stand.hear(ONE, Message::Pull(pull)).unwrap();
    let Some(DiskRequest::Read { ticket, .. }) = stand.replica.poll_disk() else { panic!("no read") };
    let outcome = Err(ReadFailure::Dropped { floor: head(&all[..6]), before });
    stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome });
    stand.said()
}

#[test]
fn a_peer_is_told_the_floor_unless_its_branch_is_another() {
    let s = stream("s", 9);
    let all = chain(&s, 8, 99, 0);
    let stopped = |reason| vec![(ONE, Message::Stopped { stream: s.clone(), reason })];
    let (ours, theirs) = (all[1].chain, ChainHash([7; 16]));
    let told = stopped(StopReason::Dropped(head(&all[..6])));
    assert_eq!(refusal(ours, Some(ours)), told);
    assert_eq!(refusal(theirs, None), told, "what is not known is not compared");
    assert_eq!(refusal(theirs, Some(ours)), stopped(StopReason::Forked));
}
