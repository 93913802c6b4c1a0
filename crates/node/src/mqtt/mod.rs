//! MQTT: the log as messages for anyone (`bridge`), the node's own presence and commands to its devices (`control`), and messages of
//! other nodes as records in the log (`ingest`).
//!
//! All are edges: the bridge is a cursor over the store's log, ingest is one more way in. What stands in a message is
//! [`payload`]'s affair, where it is published [`topic`]'s; `docs/MQTT.md` tells both to those who subscribe.
//!
//! `client` speaks MQTT 3.1.1 or 5 and is the only one that knows which. `foreign` reads what other
//! programs publish, `sparkplug` what edge nodes of Sparkplug B do.

mod books;
mod bridge;
mod broker;
mod client;
mod control;
mod discovery;
mod foreign;
mod ingest;
pub mod payload;
mod presence;
mod receipts;
mod recent;
mod session;
mod sparkplug;
pub mod topic;
mod window;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

pub use bridge::{BridgeStatus, CURSOR};
pub use ingest::IngestStatus;
pub use session::LinkStatus;

use crate::context::{NodeContext, StartError};
use crate::rule::Rules;
use crate::settings::{BrokerUrl, IngestSettings, MqttPayload, MqttSettings, MqttVersion};
use bridge::{Bridge, Progress};
use broker::{BrokerError, Login, client_id, options};
use control::Control;
use discovery::Discovery;
use foreign::Forms;
use ingest::{IN_HAND_MAX, Ingest};
use payload::Encoding;
use session::Link;
use topic::{CommandTopic, CommandTopicError};

/// Starts what the settings ask for: the bridge, ingest, both or neither. It connects in the background and tries again
/// for as long as the node runs; only settings that can never work are an error.
///
/// # Errors
/// [`StartError::Setting`].
pub fn start(
    context: &NodeContext,
    mqtt: &MqttSettings,
    ingest: &IngestSettings,
    rules: &Rules,
) -> Result<(), StartError> {
    if let Some(url) = &mqtt.url {
        start_bridge(context, mqtt, url, rules)?;
    }
    if let Some(url) = &ingest.url {
        start_ingest(context, ingest, url)?;
    }
    Ok(())
}

fn start_bridge(
    context: &NodeContext,
    settings: &MqttSettings,
    url: &BrokerUrl,
    rules: &Rules,
) -> Result<(), StartError> {
    let login = Login {
        url,
        version: settings.version,
        user: settings.user.as_deref(),
        password: settings.password.as_ref(),
        authority: settings.ca.as_deref(),
        own: settings.cert.as_deref().zip(settings.key.as_deref()),
    };
    let client_id = settings.client_id.clone().unwrap_or_else(|| client_id(context.store.node(), 'b'));
    let bridge_options = options(login, client_id).map_err(|error| refused(&error, &MQTT_KEYS))?;
    start_control(context, settings, url, login)?;
    let link = Arc::new(Link::new("bridge", url, Arc::clone(&context.metrics)));
    let progress = Arc::new(Mutex::new(Progress::default()));
    let encoding = match settings.payload {
        MqttPayload::Msgpack => Encoding::MessagePack,
        MqttPayload::Json => Encoding::Json,
    };
    let discovery = settings.discovery_prefix.clone().map(|prefix| Discovery {
        prefix,
        topic: settings.topic.clone(),
        silence_s: settings.device_silence_s,
    });
    if discovery.is_some() && encoding != Encoding::Json {
        let reason = "Home Assistant reads JSON alone: set mqtt.payload = \"json\" as well".to_owned();
        return Err(StartError::Setting { key: "mqtt.discovery_prefix", reason });
    }
    if discovery.is_some() && !settings.topic.to_string().contains("{device}") {
        let reason = "a sensor is told by its topic: {device} has to stand in mqtt.topic".to_owned();
        return Err(StartError::Setting { key: "mqtt.discovery_prefix", reason });
    }
    let (store, shown_link, shown_progress) =
        (context.store.clone(), Arc::clone(&link), Arc::clone(&progress));
    context.status.section("mqtt", move || json!(bridge::status(&shown_link, &shown_progress, store.head())));
    let bridge = Bridge {
        context: context.clone(),
        options: bridge_options,
        topic: settings.topic.clone(),
        encoding,
        discovery,
        rules: rules.clone(),
        link,
        progress,
    };
    let tasks = bridge.context.tasks.clone();
    tasks.spawn(bridge.run());
    Ok(())
}

