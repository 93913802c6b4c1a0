//! Points as programs read them, one after the other into whatever form was asked for: texts ([`super::answer`]), MessagePack or Arrow.
//! Nothing that differs between nodes is in any of them (invariant 7): where a form puts points together, what is together follows from
//! the points alone. Memory is bounded by what is put together, and by the piece that is on its way.

#[cfg(feature = "arrow")]
mod arrow;
mod msgpack;

use std::io;

use tidelog_record::{Series, SiteName, Value};

use super::answer::{Answer, AnswerForm};
use super::stream::Gone;

/// What an answer about points is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SheetForm {
    Text(AnswerForm),
    MessagePack,
    /// A stream of Arrow's record batches. Not every program has it.
    Arrow,
}

/// Whether this program has Arrow: it takes room that a router has not.
pub(super) const HAS_ARROW: bool = cfg!(feature = "arrow");

impl SheetForm {
    /// By the `format` parameter.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "msgpack" => Some(Self::MessagePack),
            "arrow" => Some(Self::Arrow),
            name => AnswerForm::of_name(name).map(Self::Text),
        }
    }

    /// By an `Accept` header: the first form in it that this program has.
    pub fn of_accept(accept: &str) -> Option<Self> {
        accept.split(',').find_map(|item| {
            match item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
                    Some(Self::MessagePack)
                }
                "application/vnd.apache.arrow.stream" => HAS_ARROW.then_some(Self::Arrow),
                _ => AnswerForm::of_accept(item).map(Self::Text),
            }
        })
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text(form) => form.content_type(),
            Self::MessagePack => "application/msgpack",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Why no more is written.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client went away.
    Gone,
    /// It cannot be written in this form.
    Unwritten(io::Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unwritten(error)
    }
}

/// An answer being written.
pub(super) enum Sheet {
    Text(Answer),
    MessagePack(msgpack::Chunks),
    #[cfg(feature = "arrow")]
    Arrow(Box<arrow::Batches>),
}

impl Sheet {
    /// # Errors
    /// This program does not have the form.
    pub fn begin(form: SheetForm, site: &SiteName) -> io::Result<Self> {
        match form {
            SheetForm::Text(form) => Ok(Self::Text(Answer::begin(form, site))),
            SheetForm::MessagePack => Ok(Self::MessagePack(msgpack::Chunks::default())),
            #[cfg(feature = "arrow")]
            SheetForm::Arrow => Ok(Self::Arrow(Box::new(arrow::Batches::begin()?))),
            #[cfg(not(feature = "arrow"))]
            SheetForm::Arrow => Err(io::Error::other("this program has no Arrow")),
        }
    }

    /// Points of one series, or more of those of the series before. `full` is given the bytes whenever there are more than it was told
    /// to hold.
    pub fn series(
        &mut self,
        series: &Series,
        points: impl Iterator<Item = (i64, Value)>,
        bytes_max: usize,
        mut full: impl FnMut(Vec<u8>) -> Result<(), Gone>,
    ) -> Result<(), Stop> {
        match self {
            Self::Text(answer) => Ok(answer.series(series, points, bytes_max, full)?),
            Self::MessagePack(chunks) => {
                chunks.open(series)?;
                for (at, value) in points {
                    if chunks.add(at, &value)? && chunks.bytes.len() >= bytes_max {
                        full(std::mem::take(&mut chunks.bytes))?;
                    }
                }
                Ok(())
            }
            #[cfg(feature = "arrow")]
            Self::Arrow(batches) => {
                batches.open(series);
                for (at, value) in points {
                    if batches.add(at, &value)? && batches.bytes().len() >= bytes_max {
                        full(std::mem::take(batches.bytes()))?;
                    }
                }
                Ok(())
            }
        }
    }

    /// What is left to send.
    ///
    /// # Errors
    /// The rest cannot be written in this form.
    pub fn end(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Text(answer) => Ok(answer.end()),
            Self::MessagePack(chunks) => chunks.end(),
            #[cfg(feature = "arrow")]
            Self::Arrow(batches) => batches.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_found_by_its_name_and_by_the_first_that_a_client_accepts() {
        let text = |form| Some(SheetForm::Text(form));
        for (accept, form) in [
            ("*/*", text(AnswerForm::Json)),
            ("application/msgpack, */*", Some(SheetForm::MessagePack)),
            ("Application/Vnd.Apache.Arrow.Stream;q=0.5", HAS_ARROW.then_some(SheetForm::Arrow)),
            ("text/csv, application/msgpack", text(AnswerForm::Csv)),
            ("image/png", None),
        ] {
            assert_eq!(SheetForm::of_accept(accept), form, "{accept}");
        }
        for (name, form) in
            [("ndjson", text(AnswerForm::Ndjson)), ("msgpack", Some(SheetForm::MessagePack)), ("xml", None)]
        {
            assert_eq!(SheetForm::of_name(name), form, "{name}");
        }
    }
}
