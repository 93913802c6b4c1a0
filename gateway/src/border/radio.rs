//! The radio that the gateway was told of, whichever it is: frames to it and from it. What each kind does is in its own module.

use std::io;

use tidelog_lowpan::{EndpointConfig, zep};

use super::air::{AirError, Heard, ZepAir, beacon};
use super::kernel::{self, KernelAir};
use super::spinel::{self, CoprocessorState, SpinelAir};
use crate::settings::RadioUrl;

/// What [`Radio::receive`] wants room for, in bytes.
pub const PACKET_BYTES_MAX: usize =
    larger(kernel::PACKET_BYTES_MAX, larger(zep::PACKET_BYTES_MAX, spinel::PACKET_BYTES_MAX));

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A radio.
#[derive(Debug)]
pub enum Radio {
    /// A simulated air.
    Zep(ZepAir),
    /// A radio co-processor.
    Spinel(Box<SpinelAir>),
    /// The kernel's: datagrams, and no frames.
    Kernel(KernelAir),
}

impl Radio {
    /// Opens the radio; nobody has to be there yet.
    ///
    /// # Errors
    /// [`AirError`] when the name has no address or the system gives no socket.
    pub async fn open(url: &RadioUrl, station: &EndpointConfig) -> Result<Self, AirError> {
        match url {
            RadioUrl::Zep(address) => ZepAir::open(address, station).await.map(Self::Zep),
            RadioUrl::Spinel(place) => Ok(Self::Spinel(Box::new(SpinelAir::new(place, station)))),
            RadioUrl::Lowpan(interface) => KernelAir::open(interface).await.map(Self::Kernel),
        }
    }

    /// Whether a frame would be taken now, which the kernel never does; if not, [`receive`](Self::receive) returns when that may have changed.
    #[must_use]
    pub fn can_send(&self) -> bool {
        match self {
            Self::Zep(_) => true,
            Self::Spinel(air) => air.can_send(),
            Self::Kernel(_) => false,
        }
    }

    /// How the radio's co-processor is; no other radio has one.
    #[must_use]
    pub fn coprocessor(&self) -> Option<CoprocessorState> {
        match self {
            Self::Zep(_) | Self::Kernel(_) => None,
            Self::Spinel(air) => Some(air.state()),
        }
    }

    /// Puts one frame on the air.
    ///
    /// # Errors
    /// Why not; the frame is lost, as frames may be.
    pub async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Zep(air) => air.send(frame).await,
            Self::Spinel(air) => air.send(frame).map_err(io::Error::other),
            Self::Kernel(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Says that `station` is there: a beacon, which needs no answer and carries nothing. A radio that is not ready is not asked.
    ///
    /// # Errors
    /// What the radio says.
    pub async fn send_beacon(&mut self, station: &EndpointConfig, number: u8) -> io::Result<()> {
        if self.can_send() { self.send(&beacon(station, number)).await } else { Ok(()) }
    }

    /// Waits for a packet and gives its length. Cancel-safe.
    ///
    /// # Errors
    /// What the radio says; it is tried again.
    pub async fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zep(air) => air.receive(packet).await,
            Self::Spinel(air) => air.receive(packet).await,
            Self::Kernel(air) => air.receive(packet).await,
        }
    }

    /// Reads a packet: the frame in it, or nothing if it is not for this station.
    ///
    /// # Errors
    /// Why it is no ZEP datagram.
    pub fn decode<'a>(&self, packet: &'a [u8]) -> Result<Option<Heard<'a>>, zep::Error> {
        match self {
            Self::Zep(air) => air.decode(packet),
            Self::Spinel(_) => Ok(SpinelAir::decode(packet)),
            Self::Kernel(_) => Ok(None),
        }
    }
}
