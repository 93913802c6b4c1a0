//! Names of sites, nodes, runs, streams and positions in them. This module decides what a valid name is and how it
//! is written; it does not know who holds what.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest site name, in bytes.
pub const SITE_NAME_BYTES_MAX: usize = 64;

/// What is replicated, retained and permitted as one: a plant, a house, a tenant.
///
/// Invariant: 1 to [`SITE_NAME_BYTES_MAX`] bytes of `a-z 0-9 - _ .`, starting with a letter or digit, so that it can
/// stand in a URL path, an MQTT topic and a file name unchanged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(Arc<str>);

/// Why a text is no site name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a site name: 1 to {SITE_NAME_BYTES_MAX} of a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
)]
pub struct SiteNameError;

impl SiteName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteName {
    type Err = SiteNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let first = text.as_bytes().first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if first && text.len() <= SITE_NAME_BYTES_MAX && text.as_bytes().iter().all(inner) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(SiteNameError)
        }
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteName({})", self.0)
    }
}

impl Serialize for SiteName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SiteName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not the expected number of hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected exactly {digits} hex digits")]
pub struct ParseIdError {
    digits: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = ParseIdError { digits: N * 2 };
    if text.len() != N * 2 {
        return Err(error);
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for c in pair {
            let digit = char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(error)?;
            *byte = *byte << 4 | digit;
        }
    }
    Ok(bytes)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A process with a store; derived from its public key, so that a certificate proves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(#[serde(with = "crate::record::bytes16")] pub [u8; 16]);

impl NodeId {
    /// The id that belongs to a public key: the first 16 bytes of BLAKE3 over its DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_public_key(spki_der: &[u8]) -> Self {
        Self(first_16(&blake3::hash(spki_der)))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

/// One life of a node's own history: drawn at random when a store is created, and again when a fork of the node's
/// own stream is found. An ordinary restart keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run(pub u64);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({self})")
    }
}

impl FromStr for Run {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex::<8>(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

/// Log sequence number: a record's place in its stream, dense, from 1. Zero stands before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place before the first record.
    pub const ZERO: Self = Self(0);

    /// The next place, or `None` past the last that can be named.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one node wrote for one site in one run. Records in it have dense LSNs from 1.
///
/// Invariant 1: `(stream, LSN)` names one byte string for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The site written for.
    pub site: SiteName,
    /// The author.
    pub node: NodeId,
    /// The author's run.
    pub run: Run,
}

impl StreamId {
    /// The short name that stands for the stream inside checksums and hashes.
    #[must_use]
    pub fn key(&self) -> StreamKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.node.0);
        hasher.update(&self.run.0.to_le_bytes());
        hasher.update(self.site.as_str().as_bytes());
        StreamKey(first_16(&hasher.finalize()))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.site, self.node, self.run)
    }
}

/// 128-bit hash of a [`StreamId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub [u8; 16]);

/// 128-bit hash of a series' canonical bytes: the same on every node without asking anyone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl SeriesId {
    pub(crate) fn of_canonical(bytes: &[u8]) -> Self {
        Self(u128::from_be_bytes(first_16(&blake3::hash(bytes))))
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesId({self})")
    }
}

pub(crate) fn first_16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0u8; 16];
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn only_names_that_fit_urls_topics_and_files_are_sites() {
        for good in ["plant-1", "a", "0.house_b"] {
            assert_eq!(good.parse::<SiteName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(SITE_NAME_BYTES_MAX + 1);
        for bad in ["", "-a", ".", "..", "Plant", "a/b", "a b", "ü", long.as_str()] {
            assert_eq!(bad.parse::<SiteName>(), Err(SiteNameError), "{bad}");
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let node = NodeId::of_public_key(b"key");
        assert_eq!(node.to_string().parse(), Ok(node));
        let run = Run(0x0123_4567_89ab_cdef);
        assert_eq!(run.to_string(), "0123456789abcdef");
        assert_eq!(run.to_string().parse(), Ok(run));
        assert!("xyz".parse::<NodeId>().is_err());
    }

    #[test]
    fn stream_keys_differ_in_every_part() {
        let base = StreamId { site: "a".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) };
        let keys = [
            base.key(),
            StreamId { site: "b".parse().unwrap(), ..base.clone() }.key(),
            StreamId { node: NodeId([2; 16]), ..base.clone() }.key(),
            StreamId { run: Run(2), ..base }.key(),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
