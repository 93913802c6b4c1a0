//! Posts with an `Idempotency-Key`: one that is sent again is answered as it was the first time, and nothing is stored twice; while the
//! first is under way the second waits for it. Known are the answers of this process's last minutes, up to a number.
//!
//! A post with a key goes on when its client goes: it is then that the client sends it again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::question::bad;
use crate::door::TokenId;
use crate::metrics::Metrics;

/// The head that names a post.
const HEAD: &str = "idempotency-key";

/// The head of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 128;

/// Answers that are known.
const ANSWERS_MAX: usize = 1_000;

/// How long an answer is known, from the beginning of its request.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Longest answer that is kept, in bytes. One that is longer repeats what its client sent, and is worked out again.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// A key, and whose it is: nobody learns from another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    token: Option<TokenId>,
    key: String,
}

/// What was asked, as a hash: the target, how the body is to be read, and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print([u8; 32]);

/// An answer as it is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    status: StatusCode,
    heads: HeaderMap,
    body: Bytes,
}

/// The answer to a request, once it is there; the sender goes without one when the work broke off.
type Answers = watch::Receiver<Option<Arc<Kept>>>;

impl Name {
    /// The name of a post that has one.
    ///
    /// # Errors
    /// The key is none.
    pub fn of(visitor: &Visitor, headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut keys = headers.get_all(HEAD).iter();
        let Some(key) = keys.next() else { return Ok(None) };
        let is_key = |text: &&str| {
            (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let key = key.to_str().ok().filter(is_key);
        let (Some(key), None) = (key, keys.next()) else {
            let message =
                format!("Idempotency-Key: expected one, of 1 to {KEY_BYTES_MAX} visible characters of ASCII");
            return Err(bad(message));
        };
        Ok(Some(Self { token: visitor.token(), key: key.to_owned() }))
    }
}

impl Print {
    pub fn of(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(uri.path().as_bytes());
        add(uri.query().unwrap_or_default().as_bytes());
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            add(headers.get(name).map_or(b"", HeaderValue::as_bytes));
        }
        add(body);
        Self(*hash.finalize().as_bytes())
    }
}

/// Posts under way and answered, by their names.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Name, Known>,
    /// Their names in the order of their beginning, each with its number. Those that were forgotten since stand here, too.
    order: VecDeque<(Name, u64)>,
    begun: u64,
}

#[derive(Debug)]
struct Known {
    number: u64,
    began: Instant,
    print: Print,
    answers: Answers,
}

/// What a name means now.
#[derive(Debug)]
enum Begun {
    /// It is new: whoever has the turn does the work.
    First(Turn),
    /// It is known; the answer is there or comes.
    Again,
}

/// The work that a name stands for, once.
#[derive(Debug)]
struct Turn {
    memory: Arc<Memory>,
    name: Name,
    number: u64,
    answer: watch::Sender<Option<Arc<Kept>>>,
    is_kept: bool,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, name: Name, print: Print, now: Instant) -> Result<(Begun, Answers), ApiError> {
        let mut inner = self.lock();
        inner.forget_the_old(now);
        if let Some(known) = inner.known.get(&name) {
            if known.print != print {
                let message = "the Idempotency-Key stands for another request: this one differs from it";
                return Err(ApiError::new(ErrorCode::IdempotencyKeyReused, message));
            }
            return Ok((Begun::Again, known.answers.clone()));
        }
        if !inner.make_room() {
            let message =
                format!("{ANSWERS_MAX} posts with an Idempotency-Key are under way; try again later");
            return Err(ApiError::new(ErrorCode::Busy, message));
        }
        inner.begun += 1;
        let number = inner.begun;
        let (answer, answers) = watch::channel(None);
        inner.known.insert(name.clone(), Known { number, began: now, print, answers: answers.clone() });
        inner.order.push_back((name.clone(), number));
        let turn = Turn { memory: Arc::clone(self), name, number, answer, is_kept: false };
        Ok((Begun::First(turn), answers))
    }
}

impl Inner {
    fn is(&self, name: &Name, number: u64) -> Option<&Known> {
        self.known.get(name).filter(|known| known.number == number)
    }

