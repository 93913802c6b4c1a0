//! Stations with link security, and stations whose radio acknowledges for them: what is sealed is taken once, whatever is forged, replayed, restarted or
//! seen too late.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

mod air;

use std::collections::BTreeMap;

use tidelog_lowpan::access::Access;
use tidelog_lowpan::mac;
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{EndpointConfig, NetworkKey, SINGLE_FRAME_PAYLOAD_BYTES_MAX, SendError};

use air::*;

#[test]
fn secured_datagrams_of_every_length_arrive_cut_as_unsecured_ones_are() {
    let frames = [None, Some(KEY)].map(|key| {
        let mut field = Field::with_key(2, 11, key);
        for length in (0..=Station::PAYLOAD_BYTES_MAX).step_by(7).chain([SINGLE_FRAME_PAYLOAD_BYTES_MAX]) {
            let payload = pattern(length, 7);
            field.send(0, 1, &payload);
            field.run_for(Duration::from_millis(200));
            assert_eq!(field.received[1].pop(), Some((peer(0), payload)), "{length}");
        }
        assert_eq!(field.stations[1].counters().drops, Default::default());
        field.frames.len()
    });
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn no_payload_is_seen_on_a_secured_air_and_no_counter_twice_but_for_repetitions() {
    let mut field = Field::with_key(2, 12, Some(KEY));
    field.loss_percent = 20;
    for _ in 0..300 {
        field.send(0, 1, b"the temperature is 21.5");
        field.run_for(Duration::from_millis(1_000));
    }
    let mut by_counter: BTreeMap<[u8; 4], Vec<u8>> = BTreeMap::new();
    let mut repetitions = 0;
    for (_, frame) in field.frames.iter().filter(|(from, frame)| *from == 0 && frame.len() > 3) {
        assert!(!frame.windows(4).any(|bytes| bytes == b"temp"));
        let counter = frame[22..26].try_into().unwrap();
        if let Some(before) = by_counter.insert(counter, frame.clone()) {
            assert_eq!(before, *frame, "a repetition is the identical frame");
            repetitions += 1;
        }
    }
    assert!(
        by_counter.len() >= 300 && repetitions > 20,
        "{} counters, {repetitions} repetitions",
        by_counter.len()
    );
    assert_eq!(field.stations[1].counters().drops.replayed, 0);
}

#[test]
fn loss_with_copies_and_reordering_leaves_secured_datagrams_whole_and_single() {
    let mut field = Field::with_key(2, 13, Some(KEY));
    (field.loss_percent, field.duplicate_percent, field.delay_us_max) = (30, 20, 20_000);
    let mut arrived = 0;
    for round in 0..150usize {
        for (from, to) in [(0, 1), (1, 0)] {
            field.send(from, to, &pattern(1 + (round * 37) % 600, round as u8));
        }
        field.run_for(Duration::from_millis(4_000));
        for n in 0..2 {
            let expected = (peer(1 - n), pattern(1 + (round * 37) % 600, round as u8));
            let got = std::mem::take(&mut field.received[n]);
            assert!(got.len() <= 1 && got.iter().all(|datagram| *datagram == expected), "round {round}");
            arrived += got.len();
        }
    }
    assert!(arrived >= 270, "{arrived} of 300");
}

/// One frame of a station to the other, as it goes on the air.
fn one_frame(from: &mut Station, to: usize) -> Vec<u8> {
    let now = Instant::from_millis(1);
    from.send(now, peer(to), b"once").unwrap();
    let mut buffer = [0; 127];
    let length = from.poll_transmit(now, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn frames_that_are_not_rightly_secured_are_dropped_by_reason_and_not_acknowledged() {
    let mut us = station(1, Some(KEY), 0, 1);
    let now = Instant::from_millis(1);
    let mut buffer = [0; 127];
    let mut changed = one_frame(&mut station(0, Some(KEY), 0, 2), 1);
    *changed.last_mut().unwrap() ^= 1;
    let mut other_level = one_frame(&mut station(0, Some(KEY), 0, 3), 1);
    other_level[21] = 0x0e;
    let wrong_key = one_frame(&mut station(0, Some(NetworkKey::new([9; 16])), 0, 4), 1);
    let unsecured = one_frame(&mut station(0, None, 0, 5), 1);
    for frame in [&changed, &wrong_key, &other_level, &unsecured] {
        us.handle_frame(now, frame, QUALITY);
        assert_eq!((us.poll_transmit(now, &mut buffer), us.receive(&mut [0; 64])), (None, None));
    }
    let drops = us.counters().drops;
    assert_eq!((drops.forged, drops.security_level, drops.unsecured), (2, 1, 1));
    assert_eq!(us.neighbors().count(), 0, "a forger is nobody's neighbour");
    let mut open = station(1, None, 0, 6);
    open.handle_frame(now, &changed, QUALITY);
    assert_eq!(open.counters().drops.secured, 1);
}

#[test]
fn a_replayed_frame_is_dropped_at_any_time_and_a_repetition_is_acknowledged_once_more() {
    let (mut us, mut other) = (station(1, Some(KEY), 0, 1), station(0, Some(KEY), 0, 2));
    let mut buffer = [0; 127];
    let mut frames = Vec::new();
    for n in 0..8 {
        let now = Instant::from_millis(100 * n);
        other.send(now, peer(1), b"once").unwrap();
        let length = other.poll_transmit(now, &mut buffer).unwrap();
        frames.push(buffer[..length].to_vec());
        us.handle_frame(now, &buffer[..length], QUALITY);
        let length = us.poll_transmit(now, &mut buffer).expect("an acknowledgement");
        other.handle_frame(now, &buffer[..length], QUALITY);
    }
    while us.receive(&mut [0; 64]).is_some() {}
    for ms in [800, 5_000, 3_600_000] {
        let now = Instant::from_millis(ms);
        let before = us.counters().drops;
        for frame in &frames {
            us.handle_frame(now, frame, QUALITY);
        }
        let after = us.counters().drops;
        assert_eq!((after.replayed - before.replayed, after.duplicate - before.duplicate), (4, 4));
        let acks = std::iter::from_fn(|| us.poll_transmit(now, &mut buffer)).count();
        assert_eq!((acks, us.receive(&mut [0; 64])), (4, None));
    }
}

#[test]
fn a_station_whose_radio_acknowledges_gives_no_acknowledgement_of_its_own_and_still_repeats() {
    let config = EndpointConfig { soft_ack: false, key: Some(KEY), ..EndpointConfig::new(eui(1)) };
    let mut us = Station::new(config, 1).unwrap();
    us.resume_counters(0);
    reserve(&mut us);
    let mut other = station(0, Some(KEY), 0, 2);
    let now = Instant::from_millis(1);
    let frame = one_frame(&mut other, 1);
    let ack = mac::acknowledgement(&frame, eui(1), us.config().pan).expect("what the radio answers");
    let mut buffer = [0; 127];
    for copy in 0..2 {
        us.handle_frame(now, &frame, QUALITY);
        assert_eq!((us.poll_transmit(now, &mut buffer), us.poll_timeout()), (None, None));
        assert_eq!(us.receive(&mut [0; 64]).is_some(), copy == 0, "taken once");
    }
    other.handle_frame(now, &ack, QUALITY);
    assert_eq!((other.counters().acks_in, other.poll_timeout()), (1, None));

    let sent = one_frame(&mut us, 0);
    let due = us.poll_timeout().expect("it waits for an acknowledgement");
    us.handle_timeout(due);
    let due = us.poll_timeout().expect("it repeats");
    let length = us.poll_transmit(due, &mut buffer).unwrap();
    assert_eq!(buffer[..length], sent[..]);
}

#[test]
fn a_station_that_is_often_too_busy_to_acknowledge_takes_each_datagram_once() {
    for seed in 1..20 {
        let config = EndpointConfig { soft_ack: false, key: Some(KEY), ..EndpointConfig::new(eui(1)) };
        let mut access = Access::new(&config, Duration::from_micros(150), seed);
        let mut us = Station::new(config, seed).unwrap();
        us.resume_counters(0);
        let mut other = station(0, Some(KEY), 0, seed ^ 0x55);
        let (mut draw, mut buffer) = (Draw(seed), [0; 127]);
        let (mut sent, mut received): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for ms in 1..20_000 {
            let now = Instant::from_millis(ms);
            if sent.len() < 100 && other.send(now, peer(1), &[sent.len() as u8]).is_ok() {
                sent.push(sent.len() as u8);
            }
            other.handle_timeout(now);
            while let Some(length) = other.poll_transmit(now, &mut buffer) {
                let frame = &buffer[..length];
                if !draw.odds(40) {
                    access.watched(now);
                }
                let ack = access.answer(now, frame);
                access.keep(frame, QUALITY);
                ack.iter().for_each(|ack| other.handle_frame(now, ack, QUALITY));
            }
            while let Some(heard) = access.take() {
                us.handle_frame(now, &heard.frame, heard.quality);
            }
            let mut payload = [0; 64];
            while let Some((_, length)) = us.receive(&mut payload) {
                received.extend(&payload[..length]);
            }
            assert_eq!(us.poll_transmit(now, &mut buffer), None);
        }
        assert_eq!((sent.len(), &received), (100, &sent), "seed {seed}");
        let (late, repeated) = (u64::from(access.counters().late), us.counters().drops.duplicate);
        assert!(late > 20 && repeated > 20 && other.counters().retries > 20, "{late} {repeated}");
    }
}

#[test]
fn stations_that_restart_go_on_behind_their_reservations_and_nothing_is_taken_for_a_replay() {
    let mut field = Field::with_key(2, 14, Some(KEY));
    let mut stored = [0u32; 2];
    for life in 0..40usize {
        let n = life % 2;
        stored[n] = field.stations[n].counter_reserve_due().unwrap_or(stored[n].max(1_024));
        field.stations[n] = station(n, Some(KEY), stored[n], life as u64);
        stored[n] += 1_024;
        for (from, to) in [(0, 1), (1, 0)] {
            field.send(from, to, &pattern(300, life as u8));
        }
        field.run_for(Duration::from_millis(1_001));
        for n in 0..2 {
            assert_eq!(std::mem::take(&mut field.received[n]), [(peer(1 - n), pattern(300, life as u8))]);
            assert_eq!(field.stations[n].counters().drops, Default::default());
        }
    }
}

#[test]
fn without_a_stored_reservation_nothing_is_sent_and_nothing_spins() {
    let now = Instant::from_millis(1);
    let config = EndpointConfig { key: Some(KEY), ..EndpointConfig::new(eui(0)) };
    let mut us = Station::new(config, 1).unwrap();
    let mut buffer = [0; 127];
    us.send(now, peer(1), b"wait").unwrap();
    assert_eq!((us.counter_reserve_due(), us.poll_transmit(now, &mut buffer)), (None, None), "not resumed");
    us.resume_counters(7);
    assert_eq!((us.poll_transmit(now, &mut buffer), us.poll_timeout()), (None, None), "not reserved");
    let due = us.counter_reserve_due().unwrap();
    us.counters_reserved(due);
    assert!(us.poll_timeout().is_some() && us.poll_transmit(now, &mut buffer).is_some());
    assert_eq!(buffer[22..26], 7u32.to_le_bytes());
}

#[test]
fn a_station_whose_counters_are_used_up_refuses_to_send_and_gives_up_what_waits() {
    let mut us = station(0, Some(KEY), u32::MAX - 1, 1);
    let now = Instant::from_millis(1);
    let mut buffer = [0; 127];
    assert_eq!(us.counters_left(), Some(1));
    us.send(now, peer(1), &pattern(300, 1)).unwrap();
    assert!(us.poll_transmit(now, &mut buffer).is_some());
    assert_eq!(us.send(now, peer(2), b"more"), Err(SendError::CountersSpent));
    us.handle_frame(now, &[2, 0, buffer[2]], QUALITY);
    us.handle_timeout(now + Duration::from_secs(1));
    assert_eq!(us.poll_transmit(now + Duration::from_secs(1), &mut buffer), None);
    assert_eq!((us.poll_timeout(), us.counters().datagrams_failed), (None, 1));
    assert_eq!((us.counter_reserve_due(), us.counters_left()), (None, Some(0)));
}
