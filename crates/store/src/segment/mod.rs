//! stub
#![allow(missing_docs, unused)]
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tidelog_record::*;
use crate::disk::DiskFile;
use crate::sealed::Sealed as Installed;
#[derive(Debug)]
pub struct Cache;
impl Cache { pub fn new(bytes: usize) -> Self { Self } }
pub struct Span { pub stream: StreamId, pub ordinal: u64, pub parts: u32, pub first: Lsn, pub last: Lsn, pub before: ChainHash, pub after: ChainHash }
pub struct Made { pub hash: [u8;16], pub bytes: u64, pub points: u64 }
#[derive(Debug, thiserror::Error)]
pub enum SegmentError { #[error("io {0}")] Io(io::Error), #[error("rot")] Rotten { offset: u64 } }
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef(u32);
#[derive(Clone, Debug)]
pub struct Section { pub count: u64, pub first_ts: i64, pub last_ts: i64 }
pub struct Whole { pub count: u64, pub first_ts: i64, pub last_ts: i64, pub last: Value }
#[derive(Debug)]
pub struct Segment { span: StreamId }
pub fn seal(span: &Span, bodies: &mut dyn FnMut() -> io::Result<Option<Vec<u8>>>, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<Made, SegmentError> { Err(SegmentError::Rotten{offset:0}) }
pub fn merge(parts: &[Arc<Installed>], out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<Made, SegmentError> { Err(SegmentError::Rotten{offset:0}) }
impl Segment {
  pub fn open(file: Arc<dyn DiskFile>, cache: Arc<Cache>) -> Result<Self, SegmentError> { Err(SegmentError::Rotten{offset:0}) }
  pub fn span(&self) -> &Span { unimplemented!() }
  pub fn points(&self) -> u64 { 0 }
  pub fn bytes(&self) -> u64 { 0 }
  pub fn hash(&self) -> [u8;16] { [0;16] }
  pub fn time_range(&self) -> (i64, i64) { (0, 0) }
  pub fn find_many(&self, sorted: &[Arc<Series>]) -> Result<Vec<Option<SeriesRef>>, SegmentError> { Ok(vec![]) }
  pub fn each_series(&self, visit: &mut dyn FnMut(&[u8], SeriesRef, Whole)) -> Result<(), SegmentError> { Ok(()) }
  pub fn sections(&self, series: SeriesRef) -> Result<Vec<Section>, SegmentError> { Ok(vec![]) }
  pub fn read(&self, series: SeriesRef, sections: Range<usize>, times: &mut Vec<i64>, values: &mut Values) -> Result<(), SegmentError> { Ok(()) }
  pub fn records(&self, after: Lsn, bytes_max: usize) -> Result<Vec<Record>, SegmentError> { Ok(vec![]) }
  pub fn origins(&self) -> Result<Vec<(DeviceId, u32, u64, u64)>, SegmentError> { Ok(vec![]) }
  pub fn verify(&self, pace: &mut dyn FnMut(u64) -> bool) -> Result<(), SegmentError> { Ok(()) }
}
