//! Datagrams in, answers and appends out, with the store's word given by hand.

use proptest::prelude::*;
use tidelog_lowpan::coap::empty;

use super::*;

const CLOCK_MS: i64 = 1_795_248_000_000;
const PACK: &[u8] = br#"[{"bn":"d/","n":"t","u":"Cel","v":21.5,"t":1700000000},{"n":"rh","v":40}]"#;

fn server() -> Server<u8> {
    Server::new(Arc::new(Metrics::new().unwrap()), ",</x>", 1)
}

/// A request; options in ascending order.
fn request(
    kind: Kind,
    code: Code,
    id: u16,
    path: &[&str],
    options: &[(u16, u32)],
    payload: &[u8],
) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let mut writer = Writer::new(&mut buffer, kind, code, id, b"tk").unwrap().path(path).unwrap();
    for (number, value) in options {
        writer = writer.uint(*number, *value).unwrap();
    }
    let length = writer.payload(payload).unwrap();
    buffer[..length].to_vec()
}

fn post(id: u16, options: &[(u16, u32)], payload: &[u8]) -> Vec<u8> {
    request(Kind::Confirmable, Code::POST, id, &["senml"], options, payload)
}

fn give(server: &mut Server<u8>, datagram: &[u8]) {
    server.handle_datagram(Instant::from_secs(0), CLOCK_MS, (1, "sender"), datagram);
}

/// The one answer: code, message id, and text.
fn answer(server: &mut Server<u8>) -> (Code, u16, String) {
    let (peer, datagram) = server.poll_transmit().expect("an answer");
    assert_eq!((peer, server.poll_transmit()), (1, None));
    let message = Message::parse(&datagram).unwrap();
    (message.code(), message.id(), String::from_utf8(message.payload().to_vec()).unwrap())
}

fn points(body: &[u8]) -> usize {
    match tidelog_record::Body::decode(body).unwrap() {
        tidelog_record::Body::Points(batch) => batch.points(),
        tidelog_record::Body::Unknown(_) => 0,
    }
}

#[test]
fn a_pack_is_answered_when_it_is_durable_and_its_repeat_as_before() {
    let mut server = server();
    let datagram = post(7, &[(option::CONTENT_FORMAT, 110)], PACK);
    give(&mut server, &datagram);
    let append = server.poll_append().unwrap();
    assert_eq!((points(&append.body), server.appending()), (2, 1));
    give(&mut server, &datagram);
    assert!(server.poll_transmit().is_none() && server.poll_append().is_none(), "it is under way");
    server.handle_outcome(append.number, Ok(()));
    assert_eq!(answer(&mut server), (Code::CHANGED, 7, String::new()));
    give(&mut server, &datagram);
    assert_eq!(answer(&mut server), (Code::CHANGED, 7, String::new()));
    assert!(server.poll_append().is_none() && server.appending() == 0);
}

#[test]
fn a_pack_in_blocks_is_put_together_and_appended_once() {
    let mut server = server();
    let blocks: Vec<_> = PACK.chunks(32).collect();
    let mut appended = None;
    for (number, bytes) in (0u32..).zip(&blocks) {
        let more = usize::try_from(number).unwrap() + 1 < blocks.len();
        let block = Block { number, more, exponent: 1 };
        let options = [(option::CONTENT_FORMAT, 110), (option::BLOCK1, block.value())];
        let id = 10 + u16::try_from(number).unwrap();
        give(&mut server, &post(id, &options, bytes));
        if more {
            assert_eq!(answer(&mut server), (Code::CONTINUE, id, String::new()));
        } else {
            let append = server.poll_append().unwrap();
            appended = Some(points(&append.body));
            server.handle_outcome(append.number, Ok(()));
            let (_, datagram) = server.poll_transmit().unwrap();
            let message = Message::parse(&datagram).unwrap();
            assert_eq!((message.code(), message.uint(option::BLOCK1)), (Code::CHANGED, Some(block.value())));
        }
    }
    assert_eq!(appended, Some(2));
    let late = Block { number: 2, more: true, exponent: 1 };
    give(&mut server, &post(99, &[(option::CONTENT_FORMAT, 110), (option::BLOCK1, late.value())], &[0; 32]));
    assert_eq!(answer(&mut server).0, Code::INCOMPLETE);
}

