//! Commands to devices. A command is a point like any other, so it reaches the gateway that hears its device, whichever that is, as
//! all points do; the device's word about it comes back the same way (invariant 12: at most once, never after it expired,
//! never before the target knows its own history; the last word in all three is the device's, `firmware::App`; of a device on a socket,
//! which may have no memory, this node has it, `Waiting::claim`).
//!
//! ```text
//! tidelog_command{device="02124b0000000001", node="…"}   at the moment it was issued   {"act": …, "expires_ms": …} as text
//! command_id{device=…}, command_state{device=…}          when the device began, and when it ended (`uplink::event_schema`)
//! ```
//! The id is made of that moment and of the author, and stands nowhere else. Nobody but `issue` writes such a point: every
//! way in for points asks `reserved` first.

mod follow;
pub(crate) mod history;
pub(crate) mod issue;
mod order;
mod waiting;

pub use follow::{Rooms, follow};
pub use issue::Issuing;
pub(crate) use order::{ActForm, Order};
pub(crate) use waiting::MayNot;
pub use waiting::Waiting;

/// The metric of commands: reserved, nothing else may write it.
pub(crate) const METRIC: &str = "tidelog_command";

/// A command's moments are milliseconds on the air and nanoseconds in the log.
pub(crate) const NS_PER_MS: i64 = 1_000_000;

/// The longest that a command may wait to be begun, in seconds: a week.
pub(crate) const EXPIRES_S_MAX: u32 = 7 * 24 * 3600;

/// Most commands of one device that wait at a time; one more is refused.
pub(crate) const WAITING_PER_DEVICE_MAX: usize = 16;
