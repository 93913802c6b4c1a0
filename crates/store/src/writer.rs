//! The one thread that writes the log: it takes everything that waits, writes it as one commit, syncs once, and only then
//! answers and takes it into the index (invariant 2). A failed sync is final; a full disk is not (design section 4).

use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, Seal, SiteName, StreamId, StreamKey};

use crate::adopt::{Placed, Tail};
use crate::bodies::Packing;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::errors::{AdoptError, AppendError};
use crate::frame::{FRAMES_AT, FrameWriter, HEADER_BYTES, Header, RecordFrame, VERSION};
use crate::identity::Unwritten;
use crate::index::{Indexed, Intake, LogFile};
use crate::options::{LOG_FILE_BYTES_LIMIT, LOG_FILE_BYTES_MIN};
use crate::position::Position;
use crate::recent::Newest;
use crate::recovery::{LOG_DIR, file_name};
use crate::renewal::Renewal;
use crate::shared::{Shared, WriteState, locked, read_locked, write_locked};
use crate::skip::Skip;

/// A commit takes no further append once it has this many bytes.
pub(crate) const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nor once it has this many records: on its way into the index each takes some hundred bytes beside its body.
pub(crate) const COMMIT_RECORDS_MAX: usize = 8 * 1024;
/// A stream is declared again when its last declaration lies this far back, so that rot in one costs little.
const DECLARE_EVERY_BYTES: u64 = 1024 * 1024;

/// Where an append stands, told after it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in this node's log.
    pub position: Position,
    /// The stream it was appended to.
    pub stream: StreamId,
    /// Its place there.
    pub lsn: Lsn,
    /// The chain hash after it.
    pub chain: ChainHash,
}

/// What became of other nodes' records, told after they are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Records that are new here.
    pub stored: u64,
    /// Records that were held already.
    pub held: u64,
}

pub(crate) type AppendDone = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;
pub(crate) type AdoptDone = Box<dyn FnOnce(Result<Adopted, AdoptError>) + Send>;

/// What waits for the writer.
pub(crate) enum Job {
    /// `run`: it belongs in the stream of this run alone. `begin_file`: the commit that it is in begins a log file.
    Append {
        site: SiteName,
        body: Vec<u8>,
        run: Option<Run>,
        begin_file: bool,
        done: AppendDone,
    },
    Adopt {
        records: Vec<Record>,
        done: AdoptDone,
    },
    Skip(Skip),
    BeginRun(Renewal),
}

impl Job {
    pub fn refuse(self, error: AppendError) {
        match self {
            Self::Append { done, .. } => done(Err(error)),
            Self::Adopt { done, .. } => done(Err(error.into())),
            Self::Skip(skip) => (skip.done)(Err(error.into())),
            Self::BeginRun(renewal) => (renewal.done)(Err(error)),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Append { body, .. } => body.len(),
            Self::Adopt { records, .. } => records.iter().map(|record| record.body.len()).sum(),
            Self::Skip(_) | Self::BeginRun(_) => 0,
        }
    }

    pub fn records(&self) -> usize {
        match self {
            Self::Append { .. } | Self::Skip(_) | Self::BeginRun(_) => 1,
            Self::Adopt { records, .. } => records.len().max(1),
        }
    }
}

/// The file that is appended to.
pub(crate) struct Tip {
    pub file: Arc<dyn DiskFile>,
    pub header: Header,
    pub end: u64,
    pub next: u64,
    declared: HashMap<StreamKey, u64>,
    packing: Packing,
}

impl Tip {
    /// `pack_bytes_max`: what the store was told; the file may be of a version in which nothing is packed.
    pub fn new(file: Arc<dyn DiskFile>, header: Header, end: u64, next: u64, pack_bytes_max: u64) -> Self {
        Self {
            file,
            header,
            end,
            next,
            declared: HashMap::new(),
            packing: Packing::new(if header.packs() { pack_bytes_max } else { 0 }),
        }
    }
}

pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub node: NodeId,
    pub run: Run,
    /// What has to be on the disk before anything is written under the run.
    pub unwritten: Option<Unwritten>,
    pub salts: u64,
    pub log_file_bytes_max: u64,
    pub log_pack_bytes_max: u64,
    pub tip: Option<Tip>,
    pub buffer: Vec<u8>,
    pub intake: Intake,
    /// The body before the first record of this life in each stream of the node's own.
    pub boot: Option<Vec<u8>>,
    /// The streams where it stands.
    pub booted: HashSet<StreamKey>,
}

/// What a commit will do once it is durable.
#[derive(Default)]
pub(crate) struct Commit {
    pub tails: HashMap<StreamKey, Tail>,
    pub declared: Vec<(StreamKey, StreamId, u64)>,
    pub indexed: Vec<(Indexed, Vec<u8>)>,
    pub adopted: HashMap<(StreamKey, Lsn), ChainHash>,
    booted: Vec<StreamKey>,
    answers: Vec<Answer>,
}

enum Answer {
    Append(AppendDone, Appended),
    Adopt(AdoptDone, Result<Adopted, AdoptError>),
}

/// Why a commit came to nothing.
pub(crate) enum Stop {
    Full,
    Failed(String),
}

impl Writer {
    /// Runs until the store is closed and the queue is empty.
    pub fn run(mut self) {
        while let Some(jobs) = self.next_jobs() {
            let mut together = Vec::with_capacity(jobs.len());
            for job in jobs {
                match job {
                    // What comes behind it stands on what came before.
                    Job::Skip(skip) => {
                        self.commit_some(&mut together);
                        self.skip(skip);
                    }
                    Job::BeginRun(renewal) => {
                        self.commit_some(&mut together);
                        self.begin_run(renewal);
                    }
                    job => together.push(job),
                }
            }
            self.commit_some(&mut together);
        }
    }

    fn commit_some(&mut self, jobs: &mut Vec<Job>) {
        if !jobs.is_empty() {
            self.commit(std::mem::take(jobs));
        }
    }

