//! In what InfluxDB's two write paths differ: the names of their parameters and precisions, and the form of their errors.
//!
//! ```text
//! /api/v2/write   bucket=…, precision=ns|us|ms|s              {"code":"invalid","message":"…"}
//! /write          db=…, precision=n|ns|u|us|ms|s|m|h          {"error":"…"}
//! ```
//! The bucket or database names the site; without one the points belong to the node's own site.

use axum::Json;
use serde_json::{Value, json};
use tidelog_record::SiteName;

use crate::http::error::{ApiError, ErrorCode};
use crate::http::guard::Visitor;
use crate::http::level::{Asked, Wanted};

/// Which of the two paths is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Dialect {
    V1,
    V2,
}

/// Where the lines go, and what their times count.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub site: SiteName,
    /// Nanoseconds in one unit of the lines' timestamps.
    pub unit_ns: i64,
    /// How durable the points are to be when the client is answered.
    pub wanted: Wanted,
}

impl Dialect {
    /// Nanoseconds in one unit of a precision that has this name here.
    pub fn unit_ns(self, precision: &str) -> Option<i64> {
        Some(match (self, precision) {
            (_, "" | "ns") | (Self::V1, "n") => 1,
            (_, "us") | (Self::V1, "u" | "µ") => 1_000,
            (_, "ms") => 1_000_000,
            (_, "s") => 1_000_000_000,
            (Self::V1, "m") => 60_000_000_000,
            (Self::V1, "h") => 3_600_000_000_000,
            _ => return None,
        })
    }

    /// The body of an error as this path's clients read it.
    pub fn error_body(self, error: &ApiError) -> Json<Value> {
        Json(match self {
            Self::V1 => json!({"error": error.message}),
            Self::V2 => json!({"code": code(error.code), "message": error.message}),
        })
    }
}

/// InfluxDB's word for what went wrong.
fn code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadBody
        | ErrorCode::BadPoint
        | ErrorCode::BadLine
        | ErrorCode::BadParameter
        | ErrorCode::BadSite
        | ErrorCode::CursorUnknown
        | ErrorCode::CommandBegun
        | ErrorCode::CommandExpired
        | ErrorCode::NotAcceptable
        | ErrorCode::UpgradeRequired
        | ErrorCode::Timeout => "invalid",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::Forbidden => "forbidden",
        ErrorCode::NotFound => "not found",
        ErrorCode::MethodNotAllowed => "method not allowed",
        ErrorCode::TooLarge => "request too large",
        ErrorCode::IdempotencyKeyReused => "unprocessable entity",
        ErrorCode::UnsupportedMediaType => "unsupported media type",
        ErrorCode::Busy => "too many requests",
        ErrorCode::Unavailable | ErrorCode::DiskFull | ErrorCode::QueryTimeout => "unavailable",
        ErrorCode::ReadFailed => "internal error",
    }
}

impl Target {
    pub fn read(dialect: Dialect, visitor: &Visitor, query: &str, own: &SiteName) -> Result<Self, ApiError> {
        let bad = |message: String| Err(ApiError::new(ErrorCode::BadParameter, message));
        let name_of_site = if dialect == Dialect::V1 { "db" } else { "bucket" };
        let (mut site, mut unit_ns, mut asked) = (None, None, Asked::default());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "precision" => match dialect.unit_ns(&value) {
                    Some(unit) if unit_ns.is_none() => unit_ns = Some(unit),
                    Some(_) => return bad("parameter \"precision\" stands twice".to_owned()),
                    None if dialect == Dialect::V1 => {
                        return bad(format!("precision {value:?}: there are n, u, ms, s, m and h"));
                    }
                    None => return bad(format!("precision {value:?}: there are ns, us, ms and s")),
                },
                name if name == name_of_site => {
                    // Clients of the first version write to the second's buckets as `database/retention policy`.
                    let bare = value.split_once('/').map_or(&*value, |(database, _)| database);
                    if site.replace(visitor.site(bare)?).is_some() {
                        return bad(format!("parameter {name:?} stands twice"));
                    }
                }
                // What has no meaning here: a node has one organisation, and keeps a site's points as long as the site's.
                "org" | "orgID" | "rp" | "consistency" | "u" | "p" => {}
                name if asked.take(name, &value)? => {}
                name => {
                    return bad(format!(
                        "unknown parameter {name:?}: there are {name_of_site}, precision, ack and ack_timeout; org, orgID, rp and consistency are ignored"
                    ));
                }
            }
        }
        let site = site.map_or_else(|| visitor.admitted(own), Ok)?;
        Ok(Self { site, unit_ns: unit_ns.unwrap_or(1), wanted: asked.wanted()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Access;

    #[test]
    fn bucket_or_database_names_the_site_and_precision_the_unit() {
        let (own, anyone): (SiteName, _) = ("own".parse().unwrap(), Visitor::with(Access::OPEN));
        let cases = [
            (Dialect::V2, "", "own", 1),
            (Dialect::V2, "org=x&bucket=plant&precision=ms", "plant", 1_000_000),
            (Dialect::V2, "orgID=1&bucket=plant%2Fautogen&precision=us", "plant", 1_000),
            (Dialect::V1, "db=plant&rp=autogen&u=a&p=b&consistency=one", "plant", 1),
            (Dialect::V1, "precision=n", "own", 1),
            (Dialect::V1, "precision=u", "own", 1_000),
            (Dialect::V1, "precision=m", "own", 60_000_000_000),
            (Dialect::V1, "precision=h", "own", 3_600_000_000_000),
        ];
        for (dialect, query, site, unit_ns) in cases {
            let expected = Target { site: site.parse().unwrap(), unit_ns, wanted: Wanted::Node };
            assert_eq!(Target::read(dialect, &anyone, query, &own), Ok(expected), "{query}");
        }
        let waits = Target::read(Dialect::V2, &anyone, "bucket=plant&ack=cloud&ack_timeout=1", &own).unwrap();
        assert_eq!(waits.wanted, Wanted::Cloud(std::time::Duration::from_secs(1)));
        let bad = [
            (Dialect::V1, "db=plant&ack=all", ErrorCode::BadParameter),
            (Dialect::V2, "precision=h", ErrorCode::BadParameter),
            (Dialect::V2, "precision=s&precision=s", ErrorCode::BadParameter),
            (Dialect::V2, "bucket=a&bucket=b", ErrorCode::BadParameter),
            (Dialect::V2, "buckt=a", ErrorCode::BadParameter),
            (Dialect::V2, "db=a", ErrorCode::BadParameter),
            (Dialect::V2, "bucket=", ErrorCode::BadSite),
            (Dialect::V1, "db=Upper", ErrorCode::BadSite),
            (Dialect::V1, "precision=d", ErrorCode::BadParameter),
        ];
        for (dialect, query, code) in bad {
            assert_eq!(Target::read(dialect, &anyone, query, &own).unwrap_err().code, code, "{query}");
        }
    }
}
