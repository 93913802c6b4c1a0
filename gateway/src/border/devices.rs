//! What a border remembers of each sensor: the schemas it has made known, and what was last acknowledged to it. It
//! lives in memory only: a gateway that doesn't know a schema answers 4.12 and the sensor posts it again, and what is
//! held of a sensor is asked of the log itself.

use std::collections::HashMap;

use tidelog_record::DeviceId;
use tidelog_record::uplink::{OwnedSchema, SchemaId};

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
    used: u64,
}

impl Devices {
    /// Keeps a schema; whether it was new.
    pub fn register(&mut self, device: DeviceId, schema: OwnedSchema) -> bool {
        let schemas = &mut self.known(device).schemas;
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
            encode_registration(&mut out, device(0), &Schema::new(tick_ns, &metrics).unwrap()).unwrap();
        Registration::decode(&out[..length]).unwrap().schema
    }

    fn device(n: u64) -> DeviceId {
        DeviceId(n.to_be_bytes())
    }

    #[test]
    fn a_sensor_finds_its_own_schemas_and_nobody_elses() {
        let mut devices = Devices::default();
        assert!(devices.register(device(1), schema(1)));
        assert!(!devices.register(device(1), schema(1)));
        assert!(devices.schema(device(1), schema(1).id()).is_some());
        assert!(devices.schema(device(1), schema(2).id()).is_none());
        assert!(devices.schema(device(2), schema(1).id()).is_none());
    }

    #[test]
    fn a_sensor_that_registers_without_end_keeps_its_latest() {
        let mut devices = Devices::default();
        for tick_ns in 1..100 {
            devices.register(device(1), schema(tick_ns));
        }
        assert!(devices.schema(device(1), schema(99).id()).is_some());
        assert!(devices.schema(device(1), schema(95).id()).is_none());
    }

    #[test]
    fn the_sensor_not_heard_for_longest_makes_room() {
        let mut devices = Devices::default();
        let one = schema(1);
        for n in 0..DEVICES_MAX as u64 {
            devices.register(device(n), one.clone());
        }
        assert!(devices.schema(device(0), one.id()).is_some());
        devices.register(device(u64::MAX), one.clone());
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
