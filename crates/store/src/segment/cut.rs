//! Where a series is cut into sections: at aligned hours of Unix time where it has points enough, else at wider spans; decided by
//! the points alone, so that whoever seals or merges the same points cuts them alike.

use std::ops::Range;

use tidelog_record::Value;

use super::column::Values;

const HOUR_NS: i64 = 3_600_000_000_000;
/// Points that a span has on average, at least, for the series to be cut by spans of its width.
const SPAN_POINTS_MIN: usize = 240;
/// Points after which a section ends, repeats of one time aside.
const SECTION_POINTS: usize = 1_024;
/// Bytes of text after which a section ends, repeats of one time aside.
const SECTION_TEXT_BYTES: usize = 64 * 1024;

/// Where ascending times enter another hour: place and hour.
fn hours(times: &[i64]) -> Vec<(usize, i64)> {
    let mut all = Vec::new();
    let mut at = 0usize;
    while let Some(time) = times.get(at) {
        let hour = time.div_euclid(HOUR_NS);
        all.push((at, hour));
        let within = |time: i64| time.div_euclid(HOUR_NS) == hour;
        let end = hour.checked_add(1).and_then(|next| next.checked_mul(HOUR_NS));
        let before = |time: i64| end.map_or_else(|| within(time), |end| time < end);
        // Looked for in strides that double, because an hour has one point or a thousand.
        let (mut known, mut stride) = (at, 1usize);
        while times.get(known + stride).is_some_and(|time| before(*time)) {
            known += stride;
            stride *= 2;
        }
        let beyond = times.len().min(known + stride);
        let rest = times.get(known..beyond).unwrap_or_default();
        at = known + rest.partition_point(|time| before(*time));
    }
    all
}

/// Spans are 2^level hours wide.
fn level(points: usize, hours: &[(usize, i64)]) -> u32 {
    // For two hours that follow each other, the highest bit in which they differ tells at which levels a border is between them.
    let mut borders = [0usize; 64];
    for ((_, before), (_, hour)) in hours.iter().zip(hours.iter().skip(1)) {
        let highest = 63 - ((before ^ hour).cast_unsigned() | 1).leading_zeros();
        if let Some(count) = borders.get_mut(highest as usize) {
            *count += 1;
        }
    }
    let mut spans = hours.len();
    for (level, count) in (0u32..).zip(borders) {
        if points >= spans.saturating_mul(SPAN_POINTS_MIN) {
            return level;
        }
        spans -= count;
    }
    63
}

/// Bytes of text in each value; nothing for values that are none.
fn text_bytes(values: &Values, index: usize) -> usize {
    match values {
        Values::Text(all) => all.get(index).map_or(0, String::len),
        Values::Mixed(all) => match all.get(index) {
            Some(Value::Text(text)) => text.len(),
            _ => 0,
        },
        _ => 0,
    }
}

/// The sections of a series whose times are ascending.
pub(super) fn sections(times: &[i64], values: &Values) -> Vec<Range<usize>> {
    let hours = hours(times);
    let level = level(times.len(), &hours);
    let texts = matches!(values, Values::Text(_) | Values::Mixed(_));
    let mut out = Vec::new();
    let mut spans = hours.iter().copied().peekable();
    while let Some((begin, hour)) = spans.next() {
        while spans.next_if(|(_, next)| next >> level == hour >> level).is_some() {}
        let end = spans.peek().map_or(times.len(), |(next, _)| *next);
        if end - begin <= SECTION_POINTS && !texts {
            out.push(begin..end);
        } else {
            divide(times, values, begin..end, &mut out);
        }
    }
    out
}

/// Divides a span that has more than a section may have.
fn divide(times: &[i64], values: &Values, span: Range<usize>, out: &mut Vec<Range<usize>>) {
    let (mut begin, mut text, mut before) = (span.start, 0usize, None);
    for index in span.clone() {
        let time = times.get(index);
        let long = index - begin >= SECTION_POINTS || text >= SECTION_TEXT_BYTES;
        if long && before != time {
            out.push(begin..index);
            (begin, text) = (index, 0);
        }
        before = time;
        text += text_bytes(values, index);
    }
    if begin < span.end {
        out.push(begin..span.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sections as they are defined, without shortcuts.
    fn plainly(times: &[i64]) -> Vec<Range<usize>> {
        let span = |time: i64, level: u32| time.div_euclid(HOUR_NS) >> level;
        let spans = |level: u32| {
            let mut all: Vec<i64> = times.iter().map(|time| span(*time, level)).collect();
            all.dedup();
            all.len()
        };
        let level =
            (0..64).find(|level| *level == 63 || times.len() >= spans(*level) * SPAN_POINTS_MIN).unwrap();
        let mut out: Vec<Range<usize>> = Vec::new();
        for (index, time) in times.iter().enumerate() {
            match out.last_mut() {
                Some(last)
                    if span(times[last.start], level) == span(*time, level)
                        && (last.len() < SECTION_POINTS || times[index - 1] == *time) =>
                {
                    last.end = index + 1;
                }
                _ => out.push(index..index + 1),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn sections_are_those_of_the_definition(
            steps in prop::collection::vec(prop_oneof![
                6 => Just(0i64), 30 => 1i64..HOUR_NS / 300, 4 => 0..HOUR_NS * 3, 1 => 0..i64::MAX / 8,
            ], 1..400),
            first in any::<i64>(), again in 1usize..9,
        ) {
            let mut time = first;
            let mut times: Vec<i64> = Vec::new();
            for step in steps.iter().cycle().take(steps.len() * again) {
                time = time.saturating_add(*step);
                times.push(time);
            }
            let values = Values::Bool(vec![true; times.len()]);
            prop_assert_eq!(sections(&times, &values), plainly(&times));
        }
    }
}
