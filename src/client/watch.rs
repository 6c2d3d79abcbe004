//! Watching: events as a stream that goes on by itself, on another node when it must.
//!
//! Any node serves it. When one ends the stream, is lost, or sends nothing for [`SILENT_INTERVALS`] of the intervals in which
//! it owes a word, the next one is asked for what follows the last event; what comes twice because a message ended
//! within a revision is dropped by its place. So each event is passed on exactly once, in order.
//!
//! Nothing is read ahead of whoever polls but one message, and a window of HTTP/2. Watches have a connection of their own to
//! each node, so that one which nobody polls holds up nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::time::Instant;
use tonic::{Code, Streaming};

use super::call::Backoff;
use super::directory::Route;
use super::node::Node;
use super::{CartOwner, Client, Error, Outcome, Rejected};
use crate::limits;
use crate::proto::v1::watch_service_client::WatchServiceClient;
use crate::proto::v1::{self, RecordKind, watch_filter::Filter};
use crate::transport::never_connected;
use crate::types::{NodeId, Revision};

/// A node that has not said a word in so many progress intervals is given up.
const SILENT_INTERVALS: u32 = 4;
/// Beside that, for a machine that is busy.
const SILENCE_MARGIN: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What a watch yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// A record changed.
    Event(Box<v1::Event>),
    /// Everything that matches up to a revision was yielded. It comes first, then behind the events of each message, and
    /// now and then while there are none.
    Progress {
        /// That revision.
        revision: Revision,
        /// Log time there, in Unix milliseconds: a record that is due at or before it is gone, though its event may
        /// follow later.
        log_time_ms: u64,
    },
}

/// See [`Client::watch`].
#[must_use]
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    at: Option<NodeId>,
}

impl Client {
    /// What happens to sessions, carts and keys, as it happens.
    ///
    /// ```no_run
    /// use futures::TryStreamExt as _;
    /// use trolley::client::{Client, Watched};
    ///
    /// # async fn follow(client: &Client) -> Result<(), trolley::client::Error> {
    /// let mut stock = client.watch().key_prefix("stock/").stream();
    /// while let Some(watched) = stock.try_next().await? {
    ///     if let Watched::Event(event) = watched {
    ///         println!("{event:?}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> Watch {
        Watch {
            client: self.clone(),
            request: v1::WatchRequest {
                namespace: self.namespace_field(),
                ..v1::WatchRequest::default()
            },
            at: None,
        }
    }
}

impl Watch {
    /// From this revision on. Without it, from what the answering node applies next: the first progress says where
    /// that is.
    pub fn from(mut self, revision: Revision) -> Self {
        self.request.start_revision = revision.get();
        self
    }

    /// Every namespace.
    pub fn all_namespaces(mut self) -> Self {
        self.request.namespace.clear();
        self.request.all_namespaces = true;
        self
    }

    /// All sessions. Several filters are alternatives; without any, everything is told of.
    pub fn sessions(self) -> Self {
        self.filter(Filter::Kind(RecordKind::Session.into()))
    }

    /// All carts.
    pub fn carts(self) -> Self {
        self.filter(Filter::Kind(RecordKind::Cart.into()))
    }

    /// All keys.
    pub fn keys(self) -> Self {
        self.filter(Filter::Kind(RecordKind::Key.into()))
    }

    /// Keys that begin so.
    pub fn key_prefix(self, prefix: impl Into<String>) -> Self {
        self.filter(Filter::KeyPrefix(prefix.into()))
    }

    /// A user's sessions and cart.
    pub fn user(self, user_id: impl Into<String>) -> Self {
        self.filter(Filter::UserId(user_id.into()))
    }

    /// One cart.
    pub fn cart(self, owner: &CartOwner) -> Self {
        self.filter(Filter::CartOwner(owner.into()))
    }

    /// How often a node says how far it is while nothing matches. The default is a second.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.request.progress_interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// At this node for as long as it serves, such as the nearest one. Without it, nodes are asked in turn.
    pub fn at(mut self, node: NodeId) -> Self {
        self.at = Some(node);
        self
    }

    fn filter(mut self, filter: Filter) -> Self {
        let filter = v1::WatchFilter {
            filter: Some(filter),
        };
        self.request.filters.push(filter);
        self
    }

    /// The stream. It ends only after an error that [`Error::is_retryable`] says no to, such as `COMPACTED`: the events that
    /// follow are no longer kept. After another one, which says that no node could be watched for as long as a call may
    /// take, it goes on when it is polled again. A stream that is dropped watches no more.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Watched, Error>> {
        let following = Following::new(self.client, self.request, self.at);
        stream::unfold(following, |mut following| async move {
            let next = following.next().await?;
            Some((next, following))
        })
        .boxed()
    }
}

