//! Home Assistant's MQTT discovery: for each metric of each sensor a retained message that tells where its readings are published, and how one is taken
//! out of a message of ours. Pure: it is told of batches and answers with what has to be published before them. What Home Assistant does with it is
//! its own affair (<https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>).

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use tidelog_record::uplink::{COMMAND_ID_METRIC, COMMAND_STATE_METRIC};
use tidelog_record::{Batch, DeviceId, NodeId, SiteName};

use super::topic::TopicTemplate;

/// Series that are announced in one session with the broker; those past it are not.
const ANNOUNCED_MAX: usize = 16_384;

/// What a metric's name says of its values: how it ends, Home Assistant's unit, and its class of device.
const UNITS: [(&str, &str, Option<&str>); 14] = [
    ("temperature_celsius", "°C", Some("temperature")),
    ("_celsius", "°C", Some("temperature")),
    ("humidity_percent", "%", Some("humidity")),
    ("battery_percent", "%", Some("battery")),
    ("_percent", "%", None),
    ("_lux", "lx", Some("illuminance")),
    ("_volts", "V", Some("voltage")),
    ("_amperes", "A", Some("current")),
    ("_watts", "W", Some("power")),
    ("_joules", "J", Some("energy")),
    ("_pascals", "Pa", Some("pressure")),
    ("_ppm", "ppm", None),
    ("_seconds", "s", Some("duration")),
    ("_meters", "m", Some("distance")),
];

/// What was announced in this session.
pub(super) type Announced = HashSet<(SiteName, DeviceId, String)>;

/// How sensors are announced.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    /// Where Home Assistant listens, `homeassistant` unless it was told otherwise.
    pub prefix: TopicTemplate,
    /// Where readings are published.
    pub topic: TopicTemplate,
    /// After so long without a reading none is known any more, in seconds.
    pub silence_s: u32,
}

impl Discovery {
    /// The messages, topic and payload, for what of this batch was not announced yet. Points that no sensor sent are not announced.
    pub fn messages(
        &self,
        announced: &mut Announced,
        site: &SiteName,
        node: NodeId,
        batch: &Batch,
    ) -> Vec<(String, Vec<u8>)> {
        let Some(device) = batch.origin.map(|origin| origin.device) else { return Vec::new() };
        let mut messages = Vec::new();
        for (series, _) in &batch.series {
            let metric = series.metric();
            // What became of a command is for whoever gave it.
            if [COMMAND_ID_METRIC, COMMAND_STATE_METRIC].contains(&metric) || announced.len() >= ANNOUNCED_MAX
            {
                continue;
            }
            if announced.insert((site.clone(), device, metric.to_owned())) {
                let id = format!("tidelog_{}_{device}", plain(site.as_str()));
                let topic =
                    format!("{}/sensor/{id}/{}/config", self.prefix.topic(site, node, None), plain(metric));
                let readings = self.topic.topic(site, node, Some(device));
                messages.push((topic, self.config(&id, device, metric, &readings).to_string().into_bytes()));
            }
        }
        messages
    }

    fn config(&self, id: &str, device: DeviceId, metric: &str, readings: &str) -> Json {
        let mut config = json!({
            "name": metric,
            "unique_id": format!("{id}_{}", plain(metric)),
            "state_topic": readings,
            "value_template": template(metric),
            "state_class": "measurement",
            "expire_after": self.silence_s,
            "device": {"identifiers": [id], "name": device.to_string()},
            "origin": {"name": "tidelog", "sw_version": env!("CARGO_PKG_VERSION")},
        });
        if let Some((_, unit, class)) = UNITS.iter().find(|(end, ..)| metric.ends_with(end)) {
            config["unit_of_measurement"] = json!(unit);
            if let Some(class) = class {
                config["device_class"] = json!(class);
            }
        }
        config
    }
}

