//! Real readings from a CSV file, cut into one replay for each virtual sensor.
//!
//! The form is `time_unix_ms,device,metric,value` with a header, plain or gzip, rows in order of arrival. Rows of one
//! device and time that follow each other are one sample, as a board would take it. Timestamps are the file's own,
//! however fast they are replayed; backward clocks and repeats stay in. Nothing here knows how a reading travels.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tidelog_record::{DeviceId, Value};

/// What is replayed when no `--data` is given.
const EMBEDDED_CSV_GZ: &[u8] = include_bytes!("../data/mqtt-rpi-sample.csv.gz");
/// The codec's own limit on decimal places.
const SCALE_MAX: u8 = 15;
/// Decimal places worth a scale: with more, a float is shorter.
const SCALE_USEFUL_MAX: usize = 6;

/// What can be wrong with the data or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row is not of the form.
    #[error("line {line}: {reason}; expected time_unix_ms,device,metric,value")]
    Row {
        /// Line in the file, the header is line 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// There is not enough data for what was asked.
    #[error(
        "device {device} of the data has {available} readings, but {asked} are asked of each of its sensors: lower --readings, or raise --sensors"
    )]
    TooFew {
        /// The device's name in the file.
        device: String,
        /// Its readings.
        available: usize,
        /// Readings for each sensor.
        asked: usize,
    },
    /// No reading at all.
    #[error("the data holds no reading")]
    Empty,
    /// A device reports more metrics than a board can.
    #[error("device {device} reports {count} metrics, a sensor has at most {METRICS_MAX}")]
    TooManyMetrics {
        /// The device's name in the file.
        device: String,
        /// Its metrics.
        count: usize,
    },
}

/// Most metrics of one sensor.
pub const METRICS_MAX: usize = tidelog_record::uplink::METRICS_MAX;

/// One metric of a sensor, and how its numbers are written: `None` whole numbers, `Some(k)` decimals with k places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Decimal places, see the uplink codec.
    pub scale: Option<u8>,
}

/// One sample: a time, and a value or nothing for each metric of the sensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Unix milliseconds.
    pub time_ms: i64,
    /// In the order of the sensor's metrics.
    pub values: Vec<Option<Value>>,
}

/// What one virtual sensor will sense.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Its name on the air.
    pub device: DeviceId,
    /// Its metrics.
    pub metrics: Vec<Metric>,
    /// Its samples, in order.
    pub samples: Vec<Sample>,
}

impl Replay {
    /// Readings in all its samples.
    #[must_use]
    pub fn readings(&self) -> usize {
        self.samples.iter().map(|sample| sample.values.iter().flatten().count()).sum()
    }
}

struct Row {
    time_ms: i64,
    metric: usize,
    text: String,
}

#[derive(Default)]
struct FileDevice {
    name: String,
    metrics: Vec<String>,
    rows: Vec<Row>,
}

/// Reads `data` (or the embedded sample) and deals it out to `sensors` sensors (by default one for each device of the
/// file), `readings` in all (by default everything, to each sensor all of its device).
///
/// # Errors
/// [`FeedError`] names the line or the shortage.
pub fn replays(
    data: Option<&Path>,
    sensors: Option<usize>,
    readings: Option<usize>,
) -> Result<Vec<Replay>, FeedError> {
    let devices = match data {
        None => read(flate2::read::GzDecoder::new(EMBEDDED_CSV_GZ))?,
        Some(path) => {
            let unreadable = |source| FeedError::Unreadable { path: path.to_owned(), source };
            let file = std::io::BufReader::new(File::open(path).map_err(unreadable)?);
            if path.extension().is_some_and(|e| e == "gz") {
                read(flate2::read::MultiGzDecoder::new(file))?
            } else {
                read(file)?
            }
        }
    };
    if devices.is_empty() {
        return Err(FeedError::Empty);
    }
    let sensors = sensors.unwrap_or(devices.len());
    (0..sensors)
        .map(|index| {
            let device = &devices[index % devices.len()];
            let share = readings.map(|all| all / sensors + usize::from(index < all % sensors));
            replay(device, eui(index), index / devices.len(), share)
        })
        .collect()
}

/// The address of the n-th virtual sensor.
fn eui(index: usize) -> DeviceId {
    let mut bytes = [0x02, 0x12, 0x4b, 0, 0, 0, 0, 0];
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX).to_be_bytes();
    bytes[4..].copy_from_slice(&number);
    DeviceId(bytes)
}

