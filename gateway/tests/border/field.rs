//! More sensors than the bound of many a border router, with the real firmware, over an air that loses and doubles frames.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidelog_lowpan::NetworkKey;
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Reading, Sample};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Gateways, SensorOptions, VirtualSensor};

use crate::GATEWAY;
use crate::process::Gateway;

const SENSORS: u16 = 260;
const KEY: &str = "00112233445566778899aabbccddeeff";
const SAMPLES_EACH: i64 = 12;
const PATIENCE: Duration = Duration::from_secs(180);

fn sample(index: i64) -> Sample {
    let mut values = [None; 16];
    values[0] = Some(Reading::I64(index));
    Sample { ticks: 1_600_000_000_000 + index * 1_000, values }
}

async fn until_acknowledged(sensors: &[VirtualSensor], share: f64) {
    let begun = Instant::now();
    let all = f64::from(SENSORS) * SAMPLES_EACH as f64;
    loop {
        let acknowledged: u64 = sensors.iter().map(VirtualSensor::acknowledged).sum();
        if acknowledged as f64 >= all * share {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{acknowledged} of {all} are acknowledged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_sensors_are_served_through_a_kill_and_each_sample_is_in_the_log_once() {
    let air = Air::start(AirOptions { loss: 0.05, duplicate: 0.02, seed: 1, ..AirOptions::default() })
        .await
        .unwrap();
    let data = tempfile::tempdir().unwrap();
    let key_file = data.path().join("radio.key");
    std::fs::write(&key_file, KEY).unwrap();
    let flags = ["--radio-key-file", key_file.to_str().unwrap()];
    let gateway = Gateway::start_with(data.path(), air.address(), &GATEWAY.to_string(), &flags);
    let samples: Vec<Sample> = (0..SAMPLES_EACH).map(sample).collect();
    let mut sensors = Vec::new();
    for n in 0..SENSORS {
        let [high, low] = n.to_be_bytes();
        let device = DeviceId([2, 0x12, 0x4b, 0, 0, 0, high, low]);
        let gateways = Gateways { primary: GATEWAY, backup: None };
        let options = SensorOptions {
            metrics: vec![("count".to_owned(), None)],
            pace_hz: Some(4.0),
            key: Some(KEY.parse::<NetworkKey>().unwrap()),
            ..SensorOptions::fast(device, air.address(), gateways, u64::from(n))
        };
        sensors.push(VirtualSensor::start(options, samples.clone()).await.unwrap());
    }
    until_acknowledged(&sensors, 0.3).await;
    gateway.kill();
    let gateway = Gateway::start_with(data.path(), air.address(), &GATEWAY.to_string(), &flags);
    // What the killed gateway had answered has arrived by now; these have more to say to the new one.
    let unfinished = sensors.iter().filter(|sensor| sensor.acknowledged() < samples.len() as u64).count();
    until_acknowledged(&sensors, 1.0).await;

    let all = usize::from(SENSORS) * samples.len();
    assert_eq!(gateway.status()["store"]["points"], all, "none is in the log twice");
    let lines = gateway.points("count");
    let distinct: BTreeSet<&String> = lines.iter().collect();
    assert_eq!((lines.len(), distinct.len()), (all, all));
    for sensor in &sensors {
        let device = sensor.device().to_string();
        assert_eq!(lines.iter().filter(|line| line.contains(&device)).count(), samples.len(), "{device}");
    }
    let radio = gateway.radio_with_devices(unfinished);
    assert_eq!(radio["drops"]["no_room"], 0, "{radio:#}");
}
