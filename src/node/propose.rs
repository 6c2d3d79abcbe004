//! Writes: from a command to the reply that was applied.
//!
//! # Groups
//!
//! One task hands commands to openraft, in groups: while others are on their way through log, followers and state
//! machine, what is proposed gathers, until it is as large as the last group or nothing is under way any more. A group is
//! one log entry: it costs every node the same messages, wake-ups and one fsync, whether it holds one command or a
//! thousand. So a lone write waits for nobody, and under load the groups grow until what they cost no longer counts.
//!
//! Invariants:
//! 1. An error that says [`Outcome::NotApplied`] was raised before the command was in any log: before openraft saw it, or by
//!    openraft with `ForwardToLeader`, see `write_error`. Whatever else openraft answers is [`Outcome::Unknown`].
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

use super::{Base, Error, LeaderHint, Leadership, Node, Shared, space};
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

impl<B: Base> Node<B> {
    /// Replicates one command and returns what it answered.
    pub async fn propose(&self, command: Command) -> Result<Reply, Error> {
        let mut replies = self.propose_many(vec![command]).await?;
        replies.next().await.unwrap_or_else(|| Err(ended()))
    }

    /// Replicates commands that arrived together, in their order; they stay together unless they are very many. Waits
    /// while the queue is full. The replies come in the order of the commands. What there is no room for is refused, and
    /// the rest goes on.
    pub async fn propose_many(
        &self,
        mut commands: Vec<Command>,
    ) -> Result<BoxStream<'static, Result<Reply, Error>>, Error> {
        let shared = &self.shared;
        if shared.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        if let Some(refusal) = refusal(&shared.leadership.borrow()) {
            return Err(refusal);
        }
        let admission = shared.admission.borrow().clone();
        let Some(shortage) = admission.shortage() else {
            return self.enter(commands).await;
        };
        let stay = shared.sort_out(&mut commands, shortage)?;
        let replies = if commands.is_empty() {
            stream::empty().boxed()
        } else {
            self.enter(commands).await?
        };
        Ok(space::interleave(stay, replies, admission))
    }

    /// Queues commands for the task that proposes.
    async fn enter(
        &self,
        commands: Vec<Command>,
    ) -> Result<BoxStream<'static, Result<Reply, Error>>, Error> {
        let shared = &self.shared;
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

impl<B: Base> Node<B> {
    /// Log time as far as this node knows it. It never asks the wall clock, which is for a leader to do when it stamps.
    #[must_use]
    pub fn log_now(&self) -> LogTime {
        let applied = self.shared.applied.borrow().log_time;
        let heard = self.shared.log_clock.peek().unwrap_or_default();
        heard.max(applied)
    }
}

impl<B: Base> Shared<B> {
    fn log_now(&self) -> LogTime {
        self.log_clock.now(self.applied.borrow().log_time)
    }
}

/// Why a node that does not lead takes no write.
pub(super) fn refusal(leadership: &Leadership) -> Option<Error> {
    if leadership.is_leader() {
        return None;
    }
    let leader = leadership.leader.clone();
    Some(leader.map_or(Error::NoLeader, Error::NotLeader))
}

/// Runs on every node: groups what is proposed and hands it to openraft. Ends with the node, and whoever still waits
/// then is told that the node stopped.
pub(super) async fn run<B: Base>(
    shared: Arc<Shared<B>>,
    mut queue: mpsc::Receiver<Request>,
    stop: CancellationToken,
) {
    let mut leadership = shared.leadership.subscribe();
    let mut groups = FuturesUnordered::new();
    let mut pace = Pace::new(leadership.borrow_and_update().term);
    let mut gathered = Group::default();
    loop {
        gathered.fill(&mut queue);
        if refusal(&leadership.borrow()).is_some() {
            let refusal = || refusal(&leadership.borrow()).unwrap_or(Error::NoLeader);
            std::mem::take(&mut gathered).refuse(refusal);
        } else if pace.lets_go(&gathered) {
            pace.begin(&gathered);
            let term = pace.term;
            let replies = std::mem::take(&mut gathered).propose(&shared).await;
            groups.push(replies.map(move |()| term));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(term) = groups.next() => pace.end(term),
            changed = leadership.changed() => match changed {
                Ok(()) => pace.observe(leadership.borrow_and_update().term),
                Err(_) => return,
            },
            request = queue.recv(), if !gathered.is_full() => match request {
                Some(request) => gathered.add(request),
                None => return,
            },
        }
    }
}

