//! Ids, points, batches and their bytes: what a reading is, on every floor above.
//!
//! Without the `alloc` feature this crate holds what a sensor board needs: [`DeviceId`], MessagePack,
//! the [`uplink`] codec, and [`bytes`] one after the other.
//! With it, what a node needs: series, values, batches and the hash-chained [`Record`]. It knows no clock, no
//! file and no socket; it only turns bytes into checked values and back.

#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod batch;
#[cfg(feature = "alloc")]
mod body;
#[cfg(feature = "alloc")]
mod boot;
pub mod bytes;
#[cfg(feature = "alloc")]
mod column;
mod crc;
#[cfg(feature = "alloc")]
mod decimal;
mod device;
#[cfg(feature = "alloc")]
mod ids;
pub mod msgpack;
#[cfg(feature = "alloc")]
mod point;
#[cfg(feature = "alloc")]
mod record;
#[cfg(feature = "alloc")]
mod seal;
#[cfg(feature = "alloc")]
mod series;
pub mod uplink;
#[cfg(feature = "alloc")]
mod varint;

pub use crc::{crc32, crc32_of_parts};
pub use device::{DeviceId, ParseDeviceIdError};

#[cfg(feature = "alloc")]
pub use batch::{Batch, Body};
#[cfg(feature = "alloc")]
pub use body::{
    BATCH_BYTES_MAX, BATCH_NAME_BYTES_MAX, BATCH_POINTS_MAX, BatchError, BodyHead, BodyReader, BodyWriter,
    Entry, Opened, Origin, Relay,
    packing::{Foretells, Packer, Spelling, Unpacker},
};
#[cfg(feature = "alloc")]
pub use boot::{Boot, PROGRAM_BYTES_MAX};
#[cfg(feature = "alloc")]
pub use column::{Column, Values};
#[cfg(feature = "alloc")]
pub use decimal::{DECIMAL_DIGITS_MAX, DECIMAL_LIMIT, decimal_near, decimal_of, decimal_value};
#[cfg(feature = "alloc")]
pub use ids::{
    Lsn, NodeId, ParseIdError, Run, SITE_NAME_BYTES_MAX, SeriesId, SiteName, SiteNameError, StreamId,
    StreamKey,
};
#[cfg(feature = "alloc")]
pub use point::Value;
#[cfg(feature = "alloc")]
pub use record::{ChainHash, Record};
#[cfg(feature = "alloc")]
pub use seal::Seal;
#[cfg(feature = "alloc")]
pub use series::{Labels, SERIES_BYTES_MAX, Series, SeriesError};
