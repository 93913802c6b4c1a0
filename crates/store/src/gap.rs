//! What is not here: a durable note of each segment that policy dropped or that rotted, and of what peers had dropped before this node
//! had it, so that nothing goes silently (invariant 6). The note stands under the segment's name and keeps what the vector and the chain need to go on.
//!
//! ```text
//! file := "tidegap\n" | version u16 LE | crc u32 LE over all but itself | MessagePack of the note
//! ```

use serde::{Deserialize, Serialize};
use tidelog_record::{ChainHash, Lsn, Seal, StreamId};

/// The newest version. A note has the oldest one that knows its reason, so that it is read by as many programs as can be.
pub(crate) const VERSION: u16 = 2;
const MAGIC: [u8; 8] = *b"tidegap\n";
const HEAD_BYTES: usize = 14;
/// Longest note that is read, in bytes.
pub(crate) const NOTE_BYTES_MAX: usize = 1024;

/// Why a segment is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// It no longer was what had been written. A peer that has the records heals it.
    Rotten,
    /// It was older than the site's policy keeps.
    Age,
    /// The site took more bytes than its policy allows.
    Bytes,
    /// The disk was full, and the configuration says that the oldest goes then.
    Pressure,
    /// Peers had dropped it before this node had it.
    NeverHeld,
}

impl GapReason {
    /// The first version of notes that has it.
    fn version(self) -> u16 {
        match self {
            Self::Rotten | Self::Age | Self::Bytes | Self::Pressure => 1,
            Self::NeverHeld => 2,
        }
    }
}

/// A sealed range that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub stream: StreamId,
    pub seal: Seal,
    pub before: ChainHash,
    pub after: ChainHash,
    pub reason: GapReason,
    /// Points in it, repeats included.
    pub points: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Least and greatest timestamp in it, ns.
    pub time_ns: (i64, i64),
}

/// The note as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Note {
    stream: StreamId,
    first: u64,
    last: u64,
    ordinal: u64,
    parts: u32,
    hash: [u8; 16],
    before: ChainHash,
    after: ChainHash,
    reason: GapReason,
    points: u64,
    bytes: u64,
    time_ns: (i64, i64),
}

/// Why a file is no note.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GapError {
    Damaged,
    Version(u16),
}

impl Gap {
    /// What peers dropped before this node had it. It was no segment here: of what was in it only the hashes around it are known.
    pub fn never_held(stream: StreamId, after: (Lsn, ChainHash), to: (Lsn, ChainHash)) -> Option<Self> {
        let first = after.0.next().filter(|first| *first <= to.0)?;
        Some(Self {
            stream,
            seal: Seal { first, last: to.0, ordinal: 0, parts: 1, hash: [0; 16] },
            before: after.1,
            after: to.1,
            reason: GapReason::NeverHeld,
            points: 0,
            bytes: 0,
            time_ns: (0, 0),
        })
    }

    /// Whether it went by policy, this node's or its peers': then it counts as held, and nobody is asked for it.
    pub fn by_policy(&self) -> bool {
        self.reason != GapReason::Rotten
    }

    pub fn records(&self) -> u64 {
        self.seal.last.0 - self.seal.first.0 + 1
    }

