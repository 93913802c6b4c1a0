//! Well-formed messages that make no sense.

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn, Record, Run, StreamId};
use tidelog_replication::*;

use crate::stand::{ONE, RUN, Stand, US, chain, head, hello, site, stream};

fn any_message() -> impl Strategy<Value = Message> {
    let any_stream = (prop::sample::select(vec!["s", "t"]), 4u8..7, 1u64..3)
        .prop_map(|(name, node, run)| StreamId { run: Run(run), ..stream(name, node) });
    let any_head =
        (0u64..8, 0u8..3).prop_map(|(lsn, hash)| Head { lsn: Lsn(lsn), chain: ChainHash([hash; 16]) });
    let held = (any_stream.clone(), any_head).prop_map(|(stream, head)| Held { stream, head });
    let range = (0u64..8, 0u64..8)
        .prop_map(|(first, more)| Range { first: Lsn(first + 2), last: Lsn(first + 2 + more) });
    let above = (any_stream.clone(), prop::collection::vec(range, 0..2))
        .prop_map(|(stream, ranges)| Above { stream, ranges });
    let reason =
        prop::sample::select(vec![StopReason::Cancelled, StopReason::Unreadable, StopReason::Forked]);
    let bodies = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4);
    prop_oneof![
        4 => prop::collection::vec(held, 0..4).prop_map(Message::Hold),
        2 => prop::collection::vec(above, 0..4).prop_map(Message::Above),
        2 => (any_stream.clone(), 0u64..8, prop::option::of(0u8..3), 0u64..8).prop_map(
            |(stream, after, chain, until)| Message::Pull(Pull {
                stream,
                after: Lsn(after),
                chain: chain.map(|hash| ChainHash([hash; 16])),
                until: Lsn(until),
            })
        ),
        2 => (any_stream.clone(), 0u64..8, bodies).prop_map(|(stream, first, bodies)| Message::Records(Records {
            stream,
            first: Lsn(first),
            chain: ChainHash([0; 16]),
            bodies: Bodies(bodies.into_iter().map(BodyBytes).collect()),
        })),
        1 => any::<u32>().prop_map(Message::Credit),
        1 => any_stream.clone().prop_map(Message::Stop),
        1 => (any_stream, reason).prop_map(|(stream, reason)| Message::Stopped { stream, reason }),
        1 => Just(Message::Keepalive),
        1 => Just(hello(ONE)),
    ]
}

proptest! {
    #[test]
    fn nonsense_in_good_frames_changes_nothing_and_costs_a_bounded_amount(
        messages in prop::collection::vec(any_message(), 0..60),
    ) {
        let own = StreamId { site: site("s"), node: US, run: RUN };
        let other = StreamId { run: Run(2), ..stream("t", 6) };
        let vector = vec![
            (own.clone(), head(&chain(&own, 3, 99, 0))),
            (other.clone(), head(&chain(&other, 3, 99, 0))),
        ];
        let mut stand = Stand::new(vector.clone());
        stand.ready(ONE);
        let mut outcome = Ok(());
        for message in messages {
            if outcome.is_ok() {
                outcome = stand.hear(ONE, message);
            }
            stand.said();
            while let Some(request) = stand.replica.poll_disk() {
                match request {
                    // A branch that a peer says differs is written again: what is held here, under another name.
                    DiskRequest::Adopt { records, .. } => {
                        let ours = |record: &Record| {
                            record.body == [0; 10] && record.stream != own && record.stream != other
                        };
                        prop_assert!(records.iter().all(ours), "unproven records reached the disk");
                    }
                    DiskRequest::Skip { .. } => prop_assert!(false, "nobody said that anything was dropped"),
                    DiskRequest::Read { ticket, stream: s, after, .. } => {
                        let held = chain(&s, 3, 99, 0);
                        let part = held[usize::try_from(after.0).unwrap().min(3)..].to_vec();
                        stand.replica.handle_disk(stand.now, DiskReply::Read { ticket, outcome: Ok(part) });
                    }
                }
            }
            stand.wait(7);
        }
        let told: Vec<(StreamId, Head)> = stand.replica.vector().map(|(id, head)| (id.clone(), head)).collect();
        prop_assert_eq!(told, vector);
    }
}
