//! Header compression, RFC 6282: the IPv6 and UDP headers of a packet into a few bytes and back. Stateless forms only:
//! address contexts, extension headers and elided UDP checksums are refused with an error of their own. This module
//! works on headers; how long a packet may be and where its pieces go is decided elsewhere.
//!
//! ```text
//! 0 1 1 T T N H H | C s S S m D D D      IPHC: T traffic class and flow, N next header compressed, H hop limit,
//!                                        C context byte follows, s/SS source, m multicast, D DD destination
//! [context] [class and flow 0|1|3|4] [next header 0|1] [hop limit 0|1] [source 0|2|8|16] [destination 0|1|2|4|6|8|16]
//! 1 1 1 1 0 c P P                        UDP: c checksum elided, P ports
//! [ports 1|3|4] [checksum 2]
//!
//! 7E 33 | F0 | 16 33 16 33 | ck ck       link-local, port 5683 at both ends: 9 bytes for 48
//! ```

use smoltcp::wire::{IpProtocol, Ipv6Packet};
use tidelog_record::bytes::{Reader, Writer};

use crate::address::{LINK_LOCAL_PREFIX, interface_id, join};
use crate::mac::Address;

/// Length of an IPv6 header.
pub(crate) const IPV6_BYTES: usize = 40;
/// Length of a UDP header.
pub(crate) const UDP_BYTES: usize = 8;
/// The most that compressed headers take: nothing elided.
pub(crate) const COMPRESSED_BYTES_MAX: usize = 2 + 4 + 1 + 1 + 16 + 16 + 1 + 4 + 2;

const IPV6_DISPATCH: u8 = 0x41;
const IPHC_DISPATCH: u8 = 0b0110_0000;
const IPHC_MASK: u8 = 0b1110_0000;
const NHC_UDP: u8 = 0b1111_0000;
const NHC_UDP_MASK: u8 = 0b1111_1000;
const NHC_UDP_CHECKSUM_ELIDED: u8 = 0b100;
const UDP: u8 = 17;
/// Ports that shrink to 8 bits share this high byte, those that shrink to 4 bits these twelve bits.
const PORT_PREFIX_8: u16 = 0xf000;
const PORT_PREFIX_4: u16 = 0xf0b0;
const HOP_LIMITS: [u8; 3] = [1, 64, 255];

/// The link addresses that elided IPv6 addresses are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub source: Address,
    pub destination: Address,
}

/// Why compressed headers can't be expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("ends within the headers")]
    Truncated,
    #[error("not IPv6 and not IPHC")]
    Dispatch,
    #[error("uses an address context")]
    Context,
    #[error("a reserved form")]
    Reserved,
    #[error("an extension header")]
    Extension,
    #[error("an elided UDP checksum")]
    ChecksumElided,
    #[error("an elided address without a link address")]
    NoLinkAddress,
    #[error("does not fit an IPv6 packet")]
    TooLong,
}

/// Headers expanded: how much of the input they were, and the bytes they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub consumed: usize,
    pub header: [u8; IPV6_BYTES + UDP_BYTES],
    pub header_bytes: usize,
}

