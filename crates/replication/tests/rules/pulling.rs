//! Records are asked for, credited, stored and asked for again.

use tidelog_record::{ChainHash, Lsn, Run, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, Stand, TWO, chain, fork_of, head, hold, records, stream};

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
    let pulls = |said: Vec<(SessionId, Message)>| -> Vec<(Lsn, Lsn)> {
        let pull =
            |message| if let Message::Pull(pull) = message { Some((pull.after, pull.until)) } else { None };
        said.into_iter().filter_map(|(_, message)| pull(message)).collect()
    };
    for _ in 0..3 {
        assert_eq!(pulls(stand.wait(RETRY_AFTER_DISK_FAILURE_MS - 10)), []);
        assert_eq!(pulls(stand.wait(20)), [(Lsn(0), Lsn(1))], "one record, to see whether there is room");
        stand.hear(ONE, records(&all[..1])).unwrap();
        stand.disk(Err(AdoptFailure::Refused));
    }
    stand.wait(RETRY_AFTER_DISK_FAILURE_MS + 10);
    stand.hear(ONE, records(&all[..1])).unwrap();
    assert_eq!(stand.disk(Ok(())), 1);
    assert_eq!(stand.pulls(), [(ONE, Lsn(1), Lsn(6))]);
    stand.hear(ONE, records(&all[1..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 5);
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
    stand.replica.committed(stand.now, &s, head(&all[..6]), &[]);
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
