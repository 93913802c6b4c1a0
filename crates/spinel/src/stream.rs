//! Radio frames inside Spinel, values of [`STREAM_RAW`](crate::property::STREAM_RAW) and of the status that answers a send. A PSDU stands
//! here with the two bytes of its check sequence, which only the co-processor fills and checks.
//!
//! ```text
//! send      u16 length | PSDU | channel u8 | CSMA back-offs at most u8 | retries at most u8 | CSMA b | header updated b
//!           | is a retry b | security processed b
//! sent      status, packed | a frame is pending b | header updated b | the acknowledgement, laid out as below
//! received  u16 length | PSDU | RSSI i8 | noise i8 | flags u16
//!           | u16 length { channel u8, LQI u8, timestamp u64 in µs } | u16 length { error, packed } | more
//! ```
//! b is one byte, 0 or 1. What stands behind the RSSI may be absent: it came with later versions.

use tidelog_record::bytes::{Reader, Writer};

use crate::bytes::{ReadFields as _, WriteFields as _};
use crate::frame::Status;

/// Flag of a received frame: it was sent by this co-processor.
pub const FLAG_SENT: u16 = 0x0001;
/// Flag of a received frame: its check sequence is wrong.
pub const FLAG_BAD_FCS: u16 = 0x0004;

/// What a host asks a co-processor to put on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The frame, with two bytes of room for its check sequence.
    pub psdu: &'a [u8],
    /// Channel to send on.
    pub channel: u8,
    /// Most back-offs while the channel is busy.
    pub csma_backoffs_max: u8,
    /// Most repetitions without acknowledgement.
    pub retries_max: u8,
    /// Whether to look first that the channel is free.
    pub csma: bool,
    /// Whether header fields that a co-processor may fill are filled.
    pub header_updated: bool,
    /// Whether this repeats an earlier frame.
    pub retransmission: bool,
    /// Whether the frame is secured already.
    pub security_processed: bool,
}

impl<'a> Transmit<'a> {
    /// Reads the value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let psdu = reader.counted()?;
        let channel = reader.u8()?;
        // What is not said is as the specification has it.
        let csma_backoffs_max = reader.u8().unwrap_or(4);
        let retries_max = reader.u8().unwrap_or(15);
        let mut flag = |default| reader.u8().map_or(default, |byte| byte != 0);
        let (csma, header_updated) = (flag(true), flag(false));
        let (retransmission, security_processed) = (flag(false), flag(false));
        Some(Self {
            psdu,
            channel,
            csma_backoffs_max,
            retries_max,
            csma,
            header_updated,
            retransmission,
            security_processed,
        })
    }

    /// Writes the value; its length, or `None` when `out` is too small.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.counted(self.psdu)?.put(&[
            self.channel,
            self.csma_backoffs_max,
            self.retries_max,
            u8::from(self.csma),
            u8::from(self.header_updated),
            u8::from(self.retransmission),
            u8::from(self.security_processed),
        ])?;
        Some(writer.written())
    }
}

/// What became of a frame that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// [`Status::OK`]: it was acknowledged, if it asked for that.
    pub status: Status,
    /// The acknowledgement said that a frame waits for us.
    pub frame_pending: bool,
}

impl Done {
    /// Reads the value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let status = Status(reader.packed()?);
        Some(Self { status, frame_pending: reader.u8().is_some_and(|byte| byte != 0) })
    }

    /// Writes the value, without the acknowledgement; its length, or `None` when `out` is too small.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.packed(self.status.0)?.put(&[u8::from(self.frame_pending), 1])?;
        Some(writer.written())
    }
}

/// A frame that a co-processor heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The frame with its check sequence.
    pub psdu: &'a [u8],
    /// Signal strength in dBm.
    pub rssi_dbm: i8,
    /// Noise in dBm.
    pub noise_dbm: i8,
    /// [`FLAG_SENT`], [`FLAG_BAD_FCS`] and others.
    pub flags: u16,
    /// Channel it was heard on; 0 where it is not said.
    pub channel: u8,
    /// Link quality, 0 to 255; 0 where it is not said.
    pub lqi: u8,
    /// The co-processor's clock, in microseconds.
    pub timestamp_us: u64,
    /// What went wrong while it was received; 0: nothing.
    pub error: u32,
}

