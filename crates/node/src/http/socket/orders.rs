//! Commands that go down a socket to the device that it is of, and what the device says of them.
//!
//! ```text
//! {"command":{"id":"1a1f…","act":"read","expires_ms":…},"now_ms":…}     from the node: may you begin it?
//! {"command":"1a1f…","state":"started"}                                 from the device: it wants to begin
//! {"command":"1a1f…","state":"started"}                                 from the node: that is durable, and it may
//! {"command":"1a1f…","state":"done"}                                    from the device, and again from the node once that is durable
//! {"command":"1a1f…","error":{"code":"command_expired",…}}              from the node: it may not, or that is nothing to say
//! ```
//! The life of a command is that of any other (invariant 12): who begins it only when the node has said so begins it once at most at this
//! node, whatever connection it asks by; and nothing that is not known to have begun is lost with a connection.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tidelog_record::uplink::{COMMAND_ID_METRIC, COMMAND_STATE_METRIC, Command, CommandId, CommandState};
use tidelog_record::{Batch, DeviceId, Series, SiteName, Value};
use tokio::sync::{Mutex, watch};

use super::super::Api;
use super::super::error::{ApiError, ErrorCode};
use super::super::write::{append, durable};
use super::claims::Claim;
use crate::asking::DEVICE_LABEL;
use crate::command::history::is_issued;
use crate::command::{ActForm, MayNot, NS_PER_MS, Waiting};
use crate::context::NodeContext;

/// The states that a device may tell.
const STATES: [CommandState; 5] = [
    CommandState::Started,
    CommandState::Done,
    CommandState::Failed,
    CommandState::Unsupported,
    CommandState::Interrupted,
];

/// What a device says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub id: CommandId,
    /// None of a word that is not known here.
    pub state: Option<CommandState>,
}

impl Word {
    /// Reads a text; none if it names no command.
    pub fn of(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said {
            command: String,
            state: String,
        }
        let Said { command, state } = serde_json::from_slice(text).ok()?;
        let state = STATES.into_iter().find(|known| known.name() == state);
        Some(Self { id: command.parse().ok()?, state })
    }
}

/// How a device is asked to begin a command; none of one that cannot be told of, which is issued nowhere.
fn brought(command: &Command, now_ms: i64) -> Option<String> {
    let act = ActForm::of(command.act)?;
    let command = json!({"id": command.id.to_string(), "act": act, "expires_ms": command.expires_ms});
    Some(json!({"command": command, "now_ms": now_ms}).to_string())
}

/// How a device is told what became of its word.
pub(super) fn answer(id: CommandId, outcome: &Result<CommandState, ApiError>) -> String {
    match outcome {
        Ok(state) => json!({"command": id.to_string(), "state": state.name()}).to_string(),
        Err(error) => json!({"command": id.to_string(), "error": error.in_json()}).to_string(),
    }
}

/// What changed for the device that a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Another socket is of it.
    Lost,
    /// Something else may wait for it.
    Changed,
}

/// The commands of the device that a socket is of.
pub(super) struct Orders {
    site: SiteName,
    device: DeviceId,
    waiting: Arc<Waiting>,
    changed: watch::Receiver<()>,
    claim: Claim,
    /// What was brought last on this connection.
    brought: Option<CommandId>,
}

impl Orders {
    /// Claims a device, and follows what waits for it.
    ///
    /// # Errors
    /// Too many sites have devices with sockets.
    pub fn of(api: &Api, context: &NodeContext, site: &SiteName, device: DeviceId) -> Result<Self, ApiError> {
        let waiting = context.rooms.of(context, site).ok_or_else(|| {
            ApiError::new(
                ErrorCode::Unavailable,
                "devices of too many sites are brought commands here already",
            )
        })?;
        let (changed, claim) = (waiting.changed(), api.claims.take(site.clone(), device));
        Ok(Self { site: site.clone(), device, waiting, changed, claim, brought: None })
    }

    /// Waits for news. May be given up and begun again.
    pub async fn news(&mut self) -> News {
        tokio::select! {
            biased;
            () = self.claim.lost() => News::Lost,
            // The sender lives as long as this does.
            Ok(()) = self.changed.changed() => News::Changed,
            else => std::future::pending().await,
        }
    }

    /// What the device is to be asked now, unless it was asked already.
    pub fn next(&mut self, now_ms: i64) -> Option<String> {
        let next = self.waiting.next(self.device, now_ms);
        let fresh = next.filter(|command| self.brought != Some(command.id))?;
        self.brought = Some(fresh.id);
        brought(&fresh, now_ms)
    }

    /// Whose word it is that comes on this socket.
    pub fn speaker(&self) -> Speaker {
        let (site, waiting) = (self.site.clone(), Arc::clone(&self.waiting));
        Speaker { site, device: self.device, waiting, turn: Arc::default() }
    }
}

/// Who says something of commands.
#[derive(Clone)]
pub(super) struct Speaker {
    site: SiteName,
    device: DeviceId,
    waiting: Arc<Waiting>,
    /// Words are put down one behind the other, as they were said.
    turn: Arc<Mutex<()>>,
}