/// How far a watch is.
#[derive(Debug, Default)]
struct Place {
    /// Everything up to here was passed on. `None` before the first message, if no start was asked for.
    progress: Option<u64>,
    /// The last event that was passed on.
    last: Option<(u64, u32)>,
}

impl Place {
    fn before(start: u64) -> Self {
        Self {
            progress: start.checked_sub(1),
            last: None,
        }
    }

    /// What to ask the next node for.
    fn start(&self) -> u64 {
        self.progress
            .map_or(0, |progress| progress.saturating_add(1))
    }

    /// The event is new.
    fn pass(&mut self, event: &v1::Event) -> bool {
        let place = (event.revision, event.position);
        let is_new = self.last.is_none_or(|last| last < place)
            && self
                .progress
                .is_none_or(|progress| progress < event.revision);
        if is_new {
            self.last = Some(place);
        }
        is_new
    }

    /// The highest revision that anything was told of.
    fn seen(&self) -> u64 {
        let last = self.last.map_or(0, |(revision, _)| revision);
        last.max(self.progress.unwrap_or(0))
    }

    fn reach(&mut self, progress: u64) {
        self.progress = Some(self.progress.unwrap_or(0).max(progress));
    }
}

struct Following {
    client: Client,
    request: v1::WatchRequest,
    /// The node to ask if it can be.
    at: Option<NodeId>,
    place: Place,
    inbound: Option<Streaming<v1::WatchResponse>>,
    /// Of the last message.
    waiting: VecDeque<Watched>,
    /// The node that was asked last.
    node: Option<Arc<Node>>,
    backoff: Backoff,
    /// The last attempt failed.
    is_retry: bool,
    /// Since when there was no message.
    since: Instant,
    problem: Option<String>,
    ended: bool,
}

impl Following {
    fn new(client: Client, request: v1::WatchRequest, at: Option<NodeId>) -> Self {
        Self {
            client,
            place: Place::before(request.start_revision),
            request,
            at,
            inbound: None,
            waiting: VecDeque::new(),
            node: None,
            backoff: Backoff::new(LONGEST_PAUSE),
            is_retry: false,
            since: Instant::now(),
            problem: None,
            ended: false,
        }
    }

    async fn next(&mut self) -> Option<Result<Watched, Error>> {
        // Time in which nobody polled is nobody's fault.
        self.since = Instant::now();
        while !self.ended {
            if let Some(watched) = self.waiting.pop_front() {
                return Some(Ok(watched));
            }
            if let Err(error) = self.advance().await {
                self.ended = !error.is_retryable();
                return Some(Err(error));
            }
        }
        None
    }

    /// Takes the next message, or asks another node. An error is for whoever polls.
    async fn advance(&mut self) -> Result<(), Error> {
        let Some(inbound) = &mut self.inbound else {
            return self.open().await;
        };
        match tokio::time::timeout(silence(&self.request), inbound.message()).await {
            Ok(Ok(Some(message))) => {
                self.accept(message);
                Ok(())
            }
            Ok(Ok(None)) => self.lost("the stream ended"),
            Ok(Err(status)) => self.refused(status),
            Err(_) => self.lost("no word"),
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let node = self.next_node().await?;
        self.node = Some(Arc::clone(&node));
        self.request.start_revision = self.place.start();
        let mut watcher = WatchServiceClient::new(node.watches())
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES);
        let opening = watcher.watch(self.request.clone());
        match tokio::time::timeout(silence(&self.request), opening).await {
            Ok(Ok(response)) => {
                self.inbound = Some(response.into_inner());
                Ok(())
            }
            Ok(Err(status)) => self.refused(status),
            Err(_) => self.lost("no answer"),
        }
    }

