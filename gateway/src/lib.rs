//! The gateway: a node with a radio. Sensors post what they have sensed over CoAP; the border puts it into the node's
//! log and answers when it is durable. Other people's devices post SenML, over the radio or over UDP (`coap`). Everything else (HTTP,
//! MQTT, replication) is the node's.
//!
//! Thin: one radio, a co-processor (Spinel) on a serial line or behind a TCP socket, or a simulated air (ZEP over UDP). Linux's `lowpan0`
//! becomes a further scheme of `--radio`.

mod append;
mod border;
mod coap;
mod key;
mod requests;
pub mod settings;
mod sharing;

use tidelog_lowpan::EndpointConfig;
use tidelog_node::daemon::Daemon;
use tidelog_node::settings::Common;
use tidelog_node::{NodeContext, StartError};
use tidelog_record::{DeviceId, NodeId};

use crate::border::Capture;
use crate::settings::{GatewaySettings, RadioSettings, RadioUrl};

/// Frame counters reserved at a time: the file that keeps them is written once in half as many frames.
const COUNTER_BLOCK: u32 = 16_384;

impl Daemon for GatewaySettings {
    fn common(&self) -> &Common {
        &self.common
    }

    async fn start(&self, context: &NodeContext) -> Result<(), StartError> {
        coap::start(context, &self.coap).await?;
        let RadioSettings {
            url,
            eui,
            pan,
            channel,
            radio_key_file,
            radio_key,
            share_sensors,
            pcap,
            pcap_bytes_max,
        } = self.radio.clone();
        let Some(url) = url else {
            if pcap.is_some() {
                let reason = "there are no frames to capture without a radio: set radio as well".to_owned();
                return Err(StartError::Setting { key: "pcap", reason });
            }
            tracing::warn!("no --radio is set: no sensor is heard");
            return Ok(());
        };
        let eui = eui.unwrap_or_else(|| eui_of(context.store.node()));
        let key = key::network_key(radio_key_file.as_deref(), radio_key.as_ref())?;
        let kernel = matches!(url, RadioUrl::Lowpan(_));
        if kernel && key.is_some() {
            let reason = "the kernel has the frames of a lowpan:// radio and the keys to them: give it the key, and leave this one out";
            return Err(StartError::Setting { key: "radio_key", reason: reason.to_owned() });
        }
        if kernel && pcap.is_some() {
            let reason = "the kernel has the frames of a lowpan:// radio: capture them with tcpdump on its wpan interface";
            return Err(StartError::Setting { key: "pcap", reason: reason.to_owned() });
        }
        if key.is_none() && !kernel {
            tracing::warn!("no radio key is set: the air is open, and anyone near can read and report");
        }
        let counter_block = COUNTER_BLOCK;
        // A co-processor acknowledges and repeats by itself.
        let soft_mac = matches!(url, RadioUrl::Zep(_));
        let station =
            EndpointConfig { pan: pan.0, channel, key, counter_block, soft_mac, ..EndpointConfig::new(eui) };
        let capture = pcap.map(|path| {
            Capture::create(&path, pcap_bytes_max).map_err(|error| StartError::Setting {
                key: "pcap",
                reason: format!("{} cannot be written: {error}", path.display()),
            })
        });
        border::start(context, url, station, share_sensors, capture.transpose()?)
    }
}

/// The standard library keys its hash maps from the operating system's random numbers.
fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The EUI-64 of a gateway that was given none: the first half of its node id, marked as locally administered and as no
/// group's, so that it stays the same as long as the node's key does.
fn eui_of(node: NodeId) -> DeviceId {
    let [first, b, c, d, e, f, g, h, ..] = node.0;
    DeviceId([first & !0b01 | 0b10, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_made_from_a_node_id_is_local_and_no_groups() {
        for first in 0..=u8::MAX {
            let mut id = [7; 16];
            id[0] = first;
            let DeviceId([made, ..]) = eui_of(NodeId(id));
            assert_eq!((made & 0b11, made & !0b11), (0b10, first & !0b11));
        }
    }
}
