//! The bridge and ingest against a real mosquitto. Without one on the machine each test says so and passes over.

mod bridge;
mod broker;
mod ingest;
mod node;
mod subscriber;
mod tls;