    /// A node with an open stream, another than the last one if there is one.
    async fn next_node(&mut self) -> Result<Arc<Node>, Error> {
        let deadline = self.deadline();
        let directory = &self.client.core.shared().directory;
        directory.call();
        if self.is_retry {
            tokio::time::sleep(self.backoff.next()).await;
        }
        if let Some(node) = self.wanted_node(deadline).await {
            return Ok(node);
        }
        loop {
            if directory.is_closed() {
                return Err(Error::Closed {
                    outcome: Outcome::NotApplied,
                });
            }
            if let Some(node) = directory.any_open(self.node.as_ref()) {
                return Ok(node);
            }
            let news = directory.until(|route: &Route| route.has_open_node() || route.is_closed());
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                let problem = directory.problems();
                return Err(self.out_of_time(problem));
            }
        }
    }

    /// The node that is wanted, unless it was the last one: waits for its stream as long as a connection may take.
    async fn wanted_node(&self, deadline: Instant) -> Option<Arc<Node>> {
        let id = self.at?.get();
        if self.node.as_ref().is_some_and(|last| last.id() == id) {
            return None;
        }
        let shared = self.client.core.shared();
        let deadline = deadline.min(Instant::now() + shared.connect_timeout());
        let answer = |route: &Route| route.open_node(id).is_some() || route.is_closed();
        let news = shared.directory.until(answer);
        // Another node will do.
        tokio::time::timeout_at(deadline, news).await.ok();
        shared.directory.open_node(id)
    }

    fn deadline(&self) -> Instant {
        self.since + self.client.defaults.timeout
    }

    /// The last problem, unless there was none before this.
    fn out_of_time(&mut self, problem: String) -> Error {
        self.since = Instant::now();
        Error::Unavailable {
            outcome: Outcome::NotApplied,
            problem: self.problem.take().unwrap_or(problem),
        }
    }

    fn accept(&mut self, message: v1::WatchResponse) {
        self.is_retry = false;
        self.backoff.reset();
        self.problem = None;
        for event in message.events {
            if self.place.pass(&event) {
                self.waiting.push_back(Watched::Event(Box::new(event)));
            }
        }
        self.place.reach(message.progress_revision);
        let seen = self.place.seen();
        self.client.core.shared().directory.raise_revision(seen);
        self.waiting.push_back(Watched::Progress {
            revision: Revision::new(self.place.progress.unwrap_or(0)),
            log_time_ms: message.log_time_ms,
        });
    }

    /// A node answered with a status: the end, unless another node or a later attempt may fare better.
    fn refused(&mut self, status: tonic::Status) -> Result<(), Error> {
        let is_broken = never_connected(&status) || std::error::Error::source(&status).is_some();
        let rejected = Rejected::from(status);
        // A broken connection is reported under codes that no node sends without a reason.
        let is_vague = rejected.reason.is_empty()
            && matches!(
                rejected.code,
                Code::Unknown | Code::Cancelled | Code::Internal
            );
        // A watcher that was too slow goes on from its place; it need not be told.
        let is_transient = rejected.is_transient() || rejected.code == Code::ResourceExhausted;
        if is_transient || (is_broken && is_vague) {
            return self.lost(&rejected.to_string());
        }
        self.inbound = None;
        Err(rejected.into())
    }

    fn lost(&mut self, problem: &str) -> Result<(), Error> {
        self.inbound = None;
        self.is_retry = true;
        let name = self.node.as_ref().map_or("", |node| node.address());
        self.problem = Some(format!("{name}: {problem}"));
        if self.deadline() <= Instant::now() {
            return Err(self.out_of_time(String::new()));
        }
        Ok(())
    }
}

/// How long a node may say nothing.
fn silence(request: &v1::WatchRequest) -> Duration {
    let interval = match request.progress_interval_ms {
        0 => limits::WATCH_PROGRESS_DEFAULT_MS,
        asked => asked.min(limits::WATCH_PROGRESS_MAX_MS),
    };
    Duration::from_millis(interval.into()) * SILENT_INTERVALS + SILENCE_MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, position: u32) -> v1::Event {
        v1::Event {
            revision,
            position,
            ..v1::Event::default()
        }
    }

    #[test]
    fn a_place_knows_what_it_has_passed_on() {
        let mut place = Place::before(0);
        assert_eq!(place.start(), 0);
        place.reach(7);
        assert_eq!(place.start(), 8);
        assert!(!place.pass(&event(7, 0)));
        assert!(place.pass(&event(8, 0)));
        assert!(place.pass(&event(8, 1)));
        // The message ended within the revision, so it is asked for again.
        place.reach(7);
        assert_eq!(place.start(), 8);
        assert!(!place.pass(&event(8, 0)));
        assert!(!place.pass(&event(8, 1)));
        assert!(place.pass(&event(8, 2)));
        place.reach(8);
        assert_eq!(place.start(), 9);
    }

    #[test]
    fn a_place_begins_where_it_is_told() {
        let mut place = Place::before(5);
        assert_eq!(place.start(), 5);
        assert!(!place.pass(&event(4, 0)));
        assert!(place.pass(&event(5, 0)));
    }

    #[test]
    fn a_node_may_be_silent_for_some_intervals() {
        let request = |progress_interval_ms| v1::WatchRequest {
            progress_interval_ms,
            ..v1::WatchRequest::default()
        };
        assert_eq!(silence(&request(0)), Duration::from_secs(5));
        assert_eq!(silence(&request(100)), Duration::from_millis(1400));
    }
}
