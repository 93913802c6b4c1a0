//! The one-byte codes and two-bit types of a message (RFC 7252 sections 3 and 12.1), and the option numbers that
//! Tidelog uses. It knows names and numbers only.

use core::fmt;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wants an acknowledgement, and is repeated until it gets one.
    Confirmable,
    /// Sent once.
    NonConfirmable,
    /// Answers a confirmable message, perhaps with the response in it.
    Acknowledgement,
    /// "I can't make sense of that message."
    Reset,
}

impl Kind {
    pub(super) const fn of_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }

    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::Confirmable => 0,
            Self::NonConfirmable => 1,
            Self::Acknowledgement => 2,
            Self::Reset => 3,
        }
    }
}

/// A method or a response code: class (3 bits) and detail (5 bits), written `2.04`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// 0.00: no request and no response; an acknowledgement alone, a reset or a ping.
    pub const EMPTY: Self = Self(0);
    /// 0.01 GET.
    pub const GET: Self = Self(1);
    /// 0.02 POST.
    pub const POST: Self = Self(2);
    /// 0.03 PUT.
    pub const PUT: Self = Self(3);
    /// 0.04 DELETE.
    pub const DELETE: Self = Self(4);
    /// 2.01 Created.
    pub const CREATED: Self = Self::response(2, 1);
    /// 2.04 Changed.
    pub const CHANGED: Self = Self::response(2, 4);
    /// 2.05 Content.
    pub const CONTENT: Self = Self::response(2, 5);
    /// 2.31 Continue: this block is here, send the next (RFC 7959 section 2.9.1).
    pub const CONTINUE: Self = Self::response(2, 31);
    /// 4.00 Bad Request.
    pub const BAD_REQUEST: Self = Self::response(4, 0);
    /// 4.02 Bad Option: a critical option is not understood.
    pub const BAD_OPTION: Self = Self::response(4, 2);
    /// 4.03 Forbidden.
    pub const FORBIDDEN: Self = Self::response(4, 3);
    /// 4.04 Not Found.
    pub const NOT_FOUND: Self = Self::response(4, 4);
    /// 4.05 Method Not Allowed.
    pub const METHOD_NOT_ALLOWED: Self = Self::response(4, 5);
    /// 4.06 Not Acceptable: not in the format that the client would like.
    pub const NOT_ACCEPTABLE: Self = Self::response(4, 6);
    /// 4.08 Request Entity Incomplete: blocks before this one are not here (RFC 7959 section 2.9.2).
    pub const INCOMPLETE: Self = Self::response(4, 8);
    /// 4.12 Precondition Failed.
    pub const PRECONDITION_FAILED: Self = Self::response(4, 12);
    /// 4.13 Request Entity Too Large.
    pub const TOO_LARGE: Self = Self::response(4, 13);
    /// 4.15 Unsupported Content-Format.
    pub const UNSUPPORTED_FORMAT: Self = Self::response(4, 15);
    /// 5.00 Internal Server Error.
    pub const INTERNAL_ERROR: Self = Self::response(5, 0);
    /// 5.03 Service Unavailable; Max-Age says after how many seconds to come back.
    pub const UNAVAILABLE: Self = Self::response(5, 3);

    const fn response(class: u8, detail: u8) -> Self {
        Self(class << 5 | detail)
    }

    /// The digit before the dot.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// The digits after the dot.
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.0 & 0x1f
    }

    /// Whether it is a method.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether it is a response, good or bad.
    #[must_use]
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2 | 4 | 5)
    }

    /// Whether it is a response that says the request was done.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.detail())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

/// Option numbers (RFC 7252 section 12.2).
pub mod option {
    /// Name of the virtual host asked.
    pub const URI_HOST: u16 = 3;
    /// Port asked.
    pub const URI_PORT: u16 = 7;
    /// One segment of the path; repeatable.
    pub const URI_PATH: u16 = 11;
    /// Format of the payload.
    pub const CONTENT_FORMAT: u16 = 12;
    /// Seconds a response stays good; in 5.03, seconds to wait before asking again.
    pub const MAX_AGE: u16 = 14;
    /// One argument of the query; repeatable.
    pub const URI_QUERY: u16 = 15;
    /// Format the client would like.
    pub const ACCEPT: u16 = 17;
    /// Which block of a request's payload this is (RFC 7959 section 2.1).
    pub const BLOCK1: u16 = 27;

    /// Whether an endpoint that doesn't understand this option must refuse the message (section 5.4.1).
    #[must_use]
    pub const fn is_critical(number: u16) -> bool {
        number & 1 == 1
    }
}