/// Expands the headers at the front of `input`. `packet_bytes` is the size of the whole packet where a fragment header
/// told it; without, `input` is the whole packet.
pub(crate) fn expand(input: &[u8], link: Link, packet_bytes: Option<usize>) -> Result<Expanded, Error> {
    let mut reader = Reader::new(input);
    let first = reader.u8().ok_or(Error::Truncated)?;
    let header = [0; IPV6_BYTES + UDP_BYTES];
    if first == IPV6_DISPATCH {
        return Ok(Expanded { consumed: 1, header, header_bytes: 0 });
    }
    if first & IPHC_MASK != IPHC_DISPATCH {
        return Err(Error::Dispatch);
    }
    let second = reader.u8().ok_or(Error::Truncated)?;
    if second & 0x80 != 0 {
        // A context byte that nothing refers to is legal; contexts in use are refused where addresses are read.
        reader.u8().ok_or(Error::Truncated)?;
    }
    let (class, flow) = read_class_and_flow(first >> 3 & 3, &mut reader)?;
    let next_header = if first & 0x04 == 0 { Some(reader.u8().ok_or(Error::Truncated)?) } else { None };
    let hop_limit = match usize::from(first & 3).checked_sub(1).and_then(|i| HOP_LIMITS.get(i)) {
        Some(limit) => *limit,
        None => reader.u8().ok_or(Error::Truncated)?,
    };
    let source = read_source(second >> 4 & 7, link.source, &mut reader)?;
    let destination = read_destination(second & 0x0f, link.destination, &mut reader)?;
    let udp = if next_header.is_none() { Some(read_udp(&mut reader)?) } else { None };

    let consumed = input.len() - reader.rest().len();
    let header_bytes = IPV6_BYTES + if udp.is_some() { UDP_BYTES } else { 0 };
    let packet_bytes = packet_bytes.unwrap_or(header_bytes + reader.rest().len());
    if packet_bytes < header_bytes {
        return Err(Error::Truncated);
    }
    let payload_bytes = u16::try_from(packet_bytes - IPV6_BYTES).map_err(|_| Error::TooLong)?;

    let mut expanded = Expanded { consumed, header, header_bytes };
    let mut writer = Writer::new(&mut expanded.header);
    let [flow_high, flow_mid, flow_low] = flow;
    let written = writer
        .put(&[0x60 | class >> 4, class << 4 | flow_high & 0x0f, flow_mid, flow_low])
        .and_then(|w| w.put(&payload_bytes.to_be_bytes()))
        .and_then(|w| w.put(&[next_header.unwrap_or(UDP), hop_limit]))
        .and_then(|w| w.put(&source))
        .and_then(|w| w.put(&destination));
    let written = match udp {
        Some(udp) => written
            .and_then(|w| w.put(&udp.source.to_be_bytes()))
            .and_then(|w| w.put(&udp.destination.to_be_bytes()))
            .and_then(|w| w.put(&payload_bytes.to_be_bytes()))
            .and_then(|w| w.put(&udp.checksum)),
        None => written,
    };
    written.ok_or(Error::TooLong)?;
    Ok(expanded)
}

fn read_class_and_flow(form: u8, reader: &mut Reader<'_>) -> Result<(u8, [u8; 3]), Error> {
    // On the air the two ECN bits stand above the six DSCP bits; in IPv6 it is the other way round.
    let class = |byte: u8| byte.rotate_left(2);
    Ok(match form {
        0 => {
            let [ecn_dscp, a, b, c] = reader.array().ok_or(Error::Truncated)?;
            (class(ecn_dscp), [a & 0x0f, b, c])
        }
        1 => {
            let [ecn_flow, b, c] = reader.array().ok_or(Error::Truncated)?;
            (ecn_flow >> 6, [ecn_flow & 0x0f, b, c])
        }
        2 => (class(reader.u8().ok_or(Error::Truncated)?), [0; 3]),
        _ => (0, [0; 3]),
    })
}

/// The unicast forms that source and destination share.
fn read_unicast(form: u8, link: Address, reader: &mut Reader<'_>) -> Result<[u8; 16], Error> {
    let interface = match form {
        0 => return reader.array().ok_or(Error::Truncated),
        1 => reader.array().ok_or(Error::Truncated)?,
        2 => {
            let short = reader.array().map(u16::from_be_bytes).ok_or(Error::Truncated)?;
            interface_id(Address::Short(short)).ok_or(Error::NoLinkAddress)?
        }
        _ => interface_id(link).ok_or(Error::NoLinkAddress)?,
    };
    Ok(join(LINK_LOCAL_PREFIX, interface))
}

fn read_source(form: u8, link: Address, reader: &mut Reader<'_>) -> Result<[u8; 16], Error> {
    match form {
        0..=3 => read_unicast(form, link, reader),
        4 => Ok([0; 16]),
        _ => Err(Error::Context),
    }
}

