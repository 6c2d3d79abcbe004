//! Writes: from a command to the reply that was applied.
//!
//! # Groups
//!
//! One task hands commands to openraft, in groups: while [`limits::PROPOSALS_IN_FLIGHT`] groups are on their way through
//! log, followers and state machine, whatever else is proposed gathers and becomes the next one. A group costs every
//! node the same messages, wake-ups and one fsync, whether it holds one command or a thousand. So a lone write waits for
//! nobody, and under load the groups grow until what they cost no longer counts.
//!
//! Invariants:
//! 1. An error that says [`Outcome::NotApplied`] was raised before openraft saw the command. Whatever openraft
//!    itself answers, `ForwardToLeader` included, is [`Outcome::Unknown`].
//! 2. Commands enter openraft in the order in which they were queued.
//! 3. The stamp is drawn once per group, from the log clock; it never decreases on one leader.
//! 4. Groups of an earlier term hold up nobody: one of them may hang until the next leader is heard.
//!
//! [`Outcome::NotApplied`]: super::Outcome::NotApplied
//! [`Outcome::Unknown`]: super::Outcome::Unknown

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};
use openraft::raft::WriteResult;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Error, LeaderHint, Leadership, Node, Shared};
use crate::limits;
use crate::raft::{Proposal, Reply, TypeConfig};
use crate::state::Command;
use crate::types::{LogTime, NodeId};

type Replies = Vec<Result<Reply, Error>>;

/// Commands that arrived together, and who waits for their replies.
#[derive(Debug)]
pub(super) struct Request {
    commands: Vec<Command>,
    waiter: oneshot::Sender<Replies>,
}

impl Request {
    /// Answers every command before openraft has seen it.
    fn refuse(self, refusal: impl Fn() -> Error) {
        let replies = self.commands.iter().map(|_| Err(refusal())).collect();
        // Whoever no longer waits does not want to know.
        drop(self.waiter.send(replies));
    }
}

impl Node {
    /// Replicates one command and returns what it answered.
    pub async fn propose(&self, command: Command) -> Result<Reply, Error> {
        let mut replies = self.propose_many(vec![command]).await?;
        replies.next().await.unwrap_or_else(|| Err(ended()))
    }

    /// Replicates commands that arrived together, in their order; they stay together unless they are very many. Waits
    /// while the queue is full. The replies come in the order of the commands.
    pub async fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<BoxStream<'static, Result<Reply, Error>>, Error> {
        let shared = &self.shared;
        if shared.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        if let Some(refusal) = refusal(&shared.leadership.borrow()) {
            return Err(refusal);
        }
        let (waiter, replies) = oneshot::channel();
        let request = Request { commands, waiter };
        if shared.proposals.send(request).await.is_err() {
            return Err(ended());
        }
        let replies = replies.map(|replies| match replies {
            Ok(replies) => stream::iter(replies),
            Err(_) => stream::iter(vec![Err(ended())]),
        });
        Ok(replies.flatten_stream().boxed())
    }
}

impl Node {
    /// Log time as the next command would be stamped with it, if this node led.
    #[must_use]
    pub fn log_now(&self) -> LogTime {
        self.shared.log_now()
    }
}

impl Shared {
    fn log_now(&self) -> LogTime {
        self.log_clock.now(self.applied.borrow().log_time)
    }
}

/// Why a node that does not lead takes no write.
fn refusal(leadership: &Leadership) -> Option<Error> {
    if leadership.is_leader() {
        return None;
    }
    let leader = leadership.leader.clone();
    Some(leader.map_or(Error::NoLeader, Error::NotLeader))
}