/// The last value of this metric in a message of ours; what it was where the message has none.
fn template(metric: &str) -> String {
    // A text as Jinja and Python write it: JSON's is one.
    let metric = json!(metric);
    format!(
        "{{% set found = value_json.points | selectattr('metric', 'eq', {metric}) | map(attribute='value') | list %}}\
         {{{{ found | last if found else this.state }}}}"
    )
}

/// A name in the letters that a topic of discovery may have: others as `_` and their bytes in hexadecimal, so that different names stay different.
fn plain(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            other => out.push_str(&format!("_{other:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::{Origin, Series, Value};

    const DEVICE: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]);
    const NODE: NodeId = NodeId([0xab; 16]);

    fn discovery() -> Discovery {
        Discovery {
            prefix: "homeassistant".parse().unwrap(),
            topic: "tidelog/{site}/{device}".parse().unwrap(),
            silence_s: 900,
        }
    }

    fn batch(metrics: &[&str], origin: Option<Origin>) -> Batch {
        let series = |metric: &&str| {
            let series = Series::new(*metric, [("device", DEVICE.to_string())]).unwrap();
            (series, vec![(1_700_000_000_000_000_000, Value::F64(20.5))])
        };
        Batch { authored_ms: 0, origin, series: metrics.iter().map(series).collect() }
    }

    fn site() -> SiteName {
        "plant-1".parse().unwrap()
    }

    const ORIGIN: Origin = Origin { device: DEVICE, epoch: 1, first_seq: 1, count: 1 };

    #[test]
    fn each_metric_of_a_sensor_is_announced_once_with_what_its_name_says() {
        let (discovery, mut announced) = (discovery(), Announced::new());
        let first = batch(&["temperature_celsius", "co2_ppm", "command_state"], Some(ORIGIN));
        let messages = discovery.messages(&mut announced, &site(), NODE, &first);
        let topics: Vec<_> = messages.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(
            topics,
            [
                "homeassistant/sensor/tidelog_plant-1_02124b0000000001/temperature_celsius/config",
                "homeassistant/sensor/tidelog_plant-1_02124b0000000001/co2_ppm/config",
            ]
        );
        let config: Json = serde_json::from_slice(&messages[0].1).unwrap();
        assert_eq!(config["state_topic"], "tidelog/plant-1/02124b0000000001");
        assert_eq!(config["unique_id"], "tidelog_plant-1_02124b0000000001_temperature_celsius");
        assert_eq!(
            (&config["unit_of_measurement"], &config["device_class"], &config["expire_after"]),
            (&json!("°C"), &json!("temperature"), &json!(900))
        );
        assert_eq!(
            config["value_template"],
            "{% set found = value_json.points | selectattr('metric', 'eq', \"temperature_celsius\") | map(attribute='value') | list %}\
             {{ found | last if found else this.state }}"
        );
        assert!(discovery.messages(&mut announced, &site(), NODE, &first).is_empty());
        let more = batch(&["temperature_celsius", "battery_volts"], Some(ORIGIN));
        assert_eq!(discovery.messages(&mut announced, &site(), NODE, &more).len(), 1);
        assert!(discovery.messages(&mut Announced::new(), &site(), NODE, &batch(&["t"], None)).is_empty());
    }

    #[test]
    fn different_names_stay_different_in_the_letters_of_a_topic() {
        assert_eq!(plain("a.b"), "a_2eb");
        assert_ne!(plain("a.b"), plain("a/b"));
        assert_eq!(plain("größe"), "gr_c3_b6_c3_9fe");
    }

    #[test]
    fn no_more_is_announced_than_is_remembered() {
        let (discovery, mut announced) = (discovery(), Announced::new());
        for number in 0..ANNOUNCED_MAX {
            announced.insert((site(), DEVICE, number.to_string()));
        }
        assert!(discovery.messages(&mut announced, &site(), NODE, &batch(&["t"], Some(ORIGIN))).is_empty());
    }
}
