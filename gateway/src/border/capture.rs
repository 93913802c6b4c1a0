//! A capture: every frame that this gateway hears and sends, in a file for Wireshark ([`pcap`]). A thread of its own writes it, so that a slow disk
//! holds up no frame; what it can't take in time is left out, and what it can't write ends the capture and not the gateway.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tidelog_lowpan::pcap;

/// Frames that wait to be written.
const WAITING_FRAMES_MAX: usize = 1024;

/// A capture under way. Dropping it writes what waits.
#[derive(Debug)]
pub struct Capture {
    /// `None`: it has ended.
    records: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
}

impl Capture {
    /// Begins one. What stands in the file is overwritten; it will have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn create(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&pcap::FILE_HEADER)?;
        file.flush()?;
        let (records, waiting) = sync_channel(WAITING_FRAMES_MAX);
        let left = bytes_max.saturating_sub(pcap::FILE_HEADER.len() as u64);
        let writer = std::thread::Builder::new().name("capture".to_owned()).spawn(move || {
            match write(&mut file, &waiting, left) {
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "the capture ends here"),
            }
        })?;
        Ok(Self { records: Some(records), writer: Some(writer) })
    }

    /// Takes a frame without check sequence, heard or sent at this time. `false`: it was left out, for too many wait. After the capture's
    /// end, which was told, nothing is.
    pub fn take(&mut self, unix_us: u64, channel: u8, lqi: u8, frame: &[u8]) -> bool {
        let mut record = [0; pcap::RECORD_BYTES_MAX];
        let length = pcap::record(unix_us, channel, lqi, frame, &mut record);
        let record = length.and_then(|length| record.get(..length));
        let (Some(records), Some(record)) = (&self.records, record) else { return true };
        match records.try_send(record.to_vec()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.records = None;
                true
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.records = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes the capture ended early");
        }
    }
}

/// Writes records until there are no more to come, or no room is left; the file is whole whenever none waits.
fn write(file: &mut BufWriter<File>, waiting: &Receiver<Vec<u8>>, mut left: u64) -> io::Result<()> {
    while let Ok(first) = waiting.recv() {
        for record in std::iter::once(first).chain(waiting.try_iter()) {
            let length = record.len() as u64;
            if length > left {
                tracing::warn!("the capture has as many bytes as it may (pcap_bytes_max), and ends here");
                return file.flush();
            }
            left -= length;
            file.write_all(&record)?;
        }
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_holds_the_frames_that_fit_and_is_whole_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("air.pcap");
        let mut capture = Capture::create(&path, 24 + 2 * 49).unwrap();
        for at in 0..3 {
            capture.take(at, 26, 255, b"frame");
        }
        drop(capture);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 2 * 49);
        assert_eq!((&bytes[..24], &bytes[24 + 44..24 + 49]), (&pcap::FILE_HEADER[..], &b"frame"[..]));
        assert!(Capture::create(&folder.path().join("nowhere/air.pcap"), 24).is_err());
    }
}
