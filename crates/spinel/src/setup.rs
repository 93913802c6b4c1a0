//! The way from a reset co-processor to one that is on the air: what is asked and set, in which order, and which answers will do. Who
//! sends, waits and repeats is the host's business.

use core::time::Duration;

use tidelog_record::DeviceId;
use tidelog_record::bytes::{Reader, Writer};

use crate::bytes::ReadFields as _;
use crate::frame::{Body, property};
use crate::host::{HostConfig, Loss};

/// How long a command may go without its answer.
pub const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The major version of Spinel that is spoken here.
pub const PROTOCOL_MAJOR: u32 = 4;

/// It can be configured as a radio.
const CAP_CONFIG_RADIO: u32 = 34;
/// It hands frames on as they are.
const CAP_MAC_RAW: u32 = 513;
/// No short address.
const NO_SHORT_ADDRESS: u16 = 0xfffe;
/// Longest value that is set, in bytes.
const VALUE_BYTES_MAX: usize = 8;

/// What the co-processor told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub hardware: Option<DeviceId>,
}

/// One command of the setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ask(u32),
    On(u32),
    Off(u32),
    Pan,
    Short,
    Long,
    Channel,
}

const STEPS: [Step; 11] = [
    Step::Ask(property::PROTOCOL_VERSION),
    Step::Ask(property::CAPS),
    Step::Ask(property::HWADDR),
    Step::On(property::PHY_ENABLED),
    Step::Pan,
    Step::Short,
    Step::Long,
    Step::Channel,
    Step::Off(property::MAC_PROMISCUOUS),
    Step::On(property::MAC_SRC_MATCH_ENABLED),
    // Last: from now on frames come.
    Step::On(property::MAC_RAW_STREAM_ENABLED),
];

/// Where the setup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup(usize);

impl Setup {
    pub const START: Self = Self(0);

    fn step(self) -> Option<Step> {
        STEPS.get(self.0).copied()
    }

    /// The next step; `None`: this was the last.
    pub fn next(self) -> Option<Self> {
        let next = Self(self.0 + 1);
        next.step().map(|_| next)
    }

    /// The property that this step is about.
    pub fn property(self) -> u32 {
        match self.step() {
            Some(Step::Ask(property) | Step::On(property) | Step::Off(property)) => property,
            Some(Step::Pan) => property::MAC_PANID,
            Some(Step::Short) => property::MAC_SADDR,
            Some(Step::Long) => property::MAC_LADDR,
            Some(Step::Channel) => property::PHY_CHAN,
            None => property::LAST_STATUS,
        }
    }

    /// Writes the command's frame.
    pub fn write(self, tid: u8, config: &HostConfig, out: &mut [u8]) -> Option<usize> {
        let mut value = [0; VALUE_BYTES_MAX];
        let mut writer = Writer::new(&mut value);
        match self.step()? {
            Step::Ask(property) => return crate::Frame { tid, body: Body::Get(property) }.write(out),
            Step::On(_) => writer.put(&[1])?,
            Step::Off(_) => writer.put(&[0])?,
            Step::Pan => writer.put(&config.pan.to_le_bytes())?,
            Step::Short => writer.put(&NO_SHORT_ADDRESS.to_le_bytes())?,
            Step::Long => writer.put(&config.eui.0)?,
            Step::Channel => writer.put(&[config.channel])?,
        };
        let length = writer.written();
        crate::Frame { tid, body: Body::Set(self.property(), value.get(..length)?) }.write(out)
    }

    /// Reads the answer to this step.
    ///
    /// # Errors
    /// Why this co-processor will not do.
    pub fn read(self, value: &[u8], told: &mut Told) -> Result<(), Loss> {
        let mut reader = Reader::new(value);
        match self.property() {
            property::PROTOCOL_VERSION => {
                let (major, minor) = (reader.packed().unwrap_or(0), reader.packed().unwrap_or(0));
                if major != PROTOCOL_MAJOR {
                    return Err(Loss::Version { major, minor });
                }
            }
            property::CAPS => {
                let mut radio = false;
                while let Some(capability) = reader.packed() {
                    radio |= matches!(capability, CAP_CONFIG_RADIO | CAP_MAC_RAW);
                }
                if !radio {
                    return Err(Loss::NoRadio);
                }
            }
            property::HWADDR => told.hardware = reader.array().map(DeviceId),
            _ => {}
        }
        Ok(())
    }
}
