//! What the disk can no longer read: it is not claimed, it is asked for again, and whoever was told of it hears that it is gone.

use tidelog_record::{ChainHash, Lsn};
use tidelog_replication::*;

use crate::above::{range, said_to};
use crate::stand::{ONE, Stand, TWO, chain, head, hold, records, stream};

#[test]
fn what_rots_is_asked_for_again_and_peers_that_were_told_of_it_hear_that_it_is_gone() {
    let s = stream("s", 9);
    let all = chain(&s, 20, 999, 0);
    for rotten_first in [1, 7] {
        let before = &all[..rotten_first - 1];
        let mut stand = Stand::new(vec![(s.clone(), head(&all))]);
        stand.ready(ONE);
        stand.ready(TWO);
        stand.hear(TWO, hold(&s, head(&all))).unwrap();
        said_to(&mut stand, ONE);
        let (first, after) = (rotten_first as u64, Lsn(rotten_first as u64 - 1));
        stand.replica.receded(stand.now, &s, head(before), &[range(first + 3, 20)]);
        assert_eq!(stand.pulls(), [(TWO, after, Lsn(first + 2))], "the gap alone");
        // The peer may ask for all that it was told of, piece by piece.
        let pull = |after: u64, until: u64, chain: Option<ChainHash>| {
            Message::Pull(Pull { stream: s.clone(), after: Lsn(after), chain, until: Lsn(until) })
        };
        stand.hear(ONE, pull(0, 2, Some(ChainHash::GENESIS))).unwrap();
        stand.hear(ONE, pull(2, 9, None)).unwrap();
        stand.hear(ONE, pull(9, 15, None)).unwrap();
        let said: Vec<Message> = stand.said().into_iter().map(|(_, message)| message).collect();
        let gone = Message::Stopped { stream: s.clone(), reason: StopReason::Unreadable };
        assert!(said.contains(&gone), "{said:?}");
        assert_eq!(stand.closed_for(), None);
        // And the gap is closed.
        stand.hear(TWO, records(&all[rotten_first - 1..rotten_first + 2])).unwrap();
        assert_eq!(stand.disk(Ok(())), 3);
        stand.replica.committed(stand.now, &s, head(&all), &[]);
        assert_eq!(stand.replica.vector().next(), Some((&s, head(&all))));
        assert_eq!(stand.pulls(), []);
    }
}

#[test]
fn what_was_on_its_way_to_the_disk_when_rot_was_found_below_it_is_not_claimed() {
    let s = stream("s", 9);
    let all = chain(&s, 20, 999, 0);
    for outcome in [Ok(()), Err(AdoptFailure::Refused)] {
        let mut stand = Stand::new(vec![(s.clone(), head(&all[..10]))]);
        stand.ready(ONE);
        stand.hear(ONE, hold(&s, head(&all))).unwrap();
        assert_eq!(stand.pulls(), [(ONE, Lsn(10), Lsn(20))]);
        stand.hear(ONE, records(&all[10..15])).unwrap();
        stand.replica.receded(stand.now, &s, head(&all[..3]), &[range(5, 10)]);
        assert_eq!(stand.disk(outcome), 5);
        assert_eq!(stand.replica.vector().next(), Some((&s, head(&all[..3]))), "{outcome:?}");
        stand.hear(ONE, Message::Stopped { stream: s.clone(), reason: StopReason::Cancelled }).unwrap();
        let asked: Vec<(Lsn, Lsn)> = stand
            .wait(RETRY_AFTER_DISK_FAILURE_MS + 1)
            .into_iter()
            .filter_map(|(_, message)| match message {
                Message::Pull(pull) => Some((pull.after, pull.until)),
                _ => None,
            })
            .collect();
        assert_eq!(asked, [(Lsn(3), Lsn(4))], "{outcome:?}");
    }
}
