//! Where a series is cut into sections: at aligned hours of Unix time where it has points enough, else at wider spans; decided by
//! the points alone, so that whoever seals or merges the same points cuts them alike.

use std::ops::Range;

use tidelog_record::Value;

use super::column::Values;

const HOUR_NS: i64 = 3_600_000_000_000;
/// Points that a span has on average, at least, for the series to be cut by spans of its width.
const SPAN_POINTS_MIN: usize = 64;
/// Points after which a section ends, repeats of one time aside.
const SECTION_POINTS: usize = 1_024;
/// Bytes of text after which a section ends, repeats of one time aside.
const SECTION_TEXT_BYTES: usize = 64 * 1024;

/// Spans are 2^level hours wide.
fn level(times: &[i64]) -> u32 {
    // For two hours that follow each other, the highest bit in which they differ tells at which levels a border is between them.
    let mut borders = [0usize; 64];
    let mut hours = Hours::default();
    let mut before = None;
    for time in times {
        if let Some(hour) = hours.entered(*time)
            && let Some(before) = before.replace(hour)
        {
            let highest = 63 - ((before ^ hour).cast_unsigned() | 1).leading_zeros();
            if let Some(count) = borders.get_mut(highest as usize) {
                *count += 1;
            }
        }
    }
    let mut spans = 1 + borders.iter().sum::<usize>();
    for (level, count) in (0u32..).zip(borders) {
        if times.len() >= spans.saturating_mul(SPAN_POINTS_MIN) {
            return level;
        }
        spans -= count;
    }
    63
}

/// Tells when an ascending time enters another hour; a division for each hour, not for each point.
#[derive(Default)]
struct Hours {
    ends_ns: Option<i128>,
}

impl Hours {
    fn entered(&mut self, time: i64) -> Option<i64> {
        if self.ends_ns.is_some_and(|end| i128::from(time) < end) {
            return None;
        }
        let hour = time.div_euclid(HOUR_NS);
        self.ends_ns = Some((i128::from(hour) + 1) * i128::from(HOUR_NS));
        Some(hour)
    }
}

/// The sections of a series whose times are ascending.
pub(super) fn sections(times: &[i64], values: &Values) -> Vec<Range<usize>> {
    let level = level(times);
    let mut hours = Hours::default();
    let (mut span, mut begin, mut text, mut before) = (None, 0usize, 0usize, None);
    let mut out = Vec::new();
    for (index, time) in times.iter().enumerate() {
        let entered = hours.entered(*time).map(|hour| hour >> level);
        let long = index - begin >= SECTION_POINTS || text >= SECTION_TEXT_BYTES;
        let border = entered.is_some() && entered != span;
        if index > begin && before != Some(*time) && (border || long) {
            out.push(begin..index);
            (begin, text) = (index, 0);
        }
        span = entered.or(span);
        before = Some(*time);
        text += match values {
            Values::Text(all) => all.get(index).map_or(0, String::len),
            Values::Mixed(all) => match all.get(index) {
                Some(Value::Text(text)) => text.len(),
                _ => 0,
            },
            _ => 0,
        };
    }
    if begin < times.len() {
        out.push(begin..times.len());
    }
    out
}
