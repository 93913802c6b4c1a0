//! Frames from anyone: whatever the bytes are, an endpoint neither panics nor stops serving the stations that behave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

use std::time::SystemTime;

use proptest::prelude::*;
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{
    COAP_PORT, Drops, Endpoint, EndpointConfig, FRAME_BYTES_MAX, NetworkKey, Peer, Quality,
};
use tidelog_record::DeviceId;

type Station = Endpoint<1280, 4, 4, 8>;

const QUALITY: Quality = Quality { rssi_dbm: -70, lqi: 90 };
const US: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
const OTHER: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 2]);

const KEY: NetworkKey = NetworkKey::new([0x4b; 16]);

fn station(device: DeviceId) -> Station {
    keyed(device, None)
}

fn keyed(device: DeviceId, key: Option<NetworkKey>) -> Station {
    let config = EndpointConfig { key, counter_block: 1 << 20, ..EndpointConfig::new(device) };
    let mut station = Station::new(config, 1).unwrap();
    station.resume_counters(0);
    if let Some(upto) = station.counter_reserve_due() {
        station.counters_reserved(upto);
    }
    station
}

/// What a caller does after each frame.
fn drain(station: &mut Station, now: Instant) -> Vec<Vec<u8>> {
    let (mut frame, mut payload, mut frames) = ([0; 127], [0; 1280], Vec::new());
    while station.receive(&mut payload).is_some() {}
    while let Some(length) = station.poll_transmit(now, &mut frame) {
        frames.push(frame[..length].to_vec());
    }
    frames
}

/// Every frame of an exchange between two stations that behave.
fn good_frames(key: Option<NetworkKey>) -> Vec<Vec<u8>> {
    let (mut us, mut other) = (keyed(US, key), keyed(OTHER, key));
    let mut now = Instant::from_millis(1);
    let mut all = Vec::new();
    for length in [0, 1, 60, 74, 75, 300, 1232] {
        other.send(now, Peer { device: US, port: COAP_PORT }, &vec![0x5a; length]).unwrap();
        for _ in 0..100 {
            now += Duration::from_millis(3);
            let there = drain(&mut other, now);
            there.iter().for_each(|frame| us.handle_frame(now, frame, QUALITY));
            let back = drain(&mut us, now);
            back.iter().for_each(|frame| other.handle_frame(now, frame, QUALITY));
            all.extend(there.into_iter().chain(back));
        }
    }
    assert!(us.counters().datagrams_in == 7, "{:?}", us.counters());
    all
}

/// A frame to us from another station, with this payload.
fn addressed(sequence: u8, source: u8, payload: &[u8]) -> Vec<u8> {
    let header =
        [0x61, 0xdc, sequence, 0x23, 0, 1, 0, 0, 0, 0, 0x4b, 0x12, 2, source, 0, 0, 0, 0, 0x4b, 0x12, 2];
    header.into_iter().chain(payload.iter().copied()).collect()
}

