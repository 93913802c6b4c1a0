//! The gateway's own options beside those that every node has. What was typed becomes what it means here; who listens
//! on the air is not known.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use tidelog_lowpan::EndpointConfig;
use tidelog_node::settings::{AddressError, Common, HostPort, Secret};
use tidelog_record::DeviceId;

/// The network that a station joins unless told otherwise.
const STATION: EndpointConfig = EndpointConfig::new(DeviceId([0; 8]));

/// 16 MiB: some 160,000 frames.
const PCAP_BYTES_MAX_DEFAULT: u64 = 16 << 20;

/// All options of a gateway.
#[derive(Args, Clone, Debug)]
pub struct GatewaySettings {
    /// What only a gateway has.
    #[command(flatten)]
    pub radio: RadioSettings,

    /// Other people's devices.
    #[command(flatten)]
    pub coap: CoapSettings,

    /// What every node has.
    #[command(flatten)]
    pub common: Common,
}

/// The radio.
#[derive(Args, Clone, Debug)]
pub struct RadioSettings {
    /// Radio to listen on: `spinel:serial:///dev/ttyACM0` is a radio co-processor (OpenThread RCP) on a serial line, whose rate is found unless
    /// `?baud=460800` tells it, `spinel:tcp://HOST:PORT` one behind a TCP socket, `lowpan://lowpan0` a network interface of the kernel's own
    /// 6LoWPAN, `zep://HOST:PORT` an air simulated over UDP. Without one, no sensor is heard.
    #[arg(id = "radio", long = "radio", value_name = "URL")]
    pub url: Option<RadioUrl>,

    /// EUI-64 of this gateway on the air, 16 hex digits. Without it, one is derived from the node's id.
    #[arg(long, value_name = "EUI64")]
    pub eui: Option<DeviceId>,

    /// PAN identifier of the radio network.
    #[arg(long, value_name = "ID", default_value_t = Pan(STATION.pan))]
    pub pan: Pan,

    /// Channel in the 2.4 GHz band, 11 to 26.
    #[arg(long, value_name = "NUMBER", default_value_t = STATION.channel, value_parser = channel)]
    pub channel: u8,

    /// File with the network's key, 32 hex digits, which only the gateway's user should be able to read. Without a key the air
    /// is open: anyone near can read and report.
    #[arg(long, value_name = "FILE")]
    pub radio_key_file: Option<PathBuf>,

    /// The network's key itself, 32 hex digits; better given by variable or file than by flag.
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub radio_key: Option<Secret>,

    /// Write every frame that is heard and sent to this file, for Wireshark and tshark, which decrypt it with the network's key. What stands in
    /// it is overwritten.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Most bytes that the capture may take; then it ends.
    #[arg(long, value_name = "BYTES", default_value_t = PCAP_BYTES_MAX_DEFAULT)]
    pub pcap_bytes_max: u64,

    /// Share the sensors with the other gateways of the site: say how many are served here, and advise some to send to one that has fewer,
    /// or when the way to all other nodes is lost.
    #[arg(
        long,
        value_name = "true|false",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub share_sensors: bool,
}

/// The door for other people's CoAP devices.
#[derive(Args, Clone, Debug)]
pub struct CoapSettings {
    /// Address on which devices that post SenML over CoAP are answered, as `[::1]:5683`; without it none are, but those on the radio.
    #[arg(long, value_name = "ADDRESS")]
    pub coap_listen: Option<SocketAddr>,

    /// Answer CoAP from other machines too, which is otherwise refused, for it has neither tokens nor encryption: on networks that are
    /// trusted.
    #[arg(
        long,
        value_name = "true|false",
        default_value_t = false,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub coap_insecure: bool,
}

/// A channel that a station can be on; the endpoint knows which those are.
fn channel(text: &str) -> Result<u8, String> {
    let channel = text.parse().map_err(|_| "expected a channel number".to_owned())?;
    let station = EndpointConfig { channel, ..STATION };
    station.check().map(|()| channel).map_err(|error| error.to_string())
}

/// Where the radio is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RadioUrl {
    /// A ZEP version 2 dispatcher over UDP.
    Zep(HostPort),
    /// A radio co-processor that speaks Spinel.
    Spinel(SpinelPlace),
    /// A network interface of the kernel's own 6LoWPAN.
    Lowpan(String),
}

