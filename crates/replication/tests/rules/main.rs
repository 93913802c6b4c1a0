//! One machine against a peer played by hand: what it says, what it refuses, when it loses patience.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod above;
mod floors;
mod forks;
mod greeting;
mod nonsense;
mod patience;
mod pulling;
mod receding;
mod stand;
