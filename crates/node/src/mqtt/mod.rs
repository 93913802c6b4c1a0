//! MQTT: the log as messages for anyone (`bridge`), and messages as readings for the log (`ingest`).
//!
//! Both are edges: the bridge is a cursor over the store's log, ingest is one more way in. What stands in a message is
//! [`payload`]'s affair, where it is published [`topic`]'s.

pub mod payload;
pub mod topic;
