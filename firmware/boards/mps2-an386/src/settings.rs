//! What the board is told, as words `name=value` of its command line. A word that is not understood stops the board before it does anything:
//! one that guesses would sit silent in the wrong network.

use core::fmt;
use core::str::FromStr;

use tidelog_firmware::lowpan::time::Duration;
use tidelog_firmware::lowpan::{EndpointConfig, NetworkKey};
use tidelog_firmware::{DeviceId, Gateways};

/// How often the sensor is read unless told otherwise.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// How long a sample waits for others unless told otherwise.
const LINGER_DEFAULT: Duration = Duration::from_secs(10);

/// What the board is told.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// Address, PAN, channel and key.
    pub station: EndpointConfig,
    /// Where it sends to.
    pub gateways: Gateways,
    /// How often the sensor is read.
    pub interval: Duration,
    /// How long a sample waits for others to fill a batch.
    pub linger: Duration,
    /// The host's file of what there is to measure.
    pub readings: Option<&'a str>,
}

/// Why the board does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsError<'a> {
    /// There must be one.
    Missing(&'static str),
    /// The value is none of this name.
    Bad(&'a str),
    /// No such name.
    Unknown(&'a str),
}

impl fmt::Display for SettingsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "{name}=… is missing"),
            // A key is never said.
            Self::Bad("key") => f.write_str("key=…: a network key is 32 hex digits, or 'open' for none"),
            Self::Bad(name) => write!(f, "{name}=…: this is no value of it"),
            Self::Unknown(word) => write!(f, "'{word}' is not known"),
        }
    }
}

fn value<'a, T: FromStr>(name: &'a str, text: &str) -> Result<T, SettingsError<'a>> {
    text.parse().map_err(|_| SettingsError::Bad(name))
}

fn pan<'a>(name: &'a str, text: &str) -> Result<u16, SettingsError<'a>> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).map_err(|_| SettingsError::Bad(name)),
        None => value(name, text),
    }
}

/// Milliseconds, 1 and more.
fn millis<'a>(name: &'a str, text: &str) -> Result<Duration, SettingsError<'a>> {
    let millis = value(name, text)?;
    if millis == 0 { Err(SettingsError::Bad(name)) } else { Ok(Duration::from_millis(millis)) }
}

impl<'a> Settings<'a> {
    /// Reads the words of a command line; the program's own name, without `=`, may stand first.
    pub fn parse(line: &'a str) -> Result<Self, SettingsError<'a>> {
        let (mut eui, mut primary, mut backup, mut key) = (None, None, None, None);
        let mut station = EndpointConfig::new(DeviceId([0; 8]));
        let mut readings = None;
        let (mut interval, mut linger) = (INTERVAL_DEFAULT, LINGER_DEFAULT);
        for (place, word) in line.split_ascii_whitespace().enumerate() {
            let Some((name, text)) = word.split_once('=') else {
                if place == 0 {
                    continue;
                }
                return Err(SettingsError::Unknown(word));
            };
            match name {
                "eui" => eui = Some(value(name, text)?),
                "gateway" => primary = Some(value(name, text)?),
                "backup" => backup = Some(value(name, text)?),
                "key" if text == "open" => key = Some(None),
                "key" => key = Some(Some(value::<NetworkKey>(name, text)?)),
                "pan" => station.pan = pan(name, text)?,
                "channel" => station.channel = value(name, text)?,
                "interval_ms" => interval = millis(name, text)?,
                "linger_ms" => linger = millis(name, text)?,
                "readings" => readings = Some(text),
                _ => return Err(SettingsError::Unknown(name)),
            }
        }
        station.eui = eui.ok_or(SettingsError::Missing("eui"))?;
        station.key = key.ok_or(SettingsError::Missing("key"))?;
        let primary = primary.ok_or(SettingsError::Missing("gateway"))?;
        // The radio acknowledges and repeats.
        station.soft_mac = false;
        station.check().map_err(|_| SettingsError::Bad("channel or pan"))?;
        Ok(Self { station, gateways: Gateways { primary, backup }, interval, linger, readings })
    }
}
