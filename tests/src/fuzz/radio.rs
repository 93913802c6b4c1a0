//! What comes over the air: frames, their ZEP wrapping, a station that hears them, CoAP.

use std::hint::black_box;

use tidelog_lowpan::coap::{Code, Kind, Message, Writer, option};
use tidelog_lowpan::mac::{Frame, acknowledgement};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{COAP_PORT, Endpoint, EndpointConfig, NetworkKey, Peer, Quality, zep};
use tidelog_record::DeviceId;

type Station = Endpoint<1280, 4, 4, 8>;

const US: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]);
const PEER: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 2]);
const KEY: NetworkKey = NetworkKey::new(*b"sixteen bytes of");
const QUALITY: Quality = Quality { rssi_dbm: -60, lqi: 200 };
const FRAME_BYTES: usize = 127;
/// Bits of a frame's first byte in an input.
const WRAPPED: u8 = 1;
const SECURED: u8 = 2;

fn station(device: DeviceId, key: Option<NetworkKey>) -> Station {
    let mut station =
        Station::new(EndpointConfig { key, ..EndpointConfig::new(device) }, 5).expect("a configuration");
    station.resume_counters(0);
    if let Some(upto) = station.counter_reserve_due() {
        station.counters_reserved(upto);
    }
    station
}

/// The frames of a datagram of 300 bytes from the peer to us.
fn frames(key: Option<NetworkKey>) -> Vec<Vec<u8>> {
    let mut peer = station(PEER, key);
    let mut us = station(US, key);
    let mut now = Instant::from_millis(1);
    peer.send(now, Peer { device: US, port: COAP_PORT }, &[7; 300]).unwrap();
    let (mut out, mut buffer) = (Vec::new(), [0; FRAME_BYTES]);
    for _ in 0..64 {
        while let Some(length) = peer.poll_transmit(now, &mut buffer) {
            let frame = buffer.get(..length).unwrap().to_vec();
            us.handle_frame(now, &frame, QUALITY);
            out.push(frame);
            while let Some(length) = us.poll_transmit(now, &mut buffer) {
                peer.handle_frame(now, buffer.get(..length).unwrap(), QUALITY);
            }
        }
        now += Duration::from_millis(5);
        peer.handle_timeout(now);
    }
    out
}

pub(super) fn mac_seeds() -> Vec<Vec<u8>> {
    let mut seeds = frames(None);
    let mut out = [0; zep::PACKET_BYTES_MAX];
    let length = zep::encode(&zep::Header::default(), seeds.first().unwrap(), &mut out).unwrap();
    seeds.truncate(2);
    seeds.extend(frames(Some(KEY)).into_iter().take(1));
    seeds.push(out.get(..length).unwrap().to_vec());
    seeds
}

/// A frame and a datagram of ZEP; what is read is written again.
pub(super) fn mac(bytes: &[u8]) {
    let frame = Frame::parse(bytes);
    if let Ok(frame) = frame {
        assert!(frame.payload.len() <= bytes.len());
    }
    if let Some([.., sequence]) = acknowledgement(bytes, US, EndpointConfig::new(US).pan) {
        let frame = frame.expect("what is no frame is not acknowledged");
        assert!(frame.ack_requested && frame.sequence == Some(sequence));
    }
    if let Ok(zep::Packet::Data(header, frame)) = zep::decode(bytes) {
        let mut out = [0; zep::PACKET_BYTES_MAX];
        let length = zep::encode(&header, frame, &mut out).expect("it came in one");
        assert_eq!(zep::decode(out.get(..length).unwrap_or_default()), Ok(zep::Packet::Data(header, frame)));
    }
}

pub(super) fn lowpan_seeds() -> Vec<Vec<u8>> {
    let listed = |frames: Vec<Vec<u8>>, mode: u8, skip: usize| -> Vec<u8> {
        let one = |frame: &Vec<u8>| {
            let body = frame.get(skip..).unwrap();
            [&[mode, u8::try_from(body.len()).unwrap()], body].concat()
        };
        frames.iter().flat_map(one).collect()
    };
    // Frame control, sequence, PAN and two long addresses stand before the payload.
    vec![
        listed(frames(None), 0, 0),
        listed(frames(None), WRAPPED, 21),
        listed(frames(Some(KEY)), 0, 0),
        listed(frames(Some(KEY)), WRAPPED | SECURED, 21),
    ]
}

/// A station with a key and one without hear a series of frames, each with its mode and length before it: as they are, or
/// with a header from the peer put before them, so that what lies behind it is reached.
pub(super) fn lowpan(input: &[u8]) {
    for key in [None, Some(KEY)] {
        let mut us = station(US, key);
        let mut now = Instant::from_millis(1);
        let mut rest = input;
        let mut sequence = 0u8;
        while let Some((&[mode, length], behind)) = rest.split_first_chunk::<2>() {
            let (bytes, behind) = behind.split_at(behind.len().min(usize::from(length)));
            rest = behind;
            sequence = sequence.wrapping_add(1);
            let mut frame = Vec::new();
            if mode & WRAPPED != 0 {
                let control = if mode & SECURED != 0 { 0x69 } else { 0x61 };
                frame.extend([control, 0xdc, sequence, 0x23, 0]);
                frame.extend(US.0.iter().rev().chain(PEER.0.iter().rev()));
            }
            frame.extend(bytes);
            frame.truncate(FRAME_BYTES);
            us.handle_frame(now, &frame, QUALITY);
            let (mut out, mut payload) = ([0; FRAME_BYTES], [0; 1280]);
            while let Some(length) = us.poll_transmit(now, &mut out) {
                assert!(
                    Frame::parse(out.get(..length).unwrap_or_default()).is_ok(),
                    "it says only what is a frame"
                );
            }
            while us.receive(&mut payload).is_some() {}
            now += Duration::from_millis(u64::from(mode >> 3) * 100);
            us.handle_timeout(now);
        }
    }
}

pub(super) fn coap_seeds() -> Vec<Vec<u8>> {
    let mut out = [0; 256];
    let writer = Writer::new(&mut out, Kind::Confirmable, Code::POST, 7, &[1, 2, 3]).unwrap();
    let writer = writer.path(&["b"]).unwrap().uint(option::CONTENT_FORMAT, 300).unwrap();
    let length = writer.option(2048, &[9; 20]).unwrap().payload(b"payload").unwrap();
    vec![out.get(..length).unwrap().to_vec(), tidelog_lowpan::coap::empty(Kind::Reset, 9).to_vec()]
}

/// A message that is read is written again option by option, and means the same then.
pub(super) fn coap(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    if message.code() == Code::EMPTY {
        return;
    }
    black_box((message.path_is(&["b"]), message.critical_beside(&[option::URI_PATH])));
    let mut out = vec![0; bytes.len() + 16];
    let mut writer = Writer::new(&mut out, message.kind(), message.code(), message.id(), message.token())
        .expect("room for a header that was read");
    for option in message.options() {
        writer =
            writer.option(option.number, option.value).expect("options stand in order, and there is room");
    }
    let length = writer.payload(message.payload()).expect("room for the payload");
    assert_eq!(Message::parse(out.get(..length).unwrap_or_default()), Ok(message));
}
