//! What a slow, silent, doubled or leaving peer costs, and when it is cut.

use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, RUN, Stand, TWO, WINDOW, chain, head, hold, ms, peer_node, stream};

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
            let mut replica = Replica::new(Options::new(us, RUN, Sites::All, 1), []);
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
