//! Read index rounds, shared by everyone who reads.
//!
//! A round asks a quorum whether this node still leads; on a follower it asks the leader, who does that. Whatever waits
//! when a round begins is answered by it, so the cost of a linearizable read falls with the load, and the reads of many
//! callers become ready together.
//!
//! Invariant: a read is answered by a round that began after the read was queued. One that is under way already may
//! have been confirmed before a write that the reader knows of.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::errors::Fatal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Base, Error, LeaderHint, Outcome, Shared};
use crate::limits;
use crate::raft::TypeConfig;

/// How long a round waits for a quorum, or for the leader.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Someone who waits for the log index that a read must have applied.
pub(super) type Waiter = oneshot::Sender<Result<u64, Unconfirmed>>;

/// Why a round confirmed nothing: an [`Error`] that many can be told.
#[derive(Debug, Clone)]
pub enum Unconfirmed {
    /// Another node leads.
    NotLeader(LeaderHint),
    /// No node is known to lead, or it did not answer.
    NoLeader,
    /// The leader reached no quorum.
    NoQuorum,
    /// The answer took too long.
    Late,
    /// openraft ended.
    Stopped(String),
}

impl From<Fatal<TypeConfig>> for Unconfirmed {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        Self::Stopped(fatal.to_string())
    }
}

impl From<Unconfirmed> for Error {
    fn from(unconfirmed: Unconfirmed) -> Self {
        match unconfirmed {
            Unconfirmed::NotLeader(leader) => Self::NotLeader(leader),
            Unconfirmed::NoLeader => Self::NoLeader,
            Unconfirmed::NoQuorum => Self::NoQuorum,
            Unconfirmed::Late => late(),
            Unconfirmed::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

/// A read changes nothing, however late it is.
fn late() -> Error {
    Error::Deadline {
        outcome: Outcome::NotApplied,
    }
}

impl<B: Base> Shared<B> {
    /// The log index that a linearizable read which begins now must have applied.
    pub(super) async fn join_round(&self, deadline: Instant) -> Result<u64, Error> {
        let joined = async {
            let (waiter, answer) = oneshot::channel();
            let ended = || Error::Stopped("a read was under way".to_owned());
            self.reads.send(waiter).await.map_err(|_| ended())?;
            Ok(answer.await.map_err(|_| ended())??)
        };
        timeout_at(deadline, joined).await.unwrap_or(Err(late()))
    }
}

/// Runs on every node. Ends with the node, and whoever still waits then is told that it stopped.
pub(super) async fn run<B: Base>(
    shared: Arc<Shared<B>>,
    mut queue: mpsc::Receiver<Waiter>,
    stop: CancellationToken,
) {
    let mut rounds = FuturesUnordered::new();
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = rounds.next() => continue,
            count = queue.recv_many(&mut waiting, limits::READ_QUEUE), if rounds.len() < limits::READ_ROUNDS => {
                if count == 0 {
                    return;
                }
            }
        }
        let shared = Arc::clone(&shared);
        rounds.push(async move {
            let confirmed = shared.confirm_read_index().await;
            for waiter in waiting {
                // Whoever no longer waits does not want to know.
                drop(waiter.send(confirmed.clone()));
            }
        });
    }
}
