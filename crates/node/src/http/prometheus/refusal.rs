//! How Prometheus says no: `{"status":"error","errorType":"bad_data","error":"…"}`, each type with its HTTP status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidelog_query::promql::QueryError;

use super::super::error::{ApiError, ErrorCode};

/// Prometheus's types of errors, and two for the door, which Prometheus has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadData,
    Execution,
    Timeout,
    Canceled,
    Internal,
    Unavailable,
    Unauthorized,
    Forbidden,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Canceled | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A refusal in Prometheus's form.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: Kind,
    message: String,
}

impl Refusal {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Kind::BadData, format!("invalid parameter {name:?}: {message}"))
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let kind = match &error {
            QueryError::Parse(_) | QueryError::Range(_) => Kind::BadData,
            QueryError::Execution(_) | QueryError::Samples { .. } | QueryError::Series { .. } => {
                Kind::Execution
            }
            QueryError::Cancelled => Kind::Canceled,
            QueryError::TimedOut => Kind::Timeout,
            QueryError::Source(_) => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let kind = match error.code {
            ErrorCode::Unavailable | ErrorCode::Busy => Kind::Unavailable,
            ErrorCode::Unauthorized => Kind::Unauthorized,
            ErrorCode::Forbidden => Kind::Forbidden,
            code if code.status().is_client_error() => Kind::BadData,
            _ => Kind::Internal,
        };
        Self::new(kind, error.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"status": "error", "errorType": self.kind.name(), "error": self.message});
        (self.kind.status(), Json(body)).into_response()
    }
}
