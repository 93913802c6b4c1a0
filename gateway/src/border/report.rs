//! How the radio is, for `/api/v1/status` and `/metrics`: what the endpoint counted, which sensors were heard and how well,
//! and whether anything is heard at all. It only reads, except for the few drops that happen outside the endpoint.

use std::io;

use serde_json::{Value, json};
use tidelog_lowpan::time::Instant;
use tidelog_lowpan::{Counters, EndpointConfig, GatewayEndpoint};
use tidelog_node::{Metrics, NodeContext};
use tidelog_record::DeviceId;
use tokio::sync::watch;

use super::devices::Battery;
use super::radio::Radio;
use super::server::Server;
use super::spinel::CoprocessorState;
use crate::settings::RadioUrl;

/// One sensor.
#[derive(Clone, Debug)]
struct DeviceReport {
    device: String,
    heard_ms: i64,
    /// Signal strength in dBm and link quality; the kernel does not tell them.
    quality: Option<(i8, u8)>,
    /// Frames that came, datagrams where the kernel has the frames.
    frames: u32,
    /// Frames that did not come; the kernel does not tell them.
    missed: Option<u32>,
    unacknowledged: u32,
    firmware: Option<String>,
    battery: Option<Battery>,
    /// Epoch and sequence number.
    acknowledged: Option<(u32, u64)>,
}

/// The radio at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    radio: String,
    station: EndpointConfig,
    open: bool,
    coprocessor: Option<CoprocessorState>,
    heard_ms: Option<i64>,
    error: Option<String>,
    counters: Counters,
    frame_counters_left: Option<u32>,
    appending: usize,
    devices: Vec<DeviceReport>,
}

impl Report {
    /// The report until there is one.
    #[must_use]
    pub fn before_start(radio: &RadioUrl, station: &EndpointConfig) -> Self {
        Self {
            radio: radio.to_string(),
            station: station.clone(),
            open: false,
            coprocessor: None,
            heard_ms: None,
            error: None,
            counters: Counters::default(),
            frame_counters_left: None,
            appending: 0,
            devices: Vec::new(),
        }
    }

    /// The status section `radio`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let devices: Vec<Value> = self
            .devices
            .iter()
            .map(|device| {
                json!({
                    "device": device.device,
                    "last_seen_ms": device.heard_ms,
                    "rssi_dbm": device.quality.map(|(rssi_dbm, _)| rssi_dbm),
                    "lqi": device.quality.map(|(_, lqi)| lqi),
                    "frames": device.frames,
                    "frames_missed": device.missed,
                    "unacknowledged": device.unacknowledged,
                    "firmware": device.firmware,
                    "battery": device.battery.as_ref().map(|battery| json!({"metric": battery.metric, "value": battery.value})),
                    "epoch": device.acknowledged.map(|(epoch, _)| epoch),
                    "acked_seq": device.acknowledged.map(|(_, seq)| seq),
                })
            })
            .collect();
        let named = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| -> Value {
            counts
                .map(|(name, count)| (name.to_owned(), Value::from(count)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "url": self.radio,
            "eui": self.station.eui.to_string(),
            "pan": format!("0x{:04x}", self.station.pan),
            "channel": self.station.channel,
            "link_security": self.station.key.is_some(),
            "frame_counters_left": self.frame_counters_left,
            "open": self.open,
            "coprocessor": self.coprocessor.map(|coprocessor| json!({
                "ready": coprocessor.ready,
                "eui": coprocessor.hardware.map(|eui| eui.to_string()),
                "baud": coprocessor.baud,
            })),
            "last_heard_ms": self.heard_ms,
            "error": self.error,
            "appending": self.appending,
            "counters": named(&mut self.counters.named()),
            "drops": named(&mut self.counters.drops.named()),
            "devices": devices,
        })
    }
}

/// Makes reports and keeps the counters of the node in step with the endpoint's.
#[derive(Debug)]
pub struct Reporter {
    sender: watch::Sender<Report>,
    counted: Counters,
    heard_ms: Option<i64>,
    error: Option<String>,
}

