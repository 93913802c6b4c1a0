//! The process that gets killed: appends, adopts and moves a cursor in a store, and says each acknowledgement on standard output the moment
//! it has it. `appender DIR FIRST COUNT`: bodies of the numbers from FIRST on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "whoever started it sees why it ended")]

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tidelog_record::NodeId;
use tidelog_store::Store;
use tidelog_tests::written::{CURSOR, body, line, options, others, site};

/// Appends that wait for their acknowledgement at a time: they share syncs.
const WAITING_MAX: u64 = 4;
/// An adoption comes after so many appends.
const ADOPT_EVERY: u64 = 5;

/// One write for a line: what was said is in the pipe whatever happens next.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, first, count] = &words[..] else { panic!("appender DIR FIRST COUNT") };
    let (first, count): (u64, u64) = (first.parse().unwrap(), count.parse().unwrap());
    let (store, _) = Store::open(Path::new(dir), options()).unwrap();
    let waiting = Arc::new((Mutex::new(0u64), Condvar::new()));
    for number in first..first + count {
        let (lock, fewer) = &*waiting;
        *fewer.wait_while(lock.lock().unwrap(), |waiting| *waiting >= WAITING_MAX).unwrap() += 1;
        let answered = Arc::clone(&waiting);
        store.append(&site(number), body(number), move |appended| {
            let appended = appended.unwrap();
            say(&line(&appended.stream, appended.lsn, appended.chain, number));
            *answered.0.lock().unwrap() -= 1;
            answered.1.notify_one();
        });
        if number.is_multiple_of(ADOPT_EVERY) {
            adopt(&store, number);
            store.set_cursor(CURSOR, store.head()).unwrap();
        }
    }
    store.close().unwrap();
}

/// The next records of another node, and one that is held already.
fn adopt(store: &Store, number: u64) {
    let held =
        store.vector().iter().find(|(stream, _, _)| stream.node == NodeId([1; 16])).map_or(0, |s| s.1.0);
    let all = others(held + 1 + number % 4);
    let from = usize::try_from(held.saturating_sub(1)).unwrap();
    let offered = all[from..].to_vec();
    store.adopt_blocking(offered.clone()).unwrap();
    for record in offered {
        let number = u64::MAX / 4_000 + record.lsn.0;
        say(&line(&record.stream, record.lsn, record.chain, number));
    }
}
