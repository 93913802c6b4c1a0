//! What a sensor is told once. Each default stands here and nowhere else.

use tidelog_lowpan::SINGLE_FRAME_PAYLOAD_BYTES_MAX;
use tidelog_lowpan::coap::{TOKEN_BYTES, Transmission};
use tidelog_lowpan::time::Duration;
use tidelog_record::DeviceId;
use tidelog_record::uplink::{
    BATCH_HEAD_BYTES_MAX, SAMPLE_BYTES_MAX, Sample, Schema, StoredSampleError, encode_registration,
    event_schema,
};

/// Room for any post's payload, in bytes: a batch or a registration.
pub const POST_BYTES_MAX: usize = 480;

/// What CoAP puts around a payload: header, token, one option of one letter, the payload marker.
pub(crate) const COAP_BYTES: usize = 4 + TOKEN_BYTES + 2 + 1;

/// The batch that, with CoAP around it, leaves in one frame.
pub const BATCH_BYTES_DEFAULT: usize = SINGLE_FRAME_PAYLOAD_BYTES_MAX - COAP_BYTES;

const _: () =
    assert!(BATCH_HEAD_BYTES_MAX + SAMPLE_BYTES_MAX <= POST_BYTES_MAX, "any one sample can be posted");
const _: () =
    assert!(SAMPLE_BYTES_MAX <= tidelog_flashlog::PAYLOAD_BYTES_MAX, "any one sample can be stored");

/// The gateways a sensor knows from the start. It stays with one until that falls silent or names a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// The one it starts with.
    pub primary: DeviceId,
    /// The one it moves to. Whichever it came from takes this place.
    pub backup: Option<DeviceId>,
}

/// What happens to a sample when the flash is full of unacknowledged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest go and are counted: a sensor prefers to know the present.
    LoseOldest,
    /// The sampler waits: a replay can.
    Wait,
}

/// What a sample in the flash log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was sensed.
    Reading,
    /// A word about a command.
    Event,
}

/// What a sensor is told once.
#[derive(Clone, Copy, Debug)]
pub struct AppConfig<'a> {
    /// Where it sends to.
    pub gateways: Gateways,
    /// What its values mean.
    pub schema: Schema<'a>,
    /// What its word about commands means: [`event_schema`], worked out once.
    pub events: Schema<'static>,
    /// How requests are repeated.
    pub transmission: Transmission,
    /// Most bytes of a batch, if it holds more than one sample; at most [`POST_BYTES_MAX`].
    pub batch_bytes: usize,
    /// How long a sample may wait for others to fill the batch.
    pub linger: Duration,
    /// How long to leave a gateway alone that refuses, unless it says itself.
    pub backoff: Duration,
    /// Requests without a word in answer before it moves to the other gateway.
    pub silences_max: u8,
    /// How long after a move no gateway's advice to go elsewhere is taken: so long it stays at least, unless there is silence.
    pub advice_rest: Duration,
    /// What to do when the flash is full.
    pub when_full: WhenFull,
}

/// The version of this library, which a gateway is told with the schema.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The schema can't be registered in one post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the schema takes more than {POST_BYTES_MAX} bytes: shorten the metrics' names")]
pub struct SchemaTooLong;

impl<'a> AppConfig<'a> {
    /// The defaults: one frame per batch, CoAP's own timing.
    ///
    /// # Errors
    /// [`SchemaTooLong`].
    pub fn new(gateways: Gateways, schema: Schema<'a>) -> Result<Self, SchemaTooLong> {
        let mut bytes = [0u8; POST_BYTES_MAX];
        encode_registration(&mut bytes, gateways.primary, &schema, VERSION).map_err(|_| SchemaTooLong)?;
        Ok(Self {
            gateways,
            schema,
            events: event_schema().map_err(|_| SchemaTooLong)?,
            transmission: Transmission::RFC7252,
            batch_bytes: BATCH_BYTES_DEFAULT,
            linger: Duration::from_secs(10),
            backoff: Duration::from_secs(10),
            silences_max: 1,
            advice_rest: Duration::from_secs(600),
            when_full: WhenFull::LoseOldest,
        })
    }

    /// What samples of this kind mean.
    pub(crate) fn schema_of(&self, kind: Kind) -> Schema<'a> {
        match kind {
            Kind::Reading => self.schema,
            Kind::Event => self.events,
        }
    }

    /// Reads a stored sample, of whichever kind it is.
    pub(crate) fn load(&self, bytes: &[u8]) -> Option<(Kind, Sample)> {
        match Sample::load(&self.schema, bytes) {
            Ok(sample) => Some((Kind::Reading, sample)),
            Err(StoredSampleError::OtherSchema(id)) if id == self.events.id() => {
                Sample::load(&self.events, bytes).ok().map(|sample| (Kind::Event, sample))
            }
            Err(_) => None,
        }
    }
}