#[test]
fn what_cannot_be_taken_is_told_why() {
    let mut server = server();
    let get = |id, path: &[&str], options: &[(u16, u32)]| {
        request(Kind::Confirmable, Code::GET, id, path, options, b"")
    };
    let json = (option::CONTENT_FORMAT, 110);
    for (datagram, code, text) in [
        (post(1, &[json], b"[{"), Code::BAD_REQUEST, "no SenML"),
        (post(2, &[json], br#"[{"n":"x"}]"#), Code::BAD_REQUEST, "record 0: no value"),
        (post(3, &[], PACK), Code::UNSUPPORTED_FORMAT, "110"),
        (post(4, &[(option::CONTENT_FORMAT, 50)], PACK), Code::UNSUPPORTED_FORMAT, "110"),
        (post(5, &[json, (23, 0)], PACK), Code::BAD_OPTION, "23"),
        (post(6, &[json, (option::BLOCK1, 7)], PACK), Code::BAD_REQUEST, "Block1"),
        (get(7, &["senml"], &[]), Code::METHOD_NOT_ALLOWED, "POST"),
        (get(8, &["x"], &[]), Code::NOT_FOUND, "/senml"),
        (get(9, &[".well-known", "core"], &[(option::ACCEPT, 50)]), Code::NOT_ACCEPTABLE, "40"),
    ] {
        give(&mut server, &datagram);
        let (found, _, said) = answer(&mut server);
        assert!(found == code && said.contains(text), "{found} {said}");
    }
    assert!(server.poll_append().is_none());
}

#[test]
fn the_resources_are_told_as_links() {
    let mut server = server();
    give(&mut server, &request(Kind::NonConfirmable, Code::GET, 1, &[".well-known", "core"], &[], b""));
    let (code, id, links) = answer(&mut server);
    assert_eq!((code, links.as_str()), (Code::CONTENT, "</senml>;rt=\"tidelog.senml\";ct=\"110 112\",</x>"));
    assert_ne!(id, 1, "an answer of its own");
}

#[test]
fn a_store_that_refuses_says_when_to_come_back_and_so_does_a_full_server() {
    let mut server = server();
    let json = [(option::CONTENT_FORMAT, 110)];
    for id in 0..u16::try_from(APPENDS_MAX).unwrap() {
        give(&mut server, &post(id, &json, PACK));
    }
    give(&mut server, &post(1000, &json, PACK));
    assert_eq!(answer(&mut server).0, Code::UNAVAILABLE);
    let first = server.poll_append().unwrap();
    server.handle_outcome(first.number, Err(Refusal::Full));
    let (_, datagram) = server.poll_transmit().unwrap();
    let message = Message::parse(&datagram).unwrap();
    assert_eq!((message.code(), message.uint(option::MAX_AGE)), (Code::UNAVAILABLE, Some(60)));
}

#[test]
fn where_sensors_are_served_too_only_these_resources_are_for_others() {
    assert!(is_for_others(&post(1, &[], b"")));
    assert!(is_for_others(&request(Kind::Confirmable, Code::GET, 1, &[".well-known", "core"], &[], b"")));
    for datagram in [
        request(Kind::Confirmable, Code::POST, 1, &["b"], &[], b""),
        request(Kind::Confirmable, Code::POST, 1, &["senml", "x"], &[], b""),
        empty(Kind::Confirmable, 1).to_vec(),
        Vec::new(),
    ] {
        assert!(!is_for_others(&datagram));
    }
}

proptest! {
    #[test]
    fn no_datagram_panics_and_every_append_ends_in_an_answer(
        datagrams in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                (any::<u16>(), proptest::option::of(0..40u32), proptest::collection::vec(any::<u8>(), 0..40))
                    .prop_map(|(id, block, payload)| {
                        let mut options = vec![(option::CONTENT_FORMAT, 112)];
                        options.extend(block.map(|block| (option::BLOCK1, block)));
                        post(id, &options, &payload)
                    }),
                (any::<u16>(), 0..PACK.len())
                    .prop_map(|(id, cut)| post(id, &[(option::CONTENT_FORMAT, 110)], &PACK[..PACK.len() - cut])),
            ],
            0..30,
        ),
    ) {
        let mut server = server();
        for datagram in datagrams {
            give(&mut server, &datagram);
            while let Some(append) = server.poll_append() {
                while server.poll_transmit().is_some() {}
                server.handle_outcome(append.number, Ok(()));
                prop_assert!(server.poll_transmit().is_some());
            }
        }
        prop_assert_eq!(server.appending(), 0);
    }
}