    fn forget_the_old(&mut self, now: Instant) {
        while let Some((name, number)) = self.order.front() {
            let is_old = self.is(name, *number).is_none_or(|known| {
                known.answers.borrow().is_some() && now.saturating_duration_since(known.began) >= KNOWN_FOR
            });
            if !is_old {
                return;
            }
            self.forget_at(0);
        }
    }

    /// Forgets the oldest that is answered if there are as many as there may be; says whether there is room.
    fn make_room(&mut self) -> bool {
        if self.order.len() < ANSWERS_MAX {
            return true;
        }
        let settled = self.order.iter().position(|(name, number)| {
            self.is(name, *number).is_none_or(|known| known.answers.borrow().is_some())
        });
        settled.is_some_and(|at| {
            self.forget_at(at);
            true
        })
    }

    fn forget_at(&mut self, at: usize) {
        if let Some((name, number)) = self.order.remove(at)
            && self.is(&name, number).is_some()
        {
            self.known.remove(&name);
        }
    }
}

impl Turn {
    /// Gives the answer to all who wait for it, and keeps it if another attempt would end the same.
    fn end(mut self, kept: Kept) {
        self.is_kept = is_final(kept.status) && kept.body.len() <= ANSWER_BYTES_MAX;
        self.answer.send_replace(Some(Arc::new(kept)));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut inner = self.memory.lock();
            if inner.is(&self.name, self.number).is_some() {
                inner.known.remove(&self.name);
            }
        }
    }
}

/// Whether an answer says what became of the points, and not only that it could not be now.
fn is_final(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE
        )
}