impl Reporter {
    /// Reports go where `sender` leads.
    #[must_use]
    pub fn new(sender: watch::Sender<Report>) -> Self {
        Self { sender, counted: Counters::default(), heard_ms: None, error: None }
    }

    /// A frame was heard.
    pub fn heard(&mut self, clock_ms: i64) {
        self.heard_ms = Some(clock_ms);
        if self.error.take().is_some() {
            tracing::info!("the radio is heard again");
        }
    }

    /// A frame was handed to the socket, or not.
    pub fn sent(&mut self, sent: io::Result<()>) {
        if let Err(error) = sent {
            self.note(&error);
        }
    }

    /// The socket gave an error instead of a datagram.
    pub fn failed(&mut self, metrics: &Metrics, error: &io::Error) {
        self.dropped(metrics, "socket_error");
        self.note(error);
    }

    /// Something was dropped outside the endpoint.
    pub fn dropped(&self, metrics: &Metrics, reason: &str) {
        metrics.radio_drops.with_label_values(&[reason]).inc();
    }

    fn note(&mut self, error: &io::Error) {
        if self.error.is_none() {
            tracing::warn!(%error, "the radio does not answer");
        }
        self.error = Some(error.to_string());
    }

    /// Brings metrics and status up to now.
    pub fn publish(
        &mut self,
        context: &NodeContext,
        endpoint: &GatewayEndpoint,
        server: &Server,
        air: &Radio,
        now: Instant,
    ) {
        let coprocessor = air.coprocessor();
        if coprocessor.is_some_and(|coprocessor| coprocessor.ready) && self.error.take().is_some() {
            tracing::info!("the radio is there again");
        }
        let counters = *endpoint.counters();
        self.count(&context.metrics, &counters);
        let clock_ms = context.now_ms();
        let of_server = |device: DeviceId| {
            let (firmware, battery) = server.told(device);
            DeviceReport {
                device: device.to_string(),
                heard_ms: 0,
                quality: None,
                frames: 0,
                missed: None,
                unacknowledged: 0,
                firmware: firmware.map(str::to_owned),
                battery: battery.cloned(),
                acknowledged: server.acknowledged(device),
            }
        };
        let mut devices: Vec<DeviceReport> = endpoint
            .neighbors()
            .map(|neighbor| DeviceReport {
                heard_ms: clock_ms.saturating_sub(now.total_millis() - neighbor.heard.total_millis()),
                quality: Some((neighbor.quality.rssi_dbm, neighbor.quality.lqi)),
                frames: neighbor.frames_in,
                missed: Some(neighbor.frames_missed),
                unacknowledged: neighbor.unacknowledged,
                ..of_server(neighbor.device)
            })
            .collect();
        if let Radio::Kernel(air) = air {
            devices.extend(air.heard().map(|(device, sender)| DeviceReport {
                heard_ms: sender.heard_ms,
                frames: sender.datagrams,
                ..of_server(device)
            }));
        }
        devices.sort_by(|a, b| a.device.cmp(&b.device));
        self.sender.send_modify(|report| {
            report.open = true;
            report.coprocessor = coprocessor;
            report.heard_ms = self.heard_ms;
            report.error.clone_from(&self.error);
            report.counters = counters;
            report.frame_counters_left = endpoint.counters_left();
            report.appending = server.appending();
            report.devices = devices;
        });
    }

    fn count(&mut self, metrics: &Metrics, now: &Counters) {
        let before = std::mem::replace(&mut self.counted, *now);
        let frames =
            |direction: &str, count| metrics.radio_frames.with_label_values(&[direction]).inc_by(count);
        frames("in", now.frames_in - before.frames_in);
        frames("out", now.frames_out - before.frames_out);
        let bytes =
            |direction: &str, count| metrics.radio_bytes.with_label_values(&[direction]).inc_by(count);
        bytes("in", now.bytes_in - before.bytes_in);
        bytes("out", now.bytes_out - before.bytes_out);
        for ((reason, count), (_, counted)) in now.drops.named().zip(before.drops.named()) {
            metrics.radio_drops.with_label_values(&[reason]).inc_by(count - counted);
        }
    }
}