    /// Waits for work, then for the commit interval, then takes what is there.
    fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut queue = locked(&self.shared.queue);
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue.writer_waits = true;
            queue = self.shared.wait_wake(queue);
            queue.writer_waits = false;
        }
        let interval = self.shared.commit_interval;
        if !interval.is_zero() {
            let begun = Instant::now();
            while !queue.closed && !queue.fills_a_commit() {
                let left = interval.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    break;
                }
                queue = self.shared.wait_wake_for(queue, left);
            }
        }
        let mut jobs = Vec::new();
        let (mut bytes, mut records) = (0usize, 0usize);
        while let Some(job) = queue.jobs.pop_front() {
            bytes += job.bytes();
            records += job.records();
            queue.bytes -= job.bytes();
            queue.records -= job.records();
            jobs.push(job);
            if bytes >= COMMIT_BYTES_MAX || records >= COMMIT_RECORDS_MAX {
                break;
            }
        }
        drop(queue);
        self.shared.room.notify_all();
        Some(jobs)
    }

    /// One commit: all of it is stored, or none of it.
    pub fn commit(&mut self, jobs: Vec<Job>) {
        if let WriteState::Failed(reason) = self.shared.write_state() {
            for job in jobs {
                job.refuse(AppendError::Failed(Arc::clone(&reason)));
            }
            return;
        }
        let begin_file = jobs.iter().any(|job| matches!(job, Job::Append { begin_file: true, .. }));
        match self.ready_tip(begin_file) {
            Ok(()) => {}
            Err(stop) => return self.stopped(stop, jobs),
        }
        let Some(mut tip) = self.tip.take() else { return };
        let (buffer, packing) = (std::mem::take(&mut self.buffer), std::mem::take(&mut tip.packing));
        let mut frames = FrameWriter::new(tip.header.salt, tip.end, buffer, packing);
        let mut commit = Commit::default();
        for job in jobs {
            self.place(&tip, &mut frames, &mut commit, job);
        }
        let written = self.write(&tip, &frames);
        match written {
            Ok(()) => {
                tip.end = frames.offset();
                tip.next += commit.indexed.len() as u64;
                for (key, _, offset) in &commit.declared {
                    tip.declared.insert(*key, *offset);
                }
                self.booted.extend(&commit.booted);
                (self.buffer, tip.packing) = frames.into_parts();
                self.tip = Some(tip);
                self.durable(commit);
                if self.buffer.capacity() > 2 * COMMIT_BYTES_MAX {
                    self.buffer = Vec::new();
                }
            }
            Err(stop) => {
                (self.buffer, tip.packing) = frames.into_parts();
                // What these bodies were to be told from is not there.
                tip.packing.begin_anew();
                self.tip = Some(tip);
                let error = self.note(stop);
                for answer in commit.answers {
                    match answer {
                        Answer::Append(done, _) => calm(|| done(Err(error.clone()))),
                        Answer::Adopt(done, _) => calm(|| done(Err(error.clone().into()))),
                    }
                }
            }
        }
    }

    fn place(&mut self, tip: &Tip, frames: &mut FrameWriter, commit: &mut Commit, job: Job) {
        match job {
            // What upkeep decided of a run that is over meanwhile is decided again.
            job @ Job::Append { run: Some(run), .. } if run != self.run => job.refuse(AppendError::Busy),
            Job::Append { site, body, done, .. } => {
                let stream = StreamId { site, node: self.node, run: self.run };
                let key = stream.key();
                if let Some(boot) = self.boot_before(key, &body, commit).map(<[u8]>::to_vec) {
                    self.place_own(tip, frames, commit, &stream, boot);
                    commit.booted.push(key);
                }
                match self.place_own(tip, frames, commit, &stream, body) {
                    Some((position, lsn, chain)) => {
                        commit.answers.push(Answer::Append(done, Appended { position, stream, lsn, chain }));
                    }
                    None => {
                        done(Err(AppendError::Failed(Arc::from(
                            "the stream has no further sequence numbers",
                        ))));
                    }
                }
            }
            Job::Adopt { records, done } => {
                let result = self.adopt(tip, frames, commit, records);
                commit.answers.push(Answer::Adopt(done, result));
            }
            // These are no part of a commit.
            job @ (Job::Skip(_) | Job::BeginRun(_)) => job.refuse(AppendError::Busy),
        }
    }

    /// Puts a body of the node's own behind its stream's last record.
    fn place_own(
        &self,
        tip: &Tip,
        frames: &mut FrameWriter,
        commit: &mut Commit,
        stream: &StreamId,
        body: Vec<u8>,
    ) -> Option<(Position, Lsn, ChainHash)> {
        let key = stream.key();
        let tail = self.tail(commit, key);
        let lsn = tail.top.next()?;
        let chain = tail.top_chain.after(&key, lsn, &body);
        commit.tails.insert(key, tail);
        let position = put(tip, frames, commit, stream, Placed { key, lsn, chain, body });
        Some((position, lsn, chain))
    }

    /// What has to stand before a body in one of the node's streams. A seal is upkeep: it begins no life.
    fn boot_before(&self, key: StreamKey, body: &[u8], commit: &Commit) -> Option<&[u8]> {
        let stands = self.booted.contains(&key) || commit.booted.contains(&key);
        let boot = self.boot.as_deref().filter(|_| !stands)?;
        (!matches!(Seal::of_body(body), Ok(Some(_)))).then_some(boot)
    }

    /// The end of a stream, with what this commit adds to it.
    pub(crate) fn tail(&self, commit: &Commit, key: StreamKey) -> Tail {
        commit.tails.get(&key).copied().unwrap_or_else(|| {
            read_locked(&self.shared.index).streams.get(&key).map_or(Tail::default(), |stream| {
                let (top, top_chain) = stream.top();
                Tail { upto: stream.upto, chain: stream.chain, top, top_chain }
            })
        })
    }

    /// Sees to it that there is a file to append to.
    fn ready_tip(&mut self, begin_file: bool) -> Result<(), Stop> {
        if let Some(unwritten) = &self.unwritten {
            let written = unwritten.write(self.disk.as_ref(), &self.dir);
            written.map_err(|error| stop_of("write the identity", &error))?;
            self.unwritten = None;
        }
        let bytes_max = self.log_file_bytes_max.clamp(LOG_FILE_BYTES_MIN, LOG_FILE_BYTES_LIMIT);
        let next = match &self.tip {
            Some(tip) if tip.end < bytes_max && !begin_file => return Ok(()),
            Some(tip) => tip.next,
            None => read_locked(&self.shared.index).head() + 1,
        };
        // A file in which nothing was written has the name that the next one needs.
        if let Some(tip) = &self.tip
            && tip.next == tip.header.first
        {
            return Ok(());
        }
        self.sync_tip()?;
        self.salts = self.salts.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(next | 1);
        let header =
            Header { version: VERSION, node: self.node, run: self.run, first: next, salt: self.salts };
        let file = self.new_file(&header).map_err(|error| stop_of("begin a log file", &error))?;
        let name: Arc<str> = Arc::from(file_name(next));
        let log_file = LogFile::new(name, Arc::clone(&file), header.salt, next, FRAMES_AT);
        write_locked(&self.shared.index).push_file(log_file);
        self.tip = Some(Tip::new(file, header, FRAMES_AT, next, self.log_pack_bytes_max));
        Ok(())
    }

    /// Syncs the file that is left for another: what a start found in it may never have been synced, and no commit will do it now.
    pub(crate) fn sync_tip(&self) -> Result<(), Stop> {
        let Some(tip) = &self.tip else { return Ok(()) };
        tip.file.sync_data().map_err(|error| Stop::Failed(format!("cannot sync: {error}")))
    }

    /// A file appears under its name only with its headers durable, so a torn header is never a crash.
    fn new_file(&self, header: &Header) -> io::Result<Arc<dyn DiskFile>> {
        let dir = self.dir.join(LOG_DIR);
        let name = file_name(header.first);
        let beside = dir.join(format!("{name}.new"));
        let file = self.disk.open(&beside, OpenMode::Create)?;
        let copy = header.encode();
        file.write_all_at(&copy, 0)?;
        file.write_all_at(&copy, HEADER_BYTES as u64)?;
        file.sync_data()?;
        self.disk.rename(&beside, &dir.join(&name))?;
        self.disk.sync_dir(&dir)?;
        Ok(file)
    }

    fn write(&self, tip: &Tip, frames: &FrameWriter) -> Result<(), Stop> {
        if frames.bytes().is_empty() {
            return Ok(());
        }
        if let Err(error) = tip.file.write_all_at(frames.bytes(), tip.end) {
            if is_full(&error) {
                // What was written of it must not look like a commit later.
                return match tip.file.set_len(tip.end) {
                    Ok(()) => Err(Stop::Full),
                    Err(error) => Err(stop_final("cut a partial write", &error)),
                };
            }
            return Err(stop_final("write", &error));
        }
        tip.file.sync_data().map_err(|error| stop_final("sync", &error))?;
        self.shared.counters.committed(frames.bytes().len());
        Ok(())
    }

    /// Answers, and takes what is durable in. Whoever was answered may send the next meanwhile; whoever asks waits until all is taken in,
    /// so what was answered is seen.
    fn durable(&mut self, commit: Commit) {
        let wrote = !commit.indexed.is_empty();
        if wrote {
            self.shared.upkeep.note_write(Instant::now());
            self.shared.set_write_state(WriteState::Ready);
        }
        let shared = Arc::clone(&self.shared);
        let taking_in = write_locked(&shared.taking_in);
        let (head, is_due, own_tables) = {
            let mut index = write_locked(&shared.index);
            for answer in commit.answers {
                match answer {
                    Answer::Append(done, appended) => calm(|| done(Ok(appended))),
                    Answer::Adopt(done, result) => calm(|| done(result)),
                }
            }
            for (key, stream, _) in &commit.declared {
                index.declare(*key, stream);
            }
            let first = index.files.last().map_or(0, |file| file.first);
            for (record, body) in &commit.indexed {
                index.add(record, body, &mut self.intake);
            }
            shared.recent.push(commit.indexed.into_iter().map(|(record, body)| {
                let Indexed { key, lsn, chain, ordinal, .. } = record;
                Newest { position: first + u64::from(ordinal), key, lsn, chain, body }
            }));
            let (mut is_due, mut own_tables) = (false, 0);
            for held in commit.tails.keys().filter_map(|key| index.streams.get(key)) {
                is_due |= !held.seals.is_empty();
                if held.stream.node == self.node && held.stream.run == self.run {
                    is_due |= held.tables.full().is_some();
                    own_tables = own_tables.max(held.tables.len());
                }
            }
            (index.head(), is_due, own_tables)
        };
        shared.hold_back(own_tables);
        shared.enter_met(&mut self.intake.met);
        drop(taking_in);
        if wrote && is_due {
            shared.upkeep.ask();
        }
        for listener in locked(&shared.listeners).iter().filter(|_| wrote) {
            calm(|| listener(Position(head)));
        }
    }

    fn stopped(&mut self, stop: Stop, jobs: Vec<Job>) {
        let error = self.note(stop);
        for job in jobs {
            calm(|| job.refuse(error.clone()));
        }
    }

    /// Remembers and reports why a commit came to nothing.
    pub(crate) fn note(&self, stop: Stop) -> AppendError {
        match stop {
            Stop::Full => {
                if !matches!(self.shared.write_state(), WriteState::Full) {
                    tracing::error!(dir = %self.dir.display(), "the disk is full, writes are refused until there is room");
                }
                self.shared.set_write_state(WriteState::Full);
                self.shared.upkeep.ask();
                AppendError::Full
            }
            Stop::Failed(reason) => {
                tracing::error!(dir = %self.dir.display(), reason, "the store takes no more writes");
                let reason: Arc<str> = Arc::from(reason);
                self.shared.set_write_state(WriteState::Failed(Arc::clone(&reason)));
                AppendError::Failed(reason)
            }
        }
    }
}

