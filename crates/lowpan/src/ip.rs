//! IPv6 and UDP: smoltcp over a device of whole IP packets (`Medium::Ip`), so that it needs no neighbour cache. Only
//! what it can do something useful with is let through to it: UDP to this station's port, and echo requests, from the
//! link-local address of the very station whose frames brought them. Its socket lives for one call at a time and
//! borrows the caller's buffers, so a datagram is copied once and an endpoint needs no storage for sockets.

use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket, UdpMetadata};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpProtocol, Ipv6Address, Ipv6Packet, UdpPacket,
};
use tidelog_record::DeviceId;

use crate::address::link_local;
use crate::outgoing::Outgoing;

const LINK_LOCAL_PREFIX_BITS: u8 = 64;
const ALL_NODES: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ECHO_REQUEST: u8 = 128;
const ICMPV6_HEADER_BYTES: usize = 8;
/// The largest packet that smoltcp makes by itself: IPv6's minimum MTU.
const OWN_PACKET_BYTES_MAX: usize = 1280;

/// What a packet is to this station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Datagram { payload_bytes: usize },
    Echo,
}

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A datagram of so many bytes, from this port.
    Datagram { port: u16, payload_bytes: usize },
    /// Answered by IPv6 itself.
    Answered,
    /// The caller's buffer can't hold it.
    TooLong,
    /// Not for this station, or wrong.
    Refused,
}

/// The network layer of one station.
pub(crate) struct Ip {
    interface: Interface,
    device: DeviceId,
    port: u16,
}

/// The link as smoltcp sees it for one call: at most one packet waits to be read, and what is written goes to a slot.
struct Wire<'a, const BYTES: usize, const SLOTS: usize> {
    incoming: Option<&'a [u8]>,
    outgoing: &'a mut Outgoing<BYTES, SLOTS>,
    to: DeviceId,
}

struct Received<'a>(&'a [u8]);

struct Room<'a, const BYTES: usize, const SLOTS: usize> {
    now: Instant,
    slots: &'a mut Outgoing<BYTES, SLOTS>,
    to: DeviceId,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<const BYTES: usize, const SLOTS: usize> TxToken for Room<'_, BYTES, SLOTS> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.slots.claim(self.now, self.to, len) {
            Some(packet) => f(packet),
            None => discard(len, f),
        }
    }
}

/// Lets smoltcp write a packet that nobody will send.
#[inline(never)]
fn discard<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut scratch = [0u8; OWN_PACKET_BYTES_MAX];
    let end = len.min(scratch.len());
    f(scratch.get_mut(..end).unwrap_or_default())
}

impl<const BYTES: usize, const SLOTS: usize> Device for Wire<'_, BYTES, SLOTS> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Room<'b, BYTES, SLOTS>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.incoming.take()?;
        Some((Received(packet), Room { now, slots: &mut *self.outgoing, to: self.to }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        Some(Room { now, slots: &mut *self.outgoing, to: self.to })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities::<BYTES>()
    }
}

fn capabilities<const BYTES: usize>() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = BYTES;
    capabilities
}

fn ipv6(device: DeviceId) -> Ipv6Address {
    Ipv6Address::from(link_local(device))
}

impl Ip {
    /// The layer for a station with the link-local address of `device`.
    pub(crate) fn new<const BYTES: usize, const SLOTS: usize>(
        device: DeviceId,
        port: u16,
        outgoing: &mut Outgoing<BYTES, SLOTS>,
        seed: u64,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire { incoming: None, outgoing, to: device };
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let own = IpCidr::new(IpAddress::Ipv6(ipv6(device)), LINK_LOCAL_PREFIX_BITS);
        interface.update_ip_addrs(|addresses| {
            // An empty list of at least one place takes one address.
            addresses.resize(1, own).unwrap_or_default();
        });
        Self { interface, device, port }
    }

