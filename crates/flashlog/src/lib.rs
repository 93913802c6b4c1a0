//! An append-only log on NOR flash: what a sensor has sensed and nobody has acknowledged yet.
//!
//! [`FlashLog`] numbers payloads from 1, keeps them through power cuts at any moment, remembers how far they were
//! acknowledged without rewriting them, and when the flash is full lets the oldest go and counts them. Beside them it keeps
//! a few numbers for ever: a reservation, and notes. The format is drawn in `docs/FLASH.md`; `layout` is its code. It allocates nothing, knows no clock, and does not look into payloads.

#![no_std]

mod layout;
mod log;
mod mount;
mod read;

pub use layout::{NOTES_MAX, PAYLOAD_BYTES_MAX};
pub use log::{Error, FlashLog};

/// Fewest erase blocks: one being written, one erased ahead of it, one behind.
pub const BLOCKS_MIN: u32 = 3;
