//! One call, from its encoding to its reply, over as many attempts as its deadline allows.
//!
//! A write goes to the leader, as does a linearizable read; other reads go to any node. What a failed attempt proves is
//! kept: once a node may have seen a write, only an answer to that write can say that it was not applied.
//!
//! The future of a call is moved several times before it is polled, and callers keep hundreds of them. So what a call over a stream
//! rarely comes to, a wait and a call of its own, is boxed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::directory::Route;
use super::error::{Error, Outcome, Rejected};
use super::frame::{Encoded, encode_request};
use super::ledger::Sequence;
use super::node::{Answer, Cause, Lost, Node, Submission};
use super::outbound::LARGEST_REQUEST;
use super::parts::Parts;
use super::supervisor::Shared;
use super::{Client, Consistency, Reply, Transport};
use crate::proto::v1::operation::Request;
use crate::proto::v1::outcome::Response;
use crate::types::Revision;

/// The first pause is shorter than this, each later one may be twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Hints that are followed at once, one after the other, before a pause: two nodes may name each other.
const HINTS_IN_A_ROW: u32 = 2;

/// What one call wants otherwise than its client's defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub timeout: Option<Duration>,
    pub identity: Identity,
}

/// How nodes recognise a write that is sent again.
#[derive(Debug, Clone, Default)]
pub(super) enum Identity {
    /// By what the client draws.
    #[default]
    Drawn,
    /// By a request id of the caller's own, which only a unary call can carry.
    Named(String),
    /// Not at all: a unary call that carries neither.
    Absent,
}

impl Identity {
    pub fn is_drawn(&self) -> bool {
        matches!(self, Self::Drawn)
    }

    /// The request id of the caller's own.
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }
}

/// Exponential, with full jitter, so that callers who failed together do not come back together.
pub(super) struct Backoff {
    bound: Duration,
    longest: Duration,
}

impl Backoff {
    pub fn new(longest: Duration) -> Self {
        Self {
            bound: FIRST_PAUSE,
            longest,
        }
    }

    pub fn reset(&mut self) {
        self.bound = FIRST_PAUSE;
    }

    pub fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.longest);
        // Without randomness the pause is as long as it may be.
        let draw = getrandom::u32().unwrap_or(u32::MAX);
        bound.mul_f64(f64::from(draw) / f64::from(u32::MAX))
    }
}

/// Where a request may be answered, and what it leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A write, which has an identity.
    Write,
    /// A write that has none: it is not sent again once a node may have seen it.
    UnnamedWrite,
    /// What has an effect, and needs no identity because it may have it twice.
    LeaderTask,
    AnyTask,
    /// What changes nothing.
    LeaderRead,
    AnyRead,
}

impl Kind {
    pub fn of(request: &Request) -> Self {
        let options = match request {
            Request::GetSession(get) if get.touch => return Self::LeaderTask,
            Request::GetSession(get) => &get.read,
            Request::ListSessions(list) => &list.read,
            Request::GetNamespace(get) => &get.read,
            Request::GetCart(get) => &get.read,
            Request::GetKey(get) => &get.read,
            Request::ListKeys(list) => &list.read,
            Request::GetLease(get) => &get.read,
            Request::CreateSession(_)
            | Request::UpdateSession(_)
            | Request::TouchSession(_)
            | Request::DestroySession(_)
            | Request::RotateSession(_)
            | Request::SaveSession(_)
            | Request::EndSession(_)
            | Request::RevokeAllSessions(_)
            | Request::SetNamespace(_)
            | Request::AddCartLine(_)
            | Request::SetCartLineQuantity(_)
            | Request::RemoveCartLine(_)
            | Request::ClearCart(_)
            | Request::UpdateCart(_)
            | Request::MergeCarts(_)
            | Request::FreezeCart(_)
            | Request::ReleaseCart(_)
            | Request::CompleteOrder(_)
            | Request::PutKey(_)
            | Request::DeleteKey(_)
            | Request::IncrementKey(_)
            | Request::GrantLease(_)
            | Request::KeepLeaseAlive(_)
            | Request::RevokeLease(_)
            | Request::Txn(_) => return Self::Write,
        };
        if Consistency::of_options(options.as_ref()).needs_leader() {
            Self::LeaderRead
        } else {
            Self::AnyRead
        }
    }

    pub fn needs_leader(self) -> bool {
        !matches!(self, Self::AnyTask | Self::AnyRead)
    }

    pub fn is_read(self) -> bool {
        matches!(self, Self::LeaderRead | Self::AnyRead)
    }
}

/// A request on its way, small however large the request is: futures are moved often.
enum Prepared {
    /// For the stream.
    Framed {
        kind: Kind,
        parts: Parts,
        body: Encoded,
    },
    /// For a call of its own.
    Unary(Box<(Request, Identity)>),
}

