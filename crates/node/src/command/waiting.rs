//! The commands that wait here for their devices, by device and in the order of their ids: what the next answer to a device brings.
//! It knows no log and no clock, and never says of itself that a command was begun: that is the device's word. A device that asks before it
//! begins is told once that it may.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidelog_record::DeviceId;
use tidelog_record::uplink::{Command, CommandId};
use tokio::sync::watch;

use crate::clock::EARLIEST_MS;

/// Most commands kept for one device. More than one node lets wait, since several may issue at a time.
const KEPT_PER_DEVICE_MAX: usize = 64;

/// Most devices with something kept; of one more nothing is kept.
const DEVICES_MAX: usize = 65_536;

/// How far ahead of this node's clock an author's may be, in milliseconds. A command from further ahead is held back, for one of
/// the two clocks is wrong, and an expired one must not go out.
const AHEAD_MS_MAX: i64 = 60_000;

/// The waiting room.
#[derive(Debug, Default)]
pub struct Waiting {
    all: Mutex<HashMap<DeviceId, Kept>>,
    changed: watch::Sender<()>,
}

/// A command that a device was told it may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// What was claimed before it, for [`Waiting::release`].
    pub before: Option<CommandId>,
    /// From this moment on it must not be begun, Unix milliseconds.
    pub expires_ms: i64,
}

/// Why a device may not begin a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MayNot {
    /// It does not wait here for this device.
    #[error("no such command is known here to be the device's")]
    Unknown,
    /// It, or one that was issued later, was begun.
    #[error("the command, or one that was issued later, was begun already")]
    Begun,
    /// Its time is over.
    #[error("the command has expired")]
    Expired,
}

#[derive(Debug, Default)]
struct Kept {
    commands: BTreeMap<CommandId, Command>,
    /// The greatest that the device is known to have begun: it begins none before it any more.
    begun: Option<CommandId>,
    /// The greatest that it was told it may begin; the log says so a moment later.
    claimed: Option<CommandId>,
    /// When it was last heard of a command, Unix milliseconds.
    word_ms: i64,
}

impl Kept {
    /// The greatest that it has begun, or was told it may.
    fn upto(&self) -> Option<CommandId> {
        self.begun.max(self.claimed)
    }
}

impl Waiting {
    /// What the device is to be told now: the earliest command that it may still begin.
    #[must_use]
    pub fn next(&self, device: DeviceId, now_ms: i64) -> Option<Command> {
        if now_ms < EARLIEST_MS {
            return None;
        }
        let all = self.lock();
        let kept = all.get(&device)?;
        let waiting = kept.commands.values().filter(|it| Some(it.id) > kept.upto());
        let mut may_begin = waiting.filter(|it| now_ms < it.expires_ms);
        may_begin.find(|it| it.id.issued_ms() <= now_ms.saturating_add(AHEAD_MS_MAX)).copied()
    }

    /// Says whenever something else may wait.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A device wants to begin a command. Of all that want to, one is told that it may.
    pub(crate) fn claim(&self, device: DeviceId, id: CommandId, now_ms: i64) -> Result<Claimed, MayNot> {
        let mut all = self.lock();
        let kept = all.get_mut(&device).ok_or(MayNot::Unknown)?;
        if kept.upto() >= Some(id) {
            return Err(MayNot::Begun);
        }
        let command = kept.commands.get(&id).ok_or(MayNot::Unknown)?;
        if now_ms < EARLIEST_MS || now_ms >= command.expires_ms {
            return Err(MayNot::Expired);
        }
        let expires_ms = command.expires_ms;
        Ok(Claimed { before: kept.claimed.replace(id), expires_ms })
    }

    /// A command that was claimed was not begun after all: that could not be put down.
    pub(crate) fn release(&self, device: DeviceId, id: CommandId, before: Option<CommandId>) {
        if let Some(kept) = self.lock().get_mut(&device).filter(|kept| kept.claimed == Some(id)) {
            kept.claimed = before;
        }
        self.changed.send_replace(());
    }

    /// The time of a device's next word about a command: now, and later than the one before. Unix milliseconds.
    pub(crate) fn word_at(&self, device: DeviceId, now_ms: i64) -> i64 {
        match self.lock().get_mut(&device) {
            Some(kept) => {
                kept.word_ms = now_ms.max(kept.word_ms.saturating_add(1));
                kept.word_ms
            }
            None => now_ms,
        }
    }

