//! Bodies packed by what was in those before them. Whoever writes the same series time after time repeats nearly all of a body: the names,
//! their order, the times' step, and most of each number. Here that much is foretold, and only how it came out otherwise is
//! written, bit by bit with the probabilities that were seen so far ([`coder`]). A body of 1,000 slow sensors comes to a quarter of a byte a point,
//! near the entropy of its steps.
//!
//! [`Packer`] and [`Unpacker`] are the two ends of one sequence of bodies: both begin with nothing known, and each body that is packed
//! has to be unpacked before the next one can be. What is packed comes back byte for byte: a packer writes each body out again and
//! compares, and refuses one that came out otherwise, because it is spelt in a way that [`BodyWriter`](super::BodyWriter) would not. It knows no streams,
//! frames or files.
//!
//! ```text
//! packed  := bits: head | entries less those of the body before | { entry }          a number: see coder::Numbers
//! head    := copied? | [ node 16, run 8, lsn, part? [ first point ] ] | authored_ms against its last step
//!            | sent by a device? | [ (across) the one that came next the last time? | known? index | [ device 8, epoch 4 ] ; first_seq against the last end, count against the last ]
//! entry   := series | times | values
//! series  := the one that came next the last time? (the first of a body: of the firsts, across; else the first that was known) | known? index | metric: known? index | [ length, bytes ]
//!            ; labels: those of the entry before? | known? index | [ kept at the front, kept at the end, length, bytes ]
//! times   := as the entry before? | [ count against the series' last | unit of the changes 2 bits | { change of the step } ]
//! values  := layout as the series had it? | [ layout 4 bits ] ; { number less the one before } | bytes as they stand in a body
//! ```
//! Decimals count in the most digits that their series had, and have as few in the body as their zeros allow, where the layout
//! is as it was. What is known is entered by both ends in the order it comes.

mod coder;
mod known;
mod pack;
mod unpack;

pub use known::Foretells;
pub use pack::{Packer, Spelling};
pub use unpack::Unpacker;

#[cfg(test)]
mod tests;