impl Client {
    /// Sends a request until it is answered, refused for good, or out of time.
    pub(super) fn call<T>(
        &self,
        request: Request,
        options: Options,
        pick: impl FnOnce(Response) -> Option<T>,
    ) -> impl Future<Output = Result<Reply<T>, Error>> {
        let Options { timeout, identity } = options;
        let deadline = Instant::now() + timeout.unwrap_or(self.defaults.timeout);
        let shared = self.core.shared();
        shared.directory.call();
        let is_unary = !identity.is_drawn() || self.defaults.transport == Transport::Unary;
        let prepared = if is_unary {
            Prepared::Unary(Box::new((request, identity)))
        } else {
            Prepared::Framed {
                kind: Kind::of(&request),
                parts: Parts::of(&request),
                body: encode_request(request),
            }
        };
        async move {
            let reply = match prepared {
                Prepared::Framed { kind, parts, body } => {
                    exchange(shared, kind, parts, body, deadline).await?
                }
                Prepared::Unary(call) => {
                    let (request, identity) = *call;
                    Box::pin(super::unary::call(shared, request, identity, deadline)).await?
                }
            };
            let Reply {
                value,
                revision,
                replayed,
                node_id,
            } = reply;
            Ok(Reply {
                value: pick(value).ok_or(Error::Protocol)?,
                revision,
                replayed,
                node_id,
            })
        }
    }
}

async fn exchange(
    shared: &Arc<Shared>,
    kind: Kind,
    parts: Parts,
    body: Encoded,
    deadline: Instant,
) -> Result<Reply<Response>, Error> {
    if body.len() > LARGEST_REQUEST {
        return Err(Rejected::too_large(body.len(), LARGEST_REQUEST).into());
    }
    let excess_parts = parts.excess(body.len())?;
    let mut journey = Journey::new(shared, kind, deadline);
    let sequence = journey.draw().await?;
    loop {
        let node = journey.next_node().await?;
        let (waiter, answer) = oneshot::channel();
        let submission = Submission {
            sequence: match &sequence {
                Some(sequence) => sequence.get(),
                None => shared.ledger.read_tag(),
            },
            request: Arc::clone(&body),
            excess_parts,
            deadline,
            needs_leader: kind.needs_leader(),
            waiter,
        };
        if let Err(cause) = node.submit(submission).await {
            journey.lost(Lost { sent: false, cause })?;
            continue;
        }
        // Its end of the channel is dropped only together with the node's task.
        let answer = answer.await.unwrap_or(Answer::Lost(Lost {
            sent: true,
            cause: Cause::Disconnected,
        }));
        let outcome = match answer {
            Answer::Lost(lost) => {
                journey.lost(lost)?;
                continue;
            }
            Answer::Outcome(outcome) => outcome,
        };
        match outcome.response {
            Some(Response::Failure(failure)) => journey.refused(failure.into())?,
            Some(response) => {
                return Ok(Reply {
                    value: response,
                    revision: Revision::new(outcome.revision),
                    replayed: outcome.replayed,
                    node_id: node.id(),
                });
            }
            None => return Err(Error::Protocol),
        }
    }
}

/// What a call has gone through so far.
pub(super) struct Journey<'a> {
    shared: &'a Shared,
    kind: Kind,
    deadline: Instant,
    /// Some node may have seen it, and none has answered for that.
    outcome: Outcome,
    /// What was in the way last.
    problem: Option<String>,
    last: Option<Arc<Node>>,
    hint: Option<Arc<Node>>,
    hints: u32,
    backoff: Backoff,
}

impl<'a> Journey<'a> {
    pub fn new(shared: &'a Shared, kind: Kind, deadline: Instant) -> Self {
        Self {
            shared,
            kind,
            deadline,
            outcome: Outcome::NotApplied,
            problem: None,
            last: None,
            hint: None,
            hints: 0,
            backoff: Backoff::new(LONGEST_PAUSE),
        }
    }

