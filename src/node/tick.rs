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
}

impl<B: Base> Shared<B> {
    fn leads(&self) -> bool {
        self.leadership.borrow().is_leader()
    }

    fn due_tick(self: &Arc<Self>, checkpoints: &mut Checkpoints) -> Option<Command> {
        let header = self.base.header();
        let now = self.log_clock.now(LogTime::from_millis(header.log_time));
        let sweep = self
            .base
            .next_deadline()
            .is_some_and(|deadline| deadline <= now);
        let revision = Revision::new(header.revision);
        let checkpoint =
            checkpoints.at.elapsed() >= CHECKPOINT_PERIOD && checkpoints.revision != revision;
        if checkpoint {
            *checkpoints = Checkpoints {
                at: Instant::now(),
                revision,
            };
        }
        (sweep || checkpoint).then(|| tick(checkpoint, header.checkpoint.filter(|_| checkpoint)))
    }
}

fn tick(checkpoint: bool, expect: Option<pb::DigestCheckpoint>) -> Command {
    Command::new(
        Namespace::default(),
        Identity::Anonymous,
        Operation::Tick { checkpoint, expect },
    )
}
