//! What a sensor sends and is answered: samples under a schema, batches of them, and the gateway's answer.
//!
//! Everything is MessagePack ([`crate::msgpack`]); a sensor writes it without allocation, a node reads it into
//! [`crate::Batch`]. A value arrives with the bits it was sensed with.
//!
//! ```text
//! batch    := [ version = 1, device bin(8), epoch u32, first_seq u64, schema u32, base ticks i64, [ flat samples ] ]
//! sample   := time, value of metric 0, value of metric 1, …      (one per metric of the schema)
//! time     := second difference of the ticks: (ticks − ticks before) − (the difference before), wrapping,
//!             with "ticks before" = base and "difference before" = 0 at the start
//! value    := nil            nothing sensed
//!           | bool           a truth value
//!           | int            wrapping difference to this metric's integer before in this batch (0 at the start);
//!                            the sum m is the whole number m, or the number m / 10^scale if the metric has a scale
//!           | float32/64     the number itself, where no integer gives its exact bits
//!           | [ int ]        the whole number itself, in a metric that has a scale
//! schema   := [ tick_ns u32, { name str, scale u8 | nil } ]       (its id: CRC-32 of these bytes)
//! register := [ version = 1, device bin(8), schema, firmware str ]  (at most 32 bytes; none from a sensor that is older than it)
//! answer   := [ version = 1, acknowledged seq u64, Unix time ms i64, [ commands ] ]       (a command: `uplink::command`)
//! stored   := schema u32, ticks i64, values                       (a sample in the sensor's flash: differences to 0)
//! ```
//! An array may have further elements behind those named here: an older reader passes over them. It knows no clock,
//! no flash and no radio; which samples were seen before is for its caller to say.

mod answer;
mod command;
#[cfg(feature = "alloc")]
mod decode;
mod encode;
mod sample;
mod schema;

pub use answer::Answer;
pub use command::{
    Act, COMMAND_ID_METRIC, COMMAND_STATE_METRIC, Command, CommandId, CommandState, ParseCommandIdError,
    event_schema,
};
#[cfg(feature = "alloc")]
pub use decode::{OwnedSchema, Registration, SchemaRefused, Uplink, UplinkError};
pub use encode::{BATCH_HEAD_BYTES_MAX, BatchEncoder, BatchHead, FIRMWARE_BYTES_MAX, encode_registration};
pub use sample::{Reading, SAMPLE_BYTES_MAX, Sample, StoredSampleError};
pub use schema::{METRIC_NAME_BYTES_MAX, Metric, SCALE_MAX, SCHEMA_BYTES_MAX, Schema, SchemaError, SchemaId};

/// Most metrics in one schema.
pub const METRICS_MAX: usize = 16;

/// The version that every message starts with.
pub const VERSION: u64 = 1;
