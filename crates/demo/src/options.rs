//! What the user asks of the demo, checked once.

use std::path::PathBuf;

use crate::field::GATEWAYS;
use crate::target::Target;

/// A whole Tidelog field on loopback: simulated air, virtual sensors that run the real firmware library, two real
/// gateway processes, an MQTT broker and a real cloud node. Shows readings travel, and proves that none is lost.
#[derive(clap::Parser, Debug, Clone)]
#[command(name = "cargo demo", bin_name = "cargo demo", version, after_help = EXAMPLES)]
pub struct Options {
    /// Virtual sensors [default: one for each device of the data; 12 with the embedded data]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sensors: Option<u16>,

    /// Emulated boards beside them: real Cortex-M programs in QEMU, which measure what the data holds through their chips' registers. The board's
    /// program is built by toolchains/build, which takes a minute the first time
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub boards: u16,

    /// Readings in all, over all virtual sensors [default: everything in the data]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub readings: Option<u32>,

    /// CSV file of real readings, plain or .gz: time_unix_ms,device,metric,value [default: an embedded sample]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,

    /// End when everything has arrived everywhere, after comparing reading by reading; exit status 1 if any is lost,
    /// doubled or changed
    #[arg(long)]
    pub once: bool,

    /// Print the result as JSON on standard output (progress goes to standard error)
    #[arg(long)]
    pub json: bool,

    /// Kill -9 gateways and the cloud, cut sensors' power and the uplinks at random while it runs; the seed makes the
    /// choices
    #[arg(long, value_name = "SEED")]
    pub chaos: Option<u64>,

    /// Kill -9 the first gateway half-way and leave it down until each of its sensors, half of all, has found the second; the result tells
    /// how long their readings stood still
    #[arg(long, requires = "once", conflicts_with = "chaos")]
    pub failover: bool,

    /// Samples a second of each sensor; 0 = as fast as the field takes them [default: 0 with --once, spread over 20 s
    /// with --chaos and --failover (60 s if a gateway is emulated), else 1]
    #[arg(long, value_name = "HZ")]
    pub pace: Option<f64>,

    /// Share of frames that the air loses, 0 to 0.9
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub loss: f64,

    /// Delay of each frame on the air, milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=2000))]
    pub delay: u64,

    /// Encrypt and authenticate nothing on the air [default: a random network key, which is printed]
    #[arg(long)]
    pub open_air: bool,

    /// Write every frame on the air to this file, for Wireshark and tshark
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Use this MQTT broker (mqtt://HOST:PORT) instead of the embedded one
    #[arg(long, value_name = "URL")]
    pub mqtt: Option<String>,

    /// Keep logs, stores and certificates in this folder, which must be empty or absent [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// What processors the gateways run on: one target for both, or two, such as armv7,mips. Targets: native (this machine's), mips
    /// (big-endian MIPS32), mipsel (little-endian), armv7. Others than native are cross-built for routers by toolchains/build, which takes
    /// minutes the first time, and emulated by qemu-user, some twenty times slower; chaos then strikes at longer intervals. docs/CROSS.md
    /// says what it takes
    #[arg(long, value_name = "TARGET[,TARGET]", default_value = "native", value_parser = Target::of_gateways)]
    pub gateways: [Target; GATEWAYS],

    /// Take tidelog-gateway and tidelog-cloud from this folder instead of building them, gateways for another processor from
    /// DIR/TARGET/tidelog-gateway, and the boards' program from DIR/thumbv7em/tidelog-mps2-an386
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,

    /// Seed of the air's losses and of the sensors' own dice
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const EXAMPLES: &str = "Examples:
  cargo demo                                              watch a field live until Ctrl-C
  cargo demo --once --sensors 40 --readings 20000 --json  prove that 20,000 readings arrive once
  cargo demo --once --sensors 40 --readings 20000 --chaos 1 --loss 0.1
  cargo demo --once --failover --sensors 100              how long sensors stand still when their gateway dies
  cargo demo --once --boards 8 --chaos 1                  with emulated boards, whose power goes as everything else does
  cargo demo --once --gateways armv7,mips                 with gateways as on routers, emulated
  cargo demo --mqtt mqtt://localhost:1883                 and listen with: mosquitto_sub -t 'tidelog/#' -v";

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=0.9).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 0.9".to_owned()),
    }
}

/// How long a run with chaos or failover takes at least, so that there is something to disturb, in seconds.
const CHAOS_SPREAD_S: f64 = 20.0;
/// How many times as long chaos takes over emulated gateways, which take seconds to start.
const EMULATED_SLOWDOWN: u32 = 3;
const SENSORS_OF_EMBEDDED: usize = 12;

impl Options {
    /// How many sensors there will be; `None` leaves it to the data.
    #[must_use]
    pub fn sensors(&self) -> Option<usize> {
        match self.sensors {
            Some(count) => Some(usize::from(count)),
            None => self.data.is_none().then_some(SENSORS_OF_EMBEDDED),
        }
    }

    /// How many times as long chaos takes as it does over native gateways.
    #[must_use]
    pub fn slowdown(&self) -> u32 {
        let emulated = self.gateways.iter().any(|target| target.emulator().is_some());
        if emulated { EMULATED_SLOWDOWN } else { 1 }
    }

    /// Samples a second of one sensor that has `samples_most` of them; `None` = as fast as it goes.
    #[must_use]
    pub fn pace_hz(&self, samples_most: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a pace, not a count")]
        let spread = samples_most as f64 / (CHAOS_SPREAD_S * f64::from(self.slowdown()));
        match self.pace {
            Some(pace) => (pace > 0.0).then_some(pace),
            None if self.chaos.is_some() || self.failover => Some(spread.max(0.1)),
            None if self.once => None,
            None => Some(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options, String> {
        let command = ["cargo demo"].iter().chain(arguments);
        Options::try_parse_from(command).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn gateways_are_native_unless_told_otherwise_and_chaos_leaves_emulated_ones_more_time() {
        let (native, emulated) =
            (parsed(&["--chaos", "1"]), parsed(&["--chaos", "1", "--gateways", "native,mips"]));
        let (native, emulated) = (native.unwrap(), emulated.unwrap());
        assert_eq!(native.gateways, [Target::Native; GATEWAYS]);
        assert_eq!(emulated.gateways, [Target::Native, Target::Mips]);
        assert_eq!((native.slowdown(), native.pace_hz(400)), (1, Some(20.0)));
        assert_eq!(parsed(&["--failover", "--once"]).unwrap().pace_hz(400), Some(20.0));
        assert!(
            parsed(&["--failover"]).is_err() && parsed(&["--failover", "--once", "--chaos", "1"]).is_err()
        );
        assert!(emulated.slowdown() > 1 && emulated.pace_hz(400) < native.pace_hz(400));
    }

    #[test]
    fn gateways_that_are_refused_are_named_with_what_may_stand_there() {
        let unknown = parsed(&["--gateways", "armv7,sparc"]).unwrap_err();
        assert!(unknown.contains("--gateways") && unknown.contains("'sparc'"), "{unknown}");
        assert!(unknown.contains("native, mips, mipsel and armv7"), "{unknown}");
        assert!(parsed(&["--gateways", "mips", "--gateways", "armv7"]).is_err(), "given twice");
    }
}
