//! Flashes as earlier firmware left them, byte for byte: every later version reads each of them and goes on with it.
//!
//! **When a kind of record is added**: add a name here with a script that uses it, and run this test once with
//! `TIDELOG_WRITE_FIXTURES=1`: it writes `fixtures/NAME.flash` where there is none, and never over one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use embedded_storage::nor_flash::ReadNorFlash;
use tidelog_flashlog::{FlashLog, PAYLOAD_BYTES_MAX};
use tidelog_sim::flash::SimFlash;

const BLOCK: usize = 512;
const BLOCKS: usize = 4;
type Chip = SimFlash<4, BLOCK>;

fn payload(seq: u64) -> Vec<u8> {
    (0..seq % 50).map(|i| u8::try_from((seq * 31 + i) % 251).unwrap()).collect()
}

/// What firmware without notes writes: more than the flash holds, cursors and reservations among it.
fn plain(log: &mut FlashLog<Chip>) {
    for seq in 1..=60 {
        assert_eq!(log.append(&payload(seq)).unwrap(), seq);
        if seq % 7 == 0 {
            log.reserve(u32::try_from(seq * 10).unwrap()).unwrap();
        }
        if seq % 10 == 0 && seq < 50 {
            log.acknowledge(seq - 5).unwrap();
        }
    }
}

/// What firmware that takes commands writes.
fn noting(log: &mut FlashLog<Chip>) {
    for seq in 1..=60 {
        assert_eq!(log.append(&payload(seq)).unwrap(), seq);
        if seq % 9 == 0 {
            log.note(u8::try_from(seq % 2).unwrap(), seq << 50 | 5).unwrap();
        }
    }
}

fn bytes(mut chip: Chip) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK * BLOCKS];
    chip.read(0, &mut bytes).unwrap();
    bytes
}

/// The frozen flash of this name, or what `fill` leaves if it is to be written.
fn frozen(name: &str, fill: fn(&mut FlashLog<Chip>)) -> Vec<u8> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).with_extension("flash");
    if std::env::var_os("TIDELOG_WRITE_FIXTURES").is_some() && !path.exists() {
        let mut log = FlashLog::open(Chip::new(BLOCKS), 0x7eb0_1234).unwrap();
        fill(&mut log);
        std::fs::write(&path, bytes(log.into_flash())).unwrap();
    }
    std::fs::read(path).unwrap()
}

/// A chip that holds these bytes.
fn chip(bytes: &[u8]) -> Chip {
    let mut chip = Chip::new(BLOCKS);
    for (at, byte) in bytes.iter().enumerate() {
        chip.rot(at, !byte);
    }
    chip
}

/// The whole of what is held.
fn check(log: &mut FlashLog<Chip>, head: u64) {
    assert_eq!((log.epoch(), log.head()), (0x7eb0_1234, head));
    let mut buffer = [0; PAYLOAD_BYTES_MAX];
    let mut after = log.acknowledged();
    while let Some((seq, length)) = log.read_after(after, &mut buffer).unwrap() {
        assert_eq!(seq, after + 1);
        assert_eq!(&buffer[..length], payload(seq));
        after = seq;
    }
    assert_eq!(after, head);
}

#[test]
fn a_flash_of_firmware_without_notes_is_read_and_gone_on_with() {
    let bytes = frozen("plain", plain);
    let mut log = FlashLog::open(chip(&bytes), 1).unwrap();
    assert_eq!((log.acknowledged(), log.lost(), log.reserved()), (35, 0, 560));
    check(&mut log, 60);
    assert_eq!(log.noted(0), None);
    let mut now = FlashLog::open(Chip::new(BLOCKS), 0x7eb0_1234).unwrap();
    plain(&mut now);
    assert_eq!(self::bytes(now.into_flash()), bytes, "without notes the same bytes are written today");
}

#[test]
fn a_flash_with_notes_is_read_and_the_same_is_written_today() {
    let bytes = frozen("noting", noting);
    let mut log = FlashLog::open(chip(&bytes), 1).unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(|slot| log.noted(slot)),
        [Some(54 << 50 | 5), Some(45 << 50 | 5), None, None]
    );
    check(&mut log, 60);
    let mut now = FlashLog::open(Chip::new(BLOCKS), 0x7eb0_1234).unwrap();
    noting(&mut now);
    assert_eq!(self::bytes(now.into_flash()), bytes);
}
