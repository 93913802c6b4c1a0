//! The Constrained Application Protocol, RFC 7252: messages as bytes, and the two state machines that make one
//! request reliable.
//!
//! [`Message`] is a view whose bytes were checked once, at [`Message::parse`]; [`Writer`] fills a caller's buffer.
//! [`Exchange`] is the client's side of one confirmable request, [`Exchanges`] the server's memory of message ids.
//! Time and randomness are arguments. Nothing here knows sockets, resources or what a payload means, and nothing
//! allocates. Payloads in blocks (RFC 7959) are the business of whoever has room for them; observation (RFC 7641) is not spoken.

mod code;
mod exchange;
mod exchanges;
mod message;
mod writer;

pub use code::{Code, Kind, option};
pub use exchange::{Event, Exchange, Failure, StartError, TOKEN_BYTES, Transmission};
pub use exchanges::{Admission, EXCHANGE_LIFETIME, Exchanges, NotKept};
pub use message::{FormatError, Message, OptionView, Options, PAYLOAD_MARKER, ParseError, TOKEN_BYTES_MAX};
pub use writer::{EncodeError, Writer, empty};
