//! Sparkplug B (3.0): what edge nodes and their devices publish under `spBv1.0/` becomes points. Pure: topics and payloads in, batches out, and
//! what was learned from births in between: which number stands for which metric, and of which type it is.
//!
//! A number has a meaning from the birth of its edge node until its death or next birth. What comes without one cannot be read, and is
//! said to be so, with whom to ask. Messages of an edge node are numbered from 0 to 255 and around: a hole says that something was missed.

mod payload;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use prost::Message;
use tidelog_record::{Batch, Series};

use payload::{Metric, Payload};

/// What all topics of Sparkplug B begin with.
pub(super) const NAMESPACE: &str = "spBv1.0/";

/// What to subscribe to.
pub(super) const FILTER: &str = "spBv1.0/#";

/// The metric that asks for a rebirth.
const REBIRTH: &str = "Node Control/Rebirth";

/// The metric that names an edge node's session.
const SESSION: &str = "bdSeq";

/// What an edge node can be told, and does not measure.
const CONTROL: &str = "Node Control/";

/// Longest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Edge nodes that are known. Past it the one heard of longest ago is forgotten.
const EDGES_MAX: usize = 256;

/// Metrics of one edge node and its devices that are known. Past it further ones are not learned.
const METRICS_MAX: usize = 8_192;

/// How often an edge node is asked for its births.
const ASK_EVERY: Duration = Duration::from_secs(30);

const NS_PER_MS: i64 = 1_000_000;

/// An edge node by its group and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Edge {
    pub group: String,
    pub node: String,
}

impl Edge {
    /// Where it takes commands.
    pub fn command_topic(&self) -> String {
        format!("{NAMESPACE}{}/NCMD/{}", self.group, self.node)
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SparkplugError {
    /// Not a topic of Sparkplug B, or a kind of message that says nothing of measurements.
    #[error("not a topic of Sparkplug B")]
    Topic,
    /// More bytes than [`PAYLOAD_BYTES_MAX`].
    #[error("{0} bytes, the most is {PAYLOAD_BYTES_MAX}")]
    TooLong(usize),
    /// No protobuf.
    #[error("the payload is not of Sparkplug B: {0}")]
    Syntax(String),
    /// Nothing is known of the metrics in it.
    #[error("edge node {0} of group {1} was not born as far as this node knows")]
    Unborn(String, String),
}

/// What came of a message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub batch: Batch,
    /// Why the first metric that could not be read could not, and how many there were.
    pub unfit: Option<(String, usize)>,
    /// Messages of this edge node that did not come.
    pub missed: u64,
}

/// A metric, as its birth says it.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    datatype: u32,
}

/// When edge nodes were asked for their births.
#[derive(Debug, Default)]
pub(super) struct Rebirths(HashMap<Edge, Instant>);

impl Rebirths {
    /// Whether one is to be asked now; it counts as asked then.
    pub fn is_due(&mut self, edge: &Edge, now: Instant) -> bool {
        self.0.retain(|_, asked| now.saturating_duration_since(*asked) < ASK_EVERY);
        if self.0.contains_key(edge) || self.0.len() >= EDGES_MAX {
            return false;
        }
        self.0.insert(edge.clone(), now);
        true
    }
}

/// What is known of an edge node.
#[derive(Debug, Default)]
struct Life {
    session: Option<u64>,
    /// The number of the message that came last.
    seq: Option<u64>,
    by_alias: HashMap<u64, Known>,
    /// Of metrics by the device that has them, and their names.
    by_name: HashMap<(Option<String>, String), u32>,
    heard: u64,
}

/// All edge nodes.
#[derive(Debug, Default)]
pub(super) struct Edges {
    lives: HashMap<Edge, Life>,
    clock: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Birth,
    Data,
    Death,
}

/// A topic, read.
struct Place<'t> {
    kind: Kind,
    edge: Edge,
    device: Option<&'t str>,
}

impl<'t> Place<'t> {
    /// `None` for what says nothing of measurements: commands, and the state of hosts.
    fn of(topic: &'t str) -> Result<Option<Self>, SparkplugError> {
        let mut levels = topic.strip_prefix(NAMESPACE).ok_or(SparkplugError::Topic)?.split('/');
        let (group, kind) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        if group == "STATE" {
            return Ok(None);
        }
        let (node, device, more) = (levels.next(), levels.next(), levels.next());
        let (kind, of_device) = match kind {
            "NBIRTH" => (Kind::Birth, false),
            "NDATA" => (Kind::Data, false),
            "NDEATH" => (Kind::Death, false),
            "DBIRTH" => (Kind::Birth, true),
            "DDATA" => (Kind::Data, true),
            "DDEATH" => (Kind::Death, true),
            "NCMD" | "DCMD" => return Ok(None),
            _ => return Err(SparkplugError::Topic),
        };
        let Some(node) = node.filter(|_| device.is_some() == of_device && more.is_none()) else {
            return Err(SparkplugError::Topic);
        };
        Ok(Some(Self { kind, edge: Edge { group: group.to_owned(), node: node.to_owned() }, device }))
    }
}

/// The edge node that a topic is of.
pub(super) fn edge_of(topic: &str) -> Option<Edge> {
    Place::of(topic).ok().flatten().map(|place| place.edge)
}

/// The message that asks an edge node for its births: topic and payload.
pub(super) fn rebirth(edge: &Edge, now_ms: i64) -> (String, Vec<u8>) {
    (edge.command_topic(), payload::rebirth(now_ms.unsigned_abs()))
}

