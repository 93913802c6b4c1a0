//! Rot: whatever byte of a segment changes, it is found.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn};
use tidelog_store::segment::{Cache, Segment, SegmentError};

use crate::field::{MemoryFile, sealed, span_of};
use crate::fixture::bodies;

fn good() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let bodies = bodies(30);
        sealed(&span_of(&bodies, 0, Lsn(1), ChainHash::GENESIS), &bodies).1
    })
}

fn verify(file: Vec<u8>) -> Result<(), SegmentError> {
    let segment = Segment::open(MemoryFile::of(file), Arc::new(Cache::new(1 << 20)))?;
    segment.verify(None, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn every_flipped_byte_is_found() {
    assert!(verify(good().to_vec()).is_ok());
    for at in 0..good().len() {
        let mut file = good().to_vec();
        file[at] ^= 0x10;
        assert!(verify(file).is_err(), "byte {at}");
    }
}

#[test]
fn a_segment_of_a_newer_version_is_told_from_a_rotten_one() {
    let mut file = good().to_vec();
    file[8] = 2;
    assert!(
        matches!(verify(file.clone()), Err(SegmentError::Rotten { .. })),
        "one bit makes no newer program"
    );
    let fields = usize::from(u16::from_le_bytes([file[10], file[11]]));
    let crc = crc32fast::hash(&file[..12 + fields]).to_le_bytes();
    file[12 + fields..16 + fields].copy_from_slice(&crc);
    assert!(matches!(verify(file), Err(SegmentError::Version { found: 2, supported: 1 })));
}

#[test]
fn a_block_from_another_segment_is_found() {
    let other = bodies(30);
    let other = sealed(&span_of(&other, 1, Lsn(1), ChainHash([1; 16])), &other).1;
    assert_eq!(other.len(), good().len(), "only the header and the chain differ");
    let middle = good().len() / 2;
    let mixed: Vec<u8> = good()[..middle].iter().chain(&other[middle..]).copied().collect();
    assert!(verify(mixed).is_err());
}

proptest! {
    #[test]
    fn cut_or_lengthened_files_are_found(cut in any::<prop::sample::Index>(), more in prop::collection::vec(any::<u8>(), 1..40)) {
        prop_assert!(verify(good()[..cut.index(good().len())].to_vec()).is_err());
        prop_assert!(verify([good(), &more].concat()).is_err());
        prop_assert!(verify(more).is_err());
    }

    #[test]
    fn stretches_that_changed_places_are_found(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        const STRETCH_BYTES: usize = 64;
        let mut file = good().to_vec();
        let most = file.len() - STRETCH_BYTES;
        let (from, to) = (from.index(most), to.index(most));
        let stretch = file[from..from + STRETCH_BYTES].to_vec();
        file[to..to + STRETCH_BYTES].copy_from_slice(&stretch);
        prop_assert_eq!(verify(file.clone()).is_err(), file != good());
    }
}
