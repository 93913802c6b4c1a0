//! Another run of this node while the store is open: peers hold more of its stream than it does, or other bytes, and what it writes from now
//! on must not take their names (invariants 1, 11). It begins on the writer's thread, between commits, with the identity on the disk first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidelog_record::Run;

use crate::errors::AppendError;
use crate::identity::{Identity, Unwritten};
use crate::shared::{WriteState, read_locked, write_locked};
use crate::writer::{Stop, Writer, calm, is_full};

pub(crate) type RunDone = Box<dyn FnOnce(Result<Run, AppendError>) + Send>;

/// The end of a run.
pub(crate) struct Renewal {
    /// The run that is over.
    pub over: Run,
    /// Random bits to name the next one.
    pub drawn: u64,
    pub done: RunDone,
}

impl Writer {
    pub(crate) fn begin_run(&mut self, renewal: Renewal) {
        let Renewal { over, drawn, done } = renewal;
        let begun = self.renew(over, drawn);
        calm(|| done(begun));
    }

    fn renew(&mut self, over: Run, drawn: u64) -> Result<Run, AppendError> {
        if self.run != over {
            // It is over already.
            return Ok(self.run);
        }
        if let WriteState::Failed(reason) = self.shared.write_state() {
            return Err(AppendError::Failed(reason));
        }
        self.sync_tip().map_err(|stop| self.note(stop))?;
        let from = if Run(drawn) == over { Run(drawn.wrapping_add(1)) } else { Run(drawn) };
        let run = read_locked(&self.shared.index).unused_run(self.node, from);
        let replaces_damage = self.unwritten.is_some_and(|unwritten| unwritten.replaces_damage);
        let unwritten = Unwritten { identity: Identity { node: self.node, run }, replaces_damage };
        if let Err(error) = unwritten.write(self.disk.as_ref(), &self.dir) {
            return Err(if is_full(&error) {
                self.note(Stop::Full)
            } else {
                AppendError::Failed(Arc::from(format!("cannot write the identity: {error}")))
            });
        }
        self.unwritten = None;
        // A log file holds own records of one run, so the next commit begins another; one without a record gives it its name.
        self.tip = None;
        write_locked(&self.shared.index).pop_empty_last();
        self.run = run;
        self.shared.run.store(run.0, Ordering::Release);
        // Nobody seals what is over so soon that writes could wait for it.
        self.shared.let_go(0);
        tracing::warn!(dir = %self.dir.display(), %over, now = %run, "goes on under another run");
        Ok(run)
    }
}