impl Edges {
    /// Reads a message that came at `arrived_ns` (Unix). `None` for what says nothing of measurements.
    pub fn read(
        &mut self,
        topic: &str,
        bytes: &[u8],
        arrived_ns: i64,
    ) -> Result<Option<Heard>, SparkplugError> {
        let Some(place) = Place::of(topic)? else { return Ok(None) };
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(SparkplugError::TooLong(bytes.len()));
        }
        let payload = Payload::decode(bytes).map_err(|error| SparkplugError::Syntax(error.to_string()))?;
        let session = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(SESSION)).and_then(
            |metric| match metric.value.as_ref()? {
                payload::Written::Int(number) => Some(u64::from(*number)),
                payload::Written::Long(number) => Some(*number),
                _ => None,
            },
        );
        match (place.kind, place.device) {
            // A will of a session before the present one says nothing of this.
            (Kind::Death, None) => {
                let life = self.lives.get(&place.edge);
                if life.is_some_and(|life| life.session.is_none() || life.session == session) {
                    self.lives.remove(&place.edge);
                }
                return Ok(None);
            }
            (Kind::Birth, None) => {
                self.make_room();
                let life = Life { session, seq: payload.seq, ..Life::default() };
                self.lives.insert(place.edge.clone(), life);
            }
            _ => {}
        }
        self.clock += 1;
        let Some(life) = self.lives.get_mut(&place.edge) else {
            return Err(SparkplugError::Unborn(place.edge.node, place.edge.group));
        };
        life.heard = self.clock;
        let missed = if (place.kind, place.device.is_some()) == (Kind::Birth, false) {
            0
        } else {
            life.follow(payload.seq)
        };
        if place.kind == Kind::Birth {
            life.learn(place.device, &payload.metrics);
        }
        let mut heard = Heard { missed, ..Heard::default() };
        if place.kind != Kind::Death {
            for metric in &payload.metrics {
                life.hear(&place, metric, payload.timestamp_ms, arrived_ns, &mut heard);
            }
        }
        Ok(Some(heard))
    }

    fn make_room(&mut self) {
        while self.lives.len() >= EDGES_MAX {
            let oldest = self.lives.iter().min_by_key(|(_, life)| life.heard).map(|(edge, _)| edge.clone());
            let Some(oldest) = oldest else { return };
            self.lives.remove(&oldest);
        }
    }
}

impl Life {
    /// How many messages are missing before this one.
    fn follow(&mut self, seq: Option<u64>) -> u64 {
        let Some(seq) = seq.map(|seq| seq & 0xff) else { return 0 };
        let before = self.seq.replace(seq);
        before.map_or(0, |before| seq.wrapping_sub(before + 1) & 0xff)
    }

    fn learn(&mut self, device: Option<&str>, metrics: &[Metric]) {
        for metric in metrics {
            let (Some(name), Some(datatype)) = (&metric.name, metric.datatype) else { continue };
            if self.by_name.len() >= METRICS_MAX {
                return;
            }
            if let Some(alias) = metric.alias {
                self.by_alias.insert(alias, Known { name: name.clone(), datatype });
            }
            self.by_name.insert((device.map(str::to_owned), name.clone()), datatype);
        }
    }

    /// One metric as a point, or as one that cannot be.
    fn hear(
        &self,
        place: &Place<'_>,
        metric: &Metric,
        timestamp_ms: Option<u64>,
        arrived_ns: i64,
        heard: &mut Heard,
    ) {
        let by_alias = || metric.alias.and_then(|alias| self.by_alias.get(&alias));
        let name = metric.name.as_deref().or_else(|| by_alias().map(|known| known.name.as_str()));
        let mut unfit = |reason: String| {
            let (_, count) = heard.unfit.get_or_insert((reason, 0));
            *count += 1;
        };
        let Some(name) = name else {
            return unfit(format!("alias {:?}: its birth did not come", metric.alias));
        };
        if name == SESSION || name.starts_with(CONTROL) || metric.is_null == Some(true) {
            return;
        }
        let by_name = || self.by_name.get(&(place.device.map(str::to_owned), name.to_owned())).copied();
        let datatype = metric.datatype.or_else(|| by_alias().map(|known| known.datatype)).or_else(by_name);
        let value = metric.value.as_ref().zip(datatype).and_then(|(value, datatype)| value.of_type(datatype));
        let Some(value) = value else {
            return unfit(format!("{name}: a point cannot hold what it is, or its type was not told"));
        };
        let timestamp_ms = metric.timestamp_ms.or(timestamp_ms);
        let time = match timestamp_ms.map(|ms| i64::try_from(ms).ok()?.checked_mul(NS_PER_MS)) {
            Some(Some(time)) => time,
            Some(None) => return unfit(format!("{name}: its time is out of range")),
            None => arrived_ns,
        };
        match series(place, name) {
            Ok(series) => heard.batch.series.push((series, vec![(time, value)])),
            Err(reason) => unfit(format!("{name}: {reason}")),
        }
    }
}

/// The series of a metric: its name as one may be written, and as it is beside who has it.
fn series(place: &Place<'_>, name: &str) -> Result<Series, String> {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut metric: String = name.chars().map(legal).collect();
    if metric.starts_with(|c: char| c.is_ascii_digit()) {
        metric.insert(0, '_');
    }
    let labels = [
        ("group", place.edge.group.as_str()),
        ("edge", &place.edge.node),
        ("device", place.device.unwrap_or_default()),
        ("name", name),
    ];
    if crate::reserved::reserved(&metric).is_some() {
        return Err("nodes of Tidelog alone write this metric".to_owned());
    }
    Series::new(metric, labels).map_err(|error| error.to_string())
}
