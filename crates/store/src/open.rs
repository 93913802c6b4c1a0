//! Opening a store: lock, identity, recovery, state, then the writer's thread. The order is what makes a start safe: nothing
//! is written before the lock is held and the directory is known to be this node's.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::thread;

use tidelog_record::{Boot, NodeId, Run, StreamId};

use crate::disk::{Disk, OpenMode, read_full};
use crate::errors::{Finding, OpenError};
use crate::frame::Header;
use crate::history::History;
use crate::identity::{self, Identity, IdentityError, Unwritten};
use crate::index::Index;
use crate::installed::install_all;
use crate::options::{StateIn, StoreOptions};
use crate::recovery::{LOG_DIR, Recovered, at, recover};
use crate::segment::Cache;
use crate::shared::{Queue, Shared, WriteState, read_locked};
use crate::state::State;
use crate::store::Inner;
use crate::table::TableBounds;
use crate::upkeep::{Keeper, Upkeep};
use crate::writer::{Job, Tip, Writer, is_full};

pub(crate) const LOCK_FILE: &str = "lock";

pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, options: &StoreOptions) -> Result<Inner, OpenError> {
    let log = dir.join(LOG_DIR);
    disk.make_dir(dir).map_err(at("make", dir))?;
    let lock_path = dir.join(LOCK_FILE);
    let lock = disk.lock(&lock_path).map_err(at("lock", &lock_path))?;
    let lock = lock.ok_or_else(|| OpenError::Locked(dir.to_owned()))?;
    disk.make_dir(&log).map_err(at("make", &log))?;

    let found = read_identity(disk.as_ref(), dir)?;
    if let Found::Whole(identity) = &found {
        must_be(dir, options.node, identity.node)?;
    }
    let upkeep = &options.upkeep;
    let bounds = TableBounds {
        points_max: upkeep.seal_points.max(1),
        points_of_series_max: upkeep.points_in_memory_max.max(1),
        memory_bytes_max: upkeep.seal_bytes_max,
    };
    let cache = Arc::new(Cache::new(options.cache_bytes_max));
    let mut index = Index::new(bounds, options.newest_series_max);
    let mut sealed_findings = Vec::new();
    install_all(disk.as_ref(), dir, &cache, &mut index, &mut sealed_findings)?;
    let mut recovered = recover(disk.as_ref(), dir, index)?;
    recovered.report.findings.extend(sealed_findings);
    if let Some(header) = recovered.header {
        must_be(dir, options.node, header.node)?;
    }
    let (run, unwritten) = settle_run(disk.as_ref(), dir, options, &found, &mut recovered)?;
    // A file holds records of one run of its author, so that damage in it casts doubt on that run alone.
    recovered.last_is_closed |= recovered.header.is_some_and(|header| header.run != run);
    if recovered.last_is_closed {
        recovered.leave_empty_last(disk.as_ref(), dir)?;
    }
    let Recovered { index, intake, mut report, salvage, header, last_is_closed, .. } = recovered;

    let state = match options.state {
        StateIn::Memory => State::in_memory(options.catalogue_bytes_max),
        StateIn::Folder => {
            let (state, finding) = State::in_folder(dir, options.catalogue_bytes_max);
            report.findings.extend(finding.filter(|_| !report.created));
            state
        }
    };

    let tip = index.files.last().zip(header).filter(|_| !last_is_closed).map(|(file, header)| {
        let file_of = Arc::clone(&file.file);
        Tip::new(file_of, header, file.end, file.last + 1, options.log_pack_bytes_max)
    });
    let shared = Arc::new(Shared {
        node: options.node,
        run: AtomicU64::new(run.0),
        disk: Arc::clone(&disk),
        dir: dir.to_owned(),
        index: RwLock::new(index),
        taking_in: RwLock::new(()),
        state,
        history: History::default(),
        walks: crate::reader::Walks::default(),
        recent: crate::recent::Recent::new(options.recent_bytes_max),
        upkeep: Upkeep::default(),
        cache,
        scan_points_max: options.scan_points_max.max(1),
        scan_threads: options.scan_threads.max(1),
        has_keeper: options.upkeep.thread,
        queue_bytes_max: options.queue_bytes_max,
        queue_records_max: options.queue_records_max,
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
        room: Condvar::new(),
        write_state: Mutex::new(WriteState::Ready),
        listeners: Mutex::default(),
        counters: crate::shared::Counters::default(),
        commit_interval: options.commit_interval,
    });
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        disk,
        dir: dir.to_owned(),
        node: options.node,
        run,
        unwritten,
        salts: options.entropy,
        log_file_bytes_max: options.log_file_bytes_max,
        log_pack_bytes_max: options.log_pack_bytes_max,
        tip,
        buffer: Vec::new(),
        intake,
        boot: options
            .boot
            .clone()
            .map(|boot| Boot { findings: report.findings.len() as u64, ..boot }.encode()),
        booted: HashSet::new(),
    };
    if !shared.state.has_all_series() {
        let entered = shared.enter_all();
        entered.map_err(io::Error::other).map_err(at("read the segments of", dir))?;
    }
    shared.enter_met(&mut writer.intake.met);
    write_again(&mut writer, salvage, &mut report.findings);
    set_cursors_back(&shared, &mut report.findings);
    for finding in &report.findings {
        tracing::warn!(dir = %dir.display(), ?finding, "found when opening the store");
    }
    let thread = thread::Builder::new()
        .name(String::from("tidelog-log"))
        .spawn(move || writer.run())
        .map_err(at("start the writer for", dir))?;
    let keeper = Keeper::new(Arc::clone(&shared), options.upkeep.clone());
    let mut threads = vec![thread];
    let mut kept = None;
    if options.upkeep.thread {
        let spawned = thread::Builder::new().name(String::from("tidelog-upkeep")).spawn(move || keeper.run());
        threads.push(spawned.map_err(at("start the upkeep of", dir))?);
        let scrub = options.upkeep.scrub_bytes_per_second;
        if scrub > 0 {
            let shared = Arc::clone(&shared);
            let spawned =
                thread::Builder::new().name(String::from("tidelog-scrub")).spawn(move || shared.scrub(scrub));
            threads.push(spawned.map_err(at("start the scrub of", dir))?);
        }
    } else {
        kept = Some(keeper);
    }
    Ok(Inner {
        shared,
        keeper: Mutex::new(kept),
        threads: Mutex::new(threads),
        lock: Mutex::new(Some(lock)),
        recovery: report,
    })
}