    /// A command was issued. Whether there was room for it; what has expired by `now_ms` takes none.
    pub(super) fn issued(&self, device: DeviceId, command: Command, now_ms: i64) -> bool {
        if has_expired(&command, now_ms) {
            return true;
        }
        let mut all = self.lock();
        if all.len() >= DEVICES_MAX && !all.contains_key(&device) {
            return false;
        }
        let kept = all.entry(device).or_default();
        if kept.begun.is_some_and(|begun| command.id <= begun) {
            return true;
        }
        kept.commands.insert(command.id, command);
        self.changed.send_replace(());
        if kept.commands.len() > KEPT_PER_DEVICE_MAX {
            kept.commands.retain(|_, it| !has_expired(it, now_ms));
        }
        // The latest goes: those before it were promised to be begun before it.
        kept.commands.len() <= KEPT_PER_DEVICE_MAX || kept.commands.pop_last().is_none()
    }

    /// The device has begun a command: neither it nor those before it wait any longer.
    pub(super) fn begun(&self, device: DeviceId, id: CommandId) {
        let mut all = self.lock();
        if all.len() >= DEVICES_MAX && !all.contains_key(&device) {
            return;
        }
        let kept = all.entry(device).or_default();
        kept.begun = kept.begun.max(Some(id));
        kept.commands.retain(|waiting, _| *waiting > id);
        self.changed.send_replace(());
    }

    /// Forgets what has expired, as far as the clock can be believed.
    pub(super) fn forget_expired(&self, now_ms: i64) {
        if now_ms < EARLIEST_MS {
            return;
        }
        let mut all = self.lock();
        for kept in all.values_mut() {
            kept.commands.retain(|_, it| !has_expired(it, now_ms));
        }
        let oldest_ms = now_ms.saturating_sub(i64::from(super::EXPIRES_S_MAX) * 1000);
        all.retain(|_, kept| {
            !kept.commands.is_empty() || kept.upto().is_some_and(|begun| begun.issued_ms() >= oldest_ms)
        });
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(|kept| kept.commands.len()).sum()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Kept>> {
        // What it holds is whole after each call.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a command has expired, as far as the clock can be believed.
fn has_expired(command: &Command, now_ms: i64) -> bool {
    now_ms >= EARLIEST_MS && now_ms >= command.expires_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use tidelog_record::uplink::Act;

    const NOW_MS: i64 = EARLIEST_MS + 1_000_000;

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 8])
    }

