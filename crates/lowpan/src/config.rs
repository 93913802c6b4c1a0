//! What a station is told once, when its endpoint is made. Each default stands here and nowhere else; what a valid
//! channel or PAN is, is decided here too.

use smoltcp::time::Duration;
use tidelog_record::DeviceId;

use crate::{COAP_PORT, NetworkKey};

/// The PAN that a station joins unless told otherwise.
pub const PAN_DEFAULT: u16 = 0x0023;
/// The channel of the 2.4 GHz band that a station uses unless told otherwise.
pub const CHANNEL_DEFAULT: u8 = 26;
/// How long a sent frame waits for its acknowledgement before it is sent again; each repetition waits twice as long. Radios answer within a millisecond;
/// this leaves room for a simulated air's delay and for a serial line.
pub const ACK_WAIT_DEFAULT: Duration = Duration::from_millis(50);
/// How long after an acknowledged frame the next one to the same station is held back: stations with few receive
/// buffers lose what comes faster.
pub const PACE_DEFAULT: Duration = Duration::from_millis(2);
/// Frame counters reserved at a time: what a restart skips at most, and how often a reservation is stored.
pub const COUNTER_BLOCK_DEFAULT: u32 = 1_024;
/// The first and last channel of the 2.4 GHz O-QPSK PHY.
const CHANNELS: core::ops::RangeInclusive<u8> = 11..=26;

/// What one station is told when its [`Endpoint`](crate::Endpoint) is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The station's own EUI-64.
    pub eui: DeviceId,
    /// PAN identifier; frames of other PANs are dropped. `0xffff` is the broadcast PAN and is refused.
    pub pan: u16,
    /// Channel of the 2.4 GHz band, 11 to 26.
    pub channel: u8,
    /// Whether this endpoint acknowledges and retries by itself. `false` when the radio does both.
    pub soft_mac: bool,
    /// Whether this endpoint gives the acknowledgements of its soft MAC. `false` when the radio gives them by itself, sooner than this endpoint
    /// could, and leaves it to repeat: see [`Access`](crate::access::Access).
    pub soft_ack: bool,
    /// The UDP port that this station receives on and sends from.
    pub port: u16,
    /// How long a frame's first attempt waits for its acknowledgement, each repetition twice as long (soft MAC only).
    pub ack_wait: Duration,
    /// The least time between an acknowledgement and the next frame to the same station.
    pub pace: Duration,
    /// The key of the network. With one, every data frame leaves encrypted and authenticated, and others are dropped;
    /// without one, the air is open.
    pub key: Option<NetworkKey>,
    /// Frame counters that one reservation asks for.
    pub counter_block: u32,
}

/// Why a configuration names no possible station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The channel is outside the 2.4 GHz band.
    #[error("channel {0} is not in the 2.4 GHz band (11 to 26)")]
    Channel(u8),
    /// `0xffff` addresses all PANs and can't be one.
    #[error("PAN 0xffff is the broadcast PAN: choose another")]
    BroadcastPan,
    /// UDP port 0 receives nothing.
    #[error("UDP port 0 receives nothing: choose another")]
    PortZero,
    /// A reservation of no frame counters lets no frame leave.
    #[error("frame counters are reserved 2 at a time at least")]
    CounterBlock,
}

impl EndpointConfig {
    /// The defaults for a station: PAN `0x0023`, channel 26, soft MAC, CoAP's port.
    #[must_use]
    pub const fn new(eui: DeviceId) -> Self {
        Self {
            eui,
            pan: PAN_DEFAULT,
            channel: CHANNEL_DEFAULT,
            soft_mac: true,
            soft_ack: true,
            port: COAP_PORT,
            ack_wait: ACK_WAIT_DEFAULT,
            pace: PACE_DEFAULT,
            key: None,
            counter_block: COUNTER_BLOCK_DEFAULT,
        }
    }

    /// Whether the values name a possible station.
    ///
    /// # Errors
    /// The first value that does not, as a [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !CHANNELS.contains(&self.channel) {
            return Err(ConfigError::Channel(self.channel));
        }
        if self.pan == 0xffff {
            return Err(ConfigError::BroadcastPan);
        }
        if self.port == 0 {
            return Err(ConfigError::PortZero);
        }
        if self.counter_block < 2 {
            return Err(ConfigError::CounterBlock);
        }
        Ok(())
    }
}
