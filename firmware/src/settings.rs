//! What a board is told, as words `name=value` between spaces or lines, wherever they come from: a command line, or a [page](crate::page) of flash.
//! A word that is not understood stops the board before it does anything: one that guesses would sit silent in the wrong network.
//!
//! Words of one kind of board only are that board's to know: it is asked about each that is not known here.

use core::fmt;
use core::str::FromStr;

use tidelog_lowpan::time::Duration;
use tidelog_lowpan::{EndpointConfig, NetworkKey};
use tidelog_record::DeviceId;

use crate::config::Gateways;

/// How often the sensor is read unless told otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// How long a sample waits for others unless told otherwise.
pub const LINGER_DEFAULT: Duration = Duration::from_secs(10);

/// What a board is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address, PAN, channel and key.
    pub station: EndpointConfig,
    /// Where it sends to.
    pub gateways: Gateways,
    /// How often the sensor is read.
    pub interval: Duration,
    /// How long a sample waits for others to fill a batch.
    pub linger: Duration,
}

/// What a board makes of a word that may be its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is the board's, and taken.
    Taken,
    /// The name is the board's, the value is none of it.
    Bad,
    /// The board does not know it either.
    Unknown,
}

/// Why a board does not start.
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
    let millis: u32 = value(name, text)?;
    if millis == 0 { Err(SettingsError::Bad(name)) } else { Ok(Duration::from_millis(u64::from(millis))) }
}

impl Settings {
    /// Reads words. `eui` is the address of a board that has one of its own, for when no word says another; `own` is asked about each
    /// name and value that is not known here.
    ///
    /// # Errors
    /// The first word that is wrong, or a word that is missing.
    pub fn parse<'a>(
        words: &'a str,
        mut eui: Option<DeviceId>,
        mut own: impl FnMut(&'a str, &'a str) -> Word,
    ) -> Result<Self, SettingsError<'a>> {
        let (mut primary, mut backup, mut key) = (None, None, None);
        let mut station = EndpointConfig::new(DeviceId([0; 8]));
        let (mut interval, mut linger) = (INTERVAL_DEFAULT, LINGER_DEFAULT);
        for word in words.split_ascii_whitespace() {
            let (name, text) = word.split_once('=').ok_or(SettingsError::Unknown(word))?;
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
                _ => match own(name, text) {
                    Word::Taken => {}
                    Word::Bad => return Err(SettingsError::Bad(name)),
                    Word::Unknown => return Err(SettingsError::Unknown(name)),
                },
            }
        }
        station.eui = eui.ok_or(SettingsError::Missing("eui"))?;
        station.key = key.ok_or(SettingsError::Missing("key"))?;
        let primary = primary.ok_or(SettingsError::Missing("gateway"))?;
        station.check().map_err(|_| SettingsError::Bad("channel or pan"))?;
        Ok(Self { station, gateways: Gateways { primary, backup }, interval, linger })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    const LEAST: &str = "eui=02124b0000000001 gateway=0212000000000001 key=open";
    const EUI: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]);

    fn parse(words: &str) -> Result<Settings, SettingsError<'_>> {
        Settings::parse(words, None, |_, _| Word::Unknown)
    }

    #[test]
    fn three_words_are_enough_and_the_rest_has_defaults() {
        let settings = parse(LEAST).unwrap();
        let wanted = Settings {
            station: EndpointConfig::new(EUI),
            gateways: Gateways { primary: DeviceId([2, 0x12, 0, 0, 0, 0, 0, 1]), backup: None },
            interval: INTERVAL_DEFAULT,
            linger: LINGER_DEFAULT,
        };
        assert_eq!(settings, wanted);
    }

    #[test]
    fn every_word_is_taken_also_from_lines_and_the_last_of_a_name_counts() {
        let words = "eui=02124b0000000001\ngateway=0212000000000001\r\nbackup=0212000000000002 pan=0xabcd pan=35 channel=11\n\
             key=5b1f0e6c94d8a7723c11f06e88d2b94a interval_ms=1500 linger_ms=1\n";
        let settings = parse(words).unwrap();
        let station = EndpointConfig {
            pan: 35,
            channel: 11,
            key: Some("5b1f0e6c94d8a7723c11f06e88d2b94a".parse().unwrap()),
            ..EndpointConfig::new(EUI)
        };
        assert_eq!(settings.station, station);
        assert_eq!(settings.gateways.backup, Some(DeviceId([2, 0x12, 0, 0, 0, 0, 0, 2])));
        assert_eq!(
            (settings.interval, settings.linger),
            (Duration::from_millis(1500), Duration::from_millis(1))
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_a_key_never_said() {
        for (more, said) in [
            ("pan=0xffff", "channel or pan=…: this is no value of it"),
            ("channel=27", "channel or pan=…: this is no value of it"),
            ("channel=x", "channel=…: this is no value of it"),
            ("interval_ms=0", "interval_ms=…: this is no value of it"),
            ("linger_ms=18446744073709551615", "linger_ms=…: this is no value of it"),
            ("key=0123", "key=…: a network key is 32 hex digits, or 'open' for none"),
            ("colour=blue", "'colour' is not known"),
            ("board", "'board' is not known"),
        ] {
            let words = [LEAST, more].join(" ");
            assert_eq!(parse(&words).map_err(|error| error.to_string()), Err(String::from(said)));
        }
        for missing in ["eui", "gateway", "key"] {
            let words: Vec<&str> = LEAST.split(' ').filter(|word| !word.starts_with(missing)).collect();
            assert_eq!(parse(&words.join(" ")), Err(SettingsError::Missing(missing)));
        }
    }

    #[test]
    fn a_board_has_an_address_and_words_of_its_own() {
        let factory = DeviceId([9; 8]);
        let mut brightness = None;
        let mut own = |name: &str, text: &str| match (name, text.parse::<u8>()) {
            ("brightness", Ok(value)) => {
                brightness = Some(value);
                Word::Taken
            }
            ("brightness", Err(_)) => Word::Bad,
            _ => Word::Unknown,
        };
        let words = "gateway=0212000000000001 key=open brightness=7";
        assert_eq!(Settings::parse(words, Some(factory), &mut own).unwrap().station.eui, factory);
        assert_eq!(Settings::parse(LEAST, Some(factory), &mut own).unwrap().station.eui, EUI);
        let bad = Settings::parse("brightness=dark", Some(factory), &mut own);
        assert_eq!(bad, Err(SettingsError::Bad("brightness")));
        let unknown = Settings::parse("colour=7", Some(factory), &mut own);
        assert_eq!(unknown, Err(SettingsError::Unknown("colour")));
        assert_eq!(brightness, Some(7));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), words in prop::collection::vec(word(), 0..12)) {
            for text in [text, words.join(" ")] {
                if let Err(error) = parse(&text) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    /// A word that is nearly one.
    fn word() -> impl Strategy<Value = String> {
        const NAMES: &[&str] =
            &["eui", "gateway", "backup", "key", "pan", "channel", "interval_ms", "linger_ms", ""];
        let values = prop_oneof![
            "[0-9a-f]{16}",
            "[0-9a-f]{32}",
            any::<u64>().prop_map(|number| number.to_string()),
            any::<u16>().prop_map(|number| std::format!("{number:#x}")),
            Just(String::from("open")),
            "\\PC{0,8}",
        ];
        (prop::sample::select(NAMES), values).prop_map(|(name, value)| std::format!("{name}={value}"))
    }
}