/// Runs on every node: groups what is proposed and hands it to openraft. Ends with the node, and whoever still waits
/// then is told that the node stopped.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Request>,
    stop: CancellationToken,
) {
    let mut leadership = shared.leadership.subscribe();
    let mut groups = FuturesUnordered::new();
    let mut term = leadership.borrow_and_update().term;
    let mut under_way = 0;
    loop {
        let may_take = under_way < limits::PROPOSALS_IN_FLIGHT || !leadership.borrow().is_leader();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(group_term) = groups.next() => {
                if group_term == term {
                    under_way -= 1;
                }
            }
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = leadership.borrow_and_update().term;
                if now != term {
                    (term, under_way) = (now, 0);
                }
            }
            request = queue.recv(), if may_take => {
                let Some(first) = request else { return };
                let refuses = refusal(&leadership.borrow()).is_some();
                if refuses {
                    first.refuse(|| refusal(&leadership.borrow()).unwrap_or(Error::NoLeader));
                    continue;
                }
                under_way += 1;
                let group = Group::gather(first, &mut queue);
                let replies = group.propose(&shared).await;
                groups.push(replies.map(move |()| term));
            }
        }
    }
}

/// Requests that enter openraft together.
struct Group {
    commands: Vec<Command>,
    /// How many of the commands are whose.
    waiters: Vec<(usize, oneshot::Sender<Replies>)>,
}

impl Group {
    /// Takes what has come together in the queue, up to the bounds of a group.
    fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> Self {
        let mut group = Self {
            commands: Vec::new(),
            waiters: Vec::new(),
        };
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(mut request) = next {
            bytes += request
                .commands
                .iter()
                .map(Command::encoded_len)
                .sum::<usize>();
            let waiter = (request.commands.len(), request.waiter);
            group.waiters.push(waiter);
            group.commands.append(&mut request.commands);
            if group.commands.len() >= limits::PROPOSAL_COMMANDS || bytes >= limits::PROPOSAL_BYTES
            {
                break;
            }
            next = queue.try_recv().ok();
        }
        group
    }

    /// Hands the commands to openraft, in the order of the groups; what is returned waits for the replies.
    async fn propose(self, shared: &Shared) -> impl Future<Output = ()> + Send + use<> {
        let stamp = shared.log_now();
        let proposals = self
            .commands
            .into_iter()
            .map(|command| Proposal::new(stamp, command));
        let entered = shared.raft.client_write_many(proposals).await;
        let results = match entered {
            Ok(results) => results.map(reply).boxed(),
            // They may have entered all the same, so nobody is told that they did not.
            Err(fatal) => stream::repeat_with(move || Err(stopped(&fatal))).boxed(),
        };
        answer(self.waiters, results)
    }
}

/// Gives every waiter its replies, as soon as it has all of them.
async fn answer(
    waiters: Vec<(usize, oneshot::Sender<Replies>)>,
    mut results: BoxStream<'static, Result<Reply, Error>>,
) {
    for (count, waiter) in waiters {
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            replies.push(results.next().await.unwrap_or_else(|| Err(ended())));
        }
        // Whoever no longer waits does not want to know.
        drop(waiter.send(replies));
    }
}

/// What became of one write.
fn reply(result: Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>) -> Result<Reply, Error> {
    match result {
        Ok(Ok(written)) => Ok(written.response),
        Ok(Err(error)) => Err(write_error(error)),
        Err(fatal) => Err(stopped(&fatal)),
    }
}

/// What openraft said of a write that it had been given.
fn write_error(error: ClientWriteError<TypeConfig>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward)
        | ClientWriteError::LogEntryDiscarded(forward) => Error::LeadershipLost(hint(forward)),
        other => Error::Stopped(other.to_string()),
    }
}

/// The leader that an error of openraft's names.
pub(super) fn hint(forward: ForwardToLeader<TypeConfig>) -> Option<LeaderHint> {
    let node = NodeId::new(forward.leader_id?).ok()?;
    Some(LeaderHint {
        node,
        address: forward.leader_node?.address,
    })
}

/// openraft's core ended.
pub(super) fn stopped(fatal: &Fatal<TypeConfig>) -> Error {
    Error::Stopped(fatal.to_string())
}

/// The node ended while a write was under way.
fn ended() -> Error {
    Error::Stopped("a write was under way".to_owned())
}
