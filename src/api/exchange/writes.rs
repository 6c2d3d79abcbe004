//! The writes of a stream: proposed frame by frame, answered in log order.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::vec;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::outbox::Outbox;
use crate::api::backend::Replies;
use crate::api::parse::Echo;
use crate::api::{Backend, Error, Refused, encode};
use crate::node::{self, Outcome};
use crate::state::Command;

/// The valid writes of one frame.
#[derive(Default)]
pub(super) struct NewWrites {
    pub commands: Vec<Command>,
    /// As many, in the same order.
    pub pending: Vec<PendingWrite>,
    pub bytes: usize,
}

impl NewWrites {
    pub fn with_capacity(operations: usize) -> Self {
        Self {
            commands: Vec::with_capacity(operations),
            pending: Vec::with_capacity(operations),
            bytes: 0,
        }
    }
}

/// A write without an outcome.
pub(super) struct PendingWrite {
    pub sequence: u64,
    pub echo: Echo,
}

struct Proposal {
    replies: BoxFuture<'static, Result<Replies, node::Error>>,
    pending: Vec<PendingWrite>,
    bytes: usize,
    deadline: Instant,
}

struct Batch {
    replies: Replies,
    pending: vec::IntoIter<PendingWrite>,
    bytes: usize,
    deadline: Instant,
}

/// Every write under way.
#[derive(Default)]
pub(super) struct Writes {
    /// The frame that is entering Raft.
    proposal: Option<Proposal>,
    /// Those that have entered, oldest first.
    batches: VecDeque<Batch>,
    bytes: usize,
    leads: bool,
}

impl Writes {
    /// What the writes under way hold in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A leader answers in log order, so only the oldest batch is worth looking at. A node that was deposed
    /// answers in any order, and late: then a batch that has failed must not wait behind one that hangs.
    pub fn set_leads(&mut self, leads: bool) {
        self.leads = leads;
    }

    /// Starts to propose a frame. The one before it must have entered.
    pub fn propose<B: Backend>(&mut self, node: &B, writes: NewWrites, deadline: Instant) {
        let node = node.clone();
        let NewWrites {
            commands,
            pending,
            bytes,
        } = writes;
        self.bytes += bytes;
        self.proposal = Some(Proposal {
            replies: async move { node.propose_many(commands).await }.boxed(),
            pending,
            bytes,
            deadline,
        });
    }

    /// Nothing is entering Raft any more.
    pub fn poll_proposal(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> bool {
        let Some(proposal) = &mut self.proposal else {
            return true;
        };
        let Poll::Ready(entered) = proposal.replies.poll_unpin(cx) else {
            return false;
        };
        let Some(Proposal {
            pending,
            bytes,
            deadline,
            ..
        }) = self.proposal.take()
        else {
            return true;
        };
        match entered {
            Ok(replies) => self.batches.push_back(Batch {
                replies,
                pending: pending.into_iter(),
                bytes,
                deadline,
            }),
            Err(error) => {
                self.bytes -= bytes;
                fail(pending.into_iter(), error, outbox);
            }
        }
        true
    }

    /// Takes every reply that is there.
    pub fn poll_replies(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) {
        let Self {
            batches,
            bytes,
            leads,
            ..
        } = self;
        if !*leads {
            batches.retain_mut(|batch| {
                let finished = batch.poll(cx, outbox);
                if finished {
                    *bytes -= batch.bytes;
                }
                !finished
            });
            return;
        }
        while let Some(batch) = batches.front_mut() {
            if !batch.poll(cx, outbox) {
                return;
            }
            *bytes -= batch.bytes;
            batches.pop_front();
        }
    }

    /// When the oldest write must have an outcome.
    pub fn oldest_deadline(&self) -> Option<Instant> {
        let oldest = self.batches.front().map(|batch| batch.deadline);
        oldest.or_else(|| self.proposal.as_ref().map(|proposal| proposal.deadline))
    }

    /// Gives up on what is past its deadline. It may be applied all the same.
    pub fn expire(&mut self, now: Instant, outbox: &mut Outbox) {
        let late = || node::Error::Deadline {
            outcome: Outcome::Unknown,
        };
        while self
            .batches
            .front()
            .is_some_and(|batch| batch.deadline <= now)
            && let Some(batch) = self.batches.pop_front()
        {
            self.bytes -= batch.bytes;
            fail(batch.pending, late(), outbox);
        }
        if let Some(proposal) = self.proposal.take_if(|proposal| proposal.deadline <= now) {
            self.bytes -= proposal.bytes;
            fail(proposal.pending.into_iter(), late(), outbox);
        }
    }
}

impl Batch {
    /// Every write of the batch has its outcome.
    fn poll(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> bool {
        while self.pending.len() > 0 && !outbox.is_full() {
            match self.replies.poll_next_unpin(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(reply)) => {
                    let Some(PendingWrite { sequence, echo }) = self.pending.next() else {
                        return true;
                    };
                    let reply = reply.map_err(Refused::from);
                    outbox.push(sequence, reply.and_then(|reply| encode::write(echo, reply)));
                }
                Poll::Ready(None) => {
                    let pending = std::mem::take(&mut self.pending);
                    let lost = node::Error::Stopped("a write was dropped".to_owned());
                    fail(pending, lost, outbox);
                }
            }
        }
        self.pending.len() == 0
    }
}

fn fail(pending: vec::IntoIter<PendingWrite>, error: node::Error, outbox: &mut Outbox) {
    outbox.fail_all(pending.map(|write| write.sequence), &Error::Node(error));
}