impl Speaker {
    /// Puts a word down and returns when it is durable. Goes on to its end when its connection breaks, so that it is known afterwards
    /// whether the command was begun.
    ///
    /// # Errors
    /// The device may not begin, or what it says is none of its commands' affair.
    pub async fn put_down(self, context: NodeContext, word: Word) -> Result<CommandState, ApiError> {
        let (tasks, turn) = (context.tasks.clone(), Arc::clone(&self.turn).lock_owned().await);
        let task = tasks.spawn(async move {
            let _turn = turn;
            self.said(&context, word).await
        });
        task.await.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?
    }

    async fn said(&self, context: &NodeContext, Word { id, state }: Word) -> Result<CommandState, ApiError> {
        let state = state.ok_or_else(|| {
            let known = STATES.map(CommandState::name).join(", ");
            ApiError::new(ErrorCode::BadBody, format!("the states are {known}"))
        })?;
        let now_ms = context.now_ms();
        if state == CommandState::Started {
            let claimed = self.waiting.claim(self.device, id, now_ms)?;
            if let Err(error) = self.write(context, id, state, now_ms).await {
                // It is not known to have begun, so it waits on.
                self.waiting.release(self.device, id, claimed.before);
                return Err(error);
            }
            let now_ms = context.now_ms();
            if now_ms >= claimed.expires_ms {
                // The disk took too long: the device is not told that it may, and so it will not.
                self.write(context, id, CommandState::Failed, now_ms).await?;
                return Err(MayNot::Expired.into());
            }
            return Ok(state);
        }
        let (store, site, device) = (context.store.clone(), self.site.clone(), self.device);
        let known = tokio::task::spawn_blocking(move || is_issued(&store, &site, device, id)).await;
        let known = known.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?;
        if !known? {
            return Err(MayNot::Unknown.into());
        }
        self.write(context, id, state, now_ms).await.map(|()| state)
    }

    async fn write(
        &self,
        context: &NodeContext,
        id: CommandId,
        state: CommandState,
        now_ms: i64,
    ) -> Result<(), ApiError> {
        // Two words at one time would be one.
        let at_ns = self.waiting.word_at(self.device, now_ms).saturating_mul(NS_PER_MS);
        let point = |metric: &str, value: i64| {
            let series = Series::new(metric, [(DEVICE_LABEL, self.device.to_string())]);
            series.map(|series| (series, vec![(at_ns, Value::I64(value))]))
        };
        let unwritten = |error: &dyn std::fmt::Display| ApiError::new(ErrorCode::TooLarge, error.to_string());
        let series = [
            point(COMMAND_ID_METRIC, id.to_reading()).map_err(|error| unwritten(&error))?,
            point(COMMAND_STATE_METRIC, state.number()).map_err(|error| unwritten(&error))?,
        ];
        let batch = Batch { authored_ms: now_ms, origin: None, series: series.into() };
        let record = batch.encode().map_err(|error| unwritten(&error))?;
        durable(append(&context.store, &self.site, record)).await.map(drop)
    }
}

impl From<MayNot> for ApiError {
    fn from(reason: MayNot) -> Self {
        let code = match reason {
            MayNot::Unknown => ErrorCode::NotFound,
            MayNot::Begun => ErrorCode::CommandBegun,
            MayNot::Expired => ErrorCode::CommandExpired,
        };
        Self::new(code, reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::uplink::Act;

    #[test]
    fn a_device_says_of_a_command_what_it_may() {
        let id = CommandId::new(1_795_248_000_000, 7).unwrap();
        let word = |state: &str| Word::of(format!(r#"{{"command":"{id}","state":"{state}"}}"#).as_bytes());
        for state in STATES {
            assert_eq!(word(state.name()), Some(Word { id, state: Some(state) }));
            assert_eq!(answer(id, &Ok(state)), format!(r#"{{"command":"{id}","state":"{}"}}"#, state.name()));
        }
        assert_eq!(word("dancing"), Some(Word { id, state: None }), "it can be told so");
        for text in [
            "",
            "{}",
            "[]",
            "7\n{}",
            r#"{"command":"5","state":"done"}"#,
            &format!(r#"{{"command":"{id}"}}"#),
        ] {
            assert_eq!(Word::of(text.as_bytes()), None, "{text}");
        }
        let refused = answer(id, &Err(MayNot::Expired.into()));
        assert!(refused.contains(r#""error":{"code":"command_expired","#), "{refused}");
        let command = Command { id, expires_ms: 5, act: Act::Switch { output: 3, on: true } };
        let expected = json!({
            "command": {"id": id.to_string(), "act": {"switch": {"output": 3, "on": true}}, "expires_ms": 5},
            "now_ms": 4,
        });
        assert_eq!(brought(&command, 4), Some(expected.to_string()));
        assert_eq!(brought(&Command { act: Act::Unknown(9), ..command }, 4), None);
    }
}
