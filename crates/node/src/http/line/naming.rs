//! How measurements, tags and fields are named as series. A metric is `measurement_field`, or `measurement` alone when the field is
//! `value`; tags are labels. Every character that such a name cannot have becomes one `_`, and a digit in front gets one before it.

use tidelog_record::{Series, SeriesError};

use super::parse::{LineFault, split_key, unescaped_measurement, unescaped_name};

/// Measurement and tags of a line, read.
#[derive(Debug, Default)]
pub(super) struct Naming {
    measurement: String,
    labels: Vec<(String, String)>,
}

impl Naming {
    /// Reads what stands before a line's fields.
    pub fn of_key(raw: &[u8]) -> Result<Self, LineFault> {
        let (measurement, tags) = split_key(raw)?;
        let measurement = unescaped_measurement(measurement)?.into_owned();
        let mut named = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let name = unescaped_name(name)?;
            named.push((series_name(&name, false), name, unescaped_name(value)?.into_owned()));
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
        let labels = named.into_iter().map(|(label, _, value)| (label, value)).collect();
        Ok(Self { measurement, labels })
    }

    /// The series of one of the line's fields.
    pub fn series(&self, field: &str) -> Result<Series, SeriesError> {
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Series::new(metric_name(&self.measurement, field), labels)
    }
}

/// The metric of a measurement's field.
fn metric_name(measurement: &str, field: &str) -> String {
    if field == "value" {
        return series_name(measurement, true);
    }
    series_name(&[measurement, "_", field].concat(), true)
}

/// A name that a metric (with colons) or a label (without) may have.
fn series_name(text: &str, colon: bool) -> String {
    let mut name = String::with_capacity(text.len() + 1);
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        name.push('_');
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    name.extend(text.chars().map(|c| if good(c) { c } else { '_' }));
    name
}
