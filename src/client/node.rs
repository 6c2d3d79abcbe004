//! One node as a client sees it: what waits for it, what is under way to it, and the task that keeps its stream open.
//!
//! Invariants:
//! 1. An operation is in the inbox, then in the table, then answered; it is answered exactly once, because whoever
//!    answers it takes it out first. Where the node's task ends in between, its caller sees the channel close, and takes the
//!    answer for lost.
//! 2. Both are emptied when a stream ends. A session's number fences off what is left of an earlier stream.
//! 3. What waits for a node without a stream is refused at once: its caller knows better where else to go.
//! 4. The inbox holds at most [`INBOX`] operations, the table [`limits::STREAM_IN_FLIGHT`].
//!
//! Locks are held for a push, or once per frame; none is held while another is taken.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::task::AtomicWaker;
use http::uri::PathAndQuery;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::call::Backoff;
use super::frame::{Encoded, FrameCodec};
use super::ledger::Ledger;
use super::link::{self, Link};
use super::outbound::Outbound;
use super::supervisor::Shared;
use crate::limits;
use crate::proto::v1;
use crate::transport::{Connector, root_cause, said};

/// Operations that may wait for a frame.
const INBOX: usize = limits::FRAME_OPERATIONS;
/// A node that does not answer HTTP/2 pings this long, after as long without a frame, is gone.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Longest pause between attempts to connect while a leader is known, and while none is.
const RECONNECT_CALM: Duration = Duration::from_secs(1);
const RECONNECT_URGENT: Duration = Duration::from_millis(100);
/// Flow control windows, so that a frame of large values needs no round trip of its own.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Fewer reads than this are not divided: what two frames cost is more than is won by working at the same time.
const LEAST_HALF: usize = 64;
/// A watch that nobody reads holds this much of what was sent to it.
const WATCH_WINDOW: u32 = 256 << 10;
/// Watches have a connection of their own, with room for all of them: one that nobody reads holds up nothing else.
const WATCHES_WINDOW: u32 = limits::HTTP2_STREAMS * WATCH_WINDOW;
/// Nodes bound their frames below this.
const LARGEST_FRAME: usize = limits::PEER_MESSAGE_BYTES;

/// An operation on its way to a node.
pub(super) struct Submission {
    pub sequence: u64,
    pub request: Encoded,
    /// See [`super::parts`].
    pub excess_parts: u32,
    pub deadline: Instant,
    /// Only the leader can answer it.
    pub needs_leader: bool,
    pub waiter: oneshot::Sender<Answer>,
}

/// What becomes of a submission.
#[derive(Debug)]
pub(super) enum Answer {
    Outcome(v1::Outcome),
    Lost(Lost),
}

/// A submission that nobody will answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    /// The node may have seen it.
    pub sent: bool,
    pub cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The stream ended.
    Disconnected,
    /// The node does not answer.
    Silent,
    /// The caller's deadline passed.
    Expired,
}

/// A node that takes no operations now; the submission comes back.
pub(super) enum Refused {
    Closed,
    Full(Submission),
}

/// What waits for a frame.
#[derive(Default)]
pub(super) struct Inbox {
    /// Of the stream that drains it.
    pub session: u64,
    pub open: bool,
    pub waiting: VecDeque<Submission>,
}

/// What was sent.
#[derive(Default)]
pub(super) struct Table {
    pub session: u64,
    sent: HashMap<u64, Sent, BuildHasherDefault<SequenceHasher>>,
    /// Of all requests in it.
    bytes: u64,
    /// Since when the node owes an answer and has sent nothing. What a caller gave up is owed all the same.
    pub owed: Option<Instant>,
    /// What had come in, ever, when the last frame was complete, or nothing was owed.
    pub received: u64,
    /// The same when the sweeper looked last.
    pub looked: u64,
}

impl Table {
    pub fn sent(&self) -> &HashMap<u64, Sent, BuildHasherDefault<SequenceHasher>> {
        &self.sent
    }