    pub fn encode(&self) -> Vec<u8> {
        let note = Note {
            stream: self.stream.clone(),
            first: self.seal.first.0,
            last: self.seal.last.0,
            ordinal: self.seal.ordinal,
            parts: self.seal.parts,
            hash: self.seal.hash,
            before: self.before,
            after: self.after,
            reason: self.reason,
            points: self.points,
            bytes: self.bytes,
            time_ns: self.time_ns,
        };
        // Integers, byte strings and short texts: nothing in it can fail to be written.
        let body = rmp_serde::to_vec(&note).unwrap_or_default();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.reason.version().to_le_bytes());
        let crc = checksum(&out, &body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, GapError> {
        let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(GapError::Damaged)?;
        let (magic, rest) = head.split_first_chunk::<8>().ok_or(GapError::Damaged)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(GapError::Damaged)?;
        let crc: [u8; 4] = rest.try_into().map_err(|_| GapError::Damaged)?;
        // The version is in the checksum, so that a rotten bit is not taken for a newer program's.
        let checked = [magic.as_slice(), version].concat();
        if *magic != MAGIC || checksum(&checked, body) != u32::from_le_bytes(crc) {
            return Err(GapError::Damaged);
        }
        let version = u16::from_le_bytes(*version);
        if version == 0 || version > VERSION {
            return Err(GapError::Version(version));
        }
        let note: Note = rmp_serde::from_slice(body).map_err(|_| GapError::Damaged)?;
        if note.first == 0 || note.last < note.first || note.parts == 0 || note.reason.version() > version {
            return Err(GapError::Damaged);
        }
        let seal = Seal {
            first: Lsn(note.first),
            last: Lsn(note.last),
            ordinal: note.ordinal,
            parts: note.parts,
            hash: note.hash,
        };
        let Note { stream, before, after, reason, points, bytes, time_ns, .. } = note;
        Ok(Self { stream, seal, before, after, reason, points, bytes, time_ns })
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelog_record::{NodeId, Run};

    fn reason() -> impl Strategy<Value = GapReason> {
        use GapReason::{Age, Bytes, NeverHeld, Pressure, Rotten};
        prop::sample::select(vec![Rotten, Age, Bytes, Pressure, NeverHeld])
    }

    fn never_held() -> Gap {
        let stream = StreamId { site: "s".parse().unwrap(), node: NodeId([3; 16]), run: Run(1) };
        let (before, after) = (ChainHash([1; 16]), ChainHash([2; 16]));
        Gap::never_held(stream, (Lsn(4), before), (Lsn(9), after)).unwrap()
    }

    #[test]
    fn a_note_has_the_oldest_version_that_knows_its_reason() {
        let version = |reason| Gap { reason, ..never_held() }.encode()[8];
        assert_eq!(version(GapReason::Age), 1);
        assert_eq!(version(GapReason::NeverHeld), 2);
        // A program that reads up to version 1 sees a whole note of a newer one, and refuses the store; nobody writes it as version 1.
        for (version, found) in [(1, GapError::Damaged), (3, GapError::Version(3))] {
            let mut bytes = never_held().encode();
            bytes[8] = version;
            let crc = checksum(&bytes[..10], &bytes[HEAD_BYTES..]);
            bytes[10..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Gap::decode(&bytes), Err(found));
        }
    }

    /// Notes stay on disks for years: each version is read for ever, and what is written is read by programs that know it.
    #[test]
    fn the_bytes_of_each_version_are_read_and_written_for_ever() {
        let dropped = Gap {
            reason: GapReason::Age,
            points: 77,
            bytes: 4_096,
            time_ns: (-5, 1_764_547_200_000_000_000),
            ..never_held()
        };
        for (gap, frozen) in [(dropped, VERSION_1), (never_held(), VERSION_2)] {
            let written: String = gap.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, frozen);
            let digits = frozen.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            assert_eq!(Gap::decode(&bytes), Ok(gap));
        }
    }

    const VERSION_1: &str = "746964656761700a0100db255d309c93a173c410030303030303030303030303030303030105090001dc001000000000000000000000000000000000c41001010101010101010101010101010101c41002020202020202020202020202020202a34167654dcd100092fbcf187cee5455690000";
    const VERSION_2: &str = "746964656761700a02009210c3179c93a173c410030303030303030303030303030303030105090001dc001000000000000000000000000000000000c41001010101010101010101010101010101c41002020202020202020202020202020202a94e6576657248656c640000920000";

    #[test]
    fn what_peers_had_dropped_spans_from_what_is_held_to_their_floor() {
        let gap = never_held();
        assert_eq!((gap.seal.first, gap.seal.last, gap.records()), (Lsn(5), Lsn(9), 5));
        assert!(gap.by_policy());
        let at = (Lsn(9), gap.after);
        assert_eq!(Gap::never_held(gap.stream, at, at), None);
    }

    proptest! {
        #[test]
        fn a_note_is_read_as_it_was_written_and_a_changed_one_is_none(
            first in 1u64..1_000_000, more in 0u64..1_000_000, points in any::<u64>(), time_ns in any::<(i64, i64)>(),
            site in "[a-z]{1,64}", reason in reason(), at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let gap = Gap {
                stream: StreamId { site: site.parse().unwrap(), node: NodeId([3; 16]), run: Run(u64::MAX) },
                seal: Seal { first: Lsn(first), last: Lsn(first + more), ordinal: 7, parts: 16, hash: [9; 16] },
                before: ChainHash([1; 16]),
                after: ChainHash([2; 16]),
                reason,
                points,
                bytes: 77,
                time_ns,
            };
            let mut bytes = gap.encode();
            prop_assert!(bytes.len() <= NOTE_BYTES_MAX);
            prop_assert_eq!(Gap::decode(&bytes), Ok(gap));
            let at = at.index(bytes.len());
            bytes[at] ^= 0x10;
            prop_assert_eq!(Gap::decode(&bytes), Err(GapError::Damaged));
            drop(Gap::decode(&noise));
        }
    }
}
