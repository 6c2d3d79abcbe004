//! Places for large answers that were not read yet.
//!
//! A client may have a thousand calls under way and read none of the answers. So whoever answers with much needs a place first, of the
//! connection and of the node, and has it until the answer has left. A client that does not read waits for itself, and all of
//! them together take what [`limits::LARGE_ANSWERS`] says.
//!
//! HTTP/2 takes over whatever it is given, as soon as the other end has room for one byte of it. So it is given slices, and the next
//! one when those before have left. A copy each: what it has keeps nothing else of the answer in memory.
//!
//! Nobody waits for those who have stopped reading: an answer of which nothing has left for [`limits::LARGE_ANSWER_STALL_MS`] is
//! dropped when somebody else wants its place, and its stream is reset when the other end wants more of it.
//!
//! Invariants:
//! 1. An answer that waits for its place is not in memory.
//! 2. HTTP/2 has at most [`limits::LARGE_ANSWER_BYTES`] of an answer that has a place, and no more of one that has none any more.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::Response;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::body::Body;

use crate::limits;

/// What HTTP/2 is given at a time: a frame, unless its other end takes larger ones.
const SLICE_BYTES: usize = 16 << 10;
/// How often those who wait look for answers that stand still.
const LOOK: Duration = Duration::from_millis(limits::LARGE_ANSWER_STALL_MS / 4);
const STALL: Duration = Duration::from_millis(limits::LARGE_ANSWER_STALL_MS);

const _: () = assert!(2 * SLICE_BYTES <= limits::LARGE_ANSWER_BYTES);

/// So many. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    free: Arc<Semaphore>,
    /// The answers that have places; some of them have left.
    answers: Mutex<Vec<Weak<Answer>>>,
}

impl Places {
    /// Those of one connection.
    #[must_use]
    pub fn of_connection() -> Self {
        Self::new(limits::LARGE_ANSWERS_OF_CONNECTION)
    }

    /// Those of the node.
    #[must_use]
    pub fn of_node() -> Self {
        Self::new(limits::LARGE_ANSWERS)
    }

    fn new(count: usize) -> Self {
        Self(Arc::new(Shared {
            free: Arc::new(Semaphore::new(count)),
            answers: Mutex::default(),
        }))
    }

    async fn take(&self) -> OwnedSemaphorePermit {
        let taken = Arc::clone(&self.0.free).acquire_owned().await;
        taken.expect("it is never closed")
    }

    /// The same, from an answer that stands still if there is no other.
    async fn take_over(&self) -> OwnedSemaphorePermit {
        let mut taken = pin!(self.take());
        loop {
            match timeout(LOOK, taken.as_mut()).await {
                Ok(permit) => return permit,
                Err(_) => self.drop_stalled(),
            }
        }
    }

    fn drop_stalled(&self) {
        let now = Instant::now();
        for answer in self.answers().iter().filter_map(Weak::upgrade) {
            answer.drop_if_stalled(now);
        }
    }

