//! What a device says in the URL of its socket: how its batches are to be read, how durable they are to be, and which device it is,
//! if commands are to come to it.

use std::sync::Arc;

use tidelog_record::DeviceId;

use super::super::error::ApiError;
use super::super::level::{Asked, Wanted};
use super::super::line::Dialect;
use super::super::posted::table::Columns;
use super::super::question::bad;

/// How the bodies in texts are to be read; those in binary messages are MessagePack.
#[derive(Clone, Debug)]
pub(super) enum TextForm {
    Json,
    /// Line protocol, its times in units of so many nanoseconds.
    Lines(i64),
    /// A table in CSV.
    Table(Arc<Columns>),
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub form: TextForm,
    /// How durable a batch is to be when it is answered; none where nothing was said of it, and nothing is to be said.
    pub level: Option<Wanted>,
    /// The device that the socket is of.
    pub device: Option<DeviceId>,
}

impl Wish {
    /// Reads a URL.
    ///
    /// # Errors
    /// A parameter is unknown, stands twice, or does not go with the others.
    pub fn read(query: &str) -> Result<Self, ApiError> {
        let (mut form, mut precision, mut device) = (None, None, None);
        let (mut asked, mut columns) = (Asked::default(), None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "form" => &mut form,
                "precision" => &mut precision,
                "device" => &mut device,
                "labels" | "texts" => {
                    columns.get_or_insert_with(Columns::default).take(&name, &value)?;
                    continue;
                }
                _ if asked.take(&name, &value)? => continue,
                _ => {
                    let known =
                        "form, precision, ack, ack_timeout and device, and for form=csv labels and texts";
                    return Err(bad(format!("unknown parameter {name:?}: there are {known}")));
                }
            };
            if place.replace(value).is_some() {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        let form = match (form.as_deref(), precision, columns) {
            (Some("csv"), precision, columns) => {
                let mut columns = columns.unwrap_or_default();
                if let Some(precision) = precision {
                    columns.take("precision", &precision)?;
                }
                TextForm::Table(Arc::new(columns))
            }
            (_, _, Some(_)) => return Err(bad("labels and texts are for form=csv")),
            (None | Some("json"), None, None) => TextForm::Json,
            (None | Some("json"), Some(_), None) => {
                return Err(bad(
                    "precision is for form=line and form=csv: in JSON each time says what it counts",
                ));
            }
            (Some("line"), precision, None) => {
                let precision = precision.unwrap_or_default();
                let unknown = || bad(format!("precision {precision:?}: there are ns, us, ms and s"));
                TextForm::Lines(Dialect::V2.unit_ns(&precision).ok_or_else(unknown)?)
            }
            (Some(other), ..) => return Err(bad(format!("form {other:?}: there are json, line and csv"))),
        };
        let device = device.map(|text| {
            text.parse()
                .map_err(|error| bad(format!("device {text:?}: {error}; commands go to devices with one")))
        });
        let level = (asked != Asked::default()).then(|| asked.wanted()).transpose()?;
        Ok(Self { form, level, device: device.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ErrorCode;
    use std::time::Duration;

    #[test]
    fn what_stands_in_the_url_goes_together_or_is_refused() {
        let form = |query: &str| Wish::read(query).map(|wish| wish.form).unwrap();
        assert!(matches!(form(""), TextForm::Json));
        assert!(matches!(form("form=json"), TextForm::Json));
        assert!(matches!(form("form=line"), TextForm::Lines(1)));
        assert!(matches!(form("form=line&precision=ms"), TextForm::Lines(1_000_000)));
        for query in ["form=csv", "form=csv&labels=device,room&texts=note&precision=s", "labels=a&form=csv"] {
            assert!(matches!(form(query), TextForm::Table(_)), "{query}");
        }
        let wish = Wish::read("ack=cloud&ack_timeout=2.5&device=02124b0000000001").unwrap();
        assert_eq!(wish.level, Some(Wanted::Cloud(Duration::from_millis(2_500))));
        assert_eq!(wish.device.map(|device| device.to_string()).as_deref(), Some("02124b0000000001"));
        let wish = Wish::read("").unwrap();
        assert_eq!((wish.level, wish.device), (None, None));
        assert_eq!(Wish::read("ack=node").unwrap().level, Some(Wanted::Node));
        for query in [
            "precision=ms",
            "form=line&precision=d",
            "form=csv&precision=d",
            "form=line&form=line",
            "form=line&labels=a",
            "labels=a",
            "texts=a",
            "form=xml",
            "ack=disk",
            "ack_timeout=5",
            "device=lamp",
            "device=02124b0000000001&device=02124b0000000001",
            "x=1",
        ] {
            let refused = Wish::read(query).map(|_| ()).map_err(|error| error.code);
            assert_eq!(refused, Err(ErrorCode::BadParameter), "{query}");
        }
    }
}