/// After whatever happened, a datagram of a station that behaves comes through.
fn still_serves(us: &mut Station, mut now: Instant) {
    // What hostile frames left unfinished may hold its slot for as long as any sender's.
    now += Duration::from_secs(5);
    us.handle_timeout(now);
    drain(us, now);
    let friend = DeviceId([0x02, 0x12, 0x4b, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    let mut friend = keyed(friend, us.config().key);
    let sent = vec![0xa5; 400];
    friend.send(now, Peer { device: US, port: COAP_PORT }, &sent).unwrap();
    let mut got = Vec::new();
    for _ in 0..100 {
        now += Duration::from_millis(3);
        for frame in drain(&mut friend, now) {
            us.handle_frame(now, &frame, QUALITY);
        }
        let mut payload = [0; 1280];
        while let Some((_, length)) = us.receive(&mut payload) {
            got.push(payload[..length].to_vec());
        }
        for frame in drain(us, now) {
            friend.handle_frame(now, &frame, QUALITY);
        }
    }
    assert_eq!(got, [sent]);
}

#[test]
fn the_frame_that_crashed_another_stack_is_counted_and_dropped() {
    let hex = "61dcc12300100000000000000202000000000025027e33e316";
    let frame: Vec<u8> =
        (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
    let now = Instant::from_millis(1);
    let mut us = station(DeviceId([0x02, 0, 0, 0, 0, 0, 0, 0x10]));
    us.handle_frame(now, &frame, QUALITY);
    let drops = us.counters().drops;
    assert_eq!(drops.named().map(|(_, count)| count).sum::<u64>(), 1, "{drops:?}");
    assert_eq!(drops.bad_headers, 1, "{drops:?}");
}

#[test]
fn first_fragments_that_claim_too_little_are_refused() {
    let mut us = station(US);
    let now = Instant::from_millis(1);
    for size in 0..48u8 {
        let payload = [0xc0, size, 0, size, 0x7e, 0x33, 0xf0, 0x16, 0x33, 0x16, 0x33, 0, 0];
        us.handle_frame(now, &addressed(size, 2, &payload), QUALITY);
        assert_eq!(drain(&mut us, now).len(), 1, "only the acknowledgement");
    }
    assert_eq!(us.counters().drops.bad_headers, 48);
    still_serves(&mut us, now);
}

#[test]
fn two_hundred_thousand_hostile_frames_leave_the_station_serving() {
    assail(None);
}

#[test]
fn two_hundred_thousand_hostile_frames_leave_a_secured_station_serving_and_none_is_believed() {
    let drops = assail(Some(KEY));
    assert!(drops.forged > 10_000 && drops.unsecured > 10_000 && drops.security_level > 100, "{drops:?}");
    // What a stranger sends never reaches 6LoWPAN.
    assert_eq!((drops.bad_headers, drops.bad_fragment, drops.bad_packet), (0, 0, 0));
}

/// Hostile frames at a station with or without a key; what it dropped.
fn assail(key: Option<NetworkKey>) -> Drops {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let seed = match std::env::var("HOSTILE_SEED") {
        Ok(text) => text.parse().expect("HOSTILE_SEED is a number"),
        Err(_) => u64::try_from(clock % u128::from(u64::MAX)).unwrap(),
    };
    println!("HOSTILE_SEED={seed}");
    let mut state = seed | 1;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % below
    };
    let good = good_frames(key);
    let mut us = keyed(US, key);
    let mut now = Instant::from_millis(1);
    for round in 0..200_000u32 {
        let frame = match draw(4) {
            0 => (0..draw(FRAME_BYTES_MAX + 3)).map(|_| draw(256) as u8).collect(),
            1 => {
                let payload: Vec<u8> = (0..draw(100)).map(|_| draw(256) as u8).collect();
                addressed(draw(256) as u8, draw(16) as u8, &payload)
            }
            2 => {
                // A 6LoWPAN payload that begins plausibly.
                let starts: [&[u8]; 8] = [
                    &[0xc0, 0x50, 0, 1, 0x7e, 0x33, 0xf0],
                    &[0xc4, 0x60, 0, 1, 0x7e, 0x33, 0xf0],
                    &[0xe0, 0x50, 0, 1],
                    &[0xe4, 0x60, 0, 1],
                    &[0x7e, 0x33, 0xf0, 0x16, 0x33, 0x16, 0x33],
                    &[0x41, 0x60, 0, 0, 0, 0],
                    &[0x7a, 0x33, 0x3a, 128, 0],
                    &[0x60, 0x00],
                ];
                let tail: Vec<u8> = (0..draw(97)).map(|_| draw(256) as u8).collect();
                addressed(draw(256) as u8, draw(4) as u8, &[starts[draw(starts.len())], &tail].concat())
            }
            _ => {
                let mut frame = good[draw(good.len())].clone();
                for _ in 0..=draw(4) {
                    let place = draw(frame.len().max(1));
                    match draw(3) {
                        0 => frame.truncate(place),
                        1 => frame.insert(place.min(frame.len()), draw(256) as u8),
                        _ => {
                            if let Some(byte) = frame.get_mut(place) {
                                *byte ^= 1 << draw(8);
                            }
                        }
                    }
                }
                frame
            }
        };
        us.handle_frame(now, &frame, QUALITY);
        if round % 3 == 0 {
            drain(&mut us, now);
        }
        if round % 7 == 0 {
            now += Duration::from_micros(draw(200_000) as u64);
            us.handle_timeout(now);
        }
    }
    println!("{:?}", us.counters());
    let drops = us.counters().drops;
    still_serves(&mut us, now);
    drops
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_are_taken_or_dropped(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..130), 0..40), secured: bool,
    ) {
        let mut us = keyed(US, secured.then_some(KEY));
        for frame in frames {
            us.handle_frame(Instant::from_millis(1), &frame, QUALITY);
            drain(&mut us, Instant::from_millis(1));
        }
        still_serves(&mut us, Instant::from_millis(1));
    }

    #[test]
    fn any_payloads_are_taken_or_dropped(
        payloads in prop::collection::vec((any::<u8>(), 2u8..6, prop::collection::vec(any::<u8>(), 0..104)), 0..40)
    ) {
        let mut us = station(US);
        for (sequence, source, payload) in payloads {
            us.handle_frame(Instant::from_millis(1), &addressed(sequence, source, &payload), QUALITY);
            drain(&mut us, Instant::from_millis(1));
        }
        still_serves(&mut us, Instant::from_millis(1));
    }

    #[test]
    fn fragments_of_any_size_tag_and_offset_are_taken_or_dropped(
        pieces in prop::collection::vec(
            (any::<bool>(), 0u16..2048, 0u16..3, any::<u8>(), prop::collection::vec(any::<u8>(), 0..95)), 0..60)
    ) {
        let mut us = station(US);
        for (number, (first, size, tag, offset, bytes)) in pieces.into_iter().enumerate() {
            let [high, low] = size.to_be_bytes();
            let mut payload = vec![if first { 0xc0 } else { 0xe0 } | high, low, 0, tag as u8];
            payload.extend_from_slice(if first { &[0x7e, 0x33, 0xf0, 0x16, 0x33, 0x16, 0x33] } else { std::slice::from_ref(&offset) });
            payload.extend(bytes);
            payload.truncate(104);
            us.handle_frame(Instant::from_millis(1), &addressed(number as u8, 2, &payload), QUALITY);
        }
        still_serves(&mut us, Instant::from_millis(1));
    }
}
