//! How measurements, tags and fields are named as series. A metric is `measurement_field`, or `measurement` alone when the field is
//! `value`; tags are labels. Every character that such a name cannot have becomes one `_`, and a digit in front gets one before it.

use tidelog_record::Labels;

use super::parse::{LineFault, split_key, unescaped_measurement, unescaped_name};

/// Measurement and tags of a line, read.
#[derive(Debug, Default)]
pub(super) struct Naming {
    measurement: String,
    labels: Labels,
    metric: String,
}

impl Naming {
    /// Reads what stands before a line's fields.
    pub fn of_key(raw: &[u8]) -> Result<Self, LineFault> {
        let (measurement, tags) = split_key(raw)?;
        let measurement = unescaped_measurement(measurement)?.into_owned();
        let mut named = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let name = unescaped_name(name)?;
            named.push((label_name(&name), name, unescaped_name(value)?));
        }
        named.sort_unstable();
        for pair in named.windows(2) {
            if let [(label, tag, _), (other_label, other_tag, _)] = pair
                && label == other_label
            {
                return Err(if tag == other_tag {
                    LineFault::DuplicateTags(tag.clone().into_owned())
                } else {
                    LineFault::SameLabel(
                        tag.clone().into_owned(),
                        other_tag.clone().into_owned(),
                        label.clone(),
                    )
                });
            }
        }
        let labels = Labels::ascending(named.iter().map(|(label, _, value)| (label.as_str(), &**value)))?;
        Ok(Self { measurement, labels, metric: String::new() })
    }

    /// Adds the canonical form of the series of one of the line's fields to `out`.
    pub fn put_series(&mut self, field: &str, out: &mut Vec<u8>) -> Result<(), LineFault> {
        self.metric.clear();
        put_name(&mut self.metric, &self.measurement, true);
        if field != "value" {
            self.metric.push('_');
            // It stands behind something, so a digit may be first.
            self.metric.extend(field.chars().map(|c| if is_good(c, true) { c } else { '_' }));
        }
        Ok(self.labels.put_canonical(&self.metric, out)?)
    }
}

fn label_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 1);
    put_name(&mut name, text, false);
    name
}

/// Adds a name that a metric (with colons) or a label (without) may have.
fn put_name(name: &mut String, text: &str, colon: bool) {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        name.push('_');
    }
    name.extend(text.chars().map(|c| if is_good(c, colon) { c } else { '_' }));
}

fn is_good(c: char, colon: bool) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':')
}