fn read(input: impl Read) -> Result<Vec<FileDevice>, FeedError> {
    let mut devices: Vec<FileDevice> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut reader = csv::Reader::from_reader(input);
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        let row_error = |reason: String| FeedError::Row { line, reason };
        if !reader.read_record(&mut record).map_err(|e| row_error(e.to_string()))? {
            return Ok(devices);
        }
        let line = record.position().map_or(line, csv::Position::line);
        let row_error = |reason: String| FeedError::Row { line, reason };
        let [time, device, metric, text] = [0, 1, 2, 3].map(|i| record.get(i).unwrap_or_default());
        let time_ms = time.parse().map_err(|_| row_error(format!("bad time {time:?}")))?;
        if text.parse::<f64>().is_err() {
            return Err(row_error(format!("bad value {text:?}")));
        }
        let next = devices.len();
        let index = *by_name.entry(device.to_owned()).or_insert(next);
        if index == next {
            devices.push(FileDevice { name: device.to_owned(), ..FileDevice::default() });
        }
        let device = &mut devices[index];
        let metric = device.metrics.iter().position(|m| m == metric).unwrap_or_else(|| {
            device.metrics.push(metric.to_owned());
            device.metrics.len() - 1
        });
        device.rows.push(Row { time_ms, metric, text: text.to_owned() });
    }
}

/// `slot`: how many sensors before this one replay the same device; each starts where the one before it ended.
fn replay(
    device: &FileDevice,
    eui: DeviceId,
    slot: usize,
    share: Option<usize>,
) -> Result<Replay, FeedError> {
    if device.metrics.len() > METRICS_MAX {
        return Err(FeedError::TooManyMetrics { device: device.name.clone(), count: device.metrics.len() });
    }
    let available = device.rows.len();
    let rows = match share {
        None => &device.rows[..],
        Some(asked) if asked > available => {
            return Err(FeedError::TooFew { device: device.name.clone(), available, asked });
        }
        Some(asked) => {
            let start = (slot * asked).min(available - asked);
            &device.rows[start..start + asked]
        }
    };
    let metrics: Vec<Metric> = device
        .metrics
        .iter()
        .enumerate()
        .map(|(index, name)| Metric { name: name.clone(), scale: scale(&device.rows, index) })
        .collect();
    let mut samples: Vec<Sample> = Vec::new();
    for row in rows {
        let value = value(&row.text, metrics[row.metric].scale);
        match samples.last_mut() {
            Some(last) if last.time_ms == row.time_ms && last.values[row.metric].is_none() => {
                last.values[row.metric] = Some(value);
            }
            _ => {
                let mut values = vec![None; metrics.len()];
                values[row.metric] = Some(value);
                samples.push(Sample { time_ms: row.time_ms, values });
            }
        }
    }
    Ok(Replay { device: eui, metrics, samples })
}

/// Whole numbers only: `None`. Else as many decimal places as the texts have, where a scale serves them.
fn scale(rows: &[Row], metric: usize) -> Option<u8> {
    let texts = || rows.iter().filter(|row| row.metric == metric).map(|row| row.text.as_str());
    if texts().all(|text| text.parse::<i64>().is_ok() || text == "NaN") {
        return None;
    }
    let places = |text: &str| text.split_once('.').map_or(0, |(_, tail)| tail.len());
    let most = texts().map(places).max().unwrap_or(0).min(SCALE_USEFUL_MAX);
    Some(u8::try_from(most).unwrap_or(SCALE_MAX))
}

fn value(text: &str, scale: Option<u8>) -> Value {
    match text.parse::<i64>() {
        Ok(whole) if scale.is_none() => Value::I64(whole),
        _ => Value::F64(text.parse().unwrap_or(f64::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_readings_serve_forty_sensors_with_different_ones_each() {
        let replays = replays(None, Some(40), Some(20_000)).unwrap();
        assert_eq!(replays.len(), 40);
        assert_eq!(replays.iter().map(Replay::readings).sum::<usize>(), 20_000);
        assert_ne!(replays[0].samples[0], replays[3].samples[0], "same file device, other part of it");
        assert_ne!(replays[0].device, replays[39].device);
    }

    #[test]
    fn rows_of_one_time_are_one_sample_and_a_repeat_starts_another() {
        let csv = "time_unix_ms,device,metric,value\n5,d,t,1.5\n5,d,n,7\n5,d,t,1.25\n4,d,n,NaN\n";
        let devices = read(csv.as_bytes()).unwrap();
        let replay = replay(&devices[0], eui(0), 0, None).unwrap();
        assert_eq!(replay.metrics.iter().map(|m| m.scale).collect::<Vec<_>>(), [Some(2), None]);
        let values: Vec<_> = replay.samples.iter().map(|s| (s.time_ms, s.values.clone())).collect();
        assert_eq!(
            values,
            [
                (5, vec![Some(Value::F64(1.5)), Some(Value::I64(7))]),
                (5, vec![Some(Value::F64(1.25)), None]),
                (4, vec![None, Some(Value::F64(f64::NAN))]),
            ]
        );
    }

    #[test]
    fn a_bad_row_is_told_by_its_line() {
        let csv = "time_unix_ms,device,metric,value\n5,d,t,1.5\n5,d,t,hot\n";
        let error = read(csv.as_bytes()).err().unwrap().to_string();
        assert!(error.contains("line 3") && error.contains("hot"), "{error}");
    }
}
