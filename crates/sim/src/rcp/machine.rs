//! The co-processor without its line and its air: Spinel on one side, 802.15.4 frames on the other, time as an argument. It does what an
//! OpenThread RCP does: filters by address, acknowledges by itself, repeats what nobody acknowledges and says so honestly.

use std::collections::VecDeque;
use std::time::Duration;

use tidelog_lowpan::mac::{Address, Frame as RadioFrame, Kind};
use tidelog_lowpan::{Quality, zep};
use tidelog_record::DeviceId;
use tidelog_spinel::hdlc::{self, Decoder};
use tidelog_spinel::{
    Body, Done, FCS_BYTES, FRAME_BYTES_MAX, Frame, Received, Status, Transmit, WIRE_BYTES_MAX, packed,
    property,
};

/// How long a frame waits for its acknowledgement before it is sent again. A real one answers within a millisecond; a simulated air on a busy
/// machine takes longer.
const ACK_WAIT: Duration = Duration::from_millis(50);
/// Spinel frames for the host that wait for the line; what comes on top is dropped, as a real one drops it.
const TO_HOST_MAX: usize = 256;
/// Frames for the air that wait.
const TO_AIR_MAX: usize = 256;
/// The short address of everyone, and the PAN.
const BROADCAST: u16 = 0xffff;
/// What this one speaks.
const VERSION: [u32; 2] = [tidelog_spinel::PROTOCOL_MAJOR, 3];
/// Configurable as a radio, raw frames.
const CAPABILITIES: [u32; 2] = [34, 513];
const NOISE_DBM: i8 = -95;

/// A frame that waits for its acknowledgement.
#[derive(Debug)]
struct Sending {
    tid: u8,
    frame: Vec<u8>,
    sequence: u8,
    tries_left: u8,
    until: Duration,
}

/// What a host sets, and a reset forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    enabled: bool,
    raw: bool,
    promiscuous: bool,
    source_match: bool,
    channel: u8,
    pan: u16,
    short: u16,
    long: DeviceId,
}

const UNSET: Setting = Setting {
    enabled: false,
    raw: false,
    promiscuous: false,
    source_match: false,
    channel: 11,
    pan: BROADCAST,
    short: 0xfffe,
    long: DeviceId([0; 8]),
};

/// Totals since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RcpCounters {
    /// Frames that the host sent, repetitions not counted.
    pub sends: u64,
    /// Repetitions.
    pub repeats: u64,
    /// Frames that nobody acknowledged.
    pub unacknowledged: u64,
    /// Frames handed to the host.
    pub heard: u64,
    /// Acknowledgements sent.
    pub acknowledged: u64,
    /// Frames of others that were passed over.
    pub foreign: u64,
    /// Frames dropped because the host does not read.
    pub dropped: u64,
    /// Resets that the host asked for.
    pub resets: u64,
}

/// One co-processor.
#[derive(Debug)]
pub struct Coprocessor {
    hardware: DeviceId,
    setting: Setting,
    decoder: Decoder,
    sending: Option<Sending>,
    busy_for: u32,
    to_host: VecDeque<Vec<u8>>,
    to_air: VecDeque<Vec<u8>>,
    counters: RcpCounters,
}

impl Coprocessor {
    /// One that was just switched on, and says so.
    #[must_use]
    pub fn new(hardware: DeviceId) -> Self {
        let mut made = Self {
            hardware,
            setting: UNSET,
            decoder: Decoder::new(),
            sending: None,
            busy_for: 0,
            to_host: VecDeque::new(),
            to_air: VecDeque::new(),
            counters: RcpCounters::default(),
        };
        made.status(0, Status::RESET_POWER_ON);
        made
    }

    /// Totals since it was made.
    #[must_use]
    pub fn counters(&self) -> RcpCounters {
        self.counters
    }

    /// The channel that it is on.
    #[must_use]
    pub fn channel(&self) -> u8 {
        self.setting.channel
    }

