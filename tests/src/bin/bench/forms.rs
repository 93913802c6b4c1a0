//! Samples in the forms that servers take: InfluxDB's line protocol, and Prometheus's remote write, which is protocol buffers in a
//! snappy block.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use crate::workload::Sample;

/// A body that is ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Times in seconds.
    Lines,
    RemoteWrite,
}

impl Form {
    pub fn body(self, samples: &[Sample]) -> Result<Vec<u8>, Box<dyn Error>> {
        match self {
            Self::Lines => lines(samples),
            Self::RemoteWrite => remote_write(samples),
        }
    }
}

/// A device's name, the label `device`.
pub fn device_name(device: usize) -> String {
    format!("d{device:04}")
}

fn lines(samples: &[Sample]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = String::with_capacity(samples.len() * 96);
    for sample in samples {
        let Sample { device, at, battery, light, .. } = sample;
        let (temperature, humidity) = (sample.temperature as f64 / 100.0, sample.humidity as f64 / 10.0);
        writeln!(
            out,
            "env,device={} temperature={temperature},humidity={humidity},battery={battery}i,light={light}i {at}",
            device_name(*device)
        )?;
    }
    Ok(out.into_bytes())
}

fn remote_write(samples: &[Sample]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut series: BTreeMap<(usize, &str), Vec<u8>> = BTreeMap::new();
    for sample in samples {
        let values = [
            ("env_temperature", sample.temperature as f64 / 100.0),
            ("env_humidity", sample.humidity as f64 / 10.0),
            ("env_battery", sample.battery as f64),
            ("env_light", sample.light as f64),
        ];
        for (metric, value) in values {
            let points = series.entry((sample.device, metric)).or_insert_with(|| {
                let mut labels = Vec::new();
                for (name, value) in [("__name__", metric), ("device", &device_name(sample.device))] {
                    let mut label = Vec::new();
                    field(&mut label, 1, name.as_bytes());
                    field(&mut label, 2, value.as_bytes());
                    field(&mut labels, 1, &label);
                }
                labels
            });
            let mut point = vec![1 << 3 | 1];
            point.extend_from_slice(&value.to_le_bytes());
            point.push(2 << 3);
            varint(&mut point, sample.at * 1_000);
            field(points, 2, &point);
        }
    }
    let mut request = Vec::new();
    series.values().for_each(|series| field(&mut request, 1, series));
    Ok(snap::raw::Encoder::new().compress_vec(&request)?)
}

/// A length-delimited field of a protocol buffer.
fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
