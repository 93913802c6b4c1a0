//! What comes over the line from a radio co-processor: a host that hears it, in pieces and with time going by.

use std::time::Duration;

use tidelog_record::DeviceId;
use tidelog_spinel::{
    Body, Event, FRAME_BYTES_MAX, Frame, Host, HostConfig, RADIO_FRAME_BYTES_MAX, Received, WIRE_BYTES_MAX,
    hdlc, property,
};

const CONFIG: HostConfig =
    HostConfig { eui: DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]), pan: 0x0023, channel: 26, retries_max: 3 };
/// Bit of a piece's first byte: it is a frame's content, and is wrapped for the line.
const WRAPPED: u8 = 1;
/// Bit of a piece's first byte: a frame is to be sent before it.
const SENDS: u8 = 2;
/// The rest of that byte, in these steps, is time.
const STEP: Duration = Duration::from_millis(250);

fn piece(mode: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mode, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn is(tid: u8, number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = [0; FRAME_BYTES_MAX];
    let length = Frame { tid, body: Body::Is(number, value) }.write(&mut out).unwrap();
    piece(WRAPPED, out.get(..length).unwrap())
}

/// A co-processor that answers each command of the setup rightly, then tells of a frame and of a send's end.
pub(super) fn spinel_seeds() -> Vec<Vec<u8>> {
    let answers: [(u32, &[u8]); 11] = [
        (property::PROTOCOL_VERSION, &[4, 3]),
        (property::CAPS, &[34, 0x81, 4]),
        (property::HWADDR, &[1; 8]),
        (property::PHY_ENABLED, &[1]),
        (property::MAC_PANID, &[0x23, 0]),
        (property::MAC_SADDR, &[0xfe, 0xff]),
        (property::MAC_LADDR, &[2; 8]),
        (property::PHY_CHAN, &[26]),
        (property::MAC_PROMISCUOUS, &[0]),
        (property::MAC_SRC_MATCH_ENABLED, &[1]),
        (property::MAC_RAW_STREAM_ENABLED, &[1]),
    ];
    let mut whole = is(0, property::LAST_STATUS, &[0x72]);
    // The reset was the first transaction.
    for (tid, (number, value)) in (2..).zip(answers) {
        whole.extend(is(tid, number, value));
    }
    let mut value = [0; FRAME_BYTES_MAX];
    let received = Received {
        psdu: &[0x41, 0xd8, 1, 0x23, 0, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9],
        rssi_dbm: -60,
        noise_dbm: -95,
        flags: 0,
        channel: 26,
        lqi: 200,
        timestamp_us: 1,
        error: 0,
    };
    let length = received.write(&mut value).unwrap();
    whole.extend(is(0, property::STREAM_RAW, value.get(..length).unwrap()));
    whole.extend(piece(SENDS, &[]));
    whole.extend(is(13, property::LAST_STATUS, &[17, 0, 1]));
    vec![whole, piece(0, &[0x7e, 0x80, 0x06, 0x00, 0x70, 0xee, 0x74, 0x7e]), piece(0xfc, &[0x7e, 0x7d, 0x7e])]
}

/// A host that hears pieces of a line, each with its mode and length before it. It asks one thing at a time, comes back later than now, and
/// never hears a frame longer than a radio's.
pub(super) fn spinel(input: &[u8]) {
    let mut now = Duration::ZERO;
    let mut host = Host::new(CONFIG, now);
    let mut wire = [0; WIRE_BYTES_MAX];
    let mut rest = input;
    while let Some((&[mode, length], behind)) = rest.split_first_chunk::<2>() {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        let could = host.can_send();
        if mode & SENDS != 0 {
            assert_eq!(host.send(&[0x41, 0xd8, mode]).is_ok(), could);
        }
        let mut asked = 0;
        while let Some(length) = host.poll_transmit(now, &mut wire) {
            asked += 1;
            let mut decoder = hdlc::Decoder::new();
            let line = wire.get(..length).unwrap_or_default();
            let said = line.iter().find_map(|byte| decoder.push(*byte).unwrap().map(<[u8]>::to_vec));
            assert!(Frame::parse(&said.unwrap()).is_some(), "it says only what is a frame");
        }
        assert!(asked <= 1, "one command at a time");
        if mode & WRAPPED == 0 {
            host.handle_bytes(now, bytes);
        } else if let Some(length) = hdlc::encode(bytes, &mut wire) {
            host.handle_bytes(now, wire.get(..length).unwrap_or_default());
        }
        now += STEP * u32::from(mode >> 2);
        host.handle_timeout(now);
        while let Some(event) = host.poll_event() {
            if let Event::Heard(heard) = event {
                assert!(!heard.frame.is_empty() && heard.frame.len() <= RADIO_FRAME_BYTES_MAX);
            }
        }
    }
}