fn start_ingest(context: &NodeContext, settings: &IngestSettings, url: &BrokerUrl) -> Result<(), StartError> {
    let login = Login {
        url,
        version: settings.version,
        user: settings.user.as_deref(),
        password: settings.password.as_ref(),
        authority: settings.ca.as_deref(),
        own: settings.cert.as_deref().zip(settings.key.as_deref()),
    };
    let client_id = settings.client_id.clone().unwrap_or_else(|| client_id(context.store.node(), 'i'));
    let mut options = options(login, client_id).map_err(|error| refused(&error, &INGEST_KEYS))?;
    if settings.session_expiry_s.is_some() && settings.version == MqttVersion::V3 {
        let reason = "MQTT 3.1.1 has no word for it: of use with ingest.version = \"5\" alone".to_owned();
        return Err(StartError::Setting { key: "ingest.session_expiry_s", reason });
    }
    options.keep_session(settings.session_expiry_s, IN_HAND_MAX);
    let link = Arc::new(Link::new("ingest", url, Arc::clone(&context.metrics)));
    let topic = settings.topic.clone();
    let mut taken = vec![topic.to_string()];
    let sparkplug = settings.sparkplug;
    if sparkplug.is_heard() {
        if foreign::overlap(topic.as_str(), sparkplug::FILTER) {
            let reason = format!("{topic:?} takes topics of Sparkplug B: {}", sparkplug::FILTER);
            return Err(StartError::Setting { key: "ingest.topic", reason });
        }
        taken.push(sparkplug::FILTER.to_owned());
    }
    let forms = match &settings.messages {
        Some(path) => Forms::load(path, &context.site, taken)
            .map_err(|error| StartError::Setting { key: "ingest.messages", reason: error.to_string() })?,
        None => Forms::default(),
    };
    let (shown_link, shown_topic, shown_forms) = (Arc::clone(&link), topic.clone(), forms.clone());
    context
        .status
        .section("ingest", move || json!(ingest::status(&shown_link, &shown_topic, &shown_forms, sparkplug)));
    let ingest = Ingest { context: context.clone(), options, topic, forms, sparkplug, link };
    let tasks = context.tasks.clone();
    tasks.spawn(ingest.run());
    Ok(())
}

/// The node's presence, and commands, beside the bridge.
fn start_control(
    context: &NodeContext,
    settings: &MqttSettings,
    url: &BrokerUrl,
    login: Login<'_>,
) -> Result<(), StartError> {
    let node = context.store.node();
    let commands = settings.command_topic.as_ref().map(|topic| CommandTopic::of(topic, &context.site, node));
    let commands = commands.transpose().map_err(|error: CommandTopicError| StartError::Setting {
        key: "mqtt.command_topic",
        reason: error.to_string(),
    })?;
    let device_state_topic = settings.device_state_topic.clone();
    let written = device_state_topic.to_string();
    if !written.contains("{device}") || !written.contains("{node}") {
        return Err(StartError::Setting {
            key: "mqtt.device_state_topic",
            reason: "{node} and {device} stand in it, for each node speaks for itself of each of its sensors"
                .to_owned(),
        });
    }
    let silence = Duration::from_secs(u64::from(settings.device_silence_s));
    let own = options(login, client_id(node, 'c')).map_err(|error| refused(&error, &MQTT_KEYS))?;
    let link = Arc::new(Link::new("control", url, Arc::clone(&context.metrics)));
    let shown = Arc::clone(&link);
    context.status.section("mqtt_control", move || json!(shown.read()));
    let state_topic = settings.state_topic.topic(&context.site, node, None);
    let control = Control {
        context: context.clone(),
        options: own,
        state_topic,
        device_state_topic,
        silence,
        commands,
        link,
    };
    context.tasks.spawn(control.run());
    Ok(())
}

/// Where the settings of a broker stand.
struct Keys {
    url: &'static str,
    ca: &'static str,
    cert: &'static str,
}

const MQTT_KEYS: Keys = Keys { url: "mqtt.url", ca: "mqtt.ca", cert: "mqtt.cert" };
const INGEST_KEYS: Keys = Keys { url: "ingest.url", ca: "ingest.ca", cert: "ingest.cert" };

fn refused(error: &BrokerError, keys: &Keys) -> StartError {
    let key = match error {
        BrokerError::Authority { .. } | BrokerError::NoAuthorities => keys.ca,
        BrokerError::Own { .. } | BrokerError::OwnWithoutTls => keys.cert,
        BrokerError::Ipv6WithTls | BrokerError::Tls(_) => keys.url,
    };
    StartError::Setting { key, reason: error.to_string() }
}
