//! The store from outside: everyday use, crashes, faults and damage, judged by a naive model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper fails its test")]

mod crash;
mod damage;
mod each;
mod everyday;
mod faults;
mod frozen;
mod model;
mod newest;
mod renewal;
mod retention;
mod sim_disk;
mod sizes;
mod skip;
mod upkeep;
mod verify;
mod verify_sealed;
