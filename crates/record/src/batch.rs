//! An atomic batch of points in memory, and the bodies that this version does not understand. Its bytes are
//! [`body`](crate::BodyReader)'s affair; whoever has many points reads and writes those without a [`Batch`] between.

use alloc::vec::Vec;

use crate::body::{BatchError, BodyHead, BodyReader, BodyWriter, Entry, Opened, Origin, Relay};
use crate::column::Values;
use crate::point::Value;
use crate::series::Series;

/// Points of one or more series, stored all or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The author's clock when it was written, Unix milliseconds. For lag, never for order.
    pub authored_ms: i64,
    /// The sensor's batch, if a sensor sent it.
    pub origin: Option<Origin>,
    /// Points by series: `(timestamp in ns, value)`. One series may stand in it more than once.
    pub series: Vec<(Series, Vec<(i64, Value)>)>,
}

/// What a record's bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A batch of points.
    Points(Batch),
    /// No points: a [`Seal`](crate::Seal), or something that a newer version wrote. Its kind byte.
    Unknown(u8),
}

impl Batch {
    /// Points in it.
    #[must_use]
    pub fn points(&self) -> usize {
        self.series.iter().map(|(_, points)| points.len()).sum()
    }

    /// The batch as a record's body.
    ///
    /// # Errors
    /// [`BatchError::TooLong`], [`BatchError::TooManyPoints`] and [`BatchError::NamesTooLong`] past the bounds.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        self.written(None)
    }

    /// The batch as the body of a record that says what it was copied from. It is read as any other batch.
    ///
    /// # Errors
    /// As [`Batch::encode`].
    pub fn encode_relayed(&self, relay: &Relay) -> Result<Vec<u8>, BatchError> {
        self.written(Some(*relay))
    }

    fn written(&self, relay: Option<Relay>) -> Result<Vec<u8>, BatchError> {
        let head = BodyHead { authored_ms: self.authored_ms, origin: self.origin, relay };
        let mut writer = BodyWriter::new(head, self.series.len());
        let (mut times, mut values) = (Vec::new(), Values::default());
        for (series, points) in &self.series {
            times.clear();
            values.clear();
            for (time, value) in points {
                times.push(*time);
                values.push(value.clone());
            }
            writer.entry(&series.canonical(), &times, &values)?;
        }
        writer.finish()
    }
}

impl Body {
    /// Reads a record's body.
    ///
    /// # Errors
    /// [`BatchError`] when the kind is known and the content is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let mut reader = match BodyReader::open(bytes)? {
            Opened::Points(reader) => reader,
            Opened::Unknown(kind) => return Ok(Self::Unknown(kind)),
        };
        let (authored_ms, origin) = (reader.authored_ms(), reader.origin());
        let mut series = Vec::new();
        let mut entry = Entry::default();
        while reader.next(&mut entry)? {
            let name = Series::from_canonical(&entry.canonical)?;
            let values = (0..entry.values.len()).filter_map(|index| entry.values.get(index));
            series.push((name, entry.times.iter().copied().zip(values).collect()));
        }
        Ok(Self::Points(Batch { authored_ms, origin, series }))
    }
}