impl<'a> Received<'a> {
    /// Reads the value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let psdu = reader.counted()?;
        let rssi_dbm = reader.i8()?;
        let noise_dbm = reader.i8().unwrap_or(i8::MIN);
        let flags = reader.u16().unwrap_or(0);
        let mut phy = Reader::new(reader.counted().unwrap_or_default());
        let (channel, lqi) = (phy.u8().unwrap_or(0), phy.u8().unwrap_or(0));
        let timestamp_us = phy.array().map_or(0, u64::from_le_bytes);
        let error = Reader::new(reader.counted().unwrap_or_default()).packed().unwrap_or(0);
        Some(Self { psdu, rssi_dbm, noise_dbm, flags, channel, lqi, timestamp_us, error })
    }

    /// Writes the value; its length, or `None` when `out` is too small.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.counted(self.psdu)?;
        writer.put(&self.rssi_dbm.to_le_bytes())?.put(&self.noise_dbm.to_le_bytes())?;
        writer.put(&self.flags.to_le_bytes())?;
        let [a, b, c, d, e, f, g, h] = self.timestamp_us.to_le_bytes();
        writer.counted(&[self.channel, self.lqi, a, b, c, d, e, f, g, h])?;
        let mut error = [0; crate::packed::BYTES_MAX];
        let length = crate::packed::write(self.error, &mut error);
        writer.counted(error.get(..length)?)?;
        Some(writer.written())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_send_is_written_as_others_send_it() {
        let psdu = [&[0x61, 0x88, 0x2a, 0xcd, 0xab, 0x02, 0, 1, 0][..], b"hello", &[0, 0]].concat();
        let transmit = Transmit {
            psdu: &psdu,
            channel: 15,
            csma_backoffs_max: 4,
            retries_max: 3,
            csma: true,
            header_updated: true,
            retransmission: false,
            security_processed: true,
        };
        let mut out = [0; 64];
        let length = transmit.write(&mut out).unwrap();
        assert_eq!(out[..length], [&[0x10, 0][..], &psdu, &[0x0f, 4, 3, 1, 1, 0, 1]].concat());
        assert_eq!(Transmit::parse(&out[..length]), Some(transmit));
    }

    #[test]
    fn what_an_old_co_processor_leaves_out_is_made_up_for() {
        let received = Received::parse(&[3, 0, 9, 8, 7, 0xc4]).unwrap();
        assert_eq!(
            (received.psdu, received.rssi_dbm, received.lqi, received.error),
            (&[9, 8, 7][..], -60, 0, 0)
        );
        let transmit = Transmit::parse(&[1, 0, 9, 15]).unwrap();
        assert_eq!((transmit.retries_max, transmit.csma, transmit.security_processed), (15, true, false));
        assert_eq!(Done::parse(&[17]), Some(Done { status: Status::NO_ACK, frame_pending: false }));
    }

    proptest! {
        #[test]
        fn a_received_frame_is_read_as_written(
            psdu in proptest::collection::vec(any::<u8>(), 0..127), rssi_dbm: i8, noise_dbm: i8, flags: u16, channel: u8,
            lqi: u8, timestamp_us: u64, error: u32,
        ) {
            let received = Received { psdu: &psdu, rssi_dbm, noise_dbm, flags, channel, lqi, timestamp_us, error };
            let mut out = [0; 256];
            let length = received.write(&mut out).unwrap();
            prop_assert_eq!(Received::parse(&out[..length]), Some(received));
        }

        #[test]
        fn any_bytes_are_a_value_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let longest = |psdu: &[u8]| psdu.len() <= bytes.len();
            prop_assert!(Received::parse(&bytes).is_none_or(|received| longest(received.psdu)));
            prop_assert!(Transmit::parse(&bytes).is_none_or(|transmit| longest(transmit.psdu)));
            prop_assert_eq!(Done::parse(&bytes).is_none(), crate::packed::read(&bytes).is_none());
        }
    }
}
