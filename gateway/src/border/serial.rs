//! A serial device of this machine, as a radio co-processor wants it: raw, eight bits, no parity, one stop bit, no flow control, and for this
//! process alone. What is wrong is said as whoever plugs it in can act on it. It does not know what is on the other end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, QueueSelector, SpecialCodeIndex, ioctl_tiocexcl,
    ioctl_tiocnxcl, tcflush, tcgetattr, tcsetattr,
};

/// How far the rate that a device runs at may be from the one asked for, as a part of it: two ends that are a fortieth apart understand each other.
const BAUD_OFF_PART_MAX: u32 = 40;
/// Names of groups by their numbers.
const GROUPS: &str = "/etc/group";

/// An open serial device, which no other program opens meanwhile.
#[derive(Debug)]
pub struct Serial(File);

impl Serial {
    /// Opens a device, never waiting for it.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub fn open(device: &Path) -> io::Result<Self> {
        // It neither waits for a carrier nor becomes the terminal that a user's interrupt key comes from.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(device);
        let file = opened.map_err(|error| explained(device, error))?;
        // Root passes over the mark that the line is taken, so that a lock says it too. Nothing is set before: it may be another's.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(busy()),
            locked => locked?,
        }
        let mut line = tcgetattr(&file).map_err(|error| explained(device, error.into()))?;
        ioctl_tiocexcl(&file)?;
        let serial = Self(file);
        line.make_raw();
        line.input_modes -= InputModes::IXOFF | InputModes::IXANY;
        line.control_modes -= ControlModes::CRTSCTS | ControlModes::CSTOPB | ControlModes::PARENB;
        line.control_modes |= ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD;
        // Nothing read is "not yet", and never the end of the line.
        line.special_codes[SpecialCodeIndex::VMIN] = 1;
        line.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&serial.0, OptionalActions::Now, &line)?;
        Ok(serial)
    }

    /// The device.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Sets the rate, and drops what waits in either direction.
    ///
    /// # Errors
    /// When the device does not run at it.
    pub fn set_baud(&self, baud: u32) -> io::Result<()> {
        let refused = |error: Errno| io::Error::other(format!("the device refuses {baud} baud: {error}"));
        let mut line = tcgetattr(&self.0)?;
        line.set_speed(baud).map_err(refused)?;
        tcsetattr(&self.0, OptionalActions::Now, &line).map_err(refused)?;
        let runs_at = tcgetattr(&self.0)?.output_speed();
        if runs_at.abs_diff(baud) > baud / BAUD_OFF_PART_MAX {
            return Err(io::Error::other(format!("the device runs at {runs_at} baud when told {baud}")));
        }
        tcflush(&self.0, QueueSelector::IOFlush)?;
        Ok(())
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        // The mark stays on a line that something else holds open too.
        if let Err(error) = ioctl_tiocnxcl(&self.0) {
            tracing::debug!(%error, "a serial device that is gone is not handed back");
        }
    }
}

fn busy() -> io::Error {
    let words = "another program is using it (another gateway? a terminal program? ModemManager?)";
    io::Error::new(io::ErrorKind::ResourceBusy, words)
}

/// What the system said of a device, for whoever plugs it in.
fn explained(device: &Path, error: io::Error) -> io::Error {
    let words = match (error.kind(), Errno::from_io_error(&error)) {
        (io::ErrorKind::NotFound, _) => "there is no such device (is the radio plugged in?)".to_owned(),
        (io::ErrorKind::PermissionDenied, _) => match group_of(device) {
            Some(group) => format!(
                "this user may not open it: it is for the group {group} (usermod -aG {group} USER, then start the gateway anew)"
            ),
            None => "this user may not open it".to_owned(),
        },
        (_, Some(Errno::BUSY)) => return busy(),
        (_, Some(Errno::NOTTY)) => "it is no serial device".to_owned(),
        (io::ErrorKind::IsADirectory, _) => "it is a directory, and no serial device".to_owned(),
        (_, Some(Errno::NXIO | Errno::NODEV | Errno::IO)) => {
            format!("nothing is behind that device ({error})")
        }
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}

/// The group that a device is for, by name if it has one.
fn group_of(device: &Path) -> Option<String> {
    let number = device.metadata().ok()?.gid();
    let groups = std::fs::read_to_string(GROUPS).unwrap_or_default();
    Some(group_name(&groups, number).map_or_else(|| number.to_string(), str::to_owned))
}

fn group_name(groups: &str, number: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_opened_is_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let cases = [
            (dir.path().join("ttyACM9"), "is the radio plugged in?"),
            (file, "it is no serial device"),
            (dir.path().to_owned(), "no serial device"),
        ];
        for (device, words) in cases {
            let error = Serial::open(&device).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let denied = explained(dir.path(), Errno::ACCESS.into()).to_string();
        assert!(denied.contains("for the group "), "{denied}");
        assert!(explained(dir.path(), Errno::BUSY.into()).to_string().contains("another program"));
    }

    #[test]
    fn a_group_is_named_by_its_number() {
        let groups = "root:x:0:\nbroken\ndialout:x:20:ann,bob\nuucp:x:14:\n";
        assert_eq!((group_name(groups, 20), group_name(groups, 14)), (Some("dialout"), Some("uucp")));
        assert_eq!(group_name(groups, 4), None);
    }
}
