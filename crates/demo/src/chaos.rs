//! Random trouble, decided by a seed: what to break next, when, and for how long. It only decides; the field carries it out.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

const PAUSE_MS: std::ops::Range<u64> = 200..900;
const DOWN_MS: std::ops::Range<u64> = 50..1_500;

/// One piece of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Kill -9 this gateway.
    KillGateway(usize),
    /// Kill -9 the cloud node.
    KillCloud,
    /// Cut the power of this sensor; boards are numbered behind the virtual ones.
    CutSensor(usize),
    /// Cut this gateway's links to the cloud and to MQTT.
    CutUplink(usize),
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Troubles {
    /// Gateways killed.
    pub gateway_kills: u32,
    /// Cloud nodes killed.
    pub cloud_kills: u32,
    /// Sensors that lost power.
    pub sensor_power_cuts: u32,
    /// Uplinks cut.
    pub uplink_cuts: u32,
}

impl Troubles {
    /// Counts one.
    pub fn count(&mut self, trouble: Trouble) {
        *match trouble {
            Trouble::KillGateway(_) => &mut self.gateway_kills,
            Trouble::KillCloud => &mut self.cloud_kills,
            Trouble::CutSensor(_) => &mut self.sensor_power_cuts,
            Trouble::CutUplink(_) => &mut self.uplink_cuts,
        } += 1;
    }
}

/// The dice.
pub struct Chaos {
    dice: StdRng,
    gateways: usize,
    sensors: usize,
    slowdown: u32,
}

impl Chaos {
    /// The same seed breaks the same things in the same order. Pauses are `slowdown` times as long: what takes longer to start is killed less
    /// often, or it would never run.
    #[must_use]
    pub fn new(seed: u64, gateways: usize, sensors: usize, slowdown: u32) -> Self {
        Self { dice: StdRng::seed_from_u64(seed), gateways, sensors, slowdown }
    }

    /// How long to wait, what to break then, and how long it stays broken.
    pub fn next(&mut self) -> (Duration, Trouble, Duration) {
        let pause = Duration::from_millis(self.dice.random_range(PAUSE_MS));
        let down = Duration::from_millis(self.dice.random_range(DOWN_MS));
        let trouble = match self.dice.random_range(0..10) {
            0..3 => Trouble::KillGateway(self.dice.random_range(0..self.gateways)),
            3..4 => Trouble::KillCloud,
            4..8 => Trouble::CutSensor(self.dice.random_range(0..self.sensors)),
            _ => Trouble::CutUplink(self.dice.random_range(0..self.gateways)),
        };
        (pause * self.slowdown, trouble, down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_breaks_the_same_things_each_time_and_everything_in_the_end() {
        let slower = |seed, slowdown| {
            let mut chaos = Chaos::new(seed, 2, 40, slowdown);
            (0..100).map(|_| chaos.next()).collect::<Vec<_>>()
        };
        let run = |seed| slower(seed, 1);
        assert_eq!(run(1), run(1));
        let longer = run(1).into_iter().map(|(pause, trouble, down)| (pause * 4, trouble, down));
        assert_eq!(slower(1, 4), longer.collect::<Vec<_>>());
        assert_ne!(run(1), run(2));
        let mut troubles = Troubles::default();
        run(3).into_iter().for_each(|(_, trouble, _)| troubles.count(trouble));
        assert!(troubles.gateway_kills > 0 && troubles.cloud_kills > 0);
        assert!(troubles.sensor_power_cuts > 0 && troubles.uplink_cuts > 0);
    }
}