    /// Makes a UDP packet of a payload in a slot of `outgoing`. `false` when there was no room.
    pub(crate) fn write<const BYTES: usize, const SLOTS: usize>(
        &mut self,
        now: Instant,
        to: DeviceId,
        port: u16,
        payload: &[u8],
        outgoing: &mut Outgoing<BYTES, SLOTS>,
    ) -> bool {
        let mut bytes = [0u8; BYTES];
        let mut meta = [PacketMetadata::EMPTY; 1];
        let Some(bytes) = bytes.get_mut(..payload.len()) else { return false };
        let receiving = PacketBuffer::new(&mut [][..], &mut [][..]);
        let sending = PacketBuffer::new(&mut meta[..], bytes);
        let mut socket = Socket::new(receiving, sending);
        let remote = UdpMetadata::from(IpEndpoint::new(IpAddress::Ipv6(ipv6(to)), port));
        if !outgoing.has_room(to)
            || socket.bind(self.port).is_err()
            || socket.send_slice(payload, remote).is_err()
        {
            return false;
        }
        let mut storage = [SocketStorage::EMPTY];
        let mut sockets = SocketSet::new(&mut storage[..]);
        sockets.add(socket);
        self.interface.poll(now, &mut Wire { incoming: None, outgoing, to }, &mut sockets);
        true
    }

    /// Reads a packet that `from` sent. Only what [`Ip::purpose`] names gets further.
    pub(crate) fn read<const BYTES: usize, const SLOTS: usize>(
        &mut self,
        now: Instant,
        from: DeviceId,
        packet: &[u8],
        buffer: &mut [u8],
        outgoing: &mut Outgoing<BYTES, SLOTS>,
    ) -> Read {
        match self.purpose(from, packet) {
            None => return Read::Refused,
            Some(Purpose::Datagram { payload_bytes }) if payload_bytes > buffer.len() => {
                return Read::TooLong;
            }
            Some(_) => {}
        }
        let mut meta = [PacketMetadata::EMPTY; 1];
        let receiving = PacketBuffer::new(&mut meta[..], buffer);
        let sending = PacketBuffer::new(&mut [][..], &mut [][..]);
        let mut socket = Socket::new(receiving, sending);
        if socket.bind(self.port).is_err() {
            return Read::Refused;
        }
        let mut storage = [SocketStorage::EMPTY];
        let mut sockets = SocketSet::new(&mut storage[..]);
        let handle = sockets.add(socket);
        self.interface.poll(now, &mut Wire { incoming: Some(packet), outgoing, to: from }, &mut sockets);
        match (sockets.get_mut::<Socket<'_>>(handle).recv(), self.purpose(from, packet)) {
            (Ok((payload, meta)), _) => {
                Read::Datagram { port: meta.endpoint.port, payload_bytes: payload.len() }
            }
            (Err(_), Some(Purpose::Echo)) => Read::Answered,
            (Err(_), _) => Read::Refused,
        }
    }

    /// What a packet from `from` is to this station; `None` for everything that smoltcp needs not see.
    fn purpose(&self, from: DeviceId, packet: &[u8]) -> Option<Purpose> {
        let ip = Ipv6Packet::new_checked(packet).ok()?;
        let own = ip.dst_addr() == ipv6(self.device);
        if ip.version() != 6
            || ip.total_len() != packet.len()
            || ip.src_addr() != ipv6(from)
            || !(own || ip.dst_addr() == ALL_NODES)
        {
            return None;
        }
        match ip.next_header() {
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(ip.payload()).ok()?;
                let mine = udp.dst_port() == self.port && udp.src_port() != 0;
                mine.then(|| Purpose::Datagram { payload_bytes: udp.payload().len() })
            }
            IpProtocol::Icmpv6 => {
                let echo =
                    ip.payload().len() >= ICMPV6_HEADER_BYTES && ip.payload().first() == Some(&ECHO_REQUEST);
                (own && echo).then_some(Purpose::Echo)
            }
            _ => None,
        }
    }
}