fn must_be(dir: &Path, expected: NodeId, found: NodeId) -> Result<(), OpenError> {
    if expected == found {
        Ok(())
    } else {
        Err(OpenError::WrongNode { dir: dir.to_owned(), expected, found })
    }
}

enum Found {
    Nothing,
    Damaged,
    Whole(Identity),
}

fn read_identity(disk: &dyn Disk, dir: &Path) -> Result<Found, OpenError> {
    let path = dir.join(identity::FILE_NAME);
    let names = disk.list(dir).map_err(at("list", dir))?;
    if !names.iter().any(|name| name == identity::FILE_NAME) {
        return Ok(Found::Nothing);
    }
    let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
    // One byte more than it should have, so that a longer file is seen to be none.
    let mut bytes = [0u8; identity::BYTES + 1];
    let read = read_full(file.as_ref(), &mut bytes, 0).map_err(at("read", &path))?;
    match Identity::decode(bytes.get(..read).unwrap_or_default()) {
        Ok(identity) => Ok(Found::Whole(identity)),
        Err(IdentityError::Damaged) => Ok(Found::Damaged),
        Err(IdentityError::Version(found)) => {
            Err(OpenError::Version { path, found, supported: identity::VERSION })
        }
    }
}

/// The run to write in. An ordinary start keeps it; a new store draws one, and so does one that may have lost records of its
/// own, so that no `(stream, LSN)` is given to other bytes (invariant 1).
fn settle_run(
    disk: &dyn Disk,
    dir: &Path,
    options: &StoreOptions,
    found: &Found,
    recovered: &mut Recovered,
) -> Result<(Run, Option<Unwritten>), OpenError> {
    let drawn = Run(options.entropy);
    let findings = &mut recovered.report.findings;
    let empty = recovered.header.is_none() && findings.is_empty();
    let kept = match (found, recovered.header) {
        (Found::Whole(identity), _) => Some(identity.run),
        (Found::Nothing | Found::Damaged, Some(Header { run, .. })) => {
            findings.push(Finding::IdentityRebuilt);
            Some(run)
        }
        (Found::Damaged, None) => {
            findings.push(Finding::IdentityRebuilt);
            None
        }
        (Found::Nothing, None) => None,
    };
    recovered.report.created = matches!(found, Found::Nothing) && empty;
    let run = match kept {
        Some(before)
            if recovered.file_lost
                || recovered.suspects.contains(&before)
                || recovered.index.is_full(options.node, before) =>
        {
            // Drawn bits that name a run of before would go on in its streams.
            let from = if drawn == before { Run(drawn.0.wrapping_add(1)) } else { drawn };
            let now = recovered.index.unused_run(options.node, from);
            findings.push(Finding::RunRenewed { before, now });
            now
        }
        Some(run) => run,
        None => recovered.index.unused_run(options.node, drawn),
    };
    let identity = Identity { node: options.node, run };
    if matches!(found, Found::Whole(found) if *found == identity) {
        return Ok((run, None));
    }
    let unwritten = Unwritten { identity, replaces_damage: matches!(found, Found::Damaged) };
    match unwritten.write(disk, dir) {
        Ok(()) => Ok((run, None)),
        // What is there can be read; the writer writes it before it writes anything else.
        Err(error) if is_full(&error) && !recovered.report.created => Ok((run, Some(unwritten))),
        Err(error) => Err(at("write", &dir.join(identity::FILE_NAME))(error)),
    }
}

/// Appends again this node's own records of a damaged last commit, under its new run. Other nodes' records come again from
/// where they came from.
fn write_again(writer: &mut Writer, salvage: Vec<(StreamId, Vec<u8>)>, findings: &mut Vec<Finding>) {
    let node = writer.node;
    let (answer, answered) = mpsc::channel();
    let mut jobs = Vec::new();
    for (stream, body) in salvage.into_iter().filter(|(stream, _)| stream.node == node) {
        let answer = answer.clone();
        let done = Box::new(move |result| drop(answer.send(result)));
        jobs.push(Job::Append { site: stream.site, body, run: None, begin_file: false, done });
    }
    if jobs.is_empty() {
        return;
    }
    findings.push(Finding::Salvaged { records: jobs.len() as u64 });
    writer.commit(jobs);
    drop(answer);
    for error in answered.into_iter().filter_map(Result::err) {
        tracing::error!(%error, "a record of a damaged commit is served but was not written again");
    }
}

/// A cursor beyond the head would skip what is written next.
fn set_cursors_back(shared: &Shared, findings: &mut Vec<Finding>) {
    let head = crate::position::Position(read_locked(&shared.index).head());
    for (name, from) in shared.state.cursors() {
        if from > head {
            if let Err(error) = shared.state.set_cursor(&name, head) {
                tracing::error!(%error, name, "cannot set a cursor back");
            }
            findings.push(Finding::CursorSetBack { name, from, to: head });
        }
    }
}
