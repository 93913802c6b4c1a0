//! The way between two daemons: passes bytes on, counts them, and can be closed. It knows nothing of what they mean.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes passed on at once.
const PIECE_BYTES: usize = 256 * 1024;
const POLL: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    bytes: AtomicU64,
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// When the last connection was made.
    made: Mutex<Option<Instant>>,
}

/// The way; its threads end with the process.
pub struct Way {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Way {
    pub fn open(to: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Acquire) {
                    continue;
                }
                if let Err(error) = join(near, to, &shared) {
                    eprintln!("the way between the nodes: {error}");
                }
            }
        });
        Ok(Self { address, state })
    }

    /// Bytes that went over it, both ways.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Acquire)
    }

    /// Ends every connection and refuses new ones.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::Release);
        for stream in self.state.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have ended by itself.
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
        *self.state.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets connections through again, and says when the first was made.
    pub fn reopen(&self) -> Instant {
        self.state.closed.store(false, Ordering::Release);
        loop {
            if let Some(made) = *self.state.made.lock().unwrap_or_else(PoisonError::into_inner) {
                return made;
            }
            thread::sleep(POLL);
        }
    }
}

fn join(near: TcpStream, to: SocketAddr, state: &Arc<State>) -> std::io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    *state.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    state.open.lock().unwrap_or_else(PoisonError::into_inner).extend([near.try_clone()?, far.try_clone()?]);
    for (from, into) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let state = Arc::clone(state);
        thread::spawn(move || pass(from, into, &state));
    }
    Ok(())
}

fn pass(mut from: TcpStream, mut into: TcpStream, state: &State) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count) = from.read(&mut piece) {
        if count == 0 || into.write_all(piece.get(..count).unwrap_or_default()).is_err() {
            break;
        }
        state.bytes.fetch_add(count as u64, Ordering::AcqRel);
    }
    into.shutdown(Shutdown::Both).unwrap_or_default();
}
