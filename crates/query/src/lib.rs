//! What a question about the log may say: selectors in PromQL's notation, instants in time, and PromQL itself.
//!
//! [`promql`] evaluates whole expressions, as Prometheus does, over whatever gives it points. Nothing here reads a store or
//! a clock.

mod lengths;
pub mod promql;
mod selector;
mod time;

pub use selector::{
    Comparison, Condition, SELECTOR_BYTES_MAX, SELECTORS_MAX, Selector, SelectorError, Selectors,
};
pub use time::{TimeError, parse_duration, parse_instant};