/// When the next group goes.
struct Pace {
    term: u64,
    /// Groups of this term without replies.
    under_way: usize,
    /// Commands of the one that went last.
    last: usize,
}

impl Pace {
    fn new(term: u64) -> Self {
        Self {
            term,
            under_way: 0,
            last: 0,
        }
    }

    /// At once when nothing is under way. Beside others only a group that is as large as the last one, so that many
    /// callers who come one by one do not make many small groups.
    fn lets_go(&self, gathered: &Group) -> bool {
        let is_worth = gathered.commands.len() >= self.last || gathered.is_full();
        let beside = self.under_way < limits::PROPOSALS_IN_FLIGHT && is_worth;
        !gathered.commands.is_empty() && (self.under_way == 0 || beside)
    }

    fn begin(&mut self, group: &Group) {
        self.under_way += 1;
        self.last = group.commands.len();
    }

    /// A group of that term has its replies.
    fn end(&mut self, term: u64) {
        if term == self.term {
            self.under_way -= 1;
        }
    }

    /// Groups of an earlier term hold up nobody.
    fn observe(&mut self, term: u64) {
        if term != self.term {
            *self = Self::new(term);
        }
    }
}

/// Requests that enter openraft together.
#[derive(Default)]
struct Group {
    commands: Vec<Command>,
    /// How many of the commands are whose.
    waiters: Vec<(usize, oneshot::Sender<Replies>)>,
    bytes: usize,
}

impl Group {
    fn add(&mut self, mut request: Request) {
        let sizes = request.commands.iter();
        self.bytes += sizes.map(|command| command.encoded().len()).sum::<usize>();
        self.waiters.push((request.commands.len(), request.waiter));
        self.commands.append(&mut request.commands);
    }

    /// Takes what waits in the queue.
    fn fill(&mut self, queue: &mut mpsc::Receiver<Request>) {
        while !self.is_full() {
            let Ok(request) = queue.try_recv() else {
                return;
            };
            self.add(request);
        }
    }

    fn is_full(&self) -> bool {
        self.commands.len() >= limits::PROPOSAL_COMMANDS || self.bytes >= limits::PROPOSAL_BYTES
    }

    /// Answers every command before openraft has seen it.
    fn refuse(self, refusal: impl Fn() -> Error) {
        for (count, waiter) in self.waiters {
            let replies = (0..count).map(|_| Err(refusal()));
            // Whoever no longer waits does not want to know.
            drop(waiter.send(replies.collect()));
        }
    }

    /// Hands the commands to openraft, in the order of the groups; what is returned waits for the replies.
    async fn propose<B: Base>(
        self,
        shared: &Shared<B>,
    ) -> impl Future<Output = ()> + Send + use<B> {
        let stamp = shared.log_now();
        let proposal = Proposal::new(stamp, self.commands);
        let entered = shared.raft.client_write_many([proposal]).await;
        let waiters = self.waiters;
        async move {
            let written = match entered {
                Ok(mut results) => results.next().await,
                // It may have entered all the same, so nobody is told that it did not.
                Err(fatal) => Some(Err(fatal)),
            };
            answer(waiters, written);
        }
    }
}

/// Gives every waiter its replies, or the reason why there are none.
fn answer(
    waiters: Vec<(usize, oneshot::Sender<Replies>)>,
    written: Option<Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>,
) {
    let failure: &dyn Fn() -> Error = match written {
        Some(Ok(Ok(written))) => {
            let mut replies = written.response.0.into_iter();
            for (count, waiter) in waiters {
                let own = (0..count).map(|_| replies.next().ok_or_else(ended));
                // Whoever no longer waits does not want to know.
                drop(waiter.send(own.collect()));
            }
            return;
        }
        Some(Ok(Err(ref error))) => &|| write_error(error),
        Some(Err(ref fatal)) => &|| stopped(fatal),
        None => &ended,
    };
    for (count, waiter) in waiters {
        let own = (0..count).map(|_| Err(failure()));
        drop(waiter.send(own.collect()));
    }
}

