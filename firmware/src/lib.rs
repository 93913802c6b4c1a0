//! The sensor as a library: sample, keep in flash, send, forget when it is stored elsewhere.
//!
//! [`App`] has no clock, no executor, no allocation and no pins. A board (or a virtual sensor) hands it frames and the time, puts the
//! frames it gives on the air, and comes back when it asks to be called. What it senses comes from a [`Sampler`]: [`Every`] reads
//! [`Sensor`]s, which are in [`sht4x`], [`opt3001`] and [`battery`], over `embedded-hal`.

#![no_std]

mod app;
pub mod battery;
mod blink;
mod commands;
mod config;
pub mod opt3001;
mod outbox;
pub mod page;
mod parts;
mod sampler;
mod sensor;
pub mod settings;
pub mod sht4x;
mod told;

pub use app::{App, AppCounters};
pub use blink::Blink;
pub use commands::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};
pub use config::{AppConfig, BATCH_BYTES_DEFAULT, Gateways, POST_BYTES_MAX, SchemaTooLong, WhenFull};
pub use parts::Parts;
pub use sampler::{Every, Moment, Refusal, Sampler};
pub use sensor::Sensor;
pub use told::{Hands, Told};

/// The same types that the layers below speak.
pub use tidelog_flashlog as flashlog;
pub use tidelog_lowpan as lowpan;
pub use tidelog_record::{DeviceId, uplink};