    /// Of all requests that are not answered.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn insert(&mut self, sequence: u64, sent: Sent) {
        self.bytes += u64::from(sent.bytes);
        if let Some(before) = self.sent.insert(sequence, sent) {
            self.bytes -= u64::from(before.bytes);
        }
    }

    pub fn remove(&mut self, sequence: u64) -> Option<Sent> {
        let sent = self.sent.remove(&sequence)?;
        self.bytes -= u64::from(sent.bytes);
        Some(sent)
    }

    /// From now on the node owes an answer.
    pub fn owe(&mut self, now: Instant, received: u64) {
        if self.owed.is_none() {
            self.owed = Some(now);
            self.received = received;
        }
    }

    fn take(&mut self) -> HashMap<u64, Sent, BuildHasherDefault<SequenceHasher>> {
        self.bytes = 0;
        std::mem::take(&mut self.sent)
    }
}

pub(super) struct Sent {
    pub at: Instant,
    pub deadline: Instant,
    /// Of the request.
    pub bytes: u32,
    pub needs_leader: bool,
    pub waiter: oneshot::Sender<Answer>,
}

/// Spreads sequences, which are dense and not chosen by an enemy.
#[derive(Default)]
pub(super) struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) struct Node {
    address: String,
    endpoint: Endpoint,
    connect_timeout: Duration,
    pub attempt_timeout: Duration,
    /// 0 until it has said so.
    id: AtomicU64,
    open: AtomicBool,
    inbox: Mutex<Inbox>,
    table: Mutex<Table>,
    /// Bytes that came in over its streams' connections.
    pub received: Arc<AtomicU64>,
    /// The outbound stream.
    pub drain: AtomicWaker,
    /// The inbox was emptied.
    room: Notify,
    /// Sweeps are under way, or `stir` tells the sweeper to begin.
    pub sweeping: AtomicBool,
    pub stir: Notify,
    /// The sweeper gave the stream up.
    pub silent: Notify,
    /// For unary calls; it connects by itself.
    link: Link,
    /// For watches; it does, too.
    watches: OnceLock<Channel>,
    /// Why there is no stream.
    problem: Mutex<String>,
}

impl Node {
    pub fn new(
        address: &str,
        connect_timeout: Duration,
        attempt_timeout: Duration,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let authority = endpoint.uri().authority().cloned();
        let link = Link::new(
            authority.expect("an address of HTTP has one"),
            link::Settings {
                connect: connect_timeout,
                ping: KEEPALIVE,
                stream_window: STREAM_WINDOW,
                connection_window: CONNECTION_WINDOW,
            },
        );
        Ok(Self {
            address: address.to_owned(),
            endpoint,
            connect_timeout,
            attempt_timeout,
            id: AtomicU64::new(0),
            open: AtomicBool::new(false),
            inbox: Mutex::default(),
            table: Mutex::default(),
            received: Arc::default(),
            drain: AtomicWaker::new(),
            room: Notify::new(),
            sweeping: AtomicBool::new(false),
            stir: Notify::new(),
            silent: Notify::new(),
            link,
            watches: OnceLock::new(),
            problem: Mutex::new("not connected yet".to_owned()),
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Its stream is open.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub fn problem(&self) -> String {
        self.lock_problem().clone()
    }

    /// For unary calls.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// For watches, at most [`limits::HTTP2_STREAMS`] of them at once.
    pub fn watches(&self) -> Channel {
        let channel = self.watches.get_or_init(|| {
            self.endpoint
                .clone()
                .initial_stream_window_size(WATCH_WINDOW)
                .initial_connection_window_size(WATCHES_WINDOW)
                .connect_with_connector_lazy(Connector::new())
        });
        channel.clone()
    }

    /// Hands over an operation; waits while the inbox is full, until the operation's deadline.
    pub async fn submit(&self, submission: Submission) -> Result<(), Cause> {
        match self.try_submit(submission) {
            Ok(()) => Ok(()),
            Err(Refused::Closed) => Err(Cause::Disconnected),
            Err(Refused::Full(submission)) => Box::pin(self.submit_later(submission)).await,
        }
    }

    async fn submit_later(&self, mut submission: Submission) -> Result<(), Cause> {
        let deadline = submission.deadline;
        loop {
            // Registered before the inbox is looked at, so that room made in between is not missed.
            let room = self.room.notified();
            submission = match self.try_submit(submission) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed) => return Err(Cause::Disconnected),
                Err(Refused::Full(submission)) => submission,
            };
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(Cause::Expired);
            }
        }
    }