/// Writes one record's frames into a commit.
pub(crate) fn put(
    tip: &Tip,
    frames: &mut FrameWriter,
    commit: &mut Commit,
    stream: &StreamId,
    placed: Placed,
) -> Position {
    let Placed { key, lsn, chain, body } = placed;
    let offset = frames.offset();
    let newest = commit.declared.iter().rev().find(|(k, _, _)| *k == key).map(|(_, _, at)| *at);
    if newest.or_else(|| tip.declared.get(&key).copied()).is_none_or(|at| offset - at >= DECLARE_EVERY_BYTES)
    {
        frames.stream(key, stream);
        commit.declared.push((key, stream.clone(), offset));
    }
    let offset = frames.offset();
    let position = tip.next + commit.indexed.len() as u64;
    // A file holds fewer records than bytes, and bytes are within 32 bits.
    let ordinal = u32::try_from(position - tip.header.first).unwrap_or(u32::MAX);
    let (anew, is_canonical) = frames.record(ordinal, &RecordFrame { key, lsn, chain, body: &body });
    let bytes = frames.offset() - offset;
    commit.indexed.push((Indexed { key, lsn, chain, ordinal, offset, bytes, anew, is_canonical }, body));
    let tail = commit.tails.entry(key).or_default();
    if lsn > tail.top {
        (tail.top, tail.top_chain) = (lsn, chain);
    }
    if tail.upto.next() == Some(lsn) {
        (tail.upto, tail.chain) = (lsn, chain);
    }
    Position(position)
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn stop_final(what: &str, error: &io::Error) -> Stop {
    Stop::Failed(format!("cannot {what}: {error}"))
}

/// An error before anything of a commit was written: a full disk may pass.
fn stop_of(what: &str, error: &io::Error) -> Stop {
    if is_full(error) { Stop::Full } else { stop_final(what, error) }
}

/// A caller's callback must not take the writer down with it.
pub(crate) fn calm(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback of the store panicked");
    }
}
