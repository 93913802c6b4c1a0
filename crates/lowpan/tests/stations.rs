//! Stations on one simulated air under one seeded clock: what is sent arrives whole, once, and unchanged, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

mod air;

use tidelog_lowpan::time::Duration;
use tidelog_lowpan::{
    COAP_PORT, EndpointConfig, GatewayEndpoint, Peer, SINGLE_FRAME_PAYLOAD_BYTES_MAX, SendError,
    SensorEndpoint,
};

use air::*;

#[test]
fn every_payload_length_arrives_unchanged() {
    let mut field = Field::new(2, 1);
    for length in 0..=Station::PAYLOAD_BYTES_MAX {
        let payload = pattern(length, 7);
        field.send(0, 1, &payload);
        field.run_for(Duration::from_millis(200));
        assert_eq!(field.received[1].pop(), Some((peer(0), payload)), "{length}");
        assert!(field.received[1].is_empty());
    }
    assert_eq!(field.stations[1].counters().drops, Default::default());
    assert_eq!(field.stations[0].counters().retries, 0);
}

#[test]
fn a_payload_of_just_the_stated_size_leaves_in_one_frame() {
    for (length, frames) in [(SINGLE_FRAME_PAYLOAD_BYTES_MAX, 1), (SINGLE_FRAME_PAYLOAD_BYTES_MAX + 1, 2)] {
        let mut field = Field::new(2, 1);
        field.send(0, 1, &pattern(length, 0));
        field.run_for(Duration::from_millis(200));
        assert_eq!(field.frames.iter().filter(|(from, _)| *from == 0).count(), frames);
    }
}

#[test]
fn thirty_percent_loss_with_copies_and_reordering_corrupts_nothing_and_doubles_nothing() {
    let seed = 0x5eed_0001;
    println!("seed {seed}");
    let mut field = Field::new(2, seed);
    (field.loss_percent, field.duplicate_percent, field.delay_us_max) = (30, 20, 20_000);
    let (mut sent, rounds) = (0u32, 400usize);
    for round in 0..rounds {
        let salt = (round % 251) as u8;
        for (from, to) in [(0, 1), (1, 0)] {
            let payload = pattern(1 + (round * 37) % 600, salt);
            field.send(from, to, &payload);
            sent += 1;
        }
        field.run_for(Duration::from_millis(4_000));
        for n in 0..2 {
            let expected = (peer(1 - n), pattern(1 + (round * 37) % 600, salt));
            let got = std::mem::take(&mut field.received[n]);
            assert!(got.len() <= 1, "round {round}: doubled");
            assert!(got.iter().all(|datagram| *datagram == expected), "round {round}: changed");
        }
    }
    let arrived: u64 = field.stations.iter().map(|s| s.counters().datagrams_in).sum();
    println!("{arrived} of {sent} datagrams arrived");
    assert!(arrived * 100 >= u64::from(sent) * 90, "{arrived} of {sent}");
}

#[test]
fn a_silent_station_does_not_hold_up_the_others() {
    let mut field = Field::new(8, 3);
    field.deaf[1] = true;
    for to in 1..8 {
        field.send(0, to, &pattern(500, to as u8));
    }
    field.run_for(Duration::from_millis(100));
    for to in 2..8 {
        assert_eq!(field.received[to].pop(), Some((peer(0), pattern(500, to as u8))));
    }
    assert!(field.received[1].is_empty());
    field.run_for(Duration::from_millis(2_000));
    assert_eq!(field.stations[0].counters().datagrams_failed, 1);
    assert_eq!(field.stations[0].poll_timeout(), None);
}

#[test]
fn a_long_run_of_datagrams_to_many_stations_has_none_taken_for_another() {
    let mut field = Field::new(6, 4);
    for round in 0..600usize {
        for to in 1..6 {
            field.send(0, to, &pattern(20, (round % 251) as u8));
        }
        field.run_for(Duration::from_millis(8));
    }
    for to in 1..6 {
        assert_eq!(field.received[to].len(), 600);
        assert_eq!(field.stations[to].counters().drops.duplicate, 0);
    }
}

#[test]
fn a_station_that_restarts_is_heard_as_soon_as_it_speaks() {
    let mut field = Field::new(2, 5);
    let mut heard = 0;
    for life in 0..200u64 {
        field.stations[0] = Station::new(EndpointConfig::new(eui(0)), 0xdead_0000 + life).unwrap();
        field.send(0, 1, b"up again");
        field.run_for(Duration::from_millis(1_001));
        heard += field.received[1].drain(..).count();
    }
    assert_eq!(heard, 200);
}

