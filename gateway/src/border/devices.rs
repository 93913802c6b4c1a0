//! What a border remembers of each sensor: the schemas it has made known, and what was last acknowledged to it. It
//! lives in memory only: a gateway that doesn't know a schema answers 4.12 and the sensor posts it again, and what is
//! held of a sensor is asked of the log itself.

use std::collections::HashMap;

use tidelog_record::uplink::{OwnedSchema, SchemaId};
use tidelog_record::{Batch, DeviceId, Value};

/// Most sensors remembered; the one not heard for longest is forgotten first.
const DEVICES_MAX: usize = 4096;

/// Most schemas kept of one sensor: the one in use, and those before, under which its flash may still hold samples.
const SCHEMAS_MAX: usize = 4;

/// Sensors remembered.
#[derive(Debug, Default)]
pub struct Devices {
    devices: HashMap<DeviceId, Known>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// Latest registered last.
    schemas: Vec<OwnedSchema>,
    acknowledged: Option<(u32, u64)>,
    /// The version of its program, if it told one.
    firmware: Option<String>,
    battery: Option<Battery>,
    used: u64,
}

/// What a sensor said last of its battery.
#[derive(Clone, Debug, PartialEq)]
pub struct Battery {
    /// The metric, such as `battery_volts`.
    pub metric: String,
    /// Its value.
    pub value: f64,
}

impl Battery {
    /// What metrics of batteries begin with.
    const BEGINS: &str = "batt";

    /// The newest in a batch, if a metric of it is a battery's.
    #[must_use]
    pub fn in_batch(batch: &Batch) -> Option<Self> {
        let (series, points) =
            batch.series.iter().find(|(series, _)| series.metric().starts_with(Self::BEGINS))?;
        let value = match points.last()? {
            (_, Value::F64(value)) => *value,
            // Of no battery past 2^53.
            (_, Value::I64(value)) => *value as f64,
            (_, Value::Bool(_) | Value::Text(_)) => return None,
        };
        Some(Self { metric: series.metric().to_owned(), value })
    }
}

impl Devices {
    /// Keeps a schema, and the version of the sensor's program; whether the schema was new.
    pub fn register(&mut self, device: DeviceId, schema: OwnedSchema, firmware: Option<String>) -> bool {
        let known = self.known(device);
        known.firmware = firmware;
        let schemas = &mut known.schemas;
        let before = schemas.len();
        schemas.retain(|kept| kept.id() != schema.id());
        let new = schemas.len() == before;
        schemas.push(schema);
        if schemas.len() > SCHEMAS_MAX {
            schemas.remove(0);
        }
        new
    }

    /// The schema that a batch of `device` names.
    pub fn schema(&mut self, device: DeviceId, id: SchemaId) -> Option<&OwnedSchema> {
        self.clock += 1;
        let known = self.devices.get_mut(&device)?;
        known.used = self.clock;
        known.schemas.iter().find(|schema| schema.id() == id)
    }

    /// Notes what was acknowledged: the epoch of the sensor's log, and the sequence number.
    pub fn acknowledge(&mut self, device: DeviceId, epoch: u32, seq: u64) {
        self.known(device).acknowledged = Some((epoch, seq));
    }

    /// Notes what the sensor says of its battery.
    pub fn note_battery(&mut self, device: DeviceId, battery: Battery) {
        self.known(device).battery = Some(battery);
    }

    /// The version of the sensor's program and its battery, as far as it told them since this border started.
    #[must_use]
    pub fn told(&self, device: DeviceId) -> (Option<&str>, Option<&Battery>) {
        let known = self.devices.get(&device);
        (known.and_then(|known| known.firmware.as_deref()), known.and_then(|known| known.battery.as_ref()))
    }

    /// What was last acknowledged since this border started.
    #[must_use]
    pub fn acknowledged(&self, device: DeviceId) -> Option<(u32, u64)> {
        self.devices.get(&device).and_then(|known| known.acknowledged)
    }

    fn known(&mut self, device: DeviceId) -> &mut Known {
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(&device) {
            let oldest = self.devices.iter().min_by_key(|(_, known)| known.used).map(|(device, _)| *device);
            oldest.map(|device| self.devices.remove(&device));
        }
        self.clock += 1;
        let known = self.devices.entry(device).or_default();
        known.used = self.clock;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::uplink::{Metric, Registration, Schema, encode_registration};

    fn schema(tick_ns: u32) -> OwnedSchema {
        let metrics = [Metric { name: "temperature", scale: Some(2) }];
        let mut out = [0; 64];
        let length =
            encode_registration(&mut out, device(0), &Schema::new(tick_ns, &metrics).unwrap(), "").unwrap();
        Registration::decode(&out[..length]).unwrap().schema
    }

    fn device(n: u64) -> DeviceId {
        DeviceId(n.to_be_bytes())
    }

    #[test]
    fn a_sensor_finds_its_own_schemas_and_nobody_elses() {
        let mut devices = Devices::default();
        assert!(devices.register(device(1), schema(1), None));
        assert!(!devices.register(device(1), schema(1), None));
        assert!(devices.schema(device(1), schema(1).id()).is_some());
        assert!(devices.schema(device(1), schema(2).id()).is_none());
        assert!(devices.schema(device(2), schema(1).id()).is_none());
    }

    #[test]
    fn what_a_sensor_tells_of_itself_is_the_last_of_its_kind() {
        let mut devices = Devices::default();
        assert_eq!(devices.told(device(1)), (None, None));
        devices.register(device(1), schema(1), Some("1.0".to_owned()));
        devices.register(device(1), schema(1), Some("1.1".to_owned()));
        let points = vec![(1, Value::F64(3.1)), (2, Value::F64(3.0))];
        let series = |name: &str| tidelog_record::Series::new(name, [("device", "x")]).unwrap();
        let batch = |name: &str| Batch { series: vec![(series(name), points.clone())], ..Batch::default() };
        assert_eq!(Battery::in_batch(&batch("temperature")), None);
        let battery = Battery::in_batch(&batch("battery_volts")).unwrap();
        assert_eq!(battery, Battery { metric: "battery_volts".to_owned(), value: 3.0 });
        devices.note_battery(device(1), battery.clone());
        assert_eq!(devices.told(device(1)), (Some("1.1"), Some(&battery)));
    }

    #[test]
    fn a_sensor_that_registers_without_end_keeps_its_latest() {
        let mut devices = Devices::default();
        for tick_ns in 1..100 {
            devices.register(device(1), schema(tick_ns), None);
        }
        assert!(devices.schema(device(1), schema(99).id()).is_some());
        assert!(devices.schema(device(1), schema(95).id()).is_none());
    }

    #[test]
    fn the_sensor_not_heard_for_longest_makes_room() {
        let mut devices = Devices::default();
        let one = schema(1);
        for n in 0..DEVICES_MAX as u64 {
            devices.register(device(n), one.clone(), None);
        }
        assert!(devices.schema(device(0), one.id()).is_some());
        devices.register(device(u64::MAX), one.clone(), None);
        assert!(devices.schema(device(0), one.id()).is_some());
        assert!(devices.schema(device(1), one.id()).is_none());
    }

    #[test]
    fn the_last_acknowledgement_is_the_one_remembered() {
        let mut devices = Devices::default();
        assert_eq!(devices.acknowledged(device(1)), None);
        devices.acknowledge(device(1), 1, 10);
        devices.acknowledge(device(1), 2, 3);
        assert_eq!(devices.acknowledged(device(1)), Some((2, 3)));
    }
}