/// Where a radio co-processor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpinelPlace {
    /// Behind a TCP socket.
    Tcp(HostPort),
    /// On a serial line of this machine.
    Serial {
        /// The device's absolute path.
        device: PathBuf,
        /// Its rate in baud; found by trying if it was not told.
        baud: Option<u32>,
    },
}

impl fmt::Display for SpinelPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Serial { device, .. } => write!(f, "{}", device.display()),
        }
    }
}

/// Why a text names no radio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RadioUrlError {
    /// There is no driver of that name.
    #[error(
        "there is no radio {0:?} in this version: it knows spinel:serial:///dev/ttyACM0, a radio co-processor on a serial line, \
         spinel:tcp://HOST:PORT, one behind a TCP socket, lowpan://INTERFACE, the kernel's own 6LoWPAN, and zep://HOST:PORT, an air simulated \
         over UDP"
    )]
    Scheme(String),
    /// The driver is known, the address is bad.
    #[error("SCHEME://HOST:PORT: {0}")]
    Address(#[from] AddressError),
    /// A serial line without the path of its device.
    #[error("expected the device's whole path, as in spinel:serial:///dev/ttyACM0 (three slashes)")]
    Device,
    /// No network interface has such a name.
    #[error(
        "expected the name of a network interface, of 1 to {INTERFACE_BYTES_MAX} bytes, as in lowpan://lowpan0"
    )]
    Interface,
    /// Something else than a rate behind the device.
    #[error("only ?baud=RATE may follow the device, and not {0:?}")]
    Parameter(String),
    /// A rate that no serial line has.
    #[error("expected a rate of {BAUD_MIN} to {BAUD_MAX} baud, as in ?baud=460800")]
    Baud,
}

/// Longest name of an interface, in bytes (Linux's `IFNAMSIZ`, and the zero behind it).
const INTERFACE_BYTES_MAX: usize = 15;
/// The slowest rate that can be told, in baud.
const BAUD_MIN: u32 = 1_200;
/// The fastest rate that can be told, in baud.
const BAUD_MAX: u32 = 12_000_000;

/// Reads `/dev/ttyACM0` or `/dev/ttyACM0?baud=460800`.
fn serial(text: &str) -> Result<SpinelPlace, RadioUrlError> {
    let (device, parameter) =
        text.split_once('?').map_or((text, None), |(device, parameter)| (device, Some(parameter)));
    if !device.starts_with('/') || device.ends_with('/') {
        return Err(RadioUrlError::Device);
    }
    let baud = match parameter.map(|parameter| (parameter, parameter.strip_prefix("baud="))) {
        None => None,
        Some((parameter, None)) => return Err(RadioUrlError::Parameter(parameter.to_owned())),
        Some((_, Some(digits))) => {
            let baud = digits.parse().ok().filter(|baud| (BAUD_MIN..=BAUD_MAX).contains(baud));
            Some(baud.ok_or(RadioUrlError::Baud)?)
        }
    };
    Ok(SpinelPlace::Serial { device: PathBuf::from(device), baud })
}

/// Reads `lowpan0`.
fn interface(name: &str) -> Result<String, RadioUrlError> {
    let is_bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    let fits = (1..=INTERFACE_BYTES_MAX).contains(&name.len()) && name != "." && name != "..";
    if fits && !name.contains(is_bad) { Ok(name.to_owned()) } else { Err(RadioUrlError::Interface) }
}

impl FromStr for RadioUrl {
    type Err = RadioUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = |address: &str| address.strip_suffix('/').unwrap_or(address).parse();
        match text.split_once("://") {
            Some(("zep", address)) => Ok(Self::Zep(place(address)?)),
            Some(("spinel:tcp", address)) => Ok(Self::Spinel(SpinelPlace::Tcp(place(address)?))),
            Some(("spinel:serial", device)) => Ok(Self::Spinel(serial(device)?)),
            Some(("lowpan", interface)) => self::interface(interface).map(Self::Lowpan),
            Some((scheme, _)) => Err(RadioUrlError::Scheme(scheme.to_owned())),
            None => Err(RadioUrlError::Scheme(text.to_owned())),
        }
    }
}

impl fmt::Display for RadioUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zep(address) => write!(f, "zep://{address}"),
            Self::Lowpan(interface) => write!(f, "lowpan://{interface}"),
            Self::Spinel(place @ SpinelPlace::Tcp(_)) => write!(f, "spinel:tcp://{place}"),
            Self::Spinel(place @ SpinelPlace::Serial { baud, .. }) => {
                write!(f, "spinel:serial://{place}")?;
                baud.map_or(Ok(()), |baud| write!(f, "?baud={baud}"))
            }
        }
    }
}

