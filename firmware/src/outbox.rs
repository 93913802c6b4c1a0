//! What is sent next: the batch that starts behind the cursor, made from the flash log.
//!
//! A batch is of readings or of words about commands, never of both. What can't be sent (rotten in flash, or of another schema) is given up here and counted as lost, so that nothing
//! behind it waits for ever.

use embedded_storage::nor_flash::NorFlash;
use tidelog_flashlog::{Error, FlashLog, PAYLOAD_BYTES_MAX};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{BATCH_HEAD_BYTES_MAX, BatchEncoder, SAMPLE_BYTES_MAX, Sample, Schema};

use crate::config::{AppConfig, Kind};

/// A sample that can be sent, by its number.
type Numbered = (u64, Kind, Sample);

/// A batch in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Its bytes.
    pub length: usize,
    /// What its samples are.
    pub kind: Kind,
    /// Whether another sample would not have fitted, or can't go with these.
    pub full: bool,
}

/// Makes the next batch, of at most [`AppConfig::batch_bytes`] unless its first sample alone is longer. `None`: nothing waits.
pub(crate) fn prepare<F: NorFlash>(
    log: &mut FlashLog<F>,
    config: &AppConfig<'_>,
    device: DeviceId,
    out: &mut [u8],
) -> Result<Option<Prepared>, Error<F::Error>> {
    let Some((first_seq, kind, first)) = first_sample(log, config)? else { return Ok(None) };
    let schema = config.schema_of(kind);
    let epoch = log.epoch();
    let mut last_seq = first_seq;
    // The first sample goes whatever it takes; then the rest of the room is as configured.
    let alone = BatchEncoder::new(out, device, epoch, first_seq, schema, first.ticks)
        .and_then(|mut encoder| encoder.push(&first).map(|()| encoder.length()))
        .unwrap_or(BATCH_HEAD_BYTES_MAX + SAMPLE_BYTES_MAX);
    let room = config.batch_bytes.max(alone).min(out.len());
    let Some(room) = out.get_mut(..room) else { return Ok(None) };
    let Ok(mut encoder) = BatchEncoder::new(room, device, epoch, first_seq, schema, first.ticks) else {
        return Ok(None);
    };
    if encoder.push(&first).is_err() {
        return Ok(None);
    }
    let mut bytes = [0u8; PAYLOAD_BYTES_MAX];
    while let Some((seq, length)) = log.read_after(last_seq, &mut bytes)? {
        let next = bytes.get(..length).and_then(|bytes| config.load(bytes));
        match next.filter(|(next, _)| *next == kind && seq == last_seq + 1) {
            Some((_, sample)) if encoder.push(&sample).is_ok() => last_seq = seq,
            _ => return Ok(Some(Prepared { length: encoder.length(), kind, full: true })),
        }
    }
    Ok(Some(Prepared { length: encoder.length(), kind, full: false }))
}

/// Makes a batch of no sample: its answer tells the time. Returns its length.
pub(crate) fn prepare_empty<F: NorFlash>(
    log: &FlashLog<F>,
    schema: Schema<'_>,
    device: DeviceId,
    out: &mut [u8],
) -> Option<usize> {
    let encoder = BatchEncoder::new(out, device, log.epoch(), log.acknowledged() + 1, schema, 0).ok()?;
    Some(encoder.length())
}

/// The first sample behind the cursor that can be sent; the cursor stands right before it afterwards.
fn first_sample<F: NorFlash>(
    log: &mut FlashLog<F>,
    config: &AppConfig<'_>,
) -> Result<Option<Numbered>, Error<F::Error>> {
    let mut bytes = [0u8; PAYLOAD_BYTES_MAX];
    loop {
        let Some((seq, length)) = log.read_after(log.acknowledged(), &mut bytes)? else {
            let head = log.head();
            log.give_up(head)?;
            return Ok(None);
        };
        log.give_up(seq - 1)?;
        match bytes.get(..length).and_then(|bytes| config.load(bytes)) {
            Some((kind, sample)) => return Ok(Some((seq, kind, sample))),
            None => log.give_up(seq)?,
        }
    }
}
