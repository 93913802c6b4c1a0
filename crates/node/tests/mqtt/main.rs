//! The bridge and ingest against a real mosquitto. Without one on the machine each test says so and passes over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

/// Tests that are the same over MQTT 3.1.1 and MQTT 5: each is told the version.
macro_rules! over_both_versions {
    ($($name:ident),* $(,)?) => {
        mod over_3_1_1 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("3.1.1").await;
            })*
        }
        mod over_5 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("5").await;
            })*
        }
    };
}

mod bridge;
mod broker;
mod control;
mod discovery;
mod foreign;
mod ingest;
mod node;
mod presence;
mod rules;
mod subscriber;
mod tls;
mod version_5;
