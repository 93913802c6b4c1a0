//! Which series an entry is of.

use alloc::vec::Vec;

use super::super::coder::{Coder, index, length, string};
use super::{Flag, Foretells, Index, Known, Labels, METRIC_MODELS_MAX, Metric, Model, Series, Within, told};
use crate::series::SERIES_BYTES_MAX;
use crate::varint::Malformed;

/// A metric or a set of labels, for whoever writes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Name<'a> {
    Known(u32),
    New(&'a [u8]),
}

impl Name<'_> {
    fn index(self) -> Option<u32> {
        if let Self::Known(at) = self { Some(at) } else { None }
    }

    fn bytes(self) -> Vec<u8> {
        if let Self::New(bytes) = self { bytes.to_vec() } else { Vec::new() }
    }
}

impl Known {
    /// Codes which series an entry is of: one that is known, or one that is not, by its metric's name and its labels. The series.
    pub fn which(
        &mut self,
        coder: &mut impl Coder,
        within: &mut Within,
        series: Option<Index>,
        (metric, labels): (Name<'_>, Name<'_>),
    ) -> Result<Index, Malformed> {
        let foretold = self.foretold(within);
        let has_foretold = (foretold as usize) < self.series.len();
        let begins = within.last.is_none() && self.foretells == Foretells::Across;
        let next = if begins { Flag::FirstNext } else { Flag::SeriesNext };
        let at = if has_foretold && self.flag(coder, next, series == Some(foretold)) {
            foretold
        } else if self.flag(coder, Flag::SeriesKnown, series.is_some()) {
            index(coder, series.unwrap_or_default(), self.series.len())?
        } else {
            let metric = self.metric(coder, metric)?;
            let labels = self.labels(coder, within, labels)?;
            let digits = self.metrics.get(metric as usize).map_or(0, |metric| metric.digits);
            let at = Index::try_from(self.series.len()).map_err(|_| Malformed)?;
            self.series.push(Series { metric, labels, digits, own_times: true, ..Series::default() });
            at
        };
        if let Some(last) = within.last.and_then(|last| self.series.get_mut(last as usize)) {
            last.next = at;
        }
        if begins {
            if let Some(first) = self.first.and_then(|first| self.series.get_mut(first as usize)) {
                first.begins_next = at;
            }
            self.first = Some(at);
        }
        within.last = Some(at);
        coder.check()?;
        Ok(at)
    }

    fn metric(&mut self, coder: &mut impl Coder, metric: Name<'_>) -> Result<u32, Malformed> {
        if self.flag(coder, Flag::MetricKnown, metric.index().is_some()) {
            return index(coder, metric.index().unwrap_or_default(), self.metrics.len());
        }
        let mut name = metric.bytes();
        string(coder, &mut self.all.lengths, &mut name)?;
        let at = u32::try_from(self.metrics.len()).map_err(|_| Malformed)?;
        self.metrics.push(Metric { name, numbered: (0, 0), digits: 0 });
        if self.models.len() < METRIC_MODELS_MAX {
            self.models.push(Model::default());
        }
        Ok(at)
    }

    fn labels(
        &mut self,
        coder: &mut impl Coder,
        within: &Within,
        labels: Name<'_>,
    ) -> Result<u32, Malformed> {
        if self.flag(coder, Flag::LabelsSame, labels.index() == Some(within.labels)) {
            return Ok(within.labels);
        }
        if self.flag(coder, Flag::LabelsKnown, labels.index().is_some()) {
            return index(coder, labels.index().unwrap_or_default(), self.labels.len());
        }
        let before =
            self.labels.get(within.labels as usize).map(|it| it.bytes.as_slice()).unwrap_or_default();
        let (front, end, mut between) = told(before, &labels.bytes());
        let lengths = &mut self.all.lengths;
        let front = length(coder, lengths, front)?;
        let end = length(coder, lengths, end)?;
        string(coder, lengths, &mut between)?;
        let end = before.len().checked_sub(end).filter(|end| front <= *end).ok_or(Malformed)?;
        let mut bytes = before.get(..front).unwrap_or_default().to_vec();
        bytes.append(&mut between);
        bytes.extend_from_slice(before.get(end..).unwrap_or_default());
        if bytes.len() > SERIES_BYTES_MAX {
            return Err(Malformed);
        }
        let at = u32::try_from(self.labels.len()).map_err(|_| Malformed)?;
        self.labels.push(Labels { bytes, told: None });
        Ok(at)
    }
}