    fn try_submit(&self, submission: Submission) -> Result<(), Refused> {
        let mut inbox = self.lock_inbox();
        if !inbox.open {
            return Err(Refused::Closed);
        }
        if inbox.waiting.len() >= INBOX {
            return Err(Refused::Full(submission));
        }
        inbox.waiting.push_back(submission);
        let is_first = inbox.waiting.len() == 1;
        drop(inbox);
        if is_first {
            // Whoever finds others waiting knows that the stream was woken for them.
            self.drain.wake();
        }
        self.keep_sweeping();
        Ok(())
    }

    pub fn lock_inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no holder of this lock panics")
    }

    pub fn lock_table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    fn lock_problem(&self) -> MutexGuard<'_, String> {
        self.problem.lock().expect("no holder of this lock panics")
    }

    pub fn announce_room(&self) {
        self.room.notify_waiters();
    }

    // ---- the node's task -----------------------------------------------------------------------------------

    /// Keeps a stream open from the first call on, until the directory drops the node.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let _shut = ShutOnDrop(&self);
        shared.directory.first_call().await;
        tokio::select! {
            () = self.sweep_forever(&shared) => {}
            () = self.stay_connected(&shared) => {}
            () = shared.directory.until(|route| !route.knows(&self)) => {}
        }
    }

    async fn stay_connected(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut backoff = Backoff::new(RECONNECT_CALM);
        loop {
            let problem = match self.open_stream(shared).await {
                Ok((_, first)) if !shared.directory.is_of_cluster(first.header.as_ref()) => {
                    "the node belongs to another cluster".to_owned()
                }
                Ok((inbound, first)) => {
                    backoff.reset();
                    self.admit(shared, &first);
                    self.receive(inbound, shared).await
                }
                Err(problem) => problem,
            };
            *self.lock_problem() = problem;
            self.shut(Cause::Disconnected);
            shared.directory.suspect(self);
            self.pause(shared, backoff.next()).await;
        }
    }

    /// Sleeps before the next attempt to connect; less when no leader is known, because this node may be it.
    async fn pause(&self, shared: &Shared, pause: Duration) {
        tokio::time::sleep(pause.min(RECONNECT_URGENT)).await;
        if let Some(rest) = pause.checked_sub(RECONNECT_URGENT) {
            let leaderless = shared.directory.until(|route| route.leader.is_none());
            // Either ends the pause.
            tokio::time::timeout(rest, leaderless).await.ok();
        }
    }

    /// Connects, opens the stream and waits for the node to introduce itself.
    async fn open_stream(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<(Streaming<v1::ExchangeResponse>, v1::ExchangeResponse), String> {
        let opening = async {
            let channel = self
                .endpoint
                .connect_with_connector(Connector::counting(Arc::clone(&self.received)))
                .await
                .map_err(|e| root_cause(&e))?;
            let mut grpc =
                tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST_FRAME);
            grpc.ready().await.map_err(|e| root_cause(&e))?;
            let session = self.begin_session();
            let outbound = Outbound::new(self, shared, session);
            let path = PathAndQuery::from_static("/trolley.v1.ExchangeService/Exchange");
            let response = grpc
                .streaming(Request::new(outbound), path, FrameCodec)
                .await
                .map_err(|status| said(&status))?;
            let mut inbound: Streaming<v1::ExchangeResponse> = response.into_inner();
            match inbound.message().await {
                Ok(Some(first)) => Ok((inbound, first)),
                Ok(None) => Err("the node ended the stream at once".to_owned()),
                Err(status) => Err(said(&status)),
            }
        };
        let opened = tokio::time::timeout(self.connect_timeout, opening).await;
        opened.unwrap_or_else(|_| Err("the connection could not be made in time".to_owned()))
    }

    fn begin_session(&self) -> u64 {
        let session = {
            let mut inbox = self.lock_inbox();
            inbox.session += 1;
            inbox.session
        };
        self.lock_table().session = session;
        session
    }

    fn admit(self: &Arc<Self>, shared: &Shared, first: &v1::ExchangeResponse) {
        self.lock_inbox().open = true;
        self.open.store(true, Ordering::Release);
        self.observe(first, shared);
        shared.directory.opened();
    }

    async fn receive(
        self: &Arc<Self>,
        mut inbound: Streaming<v1::ExchangeResponse>,
        shared: &Shared,
    ) -> String {
        // What the sweeper said of an earlier stream.
        self.silent.notified().now_or_never();
        loop {
            let frame = tokio::select! {
                frame = inbound.message() => frame,
                () = self.silent.notified() => return "the node did not answer".to_owned(),
            };
            match frame {
                Ok(Some(frame)) => self.dispatch(frame, shared).await,
                Ok(None) => return "the node ended the stream".to_owned(),
                Err(status) => return said(&status),
            }
        }
    }

    /// Learns from a frame what all callers are to know, before one of them is woken: what it reads next sees it.
    fn observe(self: &Arc<Self>, frame: &v1::ExchangeResponse, shared: &Shared) {
        if let Some(header) = &frame.header {
            self.id.store(header.node_id, Ordering::Relaxed);
            shared.directory.observe(self, header);
        }
        let revision = frame.outcomes.iter().map(|outcome| outcome.revision).max();
        shared.directory.raise_revision(revision.unwrap_or(0));
    }

    /// Hands each outcome of a frame to whoever waits for it.
    ///
    /// Callers mostly ask again at once, and those who are woken together do so in one frame. If all of a busy client's reads go in
    /// one, it waits while the node reads, and the node while the callers ask; so the callers of half of them get
    /// a turn first, and the two have a half each from then on. Writes stay together: a group of them costs several disks a sync.
    async fn dispatch(self: &Arc<Self>, frame: v1::ExchangeResponse, shared: &Shared) {
        self.observe(&frame, shared);
        let (waiters, in_flight) = self.take_waiters(&frame.outcomes);
        let half = (in_flight / 2).max(LEAST_HALF);
        let mut reads = 0;
        for (waiter, outcome) in waiters.into_iter().zip(frame.outcomes) {
            if reads == half {
                reads = 0;
                tokio::task::yield_now().await;
            }
            reads += usize::from(Ledger::is_read_tag(outcome.sequence));
            // None: its caller gave up, or another copy was answered.
            if let Some(waiter) = waiter {
                // A caller that is gone wants no answer.
                waiter.send(Answer::Outcome(outcome)).ok();
            }
        }
    }

    /// Takes off the table who waits for these outcomes. With it, what was under way until then.
    fn take_waiters(
        &self,
        outcomes: &[v1::Outcome],
    ) -> (Vec<Option<oneshot::Sender<Answer>>>, usize) {
        let mut waiters = Vec::with_capacity(outcomes.len());
        let mut table = self.lock_table();
        let in_flight = table.sent.len();
        for outcome in outcomes {
            let sent = table.remove(outcome.sequence);
            waiters.push(sent.map(|sent| sent.waiter));
        }
        table.owed = (!table.sent.is_empty()).then(Instant::now);
        table.received = self.received.load(Ordering::Relaxed);
        drop(table);
        if in_flight >= limits::STREAM_IN_FLIGHT {
            self.drain.wake();
        }
        (waiters, in_flight)
    }

    /// Refuses what comes, gives back what is there, and fences off the stream that was.
    pub fn shut(&self, cause: Cause) {
        self.open.store(false, Ordering::Release);
        let waiting = {
            let mut inbox = self.lock_inbox();
            inbox.open = false;
            inbox.session += 1;
            std::mem::take(&mut inbox.waiting)
        };
        let sent = {
            let mut table = self.lock_table();
            table.session += 1;
            table.owed = None;
            table.take()
        };
        self.announce_room();
        self.drain.wake();
        for submission in waiting {
            lose(submission.waiter, false, cause);
        }
        for sent in sent.into_values() {
            lose(sent.waiter, true, cause);
        }
    }
}

/// Ends the outbound stream, which HTTP/2 owns, also when the node's task is aborted: without that the connection
/// would outlive the client.
struct ShutOnDrop<'a>(&'a Node);

impl Drop for ShutOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shut(Cause::Disconnected);
    }
}

pub(super) fn lose(waiter: oneshot::Sender<Answer>, sent: bool, cause: Cause) {
    // A caller that is gone wants no answer.
    waiter.send(Answer::Lost(Lost { sent, cause })).ok();
}
