//! Messages as bytes: each kind comes back as it was, and no bytes make the reader panic or believe an unchecked length.

use alloc::vec;

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn, NodeId, Run, StreamId};

use super::*;
use crate::limits::{HOLD_STREAMS_MAX, RANGES_ABOVE_MAX, RECORDS_PER_MESSAGE_MAX};
use crate::message::{Above, Bodies, BodyBytes, Held, Hello, Pull, Records, StopReason};
use crate::stream::{Head, Range};

fn stream() -> impl Strategy<Value = StreamId> {
    ("[a-z0-9][a-z0-9._-]{0,63}", any::<[u8; 16]>(), any::<u64>()).prop_map(|(site, node, run)| StreamId {
        site: site.parse().unwrap(),
        node: NodeId(node),
        run: Run(run),
    })
}

fn head() -> impl Strategy<Value = Head> {
    (any::<u64>(), any::<[u8; 16]>()).prop_map(|(lsn, chain)| Head { lsn: Lsn(lsn), chain: ChainHash(chain) })
}

fn message() -> impl Strategy<Value = Message> {
    let held = (stream(), head()).prop_map(|(stream, head)| Held { stream, head });
    let range = any::<[u64; 2]>().prop_map(|[first, last]| Range { first: Lsn(first), last: Lsn(last) });
    let above = (stream(), prop::collection::vec(range, 0..=RANGES_ABOVE_MAX))
        .prop_map(|(stream, ranges)| Above { stream, ranges });
    let bodies = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6);
    let reason = prop_oneof![
        Just(StopReason::Cancelled),
        Just(StopReason::Unreadable),
        Just(StopReason::Forked),
        head().prop_map(StopReason::Dropped)
    ];
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<[u8; 16]>(), any::<u32>(), any::<u64>()).prop_map(
            |(version_min, version_max, node, credit_bytes, instance)| Message::Hello(Hello {
                version_min,
                version_max,
                node: NodeId(node),
                credit_bytes,
                instance
            })
        ),
        prop::collection::vec(held, 0..5).prop_map(Message::Hold),
        prop::collection::vec(above, 0..5).prop_map(Message::Above),
        (stream(), any::<u64>(), prop::option::of(any::<[u8; 16]>()), any::<u64>()).prop_map(
            |(stream, after, chain, until)| Message::Pull(Pull {
                stream,
                after: Lsn(after),
                chain: chain.map(ChainHash),
                until: Lsn(until)
            })
        ),
        (stream(), any::<u64>(), any::<[u8; 16]>(), bodies).prop_map(|(stream, first, chain, bodies)| {
            Message::Records(Records {
                stream,
                first: Lsn(first),
                chain: ChainHash(chain),
                bodies: Bodies(bodies.into_iter().map(BodyBytes).collect()),
            })
        }),
        any::<u32>().prop_map(Message::Credit),
        stream().prop_map(Message::Stop),
        (stream(), reason).prop_map(|(stream, reason)| Message::Stopped { stream, reason }),
        Just(Message::Keepalive),
        (stream(), head()).prop_map(|(stream, head)| Message::Forked {
            stream,
            lsn: head.lsn,
            chain: head.chain
        }),
        ".{0,40}".prop_map(Message::Close),
    ]
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_written_however_the_bytes_are_cut(
        messages in prop::collection::vec(message(), 1..5), cut in 1usize..50,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).unwrap();
        }
        let mut decoder = Decoder::default();
        let mut read = Vec::new();
        for part in bytes.chunks(cut) {
            decoder.push(part);
            while let Some(message) = decoder.next_message().unwrap() {
                read.push(message);
            }
        }
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn random_bytes_are_refused_or_wait_and_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for bytes in [noise, frame(&payload)] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    #[test]
    fn a_flipped_bit_is_found(message in message(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        prop_assert!(!matches!(decoder.next_message(), Ok(Some(_))));
    }
}

#[test]
fn a_huge_length_is_refused_before_anything_is_reserved() {
    let mut decoder = Decoder::default();
    decoder.push(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(decoder.next_message(), Err(FrameError::TooLong { bytes: 0xffff_ffff }));
}

#[test]
fn a_huge_count_inside_a_good_frame_is_refused() {
    // {"Hold": array of 2^32 - 1}
    let mut payload = vec![0x81, 0xa4];
    payload.extend(b"Hold");
    payload.extend([0xdd, 0xff, 0xff, 0xff, 0xff]);
    let mut decoder = Decoder::default();
    decoder.push(&frame(&payload));
    assert!(matches!(decoder.next_message(), Err(FrameError::Malformed(_))));
}

#[test]
fn more_records_than_a_message_may_have_are_refused() {
    let records = Message::Records(Records {
        stream: StreamId { site: "s".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) },
        first: Lsn(1),
        chain: ChainHash::GENESIS,
        bodies: Bodies(vec![BodyBytes(vec![]); RECORDS_PER_MESSAGE_MAX + 1]),
    });
    let mut bytes = Vec::new();
    encode(&records, &mut bytes).unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    assert!(matches!(decoder.next_message(), Err(FrameError::Malformed(_))));
}

#[test]
fn more_ranges_or_streams_than_a_message_may_tell_of_are_refused() {
    let stream = StreamId { site: "s".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) };
    let range = Range { first: Lsn(3), last: Lsn(4) };
    let above = |ranges| Above { stream: stream.clone(), ranges: vec![range; ranges] };
    for (message, is_read) in [
        (vec![above(RANGES_ABOVE_MAX)], true),
        (vec![above(RANGES_ABOVE_MAX + 1)], false),
        (vec![above(1); HOLD_STREAMS_MAX], true),
        (vec![above(1); HOLD_STREAMS_MAX + 1], false),
    ] {
        let mut bytes = Vec::new();
        encode(&Message::Above(message), &mut bytes).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(matches!(decoder.next_message(), Ok(Some(_))), is_read);
    }
}

#[test]
fn the_longest_record_has_a_frame() {
    let records = Message::Records(Records {
        stream: StreamId { site: "s".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) },
        first: Lsn(1),
        chain: ChainHash::GENESIS,
        bodies: Bodies(vec![BodyBytes(vec![7; tidelog_record::BATCH_BYTES_MAX])]),
    });
    assert_eq!(encode(&records, &mut Vec::new()), Ok(()));
}
