//! Devices and the labels that people give them: asked of a node and told to one, and printed for people.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::CommandError;
use crate::ask::{AskError, Whom};
use crate::words::{printable, table};

/// The labels of one device.
#[derive(Args)]
pub struct Labelling {
    #[command(flatten)]
    whom: Whom,
    /// The device, as the label device of its readings names it
    device: String,
    /// Its labels, as location='boiler room' type=sht4x: these and no others. Without any it has none.
    #[arg(value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Site of the device.
    #[arg(long, default_value = "default")]
    site: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Labelling {
    /// Gives the device its labels and prints them.
    pub fn run(&self, out: &mut impl Write) -> Result<(), CommandError> {
        let labels: BTreeMap<&str, &str> =
            self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        // A form has its own sign for a space, a path has not.
        let device: String = form_urlencoded::byte_serialize(self.device.as_bytes()).collect();
        let path = format!("{}/{}", path(&self.site), device.replace('+', "%20"));
        let told = self.whom.put(&path, &json!({"labels": labels}))?;
        writeln!(out, "{}", labels_in_words(&told["labels"]))?;
        Ok(())
    }
}

fn path(site: &str) -> String {
    format!("/api/v1/sites/{site}/devices")
}

/// What the node tells of the devices of a site.
pub fn list(whom: &Whom, site: &str) -> Result<Value, AskError> {
    whom.document(&path(site))
}

/// The same for people.
pub fn in_words(told: &Value) -> String {
    let devices = told["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    if devices.is_empty() {
        return "No devices.\n".to_owned();
    }
    let mut rows = vec![["DEVICE", "LABELS", "METRICS"].map(str::to_owned).to_vec()];
    rows.extend(devices.iter().map(|device| {
        let metrics = device["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
        let metrics: Vec<String> = metrics.iter().filter_map(Value::as_str).map(printable).collect();
        let name = device["device"].as_str().map_or_else(|| "-".to_owned(), printable);
        vec![name, labels_in_words(&device["labels"]), or_dash(metrics.join(", "))]
    }));
    table(&rows)
}

fn labels_in_words(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pair =
        |(name, value): (&String, &Value)| format!("{}={}", printable(name), printable(&value.to_string()));
    or_dash(pairs.map(pair).collect::<Vec<_>>().join(" "))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_a_line_with_its_labels_and_metrics() {
        let told = json!({"devices": [
            {"device": "d1", "labels": {"location": "boiler room", "type": "sht4x"}, "metrics": ["humidity", "temperature"]},
            {"device": "d2", "labels": {}, "metrics": []},
        ]});
        let expected = "\
DEVICE  LABELS                               METRICS
d1      location=\"boiler room\" type=\"sht4x\"  humidity, temperature
d2      -                                    -
";
        assert_eq!(in_words(&told), expected);
        assert!(in_words(&json!({"devices": []})).starts_with("No devices"));
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(pair("location").is_err());
    }
}
