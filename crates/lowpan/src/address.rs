//! How IPv6 link-local addresses and link addresses name each other (RFC 4944 section 6, RFC 4291 appendix A): the
//! interface identifier is the EUI-64 with its universal/local bit turned. So neighbours need no discovery.

use tidelog_record::DeviceId;

use crate::mac::Address;

/// The first half of every link-local address.
pub(crate) const LINK_LOCAL_PREFIX: [u8; 8] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
const UNIVERSAL_BIT: u8 = 0x02;

/// The interface identifier that belongs to a link address.
pub(crate) fn interface_id(address: Address) -> Option<[u8; 8]> {
    match address {
        Address::Absent => None,
        Address::Short(short) => {
            let [high, low] = short.to_be_bytes();
            Some([0, 0, 0, 0xff, 0xfe, 0, high, low])
        }
        Address::Extended(DeviceId([first, rest @ ..])) => {
            let [b1, b2, b3, b4, b5, b6, b7] = rest;
            Some([first ^ UNIVERSAL_BIT, b1, b2, b3, b4, b5, b6, b7])
        }
    }
}

/// The link-local IPv6 address of a station.
pub(crate) fn link_local(device: DeviceId) -> [u8; 16] {
    join(LINK_LOCAL_PREFIX, interface_id(Address::Extended(device)).unwrap_or_default())
}

/// Two halves of an address, put together.
pub(crate) fn join(prefix: [u8; 8], interface: [u8; 8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(prefix.into_iter().chain(interface)) {
        *to = from;
    }
    out
}
