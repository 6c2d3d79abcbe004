//! What a leader does unasked: moves log time on when a deadline is near, and compares digests.
//!
//! A record is invisible from its deadline on, in log time. Log time moves with every write; where nothing is
//! written, this task proposes a `Tick`, at most [`PERIOD`] late, and only if something may be due. A sweep is
//! bounded per entry, so ticks follow each other at once while more is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::periodic::Periodic;
use super::{Base, Node, Shared};
use crate::proto::internal as pb;
use crate::state::{Command, Identity, Operation};
use crate::types::{LogTime, Namespace, Revision};

/// How often a leader looks whether something is due.
const PERIOD: Duration = Duration::from_millis(100);
/// How often a leader that has written something compares digests with its followers.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(10);

/// Runs on every node, acts on the leader.
pub(super) async fn run<B: Base>(node: Node<B>, stop: CancellationToken) {
    let mut turns = Periodic::new(PERIOD, stop.clone());
    let mut checkpoints = Checkpoints::new();
    while turns.turn().await {
        while !stop.is_cancelled() && node.shared.leads() {
            let Some(tick) = node.shared.due_tick(&mut checkpoints) else {
                break;
            };
            if let Err(error) = node.propose(tick).await {
                tracing::debug!(%error, "a tick was not applied; the next leader goes on");
                break;
            }
        }
    }
}

/// When the last digest checkpoint was proposed, and at which revision.
struct Checkpoints {
    at: Instant,
    revision: Revision,
}

impl Checkpoints {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            revision: Revision::default(),
        }
    }

    /// Whether one is proposed now: not while nothing changes, and not often.
    fn are_due(&mut self, revision: Revision) -> bool {
        let is_due = self.at.elapsed() >= CHECKPOINT_PERIOD && self.revision != revision;
        if is_due {
            let at = Instant::now();
            *self = Self { at, revision };
        }
        is_due
    }

    /// What a leader with this state proposes, where something may be swept or not.
    fn tick(&mut self, header: pb::StateHeader, sweep: bool) -> Option<Command> {
        let checkpoint = self.are_due(Revision::new(header.revision));
        (sweep || checkpoint).then(|| tick(checkpoint, header.checkpoint.filter(|_| checkpoint)))
    }
}

impl<B: Base> Shared<B> {
    fn leads(&self) -> bool {
        self.leadership.borrow().is_leader()
    }

    fn due_tick(self: &Arc<Self>, checkpoints: &mut Checkpoints) -> Option<Command> {
        let header = self.base.header();
        let now = self.log_clock.now(LogTime::from_millis(header.log_time));
        let deadline = self.base.next_deadline();
        checkpoints.tick(header, deadline.is_some_and(|deadline| deadline <= now))
    }
}

fn tick(checkpoint: bool, expect: Option<pb::DigestCheckpoint>) -> Command {
    Command::new(
        Namespace::default(),
        Identity::Anonymous,
        Operation::Tick { checkpoint, expect },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(revision: u64) -> pb::StateHeader {
        pb::StateHeader {
            revision,
            checkpoint: Some(pb::DigestCheckpoint::default()),
            ..pb::StateHeader::default()
        }
    }

    /// Whether it makes a checkpoint, and whether it says what the last one was; `None` where nothing is proposed.
    fn proposed(tick: Option<Command>) -> Option<(bool, bool)> {
        match tick?.operation {
            Operation::Tick { checkpoint, expect } => Some((checkpoint, expect.is_some())),
            other => panic!("{other:?} is no tick"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_is_compared_after_a_while_and_only_once() {
        let mut checkpoints = Checkpoints::new();
        let mut tick = |revision, sweep| proposed(checkpoints.tick(header(revision), sweep));
        assert_eq!(tick(1, false), None, "it is early");
        assert_eq!(tick(1, true), Some((false, false)), "there is a sweep");
        tokio::time::advance(CHECKPOINT_PERIOD).await;
        assert_eq!(tick(1, false), Some((true, true)));
        assert_eq!(tick(2, false), None, "it is early again");
        tokio::time::advance(CHECKPOINT_PERIOD).await;
        assert_eq!(tick(1, false), None, "nothing was written");
        assert_eq!(tick(1, true), Some((false, false)));
        assert_eq!(tick(2, true), Some((true, true)), "both at once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_state_is_not_compared() {
        let mut checkpoints = Checkpoints::new();
        tokio::time::advance(CHECKPOINT_PERIOD).await;
        assert!(checkpoints.tick(header(0), false).is_none());
    }
}
