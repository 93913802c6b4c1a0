//! From transitions to the log: each becomes one record with all that follows from it, the command included.

use tidelog_record::{Batch, Series, SiteName, Value};
use tokio::sync::{MutexGuard as Held, oneshot};

use super::board::Board;
use super::follow::{SessionEnd, Transitions};
use super::machine::Transition;
use super::{CommandForm, Rules, record};
use crate::command::Order;
use crate::command::issue::order;
use crate::context::NodeContext;

/// Most transitions that share a record: the longest names of so many still fit into one.
const TRANSITIONS_PER_RECORD_MAX: usize = 16;

const DEVICE_LABEL: &str = "device";

/// Records transitions with all that follows from them.
pub(super) async fn carry_out(
    context: &NodeContext,
    rules: &Rules,
    board: &Board,
    transitions: Transitions,
) -> Result<(), SessionEnd> {
    let carrier = Carrier { context, board };
    for (site, transitions) in transitions {
        let mut waiting = Waiting::default();
        for transition in transitions {
            let rule = rules.named(&site, &transition.rule);
            let metric = rule.and_then(|rule| rule.metric.as_deref());
            waiting.points.extend(record::points(&transition, metric, context.store.node())?);
            if let Some(form) = rule.and_then(|rule| rule.command.as_ref()) {
                carrier.add_command(&site, form, &transition, &mut waiting).await;
            }
            waiting.transitions.push(transition);
            // The next command is given its id when this one is in the log.
            if waiting.command.is_some() || waiting.transitions.len() >= TRANSITIONS_PER_RECORD_MAX {
                carrier.write(&site, std::mem::take(&mut waiting)).await?;
            }
        }
        carrier.write(&site, waiting).await?;
    }
    Ok(())
}

/// Transitions that become one record, and what else stands in it.
#[derive(Default)]
struct Waiting<'a> {
    transitions: Vec<Transition>,
    points: Vec<(Series, i64, Value)>,
    /// Of the last of them.
    command: Option<Order>,
    /// Held while there is a command.
    issuing: Option<Held<'a, ()>>,
}

struct Carrier<'a> {
    context: &'a NodeContext,
    board: &'a Board,
}

impl<'a> Carrier<'a> {
    /// Adds the command that a transition gives, if it does.
    async fn add_command(
        &self,
        site: &SiteName,
        form: &CommandForm,
        transition: &Transition,
        waiting: &mut Waiting<'a>,
    ) {
        let Some(wish) = (if transition.firing { Some(form.begins) } else { form.clears }) else { return };
        let of_series = || transition.series.label(DEVICE_LABEL).and_then(|label| label.parse().ok());
        let outcome = match form.device.or_else(of_series) {
            None => {
                Err("the series has no label device with 16 hex digits, and command.device is not set"
                    .to_owned())
            }
            Some(device) => {
                waiting.issuing = Some(self.context.issuing.hold().await);
                order(self.context, site, device, wish).await.map_err(|error| error.to_string())
            }
        };
        match outcome {
            Ok((order, point)) => {
                waiting.points.push(point);
                waiting.command = Some(order);
            }
            Err(reason) => {
                waiting.issuing = None;
                tracing::error!(rule = transition.rule, series = %transition.series, reason, "a rule's command is refused");
                self.board.failed(&format!("rule {}: its command is refused: {reason}", transition.rule));
                self.context.metrics.rule_commands.with_label_values(&["refused"]).inc();
            }
        }
    }

    async fn write(&self, site: &SiteName, waiting: Waiting<'_>) -> Result<(), SessionEnd> {
        if waiting.transitions.is_empty() {
            return Ok(());
        }
        let series =
            waiting.points.into_iter().map(|(series, at, value)| (series, vec![(at, value)])).collect();
        let record = Batch { authored_ms: self.context.now_ms(), origin: None, series }.encode()?;
        let (done, outcome) = oneshot::channel();
        // An ending node hears no answer, and begins from what is recorded.
        self.context.store.append(site, record, move |appended| drop(done.send(appended)));
        outcome.await.map_err(|error| SessionEnd::Broken(error.to_string()))??;
        drop(waiting.issuing);
        if let (Some(Order { id, device, .. }), Some(last)) = (waiting.command, waiting.transitions.last()) {
            tracing::info!(target: "audit", rule = last.rule, %id, %device, "command by rule");
            self.context.metrics.commands_issued.inc();
            self.context.metrics.rule_commands.with_label_values(&["issued"]).inc();
        }
        for transition in waiting.transitions {
            self.board.changed(site, transition);
        }
        Ok(())
    }
}
