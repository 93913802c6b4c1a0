//! Virtual sensors over the simulated air against a gateway of a few lines that keeps what it acknowledges in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod stand_in;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog_firmware::Gateways;
use tidelog_record::uplink::{Act, CommandState, METRICS_MAX, Reading, Sample};
use tidelog_record::{DeviceId, Value};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Cut, SensorOptions, VirtualSensor};

use stand_in::{GATEWAY, KEY, Kept, gateway, outcomes};

const SCALE: u8 = 3;

fn feed(device: u8, samples: u32) -> Vec<Sample> {
    (0..samples)
        .map(|i| {
            let mut values = [None; METRICS_MAX];
            values[0] = Some(Reading::F64(f64::from(i * 7 + u32::from(device)) / 1000.0));
            values[1] = Some(Reading::I64(i64::from(i)));
            Sample { ticks: 1_600_000_000_000 + i64::from(i) * 1000, values }
        })
        .collect()
}

fn options(device: u8, air: SocketAddr) -> SensorOptions {
    let gateways = Gateways { primary: GATEWAY, backup: None };
    SensorOptions {
        metrics: vec![("value".into(), Some(SCALE)), ("count".into(), None)],
        flash_blocks: 4,
        key: Some(KEY),
        ..SensorOptions::fast(DeviceId([2, 0, 0, 0, 0, 0, 1, device]), air, gateways, u64::from(device))
    }
}

async fn until_acknowledged(sensor: &VirtualSensor, samples: u64) {
    let mut progress = sensor.follow();
    let done = progress.wait_for(|progress| progress.acknowledged >= samples);
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("in a minute").unwrap();
}

fn check(kept: &Kept, sensor: &VirtualSensor, feed: &[Sample]) {
    let progress = sensor.progress();
    assert_eq!((progress.sensed, progress.lost), (feed.len() as u64, 0));
    for (seq, sample) in (1..).zip(feed) {
        let timestamp = sample.ticks * 1_000_000;
        let wanted: Vec<_> = ["value", "count"]
            .into_iter()
            .zip(sample.values)
            .map(|(metric, value)| (metric.to_owned(), timestamp, Value::from(value.unwrap())))
            .collect();
        assert_eq!(kept.points.get(&(sensor.device(), progress.epoch, seq)), Some(&wanted), "sample {seq}");
    }
    let own = kept.points.keys().filter(|(device, ..)| *device == sensor.device()).count();
    assert_eq!(own, feed.len(), "no sample in another epoch");
}

async fn field(
    sensors: u8,
    samples: u32,
    pace_hz: Option<f64>,
    air: AirOptions,
) -> (Air, Arc<Mutex<Kept>>, Vec<(VirtualSensor, Vec<Sample>)>) {
    let air = Air::start(air).await.unwrap();
    let kept = Arc::new(Mutex::new(Kept::default()));
    tokio::spawn(gateway(air.address(), Arc::clone(&kept)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut field = Vec::new();
    for device in 0..sensors {
        let feed = feed(device, samples);
        field.push((
            VirtualSensor::start(SensorOptions { pace_hz, ..options(device, air.address()) }, feed.clone())
                .await
                .unwrap(),
            feed,
        ));
    }
    (air, kept, field)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_sensors_deliver_every_sample_once() {
    let started = Instant::now();
    let (air, kept, field) = field(40, 250, None, AirOptions::default()).await;
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
    let seconds = started.elapsed().as_secs_f64();
    let counters = air.stop().await;
    println!("10000 samples in {seconds:.1} s, {:?}", counters);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_doubled_frames_cost_time_and_no_sample() {
    let air = AirOptions { loss: 0.2, duplicate: 0.1, seed: 3, ..AirOptions::default() };
    let (_air, kept, field) = field(8, 60, None, air).await;
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_whose_power_goes_at_random_senses_and_delivers_each_sample_once() {
    let (_air, kept, mut field) =
        field(4, 600, Some(300.0), AirOptions { loss: 0.05, seed: 9, ..AirOptions::default() }).await;
    for round in 0..12u64 {
        for (index, (sensor, _)) in (0u64..).zip(&mut field) {
            let cut = if round % 3 == 2 {
                Cut::Now
            } else {
                Cut::MidWrite { steps: (round * 13 + index * 7) % 40, seed: round }
            };
            sensor.power_cut(cut).await.unwrap();
            sensor.restart().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
    // Each life began behind the counters of the ones before; late copies of frames aside, of which this air makes none.
    assert_eq!(kept.lock().unwrap().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_does_what_it_is_told_and_says_so() {
    let (_air, kept, mut field) = field(1, 5_000, Some(20.0), AirOptions::default()).await;
    let acts = [
        Act::Read,
        Act::Every { interval_ms: 120 },
        Act::Switch { output: 8, on: true },
        Act::Reboot,
        Act::Switch { output: 3, on: true },
        Act::Identify { seconds: 1 },
    ];
    let told = outcomes(&kept, &acts).await;
    use CommandState::{Done, Failed, Unsupported};
    assert_eq!(told, [Done, Done, Failed, Done, Done, Unsupported]);
    let (sensor, _) = &mut field[0];
    let progress = sensor.progress();
    assert_eq!((progress.outputs, progress.reboots, progress.lost), (1 << 3, 1, 0));
    sensor.power_cut(Cut::Now).await.unwrap();
}
