//! The sensor as a library: sample, keep in flash, send, forget when it is stored elsewhere.
//!
//! [`App`] has no clock, no executor, no allocation and no pins. A board (or a virtual sensor) hands it frames and the time, puts the
//! frames it gives on the air, and comes back when it asks to be called. What it senses comes from a [`Sampler`]; a
//! driver over `embedded-hal` is in [`sht4x`].
//!
//! Thin today: a board's sampler waits for the time before its first sample instead of having it placed later.

#![no_std]

mod app;
mod blink;
mod commands;
mod config;
mod outbox;
pub mod page;
mod sampler;
pub mod settings;
pub mod sht4x;

pub use app::{App, AppCounters};
pub use blink::Blink;
pub use commands::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};
pub use config::{AppConfig, BATCH_BYTES_DEFAULT, Gateways, POST_BYTES_MAX, SchemaTooLong, WhenFull};
pub use sampler::{Every, Moment, Refusal, Sampler, Sensor};

/// The same types that the layers below speak.
pub use tidelog_flashlog as flashlog;
pub use tidelog_lowpan as lowpan;
pub use tidelog_record::{DeviceId, uplink};