    /// Whether a host has put it on the air.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.setting.enabled && self.setting.raw
    }

    /// Lets so many of the next sends find the channel busy.
    pub fn occupy(&mut self, sends: u32) {
        self.busy_for = sends;
    }

    /// Cuts the power for a moment: everything that was set is forgotten.
    pub fn power_cycle(&mut self) {
        let counters = self.counters;
        *self = Self::new(self.hardware);
        self.counters = counters;
    }

    /// Takes bytes from the host.
    pub fn handle_bytes(&mut self, now: Duration, bytes: &[u8]) {
        let mut decoder = std::mem::take(&mut self.decoder);
        for byte in bytes {
            // What is damaged on the line is lost, and what is no Spinel is none of ours.
            if let Ok(Some(frame)) = decoder.push(*byte)
                && let Some(frame) = Frame::parse(frame)
            {
                self.handle(now, &frame);
            }
        }
        self.decoder = decoder;
    }

    /// Takes a frame from the air, without its check sequence.
    pub fn handle_frame(&mut self, now: Duration, bytes: &[u8], quality: Quality) {
        if !self.is_on() {
            return;
        }
        let Ok(frame) = RadioFrame::parse(bytes) else { return };
        if frame.kind == Kind::Ack {
            if let Some(sending) = self.sending.take_if(|sending| frame.sequence == Some(sending.sequence)) {
                self.done(sending.tid, Status::OK);
            }
            return;
        }
        let Setting { pan, short, long, promiscuous, .. } = self.setting;
        let here = frame.pan.is_none_or(|to| to == pan || to == BROADCAST);
        let own = match frame.destination {
            Address::Extended(to) => to == long,
            Address::Short(to) => to == short && to != BROADCAST,
            Address::Absent => false,
        };
        let everyone = frame.destination == Address::Short(BROADCAST);
        if !promiscuous && !(here && (own || everyone)) {
            self.counters.foreign += 1;
            return;
        }
        if let Some(sequence) = frame.sequence
            && frame.ack_requested
            && here
            && own
        {
            self.counters.acknowledged += 1;
            self.put_on_air(vec![0x02, 0x00, sequence]);
        }
        let psdu = [bytes, &zep::fcs(bytes).to_le_bytes()].concat();
        let received = Received {
            psdu: &psdu,
            rssi_dbm: quality.rssi_dbm,
            noise_dbm: NOISE_DBM,
            flags: 0,
            channel: self.setting.channel,
            lqi: quality.lqi,
            timestamp_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            error: 0,
        };
        let mut value = [0; FRAME_BYTES_MAX];
        if let Some(value) = received.write(&mut value).and_then(|length| value.get(..length)) {
            self.counters.heard += 1;
            self.tell(0, property::STREAM_RAW, value);
        }
    }

    /// Repeats or gives up what was not acknowledged in time.
    pub fn handle_timeout(&mut self, now: Duration) {
        let Some(mut sending) = self.sending.take_if(|sending| sending.until <= now) else { return };
        if sending.tries_left == 0 {
            self.counters.unacknowledged += 1;
            return self.done(sending.tid, Status::NO_ACK);
        }
        self.counters.repeats += 1;
        self.put_on_air(sending.frame.clone());
        sending.tries_left -= 1;
        sending.until = now + ACK_WAIT;
        self.sending = Some(sending);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.sending.as_ref().map(|sending| sending.until)
    }

    /// The next bytes for the host: one whole frame.
    pub fn poll_host(&mut self) -> Option<Vec<u8>> {
        self.to_host.pop_front()
    }

    /// The next frame for the air, without its check sequence.
    pub fn poll_air(&mut self) -> Option<Vec<u8>> {
        self.to_air.pop_front()
    }

    fn put_on_air(&mut self, frame: Vec<u8>) {
        if self.to_air.len() < TO_AIR_MAX {
            self.to_air.push_back(frame);
        }
    }

    fn tell(&mut self, tid: u8, property: u32, value: &[u8]) {
        let (mut frame, mut line) = ([0; FRAME_BYTES_MAX], [0; WIRE_BYTES_MAX]);
        let written = Frame { tid, body: Body::Is(property, value) }.write(&mut frame);
        let frame = written.and_then(|length| frame.get(..length)).unwrap_or_default();
        let written = hdlc::encode(frame, &mut line);
        match written.and_then(|length| line.get(..length)) {
            Some(line) if self.to_host.len() < TO_HOST_MAX => self.to_host.push_back(line.to_vec()),
            _ => self.counters.dropped += 1,
        }
    }

    fn status(&mut self, tid: u8, status: Status) {
        let mut bytes = [0; packed::BYTES_MAX];
        let length = packed::write(status.0, &mut bytes);
        self.tell(tid, property::LAST_STATUS, bytes.get(..length).unwrap_or_default());
    }

    fn done(&mut self, tid: u8, status: Status) {
        let mut bytes = [0; 8];
        let written = Done { status, frame_pending: false }.write(&mut bytes);
        let value = written.and_then(|length| bytes.get(..length)).unwrap_or_default().to_vec();
        self.tell(tid, property::LAST_STATUS, &value);
    }

    fn handle(&mut self, now: Duration, frame: &Frame<'_>) {
        match frame.body {
            Body::Reset(_) => {
                (self.setting, self.sending) = (UNSET, None);
                self.to_host.clear();
                self.counters.resets += 1;
                self.status(0, Status::RESET_SOFTWARE);
            }
            Body::Get(number) => match self.value(number) {
                Some(value) => self.tell(frame.tid, number, &value),
                None => self.status(frame.tid, Status::PROPERTY_NOT_FOUND),
            },
            Body::Set(property::STREAM_RAW, value) => self.send(now, frame.tid, value),
            Body::Set(number, value) => match self.set(number, value) {
                Ok(()) => self.tell(frame.tid, number, value),
                Err(status) => self.status(frame.tid, status),
            },
            Body::Insert(..) | Body::Remove(..) | Body::Is(..) => {
                self.status(frame.tid, Status::INVALID_COMMAND);
            }
        }
    }

    fn value(&self, number: u32) -> Option<Vec<u8>> {
        let list = |values: &[u32]| {
            let mut bytes = Vec::new();
            for value in values {
                let mut one = [0; packed::BYTES_MAX];
                let length = packed::write(*value, &mut one);
                bytes.extend_from_slice(one.get(..length).unwrap_or_default());
            }
            bytes
        };
        let Setting { enabled, raw, promiscuous, source_match, channel, pan, short, long } = self.setting;
        Some(match number {
            property::LAST_STATUS => list(&[Status::OK.0]),
            property::PROTOCOL_VERSION => list(&VERSION),
            property::CAPS => list(&CAPABILITIES),
            property::HWADDR => self.hardware.0.to_vec(),
            property::PHY_ENABLED => vec![u8::from(enabled)],
            property::PHY_CHAN => vec![channel],
            property::MAC_LADDR => long.0.to_vec(),
            property::MAC_SADDR => short.to_le_bytes().to_vec(),
            property::MAC_PANID => pan.to_le_bytes().to_vec(),
            property::MAC_RAW_STREAM_ENABLED => vec![u8::from(raw)],
            property::MAC_PROMISCUOUS => vec![u8::from(promiscuous)],
            property::MAC_SRC_MATCH_ENABLED => vec![u8::from(source_match)],
            _ => return None,
        })
    }

    fn set(&mut self, number: u32, value: &[u8]) -> Result<(), Status> {
        let setting = &mut self.setting;
        match (number, value) {
            (property::PHY_ENABLED, [on]) => setting.enabled = *on != 0,
            (property::PHY_CHAN, [channel]) if !(11..=26).contains(channel) => {
                return Err(Status::INVALID_ARGUMENT);
            }
            (property::PHY_CHAN, [channel]) => setting.channel = *channel,
            (property::MAC_PANID, [low, high]) => setting.pan = u16::from_le_bytes([*low, *high]),
            (property::MAC_SADDR, [low, high]) => setting.short = u16::from_le_bytes([*low, *high]),
            (property::MAC_LADDR, value) => {
                setting.long = DeviceId(value.try_into().map_err(|_| Status::PARSE_ERROR)?);
            }
            (property::MAC_RAW_STREAM_ENABLED, [on]) => setting.raw = *on != 0,
            (property::MAC_PROMISCUOUS, [mode]) => setting.promiscuous = *mode != 0,
            (property::MAC_SRC_MATCH_ENABLED, [on]) => setting.source_match = *on != 0,
            _ if self.value(number).is_some() => return Err(Status::PARSE_ERROR),
            _ => return Err(Status::PROPERTY_NOT_FOUND),
        }
        Ok(())
    }

    fn send(&mut self, now: Duration, tid: u8, value: &[u8]) {
        if !self.is_on() {
            return self.done(tid, Status::INVALID_STATE);
        }
        if self.sending.is_some() {
            return self.done(tid, Status::BUSY);
        }
        let Some(transmit) = Transmit::parse(value) else { return self.done(tid, Status::PARSE_ERROR) };
        let Some((frame, _)) = transmit.psdu.split_last_chunk::<FCS_BYTES>() else {
            return self.done(tid, Status::PARSE_ERROR);
        };
        if transmit.channel != self.setting.channel {
            return self.done(tid, Status::INVALID_ARGUMENT);
        }
        self.counters.sends += 1;
        if transmit.csma && self.busy_for > 0 {
            self.busy_for -= 1;
            return self.done(tid, Status::CCA_FAILURE);
        }
        self.put_on_air(frame.to_vec());
        let asks = RadioFrame::parse(frame).ok().filter(|parsed| parsed.ack_requested);
        match asks.and_then(|parsed| parsed.sequence) {
            None => self.done(tid, Status::OK),
            Some(sequence) => {
                let (tries_left, until) = (transmit.retries_max, now + ACK_WAIT);
                self.sending = Some(Sending { tid, frame: frame.to_vec(), sequence, tries_left, until });
            }
        }
    }
}
