//! Two branches of one stream: found by either side, reported, and nothing of it stored.

use tidelog_record::{ChainHash, Lsn};
use tidelog_replication::*;

use crate::stand::{ONE, Stand, TWO, chain, fork_of, head, hold, records, stream};

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