/// A PAN identifier, written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pan(pub u16);

/// The text is no PAN identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a PAN identifier such as 0x0023, at most 0xfffe")]
pub struct ParsePanError;

impl FromStr for Pan {
    type Err = ParsePanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.ok().filter(|pan| *pan != u16::MAX).map(Self).ok_or(ParsePanError)
    }
}

impl fmt::Display for Pan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_name_that_the_kernel_can_have() {
        assert_eq!("lowpan://lowpan0".parse::<RadioUrl>().unwrap().to_string(), "lowpan://lowpan0");
        for name in ["", ".", "..", "a/b", "a b", "a-name-that-is-too-long"] {
            assert_eq!(
                format!("lowpan://{name}").parse::<RadioUrl>(),
                Err(RadioUrlError::Interface),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_radio_is_read_as_it_is_written() {
        let radio: RadioUrl = "zep://127.0.0.1:17754".parse().unwrap();
        assert_eq!(radio.to_string(), "zep://127.0.0.1:17754");
        assert_eq!(
            "spinel:tcp://dongle:9000".parse::<RadioUrl>().unwrap().to_string(),
            "spinel:tcp://dongle:9000"
        );
        assert_eq!("zep://[::1]:17754/".parse::<RadioUrl>().unwrap().to_string(), "zep://[::1]:17754");
    }

    #[test]
    fn a_serial_line_is_read_as_it_is_written() {
        for (text, baud) in [("/dev/ttyACM0", None), ("/dev/serial/by-id/usb=a?baud=460800", Some(460_800))] {
            let text = format!("spinel:serial://{text}");
            let radio: RadioUrl = text.parse().unwrap();
            assert_eq!(radio.to_string(), text);
            assert!(
                matches!(&radio, RadioUrl::Spinel(SpinelPlace::Serial { baud: told, .. }) if *told == baud),
                "{radio:?}"
            );
        }
    }

    #[test]
    fn a_serial_line_without_device_or_with_another_parameter_is_none() {
        let cases = [
            ("", RadioUrlError::Device),
            ("ttyACM0", RadioUrlError::Device),
            ("/dev/", RadioUrlError::Device),
            ("dev/ttyACM0?baud=115200", RadioUrlError::Device),
            ("/dev/ttyACM0?", RadioUrlError::Parameter(String::new())),
            ("/dev/ttyACM0?parity=even", RadioUrlError::Parameter("parity=even".to_owned())),
            ("/dev/ttyACM0?baud=", RadioUrlError::Baud),
            ("/dev/ttyACM0?baud=fast", RadioUrlError::Baud),
            ("/dev/ttyACM0?baud=1199", RadioUrlError::Baud),
            ("/dev/ttyACM0?baud=4294967296", RadioUrlError::Baud),
            ("/dev/ttyACM0?baud=115200&baud=57600", RadioUrlError::Baud),
        ];
        for (text, error) in cases {
            assert_eq!(format!("spinel:serial://{text}").parse::<RadioUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn an_unknown_radio_is_told_what_exists() {
        for text in ["spinel:///dev/ttyACM0", "lowpan0", ""] {
            let error = text.parse::<RadioUrl>().unwrap_err().to_string();
            assert!(error.contains("zep://HOST:PORT"), "{error}");
        }
        assert!(matches!("zep://nowhere".parse::<RadioUrl>(), Err(RadioUrlError::Address(_))));
    }

    #[test]
    fn only_a_channel_of_the_band_is_one() {
        assert_eq!((channel("11"), channel("26")), (Ok(11), Ok(26)));
        for text in ["10", "27", "256", "-1", ""] {
            assert!(channel(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pan_is_read_in_both_notations_and_the_broadcast_pan_is_none() {
        assert_eq!("0x0023".parse(), Ok(Pan(0x23)));
        assert_eq!("35".parse(), Ok(Pan(0x23)));
        assert_eq!(Pan(0x23).to_string(), "0x0023");
        for text in ["0xffff", "65536", "", "0x", "pan"] {
            assert_eq!(text.parse::<Pan>(), Err(ParsePanError), "{text}");
        }
    }
}