    /// A sequence, for a write.
    async fn draw(&self) -> Result<Option<Sequence<'a>>, Error> {
        if self.kind != Kind::Write {
            return Ok(None);
        }
        let ledger = &self.shared.ledger;
        if let Some(sequence) = ledger.try_draw() {
            return Ok(Some(sequence));
        }
        let drawn = Box::pin(tokio::time::timeout_at(self.deadline, ledger.draw())).await;
        drawn.map(Some).map_err(|_| Error::Unavailable {
            outcome: Outcome::NotApplied,
            problem: "too many writes of this client are under way".to_owned(),
        })
    }

    /// Where to go next; waits for a node that can be asked.
    pub async fn next_node(&mut self) -> Result<Arc<Node>, Error> {
        let is_retry = self.last.is_some();
        let node = match self.hint.take() {
            Some(hint) => Some(hint),
            None if is_retry => None,
            None => self.pick(),
        };
        let node = match node {
            Some(node) => node,
            None => Box::pin(self.pause_and_pick()).await?,
        };
        self.last = Some(Arc::clone(&node));
        Ok(node)
    }

    fn pick(&self) -> Option<Arc<Node>> {
        let directory = &self.shared.directory;
        if self.kind.needs_leader() {
            directory.leader().filter(|leader| leader.is_open())
        } else {
            directory.any_open(self.last.as_ref())
        }
    }

    /// Waits for a new leader, or for the backoff, and takes what there is then: a node that does not lead knows perhaps
    /// who does.
    async fn pause_and_pick(&mut self) -> Result<Arc<Node>, Error> {
        let directory = &self.shared.directory;
        loop {
            if directory.is_closed() {
                return Err(Error::Closed {
                    outcome: self.outcome,
                });
            }
            let pause = Instant::now() + self.backoff.next();
            if self.deadline <= Instant::now() {
                return Err(self.unavailable());
            }
            let news = directory.until(|route| self.is_news(route));
            // Either ends the pause.
            tokio::time::timeout_at(pause.min(self.deadline), news)
                .await
                .ok();
            if let Some(node) = self
                .pick()
                .or_else(|| directory.any_open(self.last.as_ref()))
            {
                return Ok(node);
            }
        }
    }

    /// There is somewhere to go that was not just tried.
    fn is_news(&self, route: &Route) -> bool {
        let is_other = |leader: &Arc<Node>| {
            let last = self.last.as_ref();
            last.is_none_or(|last| !Arc::ptr_eq(last, leader))
        };
        let has_news = if self.kind.needs_leader() {
            route.has_open_leader() && route.leader.as_ref().is_some_and(is_other)
        } else {
            self.last.is_none() && route.has_open_node()
        };
        has_news || route.is_closed()
    }

    /// An attempt that nobody answered.
    pub fn lost(&mut self, lost: Lost) -> Result<(), Error> {
        if lost.sent {
            self.doubt();
        }
        let name = self.last.as_ref().map_or("", |node| node.address());
        let problem = match lost.cause {
            Cause::Disconnected => format!("{name}: the connection was lost"),
            Cause::Silent => format!("{name}: no answer"),
            Cause::Expired if lost.sent => {
                let before = self.problem.take();
                let before = before.map_or(String::new(), |problem| format!("; before: {problem}"));
                return Err(Error::Deadline {
                    outcome: self.outcome,
                    problem: format!("{name}: no answer yet{before}"),
                });
            }
            Cause::Expired => {
                let waits = || format!("{name}: too much waits to be sent");
                self.problem.get_or_insert_with(waits);
                return Err(self.unavailable());
            }
        };
        self.problem = Some(problem);
        self.go_on()
    }

    /// An attempt that nobody answered in the time that it had.
    pub fn unanswered(&mut self) -> Result<(), Error> {
        let cause = if self.remaining().is_zero() {
            Cause::Expired
        } else {
            Cause::Silent
        };
        self.lost(Lost { sent: true, cause })
    }

    /// An attempt that a node refused: the end of the call, unless another may fare better.
    pub fn refused(&mut self, rejected: Rejected) -> Result<(), Error> {
        if !rejected.is_transient() {
            return Err(rejected.after(self.outcome).into());
        }
        if rejected.outcome() == Outcome::Unknown {
            self.doubt();
        }
        self.follow(&rejected);
        self.problem = Some(rejected.to_string());
        self.go_on()
    }

    /// Whether there may be another attempt.
    fn go_on(&self) -> Result<(), Error> {
        if self.kind == Kind::UnnamedWrite && self.outcome == Outcome::Unknown {
            return Err(self.unavailable());
        }
        Ok(())
    }

    /// Nobody knows what became of an attempt. Of a read nothing did.
    fn doubt(&mut self) {
        if !self.kind.is_read() {
            self.outcome = Outcome::Unknown;
        }
    }

    /// How long one node may take, when another might answer.
    pub fn patience(&self, node: &Node) -> Duration {
        let longest = node.longest_attempt(self.kind.needs_leader());
        longest.min(self.remaining())
    }

    /// Takes a node's word for who leads, unless that one just failed.
    fn follow(&mut self, rejected: &Rejected) {
        let Some((id, address)) = rejected.leader() else {
            self.hints = 0;
            return;
        };
        let hint = self.shared.directory.node_at(id, address);
        let is_last = |hint: &Arc<Node>| self.last.as_ref().is_some_and(|l| Arc::ptr_eq(l, hint));
        let hint = hint.filter(|hint| hint.is_open() && !is_last(hint));
        if hint.is_some() && self.hints < HINTS_IN_A_ROW {
            self.hints += 1;
            self.hint = hint;
        } else {
            self.hints = 0;
        }
    }

    pub fn unavailable(&self) -> Error {
        let problem = self.problem.clone();
        Error::Unavailable {
            outcome: self.outcome,
            problem: problem.unwrap_or_else(|| self.shared.directory.problems()),
        }
    }

    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        for bound in [5, 10, 20, 40, 80, 100, 100] {
            assert!(backoff.next() <= Duration::from_millis(bound));
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST_PAUSE);
    }
}
