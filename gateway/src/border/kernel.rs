//! Sensors behind Linux's own 6LoWPAN (`lowpan0`): the kernel has the radio, the frames, the fragments and the link security, and what is left is a
//! UDP socket. A sensor is who its link-local address says (RFC 4944 section 6); nobody else is heard, whatever other interfaces bring.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tidelog_lowpan::{COAP_PORT, GatewayEndpoint, Peer};
use tidelog_record::DeviceId;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::air::AirError;

/// Longest datagram that is taken, in bytes.
pub const PACKET_BYTES_MAX: usize = GatewayEndpoint::PAYLOAD_BYTES_MAX;

/// Most sensors that the status tells of; the one that was not heard for longest is forgotten first.
const HEARD_MAX: usize = 4096;

/// How long nothing is read after the socket gave an error.
const QUIET_AFTER_ERROR: Duration = Duration::from_millis(200);

/// Of an interface identifier that is made of an EUI-64: that it is one of everybody's and not of this place.
const UNIVERSAL: u8 = 0b10;

/// What is known of a sensor: the kernel does not tell how well it heard.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// When it was last heard, Unix milliseconds.
    pub heard_ms: i64,
    /// Datagrams that came from it.
    pub datagrams: u32,
}

/// The socket, and the interface that it is for.
#[derive(Debug)]
pub struct KernelAir {
    socket: UdpSocket,
    /// The interface's number, which link-local addresses carry.
    interface: u32,
    /// Who sent what was received last.
    from: Option<SocketAddr>,
    quiet_until: Option<Instant>,
    heard: HashMap<DeviceId, Sender>,
}

/// The station behind a link-local address, `fe80::` and an identifier made of its EUI-64.
fn station_of(address: Ipv6Addr) -> Option<DeviceId> {
    let [0xfe, 0x80, 0, 0, 0, 0, 0, 0, first, b, c, d, e, f, g, h] = address.octets() else { return None };
    Some(DeviceId([first ^ UNIVERSAL, b, c, d, e, f, g, h]))
}

fn address_of(DeviceId([first, b, c, d, e, f, g, h]): DeviceId) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, first ^ UNIVERSAL, b, c, d, e, f, g, h])
}

impl KernelAir {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`AirError`] when there is no such interface, or the port is taken.
    pub async fn open(interface: &str) -> Result<Self, AirError> {
        let absent = |source| AirError::Interface { name: interface.to_owned(), source };
        let number =
            std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).map_err(absent)?;
        let number = number.trim().parse().map_err(|error| absent(io::Error::other(error)))?;
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, COAP_PORT)).await?;
        Ok(Self { socket, interface: number, from: None, quiet_until: None, heard: HashMap::new() })
    }

    /// Waits for a datagram and gives its length; who sent it is asked of [`sender`](Self::sender). Cancel-safe.
    ///
    /// # Errors
    /// What the socket says, once in [`QUIET_AFTER_ERROR`].
    pub async fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.quiet_until {
            tokio::time::sleep_until(until).await;
            self.quiet_until = None;
        }
        match self.socket.recv_from(packet).await {
            Ok((length, from)) => {
                self.from = Some(from);
                Ok(length)
            }
            Err(error) => {
                self.quiet_until = Some(Instant::now() + QUIET_AFTER_ERROR);
                Err(error)
            }
        }
    }

    /// The station that sent what was received last; `None` for one that is not on this interface.
    pub fn sender(&mut self, clock_ms: i64) -> Option<Peer> {
        let SocketAddr::V6(from) = self.from.take()? else { return None };
        let device = station_of(*from.ip()).filter(|_| from.scope_id() == self.interface)?;
        if self.heard.len() >= HEARD_MAX && !self.heard.contains_key(&device) {
            let oldest =
                self.heard.iter().min_by_key(|(_, sender)| sender.heard_ms).map(|(device, _)| *device);
            oldest.map(|device| self.heard.remove(&device));
        }
        let sender = self.heard.entry(device).or_insert(Sender { heard_ms: clock_ms, datagrams: 0 });
        (sender.heard_ms, sender.datagrams) = (clock_ms, sender.datagrams.saturating_add(1));
        Some(Peer { device, port: from.port() })
    }

    /// Sends a datagram to a station.
    ///
    /// # Errors
    /// What the socket says; the datagram is lost, as datagrams may be.
    pub async fn send(&self, peer: Peer, datagram: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(address_of(peer.device), peer.port, 0, self.interface);
        self.socket.send_to(datagram, to).await.map(drop)
    }

    /// The stations that were heard.
    pub fn heard(&self) -> impl Iterator<Item = (DeviceId, Sender)> {
        self.heard.iter().map(|(device, sender)| (*device, *sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_who_its_link_local_address_says_and_nobody_else_is_one() {
        let device = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
        assert_eq!(address_of(device), "fe80::12:4b00:0:1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(station_of(address_of(device)), Some(device));
        for other in
            ["::1", "2001:db8::212:4b00:0:1", "fe80:0:0:1::1", "ff02::1", "fec0::1", "::ffff:1.2.3.4"]
        {
            assert_eq!(station_of(other.parse().unwrap()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_named() {
        let error = KernelAir::open("lowpan99").await.unwrap_err().to_string();
        assert!(error.contains("lowpan99"), "{error}");
    }
}
