//! How much room the disk has for the node's folder, and for how many days at the rate at which the store grows. Pure but for one
//! question to the system; the clock is an argument.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// How far apart the looks are that are remembered.
const REMEMBER_EVERY: Duration = Duration::from_secs(3600);
/// Looks that are remembered: the rate is that of a week.
const REMEMBERED_MAX: usize = 7 * 24;
/// A rate is not told before so long: a log that was not sealed yet is many times its packed size.
const RATE_AFTER: Duration = Duration::from_secs(1800);

const S_PER_DAY: f64 = 86_400.0;

/// What a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Disk {
    /// The disk under a folder.
    pub fn under(dir: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Self {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

/// The store's growth, from looks at it.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// When, on a clock that nobody sets, and how many bytes the store held.
    looks: VecDeque<(Duration, u64)>,
    now: Option<(Duration, u64, Disk)>,
}

impl Room {
    /// A look at `steady`, on a clock that nobody sets.
    pub fn look(&mut self, steady: Duration, held_bytes: u64, disk: Disk) {
        self.now = Some((steady, held_bytes, disk));
        let due = self.looks.back().is_none_or(|(last, _)| steady.saturating_sub(*last) >= REMEMBER_EVERY);
        if due {
            self.looks.push_back((steady, held_bytes));
        }
        if self.looks.len() > REMEMBERED_MAX {
            self.looks.pop_front();
        }
    }

    /// Bytes a day, and from how long a time that is known.
    fn growth(&self) -> Option<(f64, Duration)> {
        let ((first, then), (now, held, _)) = (*self.looks.front()?, self.now?);
        let over = now.saturating_sub(first);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let grown = held as f64 - then as f64;
        (over >= RATE_AFTER).then(|| (grown / over.as_secs_f64() * S_PER_DAY, over))
    }

    /// For the status document. Numbers that are not known yet are null; `days_left` is null too while the store does not grow.
    pub fn as_json(&self) -> Value {
        let Some((_, held_bytes, disk)) = self.now else { return Value::Null };
        let growth = self.growth();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let days = growth.filter(|(rate, _)| *rate >= 1.0).map(|(rate, _)| disk.free_bytes as f64 / rate);
        json!({
            "free_bytes": disk.free_bytes,
            "total_bytes": disk.total_bytes,
            "held_bytes": held_bytes,
            "grows_bytes_per_day": growth.map(|(rate, _)| rate.round()),
            "known_from_s": growth.map(|(_, over)| over.as_secs()),
            "days_left": days.map(|days| (days * 10.0).round() / 10.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk { free_bytes: 1_000_000, total_bytes: 4_000_000 };
    const HOUR: Duration = REMEMBER_EVERY;

    #[test]
    fn the_days_left_follow_from_a_weeks_growth() {
        let mut room = Room::default();
        assert_eq!(room.as_json(), Value::Null);
        room.look(Duration::ZERO, 1_000, DISK);
        assert_eq!(room.as_json()["days_left"], Value::Null, "nothing is known of its growth");
        room.look(HOUR / 4, 900_000, DISK);
        assert_eq!(
            room.as_json()["grows_bytes_per_day"],
            Value::Null,
            "a log before its first seal is no measure"
        );
        room.look(HOUR, 2_000, DISK);
        let told = room.as_json();
        assert_eq!((&told["grows_bytes_per_day"], &told["days_left"]), (&json!(24_000.0), &json!(41.7)));
        // For a year nothing more comes than goes.
        for hour in 2..24 * 365 {
            room.look(HOUR * hour, 2_000, DISK);
        }
        let told = room.as_json();
        assert_eq!((&told["grows_bytes_per_day"], &told["days_left"]), (&json!(0.0), &Value::Null));
        assert_eq!(told["known_from_s"], json!(3600 * (7 * 24 - 1)));
        assert_eq!(told["free_bytes"], json!(1_000_000));
    }

    #[test]
    fn a_store_that_shrinks_lasts() {
        let mut room = Room::default();
        room.look(Duration::ZERO, 9_000, DISK);
        room.look(HOUR, 3_000, DISK);
        assert_eq!(room.as_json()["days_left"], Value::Null);
    }

    #[test]
    fn the_system_is_asked() {
        let disk = Disk::under(Path::new("/")).unwrap();
        assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes);
        assert!(Disk::under(Path::new("/nonexistent")).is_err());
    }
}