fn read_destination(form: u8, link: Address, reader: &mut Reader<'_>) -> Result<[u8; 16], Error> {
    let mut out = [0u8; 16];
    let [prefix, flags, .., _] = &mut out;
    (*prefix, *flags) = (0xff, 0x02);
    match form {
        0..=3 => return read_unicast(form, link, reader),
        4 => return Err(Error::Reserved),
        5..=7 | 12 => return Err(Error::Context),
        8 => return reader.array().ok_or(Error::Truncated),
        9 => {
            let [scope, a, b, c, d, e] = reader.array().ok_or(Error::Truncated)?;
            out = [0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e];
        }
        10 => {
            let [scope, a, b, c] = reader.array().ok_or(Error::Truncated)?;
            out = [0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c];
        }
        11 => {
            let [.., last] = &mut out;
            *last = reader.u8().ok_or(Error::Truncated)?;
        }
        _ => return Err(Error::Reserved),
    }
    Ok(out)
}

struct Udp {
    source: u16,
    destination: u16,
    checksum: [u8; 2],
}

fn read_udp(reader: &mut Reader<'_>) -> Result<Udp, Error> {
    let head = reader.u8().ok_or(Error::Truncated)?;
    if head & NHC_UDP_MASK != NHC_UDP {
        return Err(Error::Extension);
    }
    let (source, destination) = match head & 3 {
        0 => {
            let [a, b, c, d] = reader.array().ok_or(Error::Truncated)?;
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        1 => {
            let [a, b, c] = reader.array().ok_or(Error::Truncated)?;
            (u16::from_be_bytes([a, b]), PORT_PREFIX_8 | u16::from(c))
        }
        2 => {
            let [a, b, c] = reader.array().ok_or(Error::Truncated)?;
            (PORT_PREFIX_8 | u16::from(a), u16::from_be_bytes([b, c]))
        }
        _ => {
            let both = reader.u8().ok_or(Error::Truncated)?;
            (PORT_PREFIX_4 | u16::from(both >> 4), PORT_PREFIX_4 | u16::from(both & 0x0f))
        }
    };
    if head & NHC_UDP_CHECKSUM_ELIDED != 0 {
        return Err(Error::ChecksumElided);
    }
    Ok(Udp { source, destination, checksum: reader.array().ok_or(Error::Truncated)? })
}

/// Headers compressed: how much of the packet they were, and how much of `out` they fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compressed {
    pub consumed: usize,
    pub written: usize,
}

/// Compresses the headers at the front of a whole IPv6 packet. `None` when that is no IPv6 packet of just this length.
pub(crate) fn compress(
    packet: &[u8],
    link: Link,
    out: &mut [u8; COMPRESSED_BYTES_MAX],
) -> Option<Compressed> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    if ip.version() != 6 || ip.total_len() != packet.len() {
        return None;
    }
    let udp = match ip.next_header() {
        IpProtocol::Udp => packet.get(IPV6_BYTES..)?.first_chunk::<UDP_BYTES>(),
        _ => None,
    };
    let udp = udp.filter(|[_, _, _, _, l0, l1, _, _]| u16::from_be_bytes([*l0, *l1]) == ip.payload_len());

    let mut inline = [0u8; COMPRESSED_BYTES_MAX];
    let mut fields = Writer::new(&mut inline);
    let class_form = write_class_and_flow(ip.traffic_class(), ip.flow_label(), &mut fields)?;
    if udp.is_none() {
        fields.put(&[u8::from(ip.next_header())])?;
    }
    let hop_form = match HOP_LIMITS.into_iter().zip(1u8..).find(|(limit, _)| *limit == ip.hop_limit()) {
        Some((_, form)) => form,
        None => fields.put(&[ip.hop_limit()]).map(|_| 0)?,
    };
    let source_form = match ip.src_addr().octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => 4,
        source => write_unicast(source, link.source, &mut fields)?,
    };
    let destination_form = match ip.dst_addr().octets() {
        multicast @ [0xff, ..] => write_multicast(multicast, &mut fields)?,
        unicast => write_unicast(unicast, link.destination, &mut fields)?,
    };
    if let Some(udp) = udp {
        write_udp(udp, &mut fields)?;
    }
    let fields_bytes = fields.written();
    let next_form = if udp.is_some() { 0x04 } else { 0 };

    let mut writer = Writer::new(out);
    writer
        .put(&[IPHC_DISPATCH | class_form << 3 | next_form | hop_form, source_form << 4 | destination_form])?
        .put(inline.get(..fields_bytes)?)?;
    let consumed = IPV6_BYTES + if udp.is_some() { UDP_BYTES } else { 0 };
    Some(Compressed { consumed, written: writer.written() })
}

