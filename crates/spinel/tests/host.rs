//! A host and a simulated co-processor joined by a line that a test can cut, delay and damage, under one simulated clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tidelog_record::DeviceId;
use tidelog_sim::rcp::Coprocessor;
use tidelog_spinel::{
    ANSWER_WAIT, Body, Event, Frame, Host, HostConfig, Loss, Outcome, PROBE_EVERY, RECEIVED_MAX,
    SEND_WAIT_MAX, SendError, Status, TRIES_MAX, WIRE_BYTES_MAX, hdlc, property,
};

const US: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]);
const PEER: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 2]);
const HARDWARE: DeviceId = DeviceId([0xf4, 0xce, 0x36, 0, 0, 0, 0, 7]);
const CONFIG: HostConfig = HostConfig { eui: US, pan: 0x0023, channel: 26, retries_max: 3 };
const QUALITY: tidelog_sim::rcp::Quality = tidelog_sim::rcp::Quality { rssi_dbm: -61, lqi: 180 };

/// A data frame with acknowledgement requested.
fn frame(to: DeviceId, from: DeviceId, sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x61, 0xdc, sequence, 0x23, 0];
    frame.extend(to.0.iter().rev().chain(from.0.iter().rev()));
    frame.extend(payload);
    frame
}

/// What the line does to a byte.
type Line = Box<dyn FnMut(u8) -> Option<u8>>;

struct Desk {
    now: Duration,
    host: Host,
    rcp: Coprocessor,
    events: Vec<Event>,
    air: VecDeque<Vec<u8>>,
    to_rcp: Line,
    to_host: Line,
}

impl Desk {
    fn new() -> Self {
        Self {
            now: Duration::ZERO,
            host: Host::new(CONFIG, Duration::ZERO),
            rcp: Coprocessor::new(HARDWARE),
            events: Vec::new(),
            air: VecDeque::new(),
            to_rcp: Box::new(Some),
            to_host: Box::new(Some),
        }
    }

