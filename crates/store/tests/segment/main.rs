//! Segments against naive models: what was sealed, merged, read, written again and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod damage;
mod edges;
mod field;
mod fixture;
mod model;