/// What openraft said of an entry that it had been given.
///
/// `ForwardToLeader` is what its core (0.10.0-alpha.37) says in place of an append: where another node leads, where this one hands
/// over, and where it has not heard a majority for a while. Who waits for an entry that was appended is told `LogEntryDiscarded`
/// when that entry has to give way, and such a one may be committed by the next leader all the same.
pub(super) fn write_error(error: &ClientWriteError<TypeConfig>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            hint(forward.clone()).map_or(Error::NoLeader, Error::NotLeader)
        }
        ClientWriteError::LogEntryDiscarded(forward) => {
            Error::LeadershipLost(hint(forward.clone()))
        }
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

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::raft::Member;
    use crate::state::{Identity, Operation};
    use crate::types::Namespace;

    fn request(commands: usize) -> (Request, oneshot::Receiver<Replies>) {
        let operation = || Operation::Tick {
            checkpoint: false,
            expect: None,
        };
        let command = || Command::new(Namespace::default(), Identity::Anonymous, operation());
        let (waiter, replies) = oneshot::channel();
        let commands = std::iter::repeat_with(command).take(commands).collect();
        (Request { commands, waiter }, replies)
    }

    fn group(commands: usize) -> Group {
        let mut group = Group::default();
        if commands > 0 {
            group.add(request(commands).0);
        }
        group
    }

    #[test]
    fn a_group_goes_alone_or_beside_what_is_not_larger() {
        let mut pace = Pace::new(1);
        assert!(!pace.lets_go(&group(0)), "nothing");
        assert!(pace.lets_go(&group(1)), "nothing is under way");
        pace.begin(&group(4));
        assert!(!pace.lets_go(&group(3)), "smaller than what is under way");
        assert!(pace.lets_go(&group(4)));
        assert!(pace.lets_go(&group(limits::PROPOSAL_COMMANDS)));
        pace.end(1);
        assert!(pace.lets_go(&group(1)), "nothing is under way again");
    }

    #[test]
    fn a_full_group_need_not_be_as_large_as_the_last() {
        let mut pace = Pace::new(1);
        pace.begin(&group(limits::PROPOSAL_COMMANDS + 500));
        assert!(pace.lets_go(&group(limits::PROPOSAL_COMMANDS)));
    }

    #[test]
    fn only_so_many_groups_are_under_way_in_a_term() {
        let mut pace = Pace::new(1);
        for _ in 0..limits::PROPOSALS_IN_FLIGHT {
            assert!(pace.lets_go(&group(1)));
            pace.begin(&group(1));
        }
        assert!(!pace.lets_go(&group(1)));
        pace.observe(1);
        assert!(!pace.lets_go(&group(1)), "the same term");
        pace.observe(2);
        assert!(pace.lets_go(&group(1)), "those of term 1 hold up nobody");
        pace.begin(&group(1));
        pace.end(1);
        assert_eq!(pace.under_way, 1, "a late end of term 1 frees no place");
    }

    #[test]
    fn a_group_ends_with_the_request_that_crosses_its_bound() {
        let (sender, mut queue) = mpsc::channel(8);
        for _ in 0..3 {
            let sent = sender.try_send(request(limits::PROPOSAL_COMMANDS - 1).0);
            assert!(sent.is_ok());
        }
        let mut group = Group::default();
        group.fill(&mut queue);
        assert!(group.is_full());
        assert_eq!(group.waiters.len(), 2);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn what_openraft_did_not_append_was_not_applied_and_what_it_discarded_may_be() {
        let mut forward = ForwardToLeader::empty();
        let refused = |forward: &ForwardToLeader<_>| {
            write_error(&ClientWriteError::ForwardToLeader(forward.clone()))
        };
        let discarded = |forward: &ForwardToLeader<_>| {
            write_error(&ClientWriteError::LogEntryDiscarded(forward.clone()))
        };
        assert!(matches!(refused(&forward), Error::NoLeader));
        assert!(matches!(discarded(&forward), Error::LeadershipLost(None)));
        forward.leader_id = Some(2);
        forward.leader_node = Some(Member::default());
        let (refused, discarded) = (refused(&forward), discarded(&forward));
        assert!(matches!(&refused, Error::NotLeader(to) if to.node.get() == 2));
        assert!(matches!(&discarded, Error::LeadershipLost(Some(to)) if to.node.get() == 2));
        assert_eq!(refused.outcome(), Outcome::NotApplied);
        assert_eq!(discarded.outcome(), Outcome::Unknown);
    }

    #[test]
    fn whoever_is_refused_is_told_for_each_command() {
        let (request, mut replies) = request(3);
        let mut group = Group::default();
        group.add(request);
        group.refuse(|| Error::NoLeader);
        let replies = replies.try_recv().expect("answered");
        assert_eq!(replies.len(), 3);
        assert!(
            replies
                .iter()
                .all(|reply| matches!(reply, Err(Error::NoLeader)))
        );
    }
}
