//! Two branches of one stream: found by either side, reported, nothing overwritten, and both come to be held.

use std::collections::BTreeMap;

use tidelog_record::{ChainHash, Lsn, Record, Run, StreamId};
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

/// Answers every read out of `held`, and takes every adoption.
fn serve(stand: &mut Stand, held: &mut BTreeMap<StreamId, Vec<Record>>) {
    while let Some(request) = stand.replica.poll_disk() {
        let reply = match request {
            DiskRequest::Read { ticket, stream, after, .. } => {
                let records = held.get(&stream).map(|all| all[usize::try_from(after.0).unwrap()..].to_vec());
                DiskReply::Read { ticket, outcome: Ok(records.unwrap_or_default()) }
            }
            DiskRequest::Adopt { ticket, records } => {
                held.entry(records[0].stream.clone()).or_default().extend(records);
                DiskReply::Adopted { ticket, outcome: Ok(()) }
            }
            DiskRequest::Skip { .. } => panic!("nothing was dropped"),
        };
        stand.replica.handle_disk(stand.now, reply);
    }
}

/// A peer that holds `theirs` of the stream and is asked where the branches part, until it is asked no more.
fn answer(stand: &mut Stand, held: &mut BTreeMap<StreamId, Vec<Record>>, theirs: &[Record]) -> usize {
    let mut asked = 0;
    loop {
        serve(stand, held);
        let mut idle = true;
        for (session, message) in stand.said() {
            let Message::Pull(pull) = message else { continue };
            idle = false;
            asked += 1;
            let at = usize::try_from(pull.after.0).unwrap();
            let same = at == 0 || pull.chain == Some(theirs[at - 1].chain);
            let stopped = Message::Stopped { stream: pull.stream.clone(), reason: StopReason::Forked };
            let reply = if same { records(&theirs[at..=at]) } else { stopped };
            stand.hear(session, reply).unwrap();
        }
        if idle {
            return asked;
        }
    }
}

fn run_of(record: &Record) -> Run {
    Run(u64::from_le_bytes(record.chain.0[..8].try_into().unwrap()))
}

#[test]
fn a_branch_is_written_again_from_where_the_two_part_under_a_run_that_its_first_record_names() {
    let s = stream("s", 9);
    for part in [1, 2, 5, 17, 40] {
        let (ours, theirs) = (chain(&s, 40, part, 1), chain(&s, 40, part, 2));
        let mut held = BTreeMap::from([(s.clone(), ours.clone())]);
        let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
        stand.ready(ONE);
        stand.hear(ONE, hold(&s, head(&theirs))).unwrap();
        let asked = answer(&mut stand, &mut held, &theirs);
        assert!(asked <= 6, "{asked} questions for 40 records");

        let first = usize::try_from(part).unwrap() - 1;
        let into = StreamId { run: run_of(&ours[first]), ..s.clone() };
        let bodies = |records: &[Record]| records.iter().map(|r| r.body.clone()).collect::<Vec<_>>();
        assert_eq!(bodies(&held[&into]), bodies(&ours[first..]), "parted at {part}");
        let told = stand.replica.vector().find(|(id, _)| **id == into).map(|(_, told)| told);
        assert_eq!(told, Some(head(&held[&into])));
        let branched = Event::Branched { stream: s.clone(), after: Lsn(part - 1), into: into.clone() };
        assert!(stand.events().contains(&branched));

        // The branch grows, and what is written again grows with it.
        let longer = chain(&s, 43, part, 1);
        held.insert(s.clone(), longer.clone());
        stand.replica.committed(stand.now, &s, head(&longer), &[]);
        serve(&mut stand, &mut held);
        assert_eq!(bodies(&held[&into]), bodies(&longer[first..]));
    }
}

#[test]
fn what_others_brought_of_a_branch_is_not_written_twice() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 9, 4, 1), chain(&s, 9, 4, 2));
    let into = StreamId { run: run_of(&ours[3]), ..s.clone() };
    let mut before = ChainHash::GENESIS;
    let mut again = Vec::new();
    for (lsn, record) in (1..).zip(&ours[3..]) {
        before = before.after(&into.key(), Lsn(lsn), &record.body);
        again.push(Record { stream: into.clone(), lsn: Lsn(lsn), chain: before, body: record.body.clone() });
    }
    let mut held = BTreeMap::from([(s.clone(), ours.clone()), (into.clone(), again[..4].to_vec())]);
    let mut stand = Stand::new(vec![(s.clone(), head(&ours)), (into.clone(), head(&again[..4]))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&s, head(&theirs))).unwrap();
    answer(&mut stand, &mut held, &theirs);
    assert_eq!(held[&into], again);
}

#[test]
fn a_peers_word_of_a_fork_is_compared_with_the_disk() {
    let s = stream("s", 9);
    let (ours, theirs) = (chain(&s, 8, 4, 1), chain(&s, 5, 4, 2));
    let mut held = BTreeMap::from([(s.clone(), ours.clone())]);
    for (claimed, is_fork) in [(theirs[4].chain, true), (ours[4].chain, false)] {
        let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
        stand.ready(ONE);
        let word = Message::Forked { stream: s.clone(), lsn: Lsn(5), chain: claimed };
        stand.hear(ONE, word).unwrap();
        serve(&mut stand, &mut held);
        assert_eq!(fork_of(&stand.events()).map(|fork| fork.lsn), is_fork.then_some(Lsn(5)));
    }
    let mut stand = Stand::new(vec![(s.clone(), head(&ours))]);
    stand.ready(ONE);
    let beyond = Message::Forked { stream: s, lsn: Lsn(9), chain: ChainHash([1; 16]) };
    assert_eq!(stand.hear(ONE, beyond), Err(Violation::Lsn(Lsn(9))));
}

#[test]
fn a_fork_that_is_told_while_the_pull_is_taken_back_is_not_missed() {
    let own = StreamId { run: crate::stand::RUN, node: crate::stand::US, ..stream("s", 9) };
    let (ours, theirs) = (chain(&own, 8, 7, 1), chain(&own, 9, 7, 2));
    let mut held = BTreeMap::from([(own.clone(), ours.clone())]);
    let mut stand = Stand::new(vec![(own.clone(), head(&ours[..7]))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&own, head(&theirs))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(7), Lsn(9))]);
    // Written here meanwhile, so the pull is taken back; the answer crosses that word.
    stand.replica.committed(stand.now, &own, head(&ours), &[]);
    stand.hear(ONE, Message::Stopped { stream: own.clone(), reason: StopReason::Forked }).unwrap();
    stand.hear(ONE, Message::Stopped { stream: own.clone(), reason: StopReason::Cancelled }).unwrap();
    assert_eq!(fork_of(&stand.events()).map(|fork| fork.lsn), Some(Lsn(7)));
    answer(&mut stand, &mut held, &theirs);
    let into = StreamId { run: run_of(&ours[6]), ..own };
    assert_eq!(held[&into].len(), 2);
}
