//! What a session begins with, and what a peer may tell of: versions, names, grants, streams.

use std::collections::BTreeSet;

use tidelog_record::{ChainHash, Lsn, Run, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, RUN, Stand, TWO, US, chain, head, hello, hold, peer_node, records, site, stream};

#[test]
fn neighbouring_versions_agree_and_others_are_refused() {
    let cases = [
        (PROTOCOL_VERSION, PROTOCOL_VERSION, Some(PROTOCOL_VERSION)),
        (PROTOCOL_VERSION, PROTOCOL_VERSION + 1, Some(PROTOCOL_VERSION)),
        (0, PROTOCOL_VERSION, Some(PROTOCOL_VERSION)),
        (0, PROTOCOL_VERSION - 1, Some(PROTOCOL_VERSION - 1)),
        (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2, None),
        (0, PROTOCOL_VERSION_MIN - 1, None),
    ];
    for (version_min, version_max, agreed) in cases {
        let mut stand = Stand::new(vec![]);
        stand.connect(ONE, peer_node(ONE), Sites::All, true);
        let hello = Hello { version_min, version_max, node: peer_node(ONE), credit_bytes: 1, instance: 1 };
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
    let ours = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        node: US,
        credit_bytes: 1,
        instance: 1,
    };
    assert_eq!(stand.hear(SessionId(4), Message::Hello(ours)), Err(Violation::Itself));
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
fn what_a_disk_lost_of_this_nodes_own_stream_is_fetched_and_held_to_the_chain() {
    let own = StreamId { site: site("s"), node: US, run: RUN };
    let held = chain(&own, 2, 99, 0);
    let claimed = chain(&own, 5, 99, 0);
    let mut stand = Stand::new(vec![(own.clone(), head(&held))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&own, head(&claimed))).unwrap();
    assert_eq!(stand.pulls(), [(ONE, Lsn(2), Lsn(5))]);
    assert!(matches!(
        stand.events().as_slice(),
        [Event::OwnStreamAhead { claimed: Lsn(5), written: Lsn(2), .. }]
    ));
    let forged = chain(&own, 5, 3, 7);
    let mut forged = records(&forged[2..]);
    if let Message::Records(records) = &mut forged {
        records.chain = head(&claimed).chain;
    }
    stand.hear(ONE, forged).unwrap();
    assert_eq!(stand.disk(Ok(())), 0, "what does not hash to what was told is nobody's record");

    let mut stand = Stand::new(vec![(own.clone(), head(&held))]);
    stand.ready(ONE);
    stand.hear(ONE, hold(&own, head(&claimed))).unwrap();
    stand.hear(ONE, records(&claimed[2..])).unwrap();
    assert_eq!(stand.disk(Ok(())), 3);
    assert_eq!(stand.replica.vector().next(), Some((&own, head(&claimed))));

    // A run that is over is a stream like any other.
    stand.events();
    stand.said();
    stand.replica.begin_run(stand.now, Run(2));
    stand.hear(ONE, hold(&own, head(&chain(&own, 6, 99, 0)))).unwrap();
    assert_eq!(stand.events(), []);
    assert_eq!(stand.pulls(), [(ONE, Lsn(5), Lsn(6))]);
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
