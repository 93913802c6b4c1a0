//! What the HTTP API says when it does not do as it was asked: one code, one status and one JSON form, here only.
//!
//! `{"error":{"code":"bad_point","message":"points[3]: …","index":3}}`

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidelog_store::AppendError;

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER_S: u16 = 1;

/// How a client may prove itself.
const SCHEMES: [&str; 2] = ["Bearer realm=\"tidelog\"", "Basic realm=\"tidelog\", charset=\"UTF-8\""];

/// What went wrong, in one word. Clients decide by it; the message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// The body is not JSON, not MessagePack, or not in the form it should have.
    BadBody,
    /// One point of the body is bad; `index` tells which.
    BadPoint,
    /// Lines of line protocol are bad; the others are stored.
    BadLine,
    /// A query parameter is unknown or its value is bad.
    BadParameter,
    /// The site's name is none.
    BadSite,
    /// There is no token, or none that is known.
    Unauthorized,
    /// The token does not grant it.
    Forbidden,
    /// No such path.
    NotFound,
    /// A cursor that this node's log does not go on from.
    CursorUnknown,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The answer cannot be had in the form asked for.
    NotAcceptable,
    /// The request is one for a WebSocket alone, and does not ask for one.
    UpgradeRequired,
    /// The body came too slowly.
    Timeout,
    /// The body or one record of it is longer than the most.
    TooLarge,
    /// A command that a device wants to begin was begun already.
    CommandBegun,
    /// A command that a device wants to begin has expired.
    CommandExpired,
    /// The `Idempotency-Key` stands for another request.
    IdempotencyKeyReused,
    /// The body's content type is not understood.
    UnsupportedMediaType,
    /// Too much is under way; try again later.
    Busy,
    /// The node does not take or give anything now: starting, ending, or its disk failed.
    Unavailable,
    /// The disk is full.
    DiskFull,
    /// The question takes longer than one may.
    QueryTimeout,
    /// The log could not be read.
    ReadFailed,
}

impl ErrorCode {
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadBody | Self::BadPoint | Self::BadLine | Self::BadParameter | Self::BadSite => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::CursorUnknown | Self::CommandBegun | Self::CommandExpired => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::QueryTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::ReadFailed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code as it stands in JSON and in the `reason` label of the counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadBody => "bad_body",
            Self::BadPoint => "bad_point",
            Self::BadLine => "bad_line",
            Self::BadParameter => "bad_parameter",
            Self::BadSite => "bad_site",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::CursorUnknown => "cursor_unknown",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::UpgradeRequired => "upgrade_required",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::CommandBegun => "command_begun",
            Self::CommandExpired => "command_expired",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::DiskFull => "disk_full",
            Self::QueryTimeout => "query_timeout",
            Self::ReadFailed => "read_failed",
        }
    }
}

/// A refusal, with words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    /// The point of the body that is meant, counted from 0.
    pub index: Option<usize>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), index: None }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::Closed | AppendError::Failed(_) => ErrorCode::Unavailable,
            AppendError::Full => ErrorCode::DiskFull,
            AppendError::TooLong { .. } => ErrorCode::TooLarge,
            AppendError::Malformed(_) => ErrorCode::BadBody,
            AppendError::Busy => ErrorCode::Busy,
        };
        Self::new(code, error.to_string())
    }
}

impl From<tidelog_store::ReadError> for ApiError {
    fn from(error: tidelog_store::ReadError) -> Self {
        Self::new(ErrorCode::ReadFailed, error.to_string())
    }
}

#[derive(Serialize)]
struct Wrapped<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: ErrorCode,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl ApiError {
    /// The refusal's status and headers around another protocol's form of it.
    pub fn answered(&self, body: impl IntoResponse) -> Response {
        let mut response = (self.code.status(), body).into_response();
        if matches!(self.code, ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::DiskFull) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if self.code == ErrorCode::Unauthorized {
            for scheme in SCHEMES {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        if self.code == ErrorCode::UpgradeRequired {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

impl ApiError {
    fn inner(&self) -> Inner<'_> {
        Inner { code: self.code, message: &self.message, index: self.index }
    }

    /// The object that stands for it in JSON.
    pub fn in_json(&self) -> impl Serialize + '_ {
        self.inner()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.answered(Json(Wrapped { error: self.inner() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_refuses_has_its_own_status_and_says_when_to_come_back() {
        let malformed = tidelog_record::BatchError::Malformed;
        let cases = [
            (AppendError::Full, 507, true),
            (AppendError::Busy, 429, true),
            (AppendError::Closed, 503, true),
            (AppendError::Failed("fsync".into()), 503, true),
            (AppendError::TooLong { bytes: 2, most: 1 }, 413, false),
            (AppendError::Malformed(malformed), 400, false),
        ];
        for (error, status, again) in cases {
            let response = ApiError::from(error.clone()).into_response();
            let retry_after = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!((response.status().as_u16(), retry_after), (status, again), "{error}");
        }
    }

    #[test]
    fn a_code_has_one_name_in_json_and_in_counters() {
        use ErrorCode::*;
        for code in [
            BadBody,
            BadPoint,
            BadLine,
            BadParameter,
            BadSite,
            Unauthorized,
            Forbidden,
            NotFound,
            MethodNotAllowed,
            NotAcceptable,
            UpgradeRequired,
            Timeout,
            TooLarge,
            CommandBegun,
            CommandExpired,
            IdempotencyKeyReused,
            UnsupportedMediaType,
            Busy,
            Unavailable,
            DiskFull,
            ReadFailed,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
