//! The radio as a socket: 802.15.4 frames in ZEP datagrams to and from a dispatcher (layout in [`zep`]). It knows no
//! frame's meaning, except for the beacon that it writes itself, and makes no decision but how long to keep quiet after an
//! error.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidelog_lowpan::{EndpointConfig, Quality, zep};
use tidelog_node::settings::HostPort;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// How often the gateway says that it is there: a dispatcher knows a station from its first datagram, and may have been
/// restarted since.
pub const BEACON_EVERY: Duration = Duration::from_secs(5);

/// How long nothing is read after the socket gave an error.
const QUIET_AFTER_ERROR: Duration = Duration::from_millis(200);

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;

/// Longest beacon, in bytes.
const BEACON_BYTES: usize = 17;

/// Why there is no air.
#[derive(Debug, thiserror::Error)]
pub enum AirError {
    /// The name has no address.
    #[error("{0} has no address")]
    Unresolved(HostPort),
    /// There is no such network interface.
    #[error("there is no network interface {name}: {source}")]
    Interface {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The socket refused.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// A frame that was heard.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// The frame without its check sequence.
    pub frame: &'a [u8],
    /// How it was heard. ZEP carries a link quality; the signal strength is worked out from it.
    pub quality: Quality,
}

/// A socket to a ZEP dispatcher.
#[derive(Debug)]
pub struct ZepAir {
    socket: UdpSocket,
    channel: u8,
    device: u16,
    sequence: u32,
    quiet_until: Option<Instant>,
}

impl ZepAir {
    /// Opens a socket towards the dispatcher. Nothing is sent yet, and nobody has to be there yet.
    ///
    /// # Errors
    /// [`AirError`] when the name has no address or the system gives no socket.
    pub async fn open(address: &HostPort, station: &EndpointConfig) -> Result<Self, AirError> {
        let mut found = tokio::net::lookup_host((address.host.as_str(), address.port)).await?;
        let to = found.next().ok_or_else(|| AirError::Unresolved(address.clone()))?;
        let local: SocketAddr = match to {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(to).await?;
        let [.., high, low] = station.eui.0;
        let device = u16::from_be_bytes([high, low]);
        Ok(Self { socket, channel: station.channel, device, sequence: 0, quiet_until: None })
    }

    /// Puts one frame on the air.
    ///
    /// # Errors
    /// What the socket says; the frame is lost, as frames may be.
    pub async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = zep::Header {
            channel: self.channel,
            device: self.device,
            lqi: u8::MAX,
            ntp: ntp_now(),
            sequence: self.sequence,
        };
        let mut packet = [0; zep::PACKET_BYTES_MAX];
        let length = zep::encode(&header, frame, &mut packet)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.socket.send(packet.get(..length).unwrap_or_default()).await?;
        Ok(())
    }

    /// Waits for a datagram and gives its length. Cancel-safe.
    ///
    /// # Errors
    /// What the socket says, once in [`QUIET_AFTER_ERROR`]: a refused connection means that the dispatcher is not there.
    pub async fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.quiet_until {
            tokio::time::sleep_until(until).await;
            self.quiet_until = None;
        }
        self.socket
            .recv(packet)
            .await
            .inspect_err(|_| self.quiet_until = Some(Instant::now() + QUIET_AFTER_ERROR))
    }

    /// Reads a datagram: the frame in it, or nothing if it is for another channel or an acknowledgement of ZEP's own.
    ///
    /// # Errors
    /// Why it is no ZEP datagram.
    pub fn decode<'a>(&self, packet: &'a [u8]) -> Result<Option<Heard<'a>>, zep::Error> {
        match zep::decode(packet)? {
            zep::Packet::Data(header, frame) if header.channel == self.channel => {
                let quality = Quality { rssi_dbm: rssi_of(header.lqi), lqi: header.lqi };
                Ok(Some(Heard { frame, quality }))
            }
            zep::Packet::Data(..) | zep::Packet::Ack(_) => Ok(None),
        }
    }
}

/// A simulated air says how well a frame was heard by its link quality alone: 255 as -35 dBm, 0 as -100 dBm.
fn rssi_of(lqi: u8) -> i8 {
    let above = i16::from(lqi) * 65 / 255;
    i8::try_from(above - 100).unwrap_or(i8::MIN)
}

fn ntp_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().wrapping_add(NTP_UNIX_OFFSET_S);
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    seconds << 32 | fraction
}

/// An IEEE 802.15.4 beacon of a network without beacon slots:
///
/// ```text
/// frame control 00 C0 (beacon, long source) | sequence | PAN u16 LE | source EUI-64 LE | superframe FF CF
/// (no slots, PAN coordinator, joining allowed) | GTS 00 | pending 00
/// ```
pub fn beacon(station: &EndpointConfig, sequence: u8) -> [u8; BEACON_BYTES] {
    let [pan_low, pan_high] = station.pan.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = station.eui.0;
    [0x00, 0xc0, sequence, pan_low, pan_high, h, g, f, e, d, c, b, a, 0xff, 0xcf, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::DeviceId;

    fn station() -> EndpointConfig {
        EndpointConfig::new(DeviceId([2, 1, 0, 0, 0, 0, 0, 9]))
    }

    #[tokio::test]
    async fn a_frame_that_is_sent_is_heard_on_its_channel_only() {
        let dispatcher = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = dispatcher.local_addr().unwrap().to_string().parse().unwrap();
        let mut air = ZepAir::open(&address, &station()).await.unwrap();
        air.send(b"frame").await.unwrap();
        let mut packet = [0; zep::PACKET_BYTES_MAX];
        let (length, from) = dispatcher.recv_from(&mut packet).await.unwrap();
        dispatcher.send_to(&packet[..length], from).await.unwrap();
        let mut back = [0; zep::PACKET_BYTES_MAX];
        let length = air.receive(&mut back).await.unwrap();
        let heard = air.decode(&back[..length]).unwrap().unwrap();
        assert_eq!((heard.frame, heard.quality.rssi_dbm), (&b"frame"[..], -35));
        back[4] = 11;
        assert_eq!(air.decode(&back[..length]), Ok(None));
    }

    #[tokio::test]
    async fn a_dispatcher_that_is_not_there_is_an_error_and_not_a_busy_loop() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut air = ZepAir::open(&free.to_string().parse().unwrap(), &station()).await.unwrap();
        let mut packet = [0; zep::PACKET_BYTES_MAX];
        air.send(&beacon(&station(), 0)).await.unwrap();
        assert!(air.receive(&mut packet).await.is_err());
        let again = tokio::time::timeout(QUIET_AFTER_ERROR / 2, air.receive(&mut packet)).await;
        assert!(again.is_err(), "it reads again at once");
    }

    #[test]
    fn the_worst_and_the_best_link_have_their_places() {
        assert_eq!((rssi_of(0), rssi_of(255)), (-100, -35));
    }
}