fn write_class_and_flow(class: u8, flow: u32, fields: &mut Writer<'_>) -> Option<u8> {
    let [_, high, mid, low] = flow.to_be_bytes();
    let ecn_dscp = class.rotate_right(2);
    match (class, flow) {
        (0, 0) => Some(3),
        (_, 0) => fields.put(&[ecn_dscp]).map(|_| 2),
        (0..=3, _) => fields.put(&[class << 6 | high, mid, low]).map(|_| 1),
        _ => fields.put(&[ecn_dscp, high, mid, low]).map(|_| 0),
    }
}

fn write_unicast(address: [u8; 16], link: Address, fields: &mut Writer<'_>) -> Option<u8> {
    let (prefix, interface) = address.split_first_chunk::<8>()?;
    if *prefix != LINK_LOCAL_PREFIX {
        return fields.put(&address).map(|_| 0);
    }
    if interface_id(link).is_some_and(|id| id == interface) {
        return Some(3);
    }
    match interface {
        [0, 0, 0, 0xff, 0xfe, 0, short @ ..] => fields.put(short).map(|_| 2),
        _ => fields.put(interface).map(|_| 1),
    }
}

fn write_multicast(address: [u8; 16], fields: &mut Writer<'_>) -> Option<u8> {
    match address {
        [_, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] => fields.put(&[last]).map(|_| 11),
        [_, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c] => fields.put(&[scope, a, b, c]).map(|_| 10),
        [_, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e] => {
            fields.put(&[scope, a, b, c, d, e]).map(|_| 9)
        }
        whole => fields.put(&whole).map(|_| 8),
    }
}