    fn note(&self, answer: &Arc<Answer>) {
        let mut answers = self.answers();
        if answers.len() >= 2 * limits::LARGE_ANSWERS {
            answers.retain(|answer| answer.strong_count() > 0);
        }
        answers.push(Arc::downgrade(answer));
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Weak<Answer>>> {
        let answers = self.0.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a connection and of the node, until all clones are dropped.
#[derive(Debug, Clone)]
pub struct Place {
    node: Places,
    _permits: Arc<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit)>,
}

/// Waits for a place. Whoever shares a connection waits for each other before anybody else does.
pub async fn take_place(connection: Option<&Places>, node: &Places) -> Place {
    let of_connection = match connection {
        Some(places) => Some(places.take().await),
        None => None,
    };
    Place {
        node: node.clone(),
        _permits: Arc::new((of_connection, node.take_over().await)),
    }
}

/// An answer that brings a place along keeps it until it has left.
#[must_use]
pub fn keep_place(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Place>() {
        Some(place) => response.map(|body| Body::new(Placed::new(body, place))),
        None => response,
    }
}

/// What is left of an answer; nothing if it was dropped.
struct Answer(Mutex<Option<Rest>>);

struct Rest {
    body: Body,
    /// The body's, not given to HTTP/2 yet.
    data: Bytes,
    /// When HTTP/2 took something last.
    moved: Instant,
    _place: Place,
}

impl Answer {
    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_if_stalled(&self, now: Instant) {
        let is_stalled = |rest: &mut Rest| now.saturating_duration_since(rest.moved) >= STALL;
        // Dropped when the lock is free again.
        let dropped = self.rest().take_if(is_stalled);
        drop(dropped);
    }
}

/// The body of an answer that has a place.
struct Placed {
    answer: Arc<Answer>,
    given: Arc<Given>,
}

/// Bytes that HTTP/2 was given and has not sent.
#[derive(Debug, Default)]
struct Given {
    bytes: AtomicUsize,
    /// Of whoever waits until there are fewer.
    waiting: AtomicWaker,
}

/// A copy of a piece of an answer, for as long as HTTP/2 has it.
struct Slice {
    bytes: Vec<u8>,
    given: Arc<Given>,
}

impl Slice {
    fn copy(bytes: &[u8], given: &Arc<Given>) -> Bytes {
        given.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Bytes::from_owner(Self {
            bytes: bytes.to_vec(),
            given: Arc::clone(given),
        })
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.given
            .bytes
            .fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.given.waiting.wake();
    }
}

impl Given {
    /// Another slice may be given.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Before the look, so that what leaves in between is not missed.
        self.waiting.register(cx.waker());
        let given = self.bytes.load(Ordering::Acquire);
        if given + SLICE_BYTES > limits::LARGE_ANSWER_BYTES {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Placed {
    fn new(body: Body, place: Place) -> Self {
        let node = place.node.clone();
        let answer = Arc::new(Answer(Mutex::new(Some(Rest {
            body,
            data: Bytes::new(),
            moved: Instant::now(),
            _place: place,
        }))));
        node.note(&answer);
        Self {
            answer,
            given: Arc::default(),
        }
    }
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut rest = self.answer.rest();
        let Some(rest) = &mut *rest else {
            let given_up = "nothing of the answer was read, and others waited for its place";
            return Poll::Ready(Some(Err(Status::aborted(given_up))));
        };
        if rest.data.is_empty() {
            match ready!(Pin::new(&mut rest.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => rest.data = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        ready!(self.given.poll_room(cx));
        rest.moved = Instant::now();
        let length = rest.data.len().min(SLICE_BYTES);
        let slice = rest.data.split_to(length);
        let slice = Slice::copy(&slice, &self.given);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.answer.rest();
        let is_over = |rest: &Rest| rest.data.is_empty() && rest.body.is_end_stream();
        rest.as_ref().is_some_and(is_over)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body::Body as _;

    use super::*;

    /// A place that is free, however many were taken in this turn of the scheduler.
    fn try_take(connection: Option<&Places>, node: &Places) -> Option<Place> {
        tokio::task::unconstrained(take_place(connection, node)).now_or_never()
    }

    fn answer(place: Place, bytes: usize) -> Response<Body> {
        let mut answer = Response::new(Body::new(http_body_util::Full::from(vec![7; bytes])));
        answer.extensions_mut().insert(place);
        keep_place(answer)
    }

    /// What HTTP/2 is given next; nothing if it has to wait.
    fn next(answer: &mut Response<Body>) -> Option<Result<Bytes, Status>> {
        let body = answer.body_mut();
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).now_or_never();
        let frame = frame?.expect("it has not ended");
        Some(frame.map(|frame| frame.into_data().expect("no trailers")))
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_the_answer_is_gone() {
        let (connection, node) = (Places::of_connection(), Places::of_node());
        let take = || try_take(Some(&connection), &node);
        let mut answers: Vec<_> = std::iter::from_fn(take)
            .map(|place| answer(place, 4))
            .collect();
        assert_eq!(answers.len(), limits::LARGE_ANSWERS_OF_CONNECTION);
        answers.pop();
        assert!(take().is_some());
        drop(answers);
        // Others have places of their own, and all together those of the node.
        let strangers = std::iter::from_fn(|| try_take(Some(&Places::of_connection()), &node));
        assert_eq!(strangers.collect::<Vec<_>>().len(), limits::LARGE_ANSWERS);
    }

    #[tokio::test]
    async fn http2_has_little_of_an_answer_at_a_time() {
        const BYTES: usize = 1 << 20;
        let place = try_take(None, &Places::of_node());
        let mut answer = answer(place.expect("one is free"), BYTES);
        let mut given = Vec::new();
        let mut all = 0;
        while all < BYTES {
            while let Some(slice) = next(&mut answer) {
                let slice = slice.expect("it is not dropped");
                all += slice.len();
                given.push(slice);
                if all == BYTES {
                    break;
                }
            }
            let held: usize = given.iter().map(Bytes::len).sum();
            assert!(held <= limits::LARGE_ANSWER_BYTES, "{held} bytes");
            // The first of them leaves.
            given.remove(0);
        }
        assert_eq!(all, BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_loses_its_place_to_those_who_wait() {
        let node = Places::of_node();
        let mut answers = Vec::new();
        while let Some(place) = try_take(None, &node) {
            answers.push(answer(place, 1 << 20));
        }
        let mut moving = answers.pop().expect("there are many");
        let started = Instant::now();
        let mut waiting = pin!(take_place(None, &node));
        loop {
            let slice = next(&mut moving).expect("what was given has left");
            slice.expect("it is read");
            if timeout(STALL / 8, waiting.as_mut()).await.is_ok() {
                break;
            }
        }
        assert!(started.elapsed() >= STALL, "{:?}", started.elapsed());
        assert!(started.elapsed() <= 2 * STALL, "{:?}", started.elapsed());
        next(&mut moving).expect("it goes on").expect("it is read");
        for answer in &mut answers {
            next(answer).expect("no wait").expect_err("it was dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_stand_still_while_nobody_waits() {
        let node = Places::of_node();
        let place = take_place(None, &node).await;
        let mut answer = answer(place, 1 << 20);
        tokio::time::advance(100 * STALL).await;
        take_place(None, &node).await;
        next(&mut answer).expect("no wait").expect("it is there");
    }
}
