//! Two gateways of a site that know each other through the cloud alone share its sensors, each with the real firmware: they become even, and
//! when one dies its sensors are served by the other. Needs the released binaries in `TIDELOG_BIN_DIR`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::operator::{Node, Operator};
use support::{bin_dir, until_within};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Reading, Sample};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Gateways, SensorOptions, VirtualSensor};

const SITE: &str = "plant";
const SENSORS: u8 = 16;
/// What sixteen may differ by: an eighth of those here, and at least two.
const SLACK: u64 = 2;
/// Four words of each gateway, and a slow machine.
const EVEN_WITHIN: Duration = Duration::from_secs(120);
/// A sensor misses its gateway after five seconds.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_secs(60);
const FIRST_MS: i64 = 1_600_000_000_000;

fn gateway(n: u8) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, 0, 0, n])
}

/// Samples without end.
struct Counting;

impl tidelog_sim::sensor::Feed for Counting {
    fn sample(&self, index: u64) -> Option<Sample> {
        let index = i64::try_from(index).ok()?;
        let mut values = [None; 16];
        values[0] = Some(Reading::I64(index));
        Some(Sample { ticks: FIRST_MS + index, values })
    }
}

fn sensors_of(node: &Node) -> u64 {
    node.status()["sharing"]["sensors"].as_u64().unwrap_or_default()
}

fn with_gateway(sensors: &[VirtualSensor], n: u8) -> usize {
    sensors.iter().filter(|sensor| sensor.progress().gateway == Some(gateway(n))).count()
}

#[test]
fn sensors_spread_over_gateways_that_meet_in_the_cloud_and_none_is_lost_when_one_dies() {
    let Some(bin_dir) = bin_dir() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let air =
        runtime.block_on(Air::start(AirOptions { seed: 1, loss: 0.02, ..AirOptions::default() })).unwrap();
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    let cloud = operator.start("cloud", &operator.issue(&["cloud", "--all-sites"]), None);
    let radio = format!("zep://{}", air.address());
    let flags = [1, 2].map(|n| {
        let mut flags = operator.issue(&[&format!("gateway-{n}"), "--site", SITE]);
        let eui = gateway(n).to_string();
        flags.extend(["--site", SITE, "--eui", &eui, "--radio", &radio].map(str::to_owned));
        flags
    });
    let start = |n: u8| {
        let program = operator.bin_dir.join("tidelog-gateway").display().to_string();
        let flags = &flags[usize::from(n) - 1];
        operator.start_program(&[program], &format!("gateway-{n}"), flags, Some(&cloud))
    };
    let (one, two) = (start(1), start(2));

    // All of them know the first gateway, and none has heard of the second.
    let sensors: Vec<VirtualSensor> = runtime.block_on(async {
        let mut sensors = Vec::new();
        for n in 0..SENSORS {
            let options = SensorOptions {
                metrics: vec![("count".to_owned(), None)],
                pace_hz: Some(2.0),
                ..SensorOptions::fast(
                    DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, n]),
                    air.address(),
                    Gateways { primary: gateway(1), backup: None },
                    u64::from(n),
                )
            };
            sensors.push(VirtualSensor::start(options, Counting).await.unwrap());
        }
        sensors
    });
    until_within(EVEN_WITHIN, "even loads", || {
        let (here, there) = (sensors_of(&one), sensors_of(&two));
        (here + there == u64::from(SENSORS) && here.abs_diff(there) <= SLACK).then_some(())
    });
    assert_eq!(with_gateway(&sensors, 1) + with_gateway(&sensors, 2), usize::from(SENSORS));
    let moved = with_gateway(&sensors, 2);
    println!("{moved} of {SENSORS} sensors moved");

    // Whoever came from the first gateway goes back when the second is no more.
    drop(two);
    until_within(SERVED_AGAIN_WITHIN, "all at the first gateway", || {
        (with_gateway(&sensors, 1) == usize::from(SENSORS)).then_some(())
    });
    let sensed: Vec<u64> = sensors.iter().map(VirtualSensor::sensed).collect();
    until_within(SERVED_AGAIN_WITHIN, "an acknowledgement of all that was sensed", || {
        sensors.iter().zip(&sensed).all(|(sensor, sensed)| sensor.acknowledged() >= *sensed).then_some(())
    });
    // What the second gateway took and did not pass on stays with it until it runs again.
    let two = start(2);
    until_within(SERVED_AGAIN_WITHIN, "everything in the cloud", || {
        let points = cloud.points(SITE);
        let lines: Vec<&str> = points.lines().filter(|line| line.contains("\"count\"")).collect();
        assert_eq!(lines.len(), lines.iter().collect::<BTreeSet<_>>().len(), "one is there twice");
        let all = sensors.iter().zip(&sensed).all(|(sensor, sensed)| {
            let device = sensor.device().to_string();
            lines.iter().filter(|line| line.contains(&device)).count() as u64 >= *sensed
        });
        all.then_some(())
    });
    assert!(sensors.iter().all(|sensor| sensor.progress().lost == 0));
    two.end();
    one.end();
    cloud.end();
}