fn write_udp(udp: &[u8; UDP_BYTES], fields: &mut Writer<'_>) -> Option<()> {
    let [s0, s1, d0, d1, _, _, checksum @ ..] = udp;
    let (source, destination) = (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1]));
    let shrinks_to_4 = |port: u16| port & 0xfff0 == PORT_PREFIX_4;
    let shrinks_to_8 = |port: u16| port & 0xff00 == PORT_PREFIX_8;
    if shrinks_to_4(source) && shrinks_to_4(destination) {
        fields.put(&[NHC_UDP | 3, s1 << 4 | d1 & 0x0f])?;
    } else if shrinks_to_8(destination) {
        fields.put(&[NHC_UDP | 1, *s0, *s1, *d1])?;
    } else if shrinks_to_8(source) {
        fields.put(&[NHC_UDP | 2, *s1, *d0, *d1])?;
    } else {
        fields.put(&[NHC_UDP, *s0, *s1, *d0, *d1])?;
    }
    fields.put(checksum).map(|_| ())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;
    use tidelog_record::DeviceId;

    const SOURCE: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 2]);
    const DESTINATION: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
    const LINK: Link =
        Link { source: Address::Extended(SOURCE), destination: Address::Extended(DESTINATION) };

    /// What a packet looks like, as a naive writer of RFC 8200 and RFC 768 puts it.
    #[derive(Debug, Clone)]
    struct Plain {
        class: u8,
        flow: u32,
        hop_limit: u8,
        source: [u8; 16],
        destination: [u8; 16],
        next: Next,
        payload: Vec<u8>,
    }

    #[derive(Debug, Clone)]
    enum Next {
        Udp { source: u16, destination: u16, checksum: u16 },
        Other(u8),
    }

    impl Plain {
        fn bytes(&self) -> Vec<u8> {
            let udp_bytes = if matches!(self.next, Next::Udp { .. }) { 8 } else { 0 };
            let payload_bytes = u16::try_from(self.payload.len() + udp_bytes).unwrap();
            let first = 6u32 << 28 | u32::from(self.class) << 20 | self.flow;
            let mut out = first.to_be_bytes().to_vec();
            out.extend(payload_bytes.to_be_bytes());
            out.push(match self.next {
                Next::Udp { .. } => 17,
                Next::Other(number) => number,
            });
            out.push(self.hop_limit);
            out.extend(self.source);
            out.extend(self.destination);
            if let Next::Udp { source, destination, checksum } = self.next {
                out.extend(
                    [source, destination, payload_bytes, checksum].map(u16::to_be_bytes).as_flattened(),
                );
            }
            out.extend(&self.payload);
            out
        }
    }

    fn link_local() -> Plain {
        Plain {
            class: 0,
            flow: 0,
            hop_limit: 64,
            source: crate::address::link_local(SOURCE),
            destination: crate::address::link_local(DESTINATION),
            next: Next::Udp { source: 5683, destination: 5683, checksum: 0xbeef },
            payload: std::vec![1, 2, 3],
        }
    }

    fn squeeze(packet: &[u8]) -> Vec<u8> {
        let mut headers = [0; COMPRESSED_BYTES_MAX];
        let done = compress(packet, LINK, &mut headers).expect("an IPv6 packet");
        [&headers[..done.written], &packet[done.consumed..]].concat()
    }

    fn restore(compressed: &[u8], packet_bytes: Option<usize>) -> Result<Vec<u8>, Error> {
        let expanded = expand(compressed, LINK, packet_bytes)?;
        Ok([&expanded.header[..expanded.header_bytes], &compressed[expanded.consumed..]].concat())
    }

    #[test]
    fn a_link_local_datagram_on_the_port_of_coap_takes_nine_bytes_of_headers() {
        let drawn = [0x7e, 0x33, 0xf0, 0x16, 0x33, 0x16, 0x33, 0xbe, 0xef, 1, 2, 3];
        assert_eq!(squeeze(&link_local().bytes()), drawn);
        assert_eq!(restore(&drawn, None), Ok(link_local().bytes()));
    }

    #[test]
    fn ports_shrink_as_far_as_they_go() {
        for (source, destination, drawn) in [
            (61_617, 61_631, &[0xf3u8, 0x1f][..]),
            (5_683, 61_440, &[0xf1, 0x16, 0x33, 0x00]),
            (61_695, 5_683, &[0xf2, 0xff, 0x16, 0x33]),
            (61_616, 61_632, &[0xf1, 0xf0, 0xb0, 0xc0]),
        ] {
            let next = Next::Udp { source, destination, checksum: 0xbeef };
            let packet = Plain { next, ..link_local() }.bytes();
            let compressed = squeeze(&packet);
            assert_eq!(&compressed[2..compressed.len() - 5], drawn);
            assert_eq!(restore(&compressed, None), Ok(packet));
        }
    }

    #[test]
    fn addresses_take_as_many_bytes_as_they_need() {
        let local = |interface: [u8; 8]| join(LINK_LOCAL_PREFIX, interface);
        let multicast = |scope: u8, tail: &[u8]| {
            let mut out = [0; 16];
            (out[0], out[1]) = (0xff, scope);
            out[16 - tail.len()..].copy_from_slice(tail);
            out
        };
        #[rustfmt::skip]
        let cases: &[([u8; 16], usize)] = &[
            (crate::address::link_local(DESTINATION), 0),
            (local([0, 0, 0, 0xff, 0xfe, 0, 0x12, 0x34]), 2),
            (local([1, 2, 3, 4, 5, 6, 7, 8]), 8),
            ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 16),
            (multicast(0x02, &[1]), 1),
            (multicast(0x05, &[1, 2, 3]), 4),
            (multicast(0x05, &[1, 2, 3, 4, 5]), 6),
            (multicast(0x05, &[1, 2, 3, 4, 5, 6]), 16),
        ];
        for (destination, inline_bytes) in cases {
            let packet = Plain { destination: *destination, ..link_local() }.bytes();
            let compressed = squeeze(&packet);
            assert_eq!(compressed.len(), 9 + 3 + inline_bytes, "{destination:02x?}");
            assert_eq!(restore(&compressed, None), Ok(packet));
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_reason() {
        #[rustfmt::skip]
        let cases: &[(&[u8], Error)] = &[
            (&[], Error::Truncated),
            (&[0x42, 0], Error::Dispatch),
            (&[0x7e], Error::Truncated),
            (&[0x7e, 0x53, 0xf0], Error::Context),
            (&[0x7e, 0x37, 0xf0], Error::Context),
            (&[0x7e, 0x34, 0xf0], Error::Reserved),
            (&[0x7e, 0x3d, 0xf0], Error::Reserved),
            (&[0x7e, 0x33, 0xe0, 0], Error::Extension),
            (&[0x7e, 0x33, 0xf4, 0x16, 0x33, 0x16, 0x33], Error::ChecksumElided),
            (&[0x7e, 0x33, 0xf0, 0x16, 0x33], Error::Truncated),
        ];
        for (bytes, error) in cases {
            assert_eq!(expand(bytes, LINK, None), Err(*error), "{bytes:02x?}");
        }
        let nowhere = Link { source: Address::Absent, destination: Address::Absent };
        assert_eq!(expand(&[0x7e, 0x33, 0xf0], nowhere, None), Err(Error::NoLinkAddress));
    }

    #[test]
    fn a_datagram_size_smaller_than_its_own_headers_is_refused() {
        let compressed = squeeze(&link_local().bytes());
        for size in 0..IPV6_BYTES + UDP_BYTES {
            assert_eq!(expand(&compressed, LINK, Some(size)), Err(Error::Truncated), "{size}");
        }
    }

    fn address() -> impl Strategy<Value = [u8; 16]> {
        let sparse = prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 14);
        let head = prop_oneof![Just([0xfe, 0x80]), Just([0xff, 0x02]), Just([0, 0]), any::<[u8; 2]>()];
        prop_oneof![
            1 => Just(crate::address::link_local(SOURCE)),
            1 => Just(crate::address::link_local(DESTINATION)),
            4 => (head, sparse).prop_map(|(head, tail)| {
                let mut out = [0; 16];
                out[..2].copy_from_slice(&head);
                out[2..].copy_from_slice(&tail);
                out
            }),
        ]
    }

    fn next() -> impl Strategy<Value = Next> {
        let port = || prop_oneof![Just(5683u16), 0xf0b0u16..=0xf0bf, 0xf000u16..=0xf0ff, any::<u16>()];
        prop_oneof![
            3 => (port(), port(), any::<u16>())
                .prop_map(|(source, destination, checksum)| Next::Udp { source, destination, checksum }),
            1 => any::<u8>().prop_map(Next::Other),
        ]
    }

    prop_compose! {
        fn plain()(
            class in prop_oneof![Just(0u8), 0u8..4, any::<u8>()],
            flow in prop_oneof![Just(0u32), 0u32..1 << 20],
            hop_limit in prop_oneof![Just(64u8), Just(255), Just(1), any::<u8>()],
            source in address(),
            destination in address(),
            next in next(),
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) -> Plain {
            Plain { class, flow, hop_limit, source, destination, next, payload }
        }
    }

    proptest! {
        #[test]
        fn every_packet_comes_back_byte_for_byte(plain in plain()) {
            let packet = plain.bytes();
            let compressed = squeeze(&packet);
            prop_assert!(compressed.len() <= packet.len() + 2);
            prop_assert_eq!(restore(&compressed, None), Ok(packet.clone()));
            prop_assert_eq!(restore(&compressed, Some(packet.len())), Ok(packet));
        }

        #[test]
        fn any_bytes_are_expanded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), size in prop::option::of(0usize..2048)) {
            if let Ok(expanded) = expand(&bytes, LINK, size) {
                prop_assert!(expanded.consumed <= bytes.len());
                prop_assert!(expanded.header_bytes <= expanded.header.len());
            }
        }

        #[test]
        fn any_bytes_are_compressed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut headers = [0; COMPRESSED_BYTES_MAX];
            if let Some(done) = compress(&bytes, LINK, &mut headers) {
                prop_assert!(done.consumed <= bytes.len());
            }
        }
    }
}
