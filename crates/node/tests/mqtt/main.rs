//! The bridge and ingest against a real mosquitto. Without one on the machine each test says so and passes over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bridge;
mod broker;
mod control;
mod ingest;
mod node;
mod rules;
mod subscriber;
mod tls;