#[test]
fn many_stations_report_to_one_through_thirty_percent_loss() {
    let sensors = 40usize;
    let seed = 0x5eed_0006;
    println!("seed {seed}");
    let mut field = Field::new(1 + sensors, seed);
    (field.loss_percent, field.delay_us_max) = (30, 4_000);
    let mut missing: std::collections::BTreeSet<usize> = (1..=sensors).collect();
    let mut rounds = 0;
    while !missing.is_empty() {
        rounds += 1;
        assert!(rounds < 10, "still missing {missing:?}");
        for from in &missing.clone() {
            field.send(*from, 0, &pattern(250, *from as u8));
        }
        field.run_for(Duration::from_millis(3_500));
        for (from, payload) in std::mem::take(&mut field.received[0]) {
            let from = field.owner(from.device).unwrap();
            assert_eq!(payload, pattern(250, from as u8));
            missing.remove(&from);
        }
    }
    assert_eq!(field.stations[0].neighbors().count(), sensors);
}

#[test]
fn what_is_for_another_port_is_counted_and_not_delivered() {
    let mut field = Field::new(2, 7);
    let other_port = Peer { device: eui(1), port: COAP_PORT + 1 };
    field.stations[0].send(field.now, other_port, b"stray").unwrap();
    field.run_for(Duration::from_millis(100));
    assert!(field.received[1].is_empty());
    assert_eq!(field.stations[1].counters().drops.bad_packet, 1);
}

#[test]
fn a_changed_byte_is_found_by_the_checksum_of_udp() {
    let mut field = Field::new(2, 8);
    field.send(0, 1, b"the temperature is 21.5");
    let mut buffer = [0; 127];
    let length = field.stations[0].poll_transmit(field.now, &mut buffer).unwrap();
    buffer[length - 1] ^= 1;
    field.stations[1].handle_frame(field.now, &buffer[..length], QUALITY);
    field.run_for(Duration::from_millis(10));
    assert!(field.received[1].is_empty());
    assert_eq!(field.stations[1].counters().drops.bad_packet, 1);
}

#[test]
fn an_echo_request_is_answered() {
    let link_local = |n: usize| {
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        address[8..].copy_from_slice(&eui(n).0);
        address[8] ^= 2;
        address
    };
    let mut icmp = vec![128, 0, 0, 0, 0x12, 0x34, 0, 1, b'h', b'i'];
    let pseudo =
        [&link_local(1)[..], &link_local(0), &[0, 0, 0, icmp.len() as u8, 0, 0, 0, 58], &icmp].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    icmp[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());

    let mut frame = vec![0x61, 0xdc, 1, 0x23, 0];
    frame.extend(eui(0).0.iter().rev().chain(eui(1).0.iter().rev()));
    frame.extend([0x7a, 0x33, 58]);
    frame.extend(&icmp);
    let mut field = Field::new(2, 9);
    field.stations[0].handle_frame(field.now, &frame, QUALITY);
    field.settle();
    field.settle();
    let (from, answer) = field.frames.last().unwrap();
    assert_eq!((*from, &answer[21..24]), (0, &[0x7a, 0x33, 58][..]));
    assert_eq!((answer[24], &answer[28..]), (129, &icmp[4..]));
}

#[test]
fn what_can_not_be_sent_is_refused_and_nothing_is_taken() {
    let mut field = Field::new(2, 10);
    let now = field.now;
    let station = &mut field.stations[0];
    let long = vec![0; Station::PAYLOAD_BYTES_MAX + 1];
    assert_eq!(
        station.send(now, peer(1), &long),
        Err(SendError::TooLong { payload_bytes_max: Station::PAYLOAD_BYTES_MAX })
    );
    assert_eq!(station.send(now, peer(0), b"me"), Err(SendError::Unreachable));
    assert_eq!(station.send(now, Peer { port: 0, ..peer(1) }, b""), Err(SendError::Unreachable));
    assert_eq!(station.poll_timeout(), None);
    for _ in 0..2 {
        station.send(now, peer(1), b"1").unwrap();
    }
    assert_eq!(station.send(now, peer(1), b"1"), Err(SendError::Busy));
    assert_eq!(station.send(now, peer(2), b"1"), Ok(()));
}

#[test]
fn a_sensor_takes_a_few_kilobytes_and_a_gateway_a_few_hundred() {
    let (sensor, gateway) = (size_of::<SensorEndpoint>(), size_of::<GatewayEndpoint>());
    println!("a sensor's endpoint takes {sensor} bytes, a gateway's {gateway}");
    assert!(sensor <= 4_096 && gateway <= 256 * 1_024);
}