/// Answers a post with a name: by doing the `work`, or as it was answered before.
pub(super) async fn answer(
    memory: &Arc<Memory>,
    metrics: &Metrics,
    via: &str,
    tasks: &TaskTracker,
    (name, print): (Name, Print),
    work: impl Future<Output = Response<Body>> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let (begun, mut answers) = memory.begin(name, print, Instant::now())?;
    let is_again = match begun {
        Begun::First(turn) => {
            tasks.spawn(async move {
                if let Some(kept) = keep(work.await).await {
                    turn.end(kept);
                }
            });
            false
        }
        Begun::Again => {
            metrics.repeats.with_label_values(&[via]).inc();
            true
        }
    };
    let broke_off =
        || ApiError::new(ErrorCode::Unavailable, "the post with this key broke off: send it again");
    let kept = answers.wait_for(Option::is_some).await.map_err(|_| broke_off())?.clone();
    let Kept { status, heads, body } = kept.as_deref().cloned().ok_or_else(broke_off)?;
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, heads);
    if is_again {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

async fn keep(response: Response<Body>) -> Option<Kept> {
    let (parts, body) = response.into_parts();
    // The answers to posts are whole from the beginning.
    let body = body.collect().await.ok()?.to_bytes();
    Some(Kept { status: parts.status, heads: parts.headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &str) -> Name {
        Name { token: None, key: key.to_owned() }
    }

    fn print(body: &str) -> Print {
        Print::of(&Uri::from_static("/x?y"), &HeaderMap::new(), body.as_bytes())
    }

    fn kept(status: u16, body: &str) -> Kept {
        let (status, body) = (StatusCode::from_u16(status).unwrap(), Bytes::copy_from_slice(body.as_bytes()));
        Kept { status, heads: HeaderMap::new(), body }
    }

    fn first(memory: &Arc<Memory>, key: &str, now: Instant) -> Turn {
        match memory.begin(name(key), print("a"), now) {
            Ok((Begun::First(turn), _)) => turn,
            other => unreachable!("{key}: {other:?}"),
        }
    }

    fn answered(memory: &Arc<Memory>, key: &str, now: Instant) -> Option<Kept> {
        match memory.begin(name(key), print("a"), now) {
            Ok((Begun::Again, answers)) => answers.borrow().as_deref().cloned(),
            _ => None,
        }
    }

    #[test]
    fn an_answer_is_known_for_its_time_and_stands_for_its_request_alone() {
        let (memory, start) = (Arc::new(Memory::default()), Instant::now());
        first(&memory, "k", start).end(kept(200, "done"));
        let last = start + KNOWN_FOR - Duration::from_nanos(1);
        assert_eq!(answered(&memory, "k", last), Some(kept(200, "done")));
        let other = memory.begin(name("k"), print("b"), last).unwrap_err();
        assert_eq!(other.code, ErrorCode::IdempotencyKeyReused);
        assert!(matches!(memory.begin(name("k"), print("b"), start + KNOWN_FOR), Ok((Begun::First(_), _))));
    }

    #[test]
    fn an_answer_that_another_attempt_might_change_reaches_who_waits_and_is_forgotten() {
        let (memory, now) = (Arc::new(Memory::default()), Instant::now());
        let long = "x".repeat(ANSWER_BYTES_MAX + 1);
        for (status, body, is_known) in [
            (200, "", true),
            (202, "", true),
            (204, "", true),
            (400, "", true),
            (413, "", true),
            (400, long.as_str(), false),
            (408, "", false),
            (429, "", false),
            (500, "", false),
            (503, "", false),
            (507, "", false),
        ] {
            let turn = first(&memory, "k", now);
            let (_, waits) = memory.begin(name("k"), print("a"), now).unwrap();
            assert!(waits.borrow().is_none());
            turn.end(kept(status, body));
            assert_eq!(waits.borrow().as_deref(), Some(&kept(status, body)));
            assert_eq!(answered(&memory, "k", now).is_some(), is_known, "{status}");
            memory.lock().known.clear();
        }
    }

    #[test]
    fn work_that_broke_off_leaves_nothing_behind_and_who_waits_is_told() {
        let (memory, now) = (Arc::new(Memory::default()), Instant::now());
        let turn = first(&memory, "k", now);
        let (_, waits) = memory.begin(name("k"), print("a"), now).unwrap();
        drop(turn);
        assert!(waits.has_changed().is_err());
        drop(first(&memory, "k", now));
    }

    #[test]
    fn what_is_known_is_bounded_and_what_is_under_way_is_never_forgotten() {
        let (memory, now) = (Arc::new(Memory::default()), Instant::now());
        let mut turns: Vec<Turn> = (0..ANSWERS_MAX).map(|n| first(&memory, &n.to_string(), now)).collect();
        let refused = memory.begin(name("more"), print("a"), now + 2 * KNOWN_FOR).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        turns.remove(7).end(kept(200, ""));
        turns.push(first(&memory, "more", now));
        assert!(answered(&memory, "7", now).is_none());
        turns.clear();
        for n in 0..3 * ANSWERS_MAX {
            first(&memory, &n.to_string(), now).end(kept(200, ""));
            let inner = memory.lock();
            assert!(inner.order.len() <= ANSWERS_MAX && inner.known.len() <= inner.order.len());
        }
        assert!(answered(&memory, &(3 * ANSWERS_MAX - 1).to_string(), now).is_some());
    }

    #[test]
    fn two_requests_are_one_only_if_target_form_and_body_are_equal() {
        let of = |uri: &'static str, kind: &'static str, body: &str| {
            let heads = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            Print::of(&Uri::from_static(uri), &heads, body.as_bytes())
        };
        let all = [
            of("/a?b", "t", "x"),
            of("/a?c", "t", "x"),
            of("/b?b", "t", "x"),
            of("/a?b", "u", "x"),
            of("/a?b", "t", "y"),
            of("/a?b", "tx", ""),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
        assert_eq!(of("/a?b", "t", "x"), of("/a?b", "t", "x"));
    }

    #[test]
    fn a_key_is_visible_ascii_and_stands_once() {
        let read = |keys: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                headers.append(HEAD, HeaderValue::from_bytes(key).unwrap());
            }
            let visitor = Visitor::with(crate::door::Access::OPEN);
            Name::of(&visitor, &headers).map_err(|error| error.code)
        };
        let longest = [b'k'; KEY_BYTES_MAX];
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"8e03978e-40d5"]), Ok(Some(name("8e03978e-40d5"))));
        assert!(read(&[&longest]).is_ok_and(|name| name.is_some()));
        let too_long = [b'k'; KEY_BYTES_MAX + 1];
        for bad in [vec![b"".as_slice()], vec![b"a b"], vec![b"\xc3\xa9"], vec![&too_long], vec![b"a", b"a"]]
        {
            assert_eq!(read(&bad), Err(ErrorCode::BadParameter), "{bad:?}");
        }
    }
}
