//! Writes a segment from series in canonical order and records in order of LSN, wherever they come from: sealing and merging end here, so
//! equal content has equal bytes.

use std::io;

use tidelog_record::{ChainHash, Values};

use super::blocks::{BlockWriter, Kind};
use super::column::Coder;
use super::cut::sections;
use super::directory::{DirectoryWriter, NewSection, stream_of};
use super::errors::SealError;
use super::ints::Kinship;
use super::key;
use super::records::{RecordWriter, Row};
use super::sequence::SequenceWriter;
use super::span::{Footer, Span};
use super::stream::{ChunkWriter, TextWriter};

/// Most points of one series in a segment; its arrivals are numbered by it.
pub(super) const SERIES_POINTS_MAX: usize = 1 << 24;

/// A segment that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// BLAKE3 of the whole file, cut to 16 bytes.
    pub hash: [u8; 16],
    /// Length of the file.
    pub bytes: u64,
    /// Points as written, repeats included.
    pub points: u64,
    /// Series.
    pub series: u32,
    /// Records.
    pub records: u64,
}

pub(super) struct Builder<'o> {
    out: BlockWriter<'o>,
    span: Span,
    numbers: ChunkWriter,
    floats: ChunkWriter,
    texts: TextWriter,
    sequences: SequenceWriter,
    directory: DirectoryWriter,
    records: RecordWriter,
    coder: Coder,
    part: Values,
    metric: Vec<u8>,
    points: u64,
    times: Option<(i64, i64)>,
    records_written: u64,
}

impl<'o> Builder<'o> {
    pub fn new(span: &Span, out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<Self, SealError> {
        if !span.is_range() {
            return Err(SealError::Span("its records are no range"));
        }
        Ok(Self {
            out: BlockWriter::new(&span.header(), out)?,
            numbers: ChunkWriter::new(Kind::Numbers, Kinship::Steps),
            floats: ChunkWriter::new(Kind::Floats, Kinship::Lookback),
            texts: TextWriter::default(),
            sequences: SequenceWriter::new(),
            directory: DirectoryWriter::new(),
            records: RecordWriter::new(span.first),
            coder: Coder::default(),
            part: Values::default(),
            metric: Vec::new(),
            points: 0,
            times: None,
            records_written: 0,
            span: span.clone(),
        })
    }

    /// Adds a series: its points by time, those of one time by arrival; `order` has their arrivals if that is not the order of time.
    /// Its number.
    pub fn series(
        &mut self,
        key: &[u8],
        times: &[i64],
        values: &Values,
        order: Option<&[u32]>,
    ) -> Result<u32, SealError> {
        if times.len() > SERIES_POINTS_MAX {
            return Err(SealError::TooMuch { what: "points of one series", most: SERIES_POINTS_MAX as u64 });
        }
        let metric = key::metric(key);
        if metric != self.metric {
            self.metric.clear();
            self.metric.extend_from_slice(metric);
            self.numbers.other_sort();
            self.floats.other_sort();
        }
        let number = self.directory.series();
        self.directory.begin(key, [self.numbers.end(), self.floats.end(), self.texts.end()]);
        for range in sections(times, values) {
            let times = times.get(range.clone()).unwrap_or_default();
            // Taken apart, for a part of mixed values may be of one kind.
            self.part.clear();
            self.part.extend_range(values, range);
            let sequence = self.sequences.times(&mut self.out, times)?;
            let known = self.coder.encode(times, &self.part);
            let step = match stream_of(known.layout) {
                0 => self.numbers.run(&mut self.out, &self.coder.numbers)?,
                1 => self.floats.run(&mut self.out, &self.coder.numbers)?,
                _ => self.texts.run(&mut self.out, &self.coder.bytes)?,
            };
            let repeats = times.iter().skip(1).zip(times).filter(|(b, a)| a == b).count();
            let distinct = u32::try_from(times.len() - repeats).unwrap_or(u32::MAX);
            self.directory.section(NewSection { known, sequence, distinct, step });
        }
        let order = match order {
            Some(order) => Some(self.sequences.order(&mut self.out, order)?),
            None => None,
        };
        self.directory.end(&mut self.out, order)?;
        self.points += times.len() as u64;
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            let (least, most) = self.times.unwrap_or((*first, *last));
            self.times = Some((least.min(*first), most.max(*last)));
        }
        Ok(number)
    }

    /// To be called between the last series and the first record.
    pub fn series_end(&mut self) -> Result<(), SealError> {
        self.numbers.finish(&mut self.out)?;
        self.floats.finish(&mut self.out)?;
        self.texts.finish(&mut self.out)?;
        self.directory.finish(&mut self.out)?;
        Ok(())
    }

    /// Whether the chain hash before the next record must be given.
    pub fn at_checkpoint(&self) -> bool {
        self.records.at_checkpoint()
    }

    pub fn record(
        &mut self,
        row: &Row,
        entries: &mut dyn Iterator<Item = (u32, u32)>,
        whole: &[u8],
        chain: Option<ChainHash>,
    ) -> Result<(), SealError> {
        self.records.add(&mut self.out, row, entries, whole, chain)?;
        self.records_written += 1;
        Ok(())
    }

    pub fn finish(mut self) -> Result<Sealed, SealError> {
        if self.records_written != self.span.records() {
            return Err(SealError::Span("it has another number of records"));
        }
        self.records.finish(&mut self.out)?;
        let sequences = self.sequences.finish(&mut self.out)?;
        let footer = Footer {
            points: self.points,
            series: self.directory.series(),
            sequences,
            times: self.times.unwrap_or((0, 0)),
            pages: std::mem::take(&mut self.directory.pages),
            records: std::mem::take(&mut self.records.blocks),
            table: self.out.table().clone(),
        };
        let (hash, bytes) = self.out.finish(&footer.put())?;
        let (points, series) = (footer.points, footer.series);
        Ok(Sealed { hash, bytes, points, series, records: self.records_written })
    }
}
