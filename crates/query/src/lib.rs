//! What a question about the log may say: selectors in PromQL's notation and instants in time.
//!
//! Thin: this is the part of PromQL that names series, with the same parser and the same meaning as Prometheus;
//! evaluation of expressions builds on it. It decides which series and which time are meant; it never reads a store.

mod selector;
mod time;

pub use selector::{SELECTOR_BYTES_MAX, SELECTORS_MAX, Selector, SelectorError, Selectors};
pub use time::{TimeError, parse_instant};