    /// Moves what can be moved without time going by.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            let mut wire = [0; WIRE_BYTES_MAX];
            while let Some(length) = self.host.poll_transmit(self.now, &mut wire) {
                moved = true;
                let bytes: Vec<u8> = wire[..length].iter().filter_map(|byte| (self.to_rcp)(*byte)).collect();
                self.rcp.handle_bytes(self.now, &bytes);
            }
            while let Some(bytes) = self.rcp.poll_host() {
                moved = true;
                for byte in bytes.into_iter().filter_map(|byte| (self.to_host)(byte)) {
                    self.host.handle_bytes(self.now, &[byte]);
                }
            }
            self.air.extend(std::iter::from_fn(|| self.rcp.poll_air()));
            while let Some(event) = self.host.poll_event() {
                moved = true;
                self.events.push(event);
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time go by until `until`, stopping at each deadline.
    fn run_until(&mut self, until: Duration) {
        self.settle();
        loop {
            let due = [self.host.poll_timeout(), self.rcp.poll_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.host.handle_timeout(self.now);
            self.rcp.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn taken(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn ready() -> Self {
        let mut desk = Self::new();
        desk.settle();
        assert_eq!(desk.taken(), [Event::Ready { hardware: Some(HARDWARE) }]);
        desk
    }
}

#[test]
fn a_co_processor_is_reset_asked_and_set_up_without_time_going_by() {
    let desk = Desk::ready();
    assert!(desk.host.can_send() && desk.rcp.is_on());
    assert_eq!((desk.rcp.channel(), desk.rcp.counters().resets), (26, 1));
}

#[test]
fn a_frame_that_is_acknowledged_is_sent_and_one_that_nobody_acknowledges_is_not() {
    let mut desk = Desk::ready();
    let sent = frame(PEER, US, 9, b"hello");
    desk.host.send(&sent).unwrap();
    assert_eq!(desk.host.send(&sent), Err(SendError::Busy));
    desk.settle();
    assert_eq!(desk.air, std::slice::from_ref(&sent));
    assert_eq!(desk.taken(), []);
    desk.rcp.handle_frame(desk.now, &[0x02, 0x00, 9], QUALITY);
    desk.settle();
    assert_eq!(desk.taken(), [Event::Done(Outcome::Sent)]);

    desk.air.clear();
    desk.host.send(&sent).unwrap();
    desk.run_for(Duration::from_secs(1));
    assert_eq!(desk.taken(), [Event::Done(Outcome::NoAck)]);
    assert_eq!(desk.air.len(), 1 + usize::from(CONFIG.retries_max), "it was repeated as often as configured");
    assert_eq!(desk.host.counters().unacknowledged, 1);
}

#[test]
fn a_busy_channel_is_told_as_such() {
    let mut desk = Desk::ready();
    desk.rcp.occupy(1);
    desk.host.send(&frame(PEER, US, 9, b"hello")).unwrap();
    desk.settle();
    assert_eq!((desk.taken(), desk.air.len()), (vec![Event::Done(Outcome::ChannelBusy)], 0));
}

#[test]
fn a_frame_for_us_is_acknowledged_and_heard_with_its_quality_and_one_for_others_is_neither() {
    let mut desk = Desk::ready();
    let ours = frame(US, PEER, 4, b"to us");
    desk.rcp.handle_frame(desk.now, &ours, QUALITY);
    desk.rcp.handle_frame(desk.now, &frame(HARDWARE, PEER, 5, b"to another"), QUALITY);
    desk.settle();
    let [Event::Heard(heard)] = &desk.taken()[..] else { panic!("one frame") };
    assert_eq!((&heard.frame[..], heard.rssi_dbm, heard.lqi), (&ours[..], -61, 180));
    assert_eq!(desk.air, [[0x02, 0x00, 4]]);
}

#[test]
fn frames_that_nobody_takes_are_dropped_past_the_bound_and_counted() {
    let mut desk = Desk::ready();
    for sequence in 0..10 {
        desk.rcp.handle_frame(desk.now, &frame(US, PEER, sequence, b"x"), QUALITY);
    }
    while let Some(bytes) = desk.rcp.poll_host() {
        desk.host.handle_bytes(desk.now, &bytes);
    }
    desk.settle();
    assert_eq!(desk.taken().len(), RECEIVED_MAX);
    assert_eq!(desk.host.counters().overrun as usize, 10 - RECEIVED_MAX);
}

#[test]
fn a_silent_co_processor_is_asked_again_with_longer_and_longer_rests_and_found_when_it_is_plugged_in() {
    let mut desk = Desk::new();
    desk.to_rcp = Box::new(|_| None);
    desk.run_for(Duration::from_secs(120));
    let losses = desk.taken();
    assert!(losses.iter().all(|event| *event == Event::Lost(Loss::Silent)), "{losses:?}");
    // Three seconds of asking each, and rests of 1, 2, 4, 8, 16, 30 and 30 s between them.
    assert_eq!(losses.len(), 8);
    assert_eq!(desk.host.send(b"x"), Err(SendError::NotReady));
    desk.to_rcp = Box::new(Some);
    desk.run_for(Duration::from_secs(31));
    assert_eq!(desk.taken(), [Event::Ready { hardware: Some(HARDWARE) }]);
}

#[test]
fn a_co_processor_that_starts_anew_is_set_up_again_at_once_and_the_frame_under_way_is_of_unknown_fate() {
    let mut desk = Desk::ready();
    desk.host.send(&frame(PEER, US, 9, b"hello")).unwrap();
    desk.settle();
    desk.rcp.power_cycle();
    desk.settle();
    assert_eq!(
        desk.taken(),
        [
            Event::Lost(Loss::Reset(Status::RESET_POWER_ON)),
            Event::Done(Outcome::Unknown),
            Event::Ready { hardware: Some(HARDWARE) }
        ]
    );
    assert!(desk.rcp.is_on());
}

#[test]
fn a_notice_of_power_on_that_waited_on_the_line_is_no_answer_to_our_reset_and_costs_no_rest() {
    let mut desk = Desk::new();
    let waited = desk.rcp.poll_host().unwrap();
    let mut wire = [0; WIRE_BYTES_MAX];
    let reset = desk.host.poll_transmit(desk.now, &mut wire).unwrap();
    desk.host.handle_bytes(desk.now, &waited);
    desk.rcp.handle_bytes(desk.now, &wire[..reset]);
    desk.settle();
    assert_eq!(desk.taken(), [Event::Ready { hardware: Some(HARDWARE) }]);
}

#[test]
fn a_co_processor_that_is_reset_by_every_command_is_not_followed_without_a_rest() {
    let mut host = Host::new(CONFIG, Duration::ZERO);
    let (mut wire, mut asked) = ([0; WIRE_BYTES_MAX], 0);
    let mut line = [0; 16];
    let length = hdlc::encode(&[0x80, 0x06, 0x00, 0x73], &mut line).unwrap();
    while host.poll_transmit(Duration::ZERO, &mut wire).is_some() {
        asked += 1;
        assert!(asked < 20);
        host.handle_bytes(Duration::ZERO, &line[..length]);
    }
    assert_eq!(host.poll_event(), Some(Event::Lost(Loss::Reset(Status(0x73)))));
}

#[test]
fn a_ready_co_processor_that_falls_silent_is_noticed_without_any_frame_to_send() {
    let mut desk = Desk::ready();
    desk.run_for(Duration::from_secs(60));
    assert_eq!((desk.taken(), desk.host.counters().repeats), (vec![], 0), "it answers when it is asked");
    desk.to_host = Box::new(|_| None);
    desk.run_for(PROBE_EVERY + ANSWER_WAIT * u32::from(TRIES_MAX));
    assert_eq!(desk.taken(), [Event::Lost(Loss::Silent)]);
    desk.to_host = Box::new(Some);
    desk.run_for(Duration::from_secs(2));
    assert_eq!(desk.taken(), [Event::Ready { hardware: Some(HARDWARE) }]);
}

#[test]
fn a_send_without_an_outcome_is_never_repeated() {
    let mut desk = Desk::ready();
    desk.to_host = Box::new(|_| None);
    desk.host.send(&frame(PEER, US, 9, b"hello")).unwrap();
    desk.run_for(SEND_WAIT_MAX);
    assert_eq!(desk.taken(), [Event::Lost(Loss::Silent), Event::Done(Outcome::Unknown)]);
    assert_eq!(desk.rcp.counters().sends, 1);
}

#[test]
fn a_send_during_a_probe_goes_when_the_probe_is_answered() {
    let mut desk = Desk::ready();
    desk.now += PROBE_EVERY;
    desk.host.handle_timeout(desk.now);
    let mut wire = [0; WIRE_BYTES_MAX];
    let probe = desk.host.poll_transmit(desk.now, &mut wire).unwrap();
    desk.host.send(&frame(PEER, US, 9, b"hello")).unwrap();
    assert_eq!(desk.host.poll_transmit(desk.now, &mut [0; WIRE_BYTES_MAX]), None, "one command at a time");
    desk.rcp.handle_bytes(desk.now, &wire[..probe]);
    desk.settle();
    assert_eq!(desk.air.len(), 1);
}

/// What a co-processor that answers like this comes to: answers to the version, the capabilities and the first setting.
fn answered(version: &[u8], capabilities: &[u8], refused: Option<u8>) -> Option<Event> {
    let mut host = Host::new(CONFIG, Duration::ZERO);
    let mut wire = [0; WIRE_BYTES_MAX];
    let say = |host: &mut Host, tid: u8, property: u32, value: &[u8]| {
        let (mut frame, mut line) = ([0; 64], [0; 128]);
        let length = Frame { tid, body: Body::Is(property, value) }.write(&mut frame).unwrap();
        let length = hdlc::encode(&frame[..length], &mut line).unwrap();
        host.handle_bytes(Duration::ZERO, &line[..length]);
    };
    while let Some(length) = host.poll_transmit(Duration::ZERO, &mut wire) {
        let mut decoder = hdlc::Decoder::new();
        let asked = wire[..length].iter().find_map(|byte| decoder.push(*byte).unwrap().map(<[u8]>::to_vec));
        let asked = asked.unwrap();
        let Frame { tid, body } = Frame::parse(&asked).unwrap();
        match body {
            Body::Reset(_) => say(&mut host, 0, property::LAST_STATUS, &[0x72]),
            Body::Get(property::PROTOCOL_VERSION) => say(&mut host, tid, property::PROTOCOL_VERSION, version),
            Body::Get(property::CAPS) => say(&mut host, tid, property::CAPS, capabilities),
            Body::Get(other) => say(&mut host, tid, other, &[1; 8]),
            Body::Set(other, value) => match refused {
                Some(status) => say(&mut host, tid, property::LAST_STATUS, &[status]),
                None => say(&mut host, tid, other, value),
            },
            other => panic!("{other:?}"),
        }
    }
    host.poll_event()
}

#[test]
fn a_co_processor_that_will_not_do_is_told_with_its_reason() {
    let radio = [34, 0x81, 0x04];
    assert!(matches!(answered(&[4, 3], &radio, None), Some(Event::Ready { .. })));
    assert_eq!(answered(&[5, 0], &radio, None), Some(Event::Lost(Loss::Version { major: 5, minor: 0 })));
    assert_eq!(answered(&[4, 3], &[1, 2], None), Some(Event::Lost(Loss::NoRadio)));
    let refused = Loss::Refused { property: property::PHY_ENABLED, status: Status::INVALID_STATE };
    assert_eq!(answered(&[4, 3], &radio, Some(4)), Some(Event::Lost(refused)));
}

proptest! {
    #[test]
    fn a_line_that_damages_bytes_for_a_while_is_survived_and_what_is_heard_was_said(
        seed: u64, one_in in 5u64..400, sends in proptest::collection::vec(any::<u8>(), 1..8),
    ) {
        let mut desk = Desk::new();
        let mut noise = seed;
        let mut draw = move || {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            noise >> 33
        };
        let bad = move |byte: u8| match draw() % one_in {
            0 if draw() % 2 == 0 => None,
            0 => Some(byte ^ u8::try_from(draw() % 255 + 1).unwrap()),
            _ => Some(byte),
        };
        desk.to_host = Box::new(bad);
        desk.to_rcp = Box::new(bad);
        for payload in sends {
            desk.run_for(Duration::from_secs(7));
            desk.taken();
            // Not ready, or busy: then this one is not sent.
            let taken = desk.host.send(&frame(PEER, US, payload, &[payload])).is_ok();
            desk.rcp.handle_frame(desk.now, &frame(US, PEER, payload, &[payload; 9]), QUALITY);
            // A probe may be under way before it.
            desk.run_for(SEND_WAIT_MAX + ANSWER_WAIT * u32::from(TRIES_MAX));
            let done = desk.events.iter().filter(|event| matches!(event, Event::Done(_))).count();
            prop_assert_eq!(done, usize::from(taken), "each send has one outcome: {:?}", desk.events);
        }
        desk.to_host = Box::new(Some);
        desk.to_rcp = Box::new(Some);
        desk.run_for(Duration::from_secs(100));
        desk.taken();
        prop_assert!(desk.host.can_send(), "{:?}", desk.host);
        let ours = frame(US, PEER, 77, b"after all");
        desk.rcp.handle_frame(desk.now, &ours, QUALITY);
        desk.settle();
        let events = desk.taken();
        prop_assert!(matches!(&events[..], [Event::Heard(heard)] if heard.frame[..] == ours[..]), "{:?}", events);
    }

    #[test]
    fn no_bytes_of_a_co_processor_bring_a_host_to_panic_or_into_a_rush(
        pieces in proptest::collection::vec((0u64..20_000, proptest::collection::vec(any::<u8>(), 0..60)), 0..60),
        framed: bool,
    ) {
        let mut host = Host::new(CONFIG, Duration::ZERO);
        let (mut now, mut wire) = (Duration::ZERO, [0; WIRE_BYTES_MAX]);
        for (later, mut bytes) in pieces {
            now += Duration::from_millis(later);
            if framed {
                bytes.splice(0..0, [0x80, 6]);
                let mut line = [0; WIRE_BYTES_MAX];
                let length = hdlc::encode(&bytes, &mut line).unwrap();
                host.handle_bytes(now, &line[..length]);
            } else {
                host.handle_bytes(now, &bytes);
            }
            host.handle_timeout(now);
            let mut said = 0;
            while host.poll_transmit(now, &mut wire).is_some() {
                said += 1;
            }
            prop_assert!(said <= 1, "one command at a time");
            prop_assert!(host.poll_timeout().is_some_and(|due| due > now), "{:?}", host);
            while host.poll_event().is_some() {}
        }
    }
}
