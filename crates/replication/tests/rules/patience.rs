//! What a slow, silent, doubled or leaving peer costs, and when it is cut.

use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, RUN, Stand, TWO, US, WINDOW, chain, head, hello, hold, ms, peer_node, stream};

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
    assert_eq!(stand.events(), [], "who it is has not been said yet");
    stand.hear(TWO, hello(ONE)).unwrap();
    let closed = Event::Closed { session: ONE, reason: CloseReason::Replaced };
    assert_eq!(stand.events().first(), Some(&closed));
}

#[test]
fn a_life_of_a_node_that_comes_back_after_another_one_is_a_copy_and_both_are_served() {
    let mut stand = Stand::new(vec![]);
    let mut join = |session: u64, instance| {
        let session = SessionId(session);
        stand.connect(session, peer_node(ONE), Sites::All, false);
        let Message::Hello(hello) = hello(ONE) else { unreachable!() };
        stand.hear(session, Message::Hello(Hello { instance, ..hello })).unwrap();
        let (mut closed, mut cloned) = (vec![], false);
        for event in stand.events() {
            match event {
                Event::Closed { session, .. } => closed.push(session.0),
                Event::Cloned { node } => cloned |= node == peer_node(ONE),
                _ => {}
            }
        }
        (closed, cloned)
    };
    assert_eq!(join(1, 70), (vec![], false));
    assert_eq!(join(2, 71), (vec![1], false), "a restart");
    assert_eq!(join(3, 71), (vec![2], false), "the same life again");
    assert_eq!(join(4, 70), (vec![], true), "the life that seemed to be over");
    assert_eq!(join(5, 70), (vec![4], false), "each has one session");
    assert_eq!(join(6, 71), (vec![3], true));
}

#[test]
fn a_node_that_meets_its_own_copy_says_so() {
    let mut stand = Stand::new(vec![]);
    stand.connect(ONE, US, Sites::All, true);
    let Message::Hello(hello) = hello(ONE) else { unreachable!() };
    let outcome = stand.hear(ONE, Message::Hello(Hello { node: US, instance: 99, ..hello }));
    assert_eq!(outcome, Err(Violation::Itself));
    assert_eq!(stand.events().first(), Some(&Event::Cloned { node: US }));
}

#[test]
fn when_both_dial_at_once_both_keep_the_same_connection() {
    // Connection 1 is dialled by the smaller id, connection 2 by the larger; each side sees them in either order.
    let (small, large) = (NodeId([1; 16]), NodeId([2; 16]));
    for order in [[0usize, 1], [1, 0]] {
        for (us, them) in [(small, large), (large, small)] {
            let mut replica = Replica::new(Options::new(us, RUN, Sites::All, 1), []);
            for i in order {
                let dialled = (i == 0) == (us == small);
                let session = SessionId(u64::try_from(i).unwrap() + 1);
                replica.connected(ms(1), session, Peer { node: them, sites: Sites::All, dialled });
            }
            for i in order {
                let session = SessionId(u64::try_from(i).unwrap() + 1);
                let hello = Hello {
                    version_min: PROTOCOL_VERSION,
                    version_max: PROTOCOL_VERSION,
                    node: them,
                    credit_bytes: 1,
                    instance: 1,
                };
                replica.handle_message(ms(2), session, Message::Hello(hello)).unwrap();
            }
            let events = std::iter::from_fn(|| replica.poll_event());
            let closed: Vec<Event> = events.filter(|event| matches!(event, Event::Closed { .. })).collect();
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