    fn command(issued_ms: i64, author: u16, expires_ms: i64) -> Command {
        Command { id: CommandId::new(issued_ms, author).unwrap(), expires_ms, act: Act::Read }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Issued(u8, i64, u16, i64),
        Begun(u8, i64, u16),
        Forget(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = NOW_MS..NOW_MS + 30;
        prop_oneof![
            4 => (0..3u8, at.clone(), 0..2u16, at.clone()).prop_map(|(d, ms, a, e)| Step::Issued(d, ms, a, e)),
            2 => (0..3u8, at.clone(), 0..2u16).prop_map(|(d, ms, a)| Step::Begun(d, ms, a)),
            1 => at.prop_map(Step::Forget),
        ]
    }

    proptest! {
        /// The model keeps every word it was ever told, in any order and twice, and looks through all of it.
        #[test]
        fn the_next_is_the_earliest_that_may_still_be_begun(steps in prop::collection::vec(step(), 0..40), now in NOW_MS..NOW_MS + 40) {
            let waiting = Waiting::default();
            let (mut issued, mut begun) = (Vec::new(), BTreeSet::new());
            let mut forgotten = 0;
            for step in steps {
                match step {
                    Step::Issued(n, ms, author, expires) => {
                        assert!(waiting.issued(device(n), command(ms, author, expires), forgotten));
                        issued.push((n, command(ms, author, expires)));
                    }
                    Step::Begun(n, ms, author) => {
                        let id = CommandId::new(ms, author).unwrap();
                        waiting.begun(device(n), id);
                        begun.insert((n, id));
                    }
                    Step::Forget(ms) => {
                        waiting.forget_expired(ms);
                        forgotten = forgotten.max(ms);
                    }
                }
            }
            for n in 0..3 {
                let last = begun.iter().filter(|(d, _)| *d == n).map(|(_, id)| *id).max();
                // Of one id issued twice the later word counts; such ids are made by nobody.
                let mut by_id = BTreeMap::new();
                by_id.extend(issued.iter().filter(|(d, _)| *d == n).map(|(_, it)| (it.id, *it)));
                let twice = issued.iter().filter(|(d, _)| *d == n).count() != by_id.len();
                let expected = by_id.values().find(|it| now.max(forgotten) < it.expires_ms && Some(it.id) > last);
                if !twice {
                    prop_assert_eq!(waiting.next(device(n), now.max(forgotten)), expected.copied());
                }
            }
        }
    }

    proptest! {
        /// The model remembers what was issued, begun and claimed, and judges each wish by it.
        #[test]
        fn each_command_is_claimed_once_at_most_and_none_that_expired_or_was_overtaken(
            steps in prop::collection::vec((0..4u8, 0..2u8, 0..8i64, 0..30i64), 0..40),
        ) {
            let waiting = Waiting::default();
            let (mut issued, mut upto, mut now) = (BTreeMap::new(), BTreeMap::<u8, CommandId>::new(), NOW_MS);
            for (what, n, at, expires) in steps {
                let command = command(NOW_MS + at, 1, NOW_MS + expires);
                match what {
                    0 => {
                        // What has expired is not taken up, and of what was begun it is known already.
                        waiting.issued(device(n), command, now);
                        let is_open = now < command.expires_ms && upto.get(&n).is_none_or(|upto| *upto < command.id);
                        if is_open {
                            issued.insert((n, command.id), command.expires_ms);
                        }
                    }
                    1 => {
                        waiting.begun(device(n), command.id);
                        let upto = upto.entry(n).or_insert(command.id);
                        *upto = command.id.max(*upto);
                    }
                    2 => now = now.max(NOW_MS + expires),
                    _ => {
                        let claimed = waiting.claim(device(n), command.id, now);
                        let expected = match issued.get(&(n, command.id)) {
                            _ if upto.get(&n).is_some_and(|upto| command.id <= *upto) => Err(MayNot::Begun),
                            None => Err(MayNot::Unknown),
                            Some(expires_ms) if now >= *expires_ms => Err(MayNot::Expired),
                            Some(_) => Ok(()),
                        };
                        prop_assert_eq!(claimed.map(|_| ()), expected);
                        if claimed.is_ok() {
                            upto.insert(n, command.id);
                            prop_assert!(waiting.next(device(n), now).is_none_or(|next| next.id > command.id));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_claimed_and_not_put_down_waits_on_and_words_have_times_of_their_own() {
        let waiting = Waiting::default();
        let commands = [1, 2].map(|ms| command(NOW_MS + ms, 1, NOW_MS + 10_000));
        for command in commands {
            assert!(waiting.issued(device(1), command, NOW_MS));
        }
        let changed = waiting.changed();
        let claimed = |before| Ok(Claimed { before, expires_ms: NOW_MS + 10_000 });
        let before = waiting.claim(device(1), commands[0].id, NOW_MS).unwrap().before;
        assert_eq!(waiting.next(device(1), NOW_MS), Some(commands[1]));
        waiting.release(device(1), commands[0].id, before);
        assert_eq!(waiting.next(device(1), NOW_MS), Some(commands[0]));
        assert!(changed.has_changed().unwrap());
        assert_eq!(waiting.claim(device(1), commands[0].id, NOW_MS), claimed(None));
        assert_eq!(waiting.claim(device(1), commands[1].id, NOW_MS), claimed(Some(commands[0].id)));
        waiting.release(device(1), commands[0].id, None);
        assert_eq!(waiting.next(device(1), NOW_MS), None, "the later one is claimed all the same");
        let times = [NOW_MS, NOW_MS, NOW_MS - 5, NOW_MS + 50].map(|now| waiting.word_at(device(1), now));
        assert_eq!(times, [NOW_MS, NOW_MS + 1, NOW_MS + 2, NOW_MS + 50]);
    }

    #[test]
    fn a_clock_that_cannot_be_right_hands_out_nothing() {
        let waiting = Waiting::default();
        assert!(waiting.issued(device(1), command(NOW_MS, 1, NOW_MS + 10_000), NOW_MS));
        assert_eq!(waiting.next(device(1), 1_000), None, "the gateway was just switched on");
        assert_eq!(
            waiting.next(device(1), NOW_MS - AHEAD_MS_MAX - 1),
            None,
            "an hour behind, it would not see it expire"
        );
        assert!(waiting.next(device(1), NOW_MS).is_some());
        waiting.forget_expired(1_000);
        assert_eq!(waiting.len(), 1);
        waiting.forget_expired(NOW_MS + 10_000);
        assert!(waiting.is_empty());
    }

    #[test]
    fn more_than_there_is_room_for_is_said_and_what_was_there_stays() {
        let waiting = Waiting::default();
        for n in 0..KEPT_PER_DEVICE_MAX {
            let expires_ms = if n == 7 { NOW_MS + 500 } else { i64::MAX };
            let command = command(NOW_MS + i64::try_from(n).unwrap(), 1, expires_ms);
            assert!(waiting.issued(device(1), command, NOW_MS));
        }
        let late = command(NOW_MS + 1_000, 1, i64::MAX);
        assert!(!waiting.issued(device(1), late, NOW_MS));
        assert_eq!(waiting.next(device(1), NOW_MS).map(|it| it.id.issued_ms()), Some(NOW_MS));
        assert_eq!(waiting.len(), KEPT_PER_DEVICE_MAX);
        assert!(waiting.issued(device(1), late, NOW_MS + 500), "one has expired meanwhile");
        assert_eq!(waiting.len(), KEPT_PER_DEVICE_MAX);
    }
}
