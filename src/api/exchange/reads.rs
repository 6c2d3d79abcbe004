//! The reads of a stream: one barrier for all of a frame that ask for the same freshness, then one view.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::outbox::Outbox;
use crate::api::parse::Query;
use crate::api::read::{Found, answer, check_touch, look, owed_touch};
use crate::api::weight::weight;
use crate::api::{Backend, Error, Refused};
use crate::node::{self, Outcome, ReadMode};
use crate::raft::Reply;
use crate::state::Command;
use crate::types::Revision;

/// Reads that share a barrier, with their sequences.
pub(super) type ReadGroup = VecDeque<(u64, Query)>;

/// Reads answered from one view. Writers wait for a view to end, so a large group takes several.
const VIEW_READS: usize = 512;

/// Reads of one frame that wait for something, and until when they may.
struct Waiting {
    reads: ReadGroup,
    deadline: Instant,
}

type Barrier = BoxFuture<'static, (Result<(), node::Error>, Waiting)>;

/// Reads whose sessions were touched, and what came of it for each; or why none was.
struct Touched {
    reads: Waiting,
    outcome: Result<Vec<Result<(), Refused>>, node::Error>,
}

/// Every read under way.
pub(super) struct Reads<B> {
    node: B,
    barriers: FuturesUnordered<Barrier>,
    /// Their barrier is passed.
    readable: VecDeque<Waiting>,
    /// They were read, and asked for a touch that was due. Behind it they are read again: so nothing of what was read is
    /// kept meanwhile.
    touching: FuturesUnordered<BoxFuture<'static, Touched>>,
}

impl<B: Backend> Reads<B> {
    pub fn new(node: B) -> Self {
        Self {
            node,
            barriers: FuturesUnordered::new(),
            readable: VecDeque::new(),
            touching: FuturesUnordered::new(),
        }
    }

    /// Starts the wait for a group's barrier.
    pub fn start(&mut self, mode: ReadMode, reads: ReadGroup, deadline: Instant) {
        let waiting = Waiting { reads, deadline };
        if mode == ReadMode::Stale {
            self.readable.push_back(waiting);
            return;
        }
        let node = self.node.clone();
        let barrier = async move { (node.read_barrier(mode, deadline).await, waiting) };
        self.barriers.push(barrier.boxed());
    }

    /// Answers what can be answered, as far as the outbox has room: what is not read yet costs no memory.
    pub fn poll(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) {
        while let Poll::Ready(Some((passed, waiting))) = self.barriers.poll_next_unpin(cx) {
            match passed {
                Ok(()) => self.readable.push_back(waiting),
                Err(error) => fail(waiting.reads, error, outbox),
            }
        }
        loop {
            while !outbox.is_full()
                && let Some(mut waiting) = self.readable.pop_front()
            {
                self.answer_some(&mut waiting, outbox);
                if !waiting.reads.is_empty() {
                    self.readable.push_front(waiting);
                }
            }
            match self.touching.poll_next_unpin(cx) {
                Poll::Ready(Some(touched)) => self.read_again(touched, outbox),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn answer_some(&mut self, waiting: &mut Waiting, outbox: &mut Outbox) {
        let Waiting { reads, deadline } = waiting;
        match self.view_some(reads) {
            Ok((revision, found)) => {
                let now = self.node.log_now();
                let mut touches = Vec::new();
                for found in found {
                    let Some((sequence, query)) = reads.pop_front() else {
                        break;
                    };
                    let owed = found.as_ref().ok();
                    if let Some(touch) = owed.and_then(|found| owed_touch(&query, found, now)) {
                        touches.push((sequence, query, touch));
                        continue;
                    }
                    outbox.push(sequence, answer(revision, found));
                }
                if !touches.is_empty() {
                    self.touch(touches, *deadline);
                }
            }
            Err(error) => fail(std::mem::take(reads), error, outbox),
        }
    }

    /// Proposes touches, all at once. The reads that ask for them do not get more time by it.
    fn touch(&mut self, touches: Vec<(u64, Query, Command)>, deadline: Instant) {
        let node = self.node.clone();
        let mut reads = ReadGroup::with_capacity(touches.len());
        let mut commands = Vec::with_capacity(touches.len());
        for (sequence, query, touch) in touches {
            reads.push_back((sequence, query));
            commands.push(touch);
        }
        let reads = Waiting { reads, deadline };
        let touching = async move {
            let replies = async {
                let replies = node.propose_many(commands).await?;
                let check = |reply: Result<Reply, node::Error>| check_touch(&reply?);
                Ok(replies.map(check).collect().await)
            };
            let late = Err(node::Error::Deadline {
                outcome: Outcome::Unknown,
            });
            let outcome = timeout_at(deadline, replies).await.unwrap_or(late);
            Touched { reads, outcome }
        };
        self.touching.push(touching.boxed());
    }

    fn read_again(&mut self, touched: Touched, outbox: &mut Outbox) {
        let Touched { reads, outcome } = touched;
        let Waiting { reads, deadline } = reads;
        let checked = match outcome {
            Ok(checked) => checked,
            Err(error) => return fail(reads, error, outbox),
        };
        let lost = || Err(node::Error::Stopped("a touch was dropped".to_owned()).into());
        let checked = checked.into_iter().chain(std::iter::repeat_with(lost));
        let mut again = ReadGroup::with_capacity(reads.len());
        for ((sequence, mut query), checked) in reads.into_iter().zip(checked) {
            if let Err(refused) = checked {
                outbox.push(sequence, Err(refused));
                continue;
            }
            if let Query::Session { touch, .. } = &mut query {
                // Once is enough, even where touches are stored as fast as they come.
                *touch = false;
            }
            again.push_back((sequence, query));
        }
        if !again.is_empty() {
            let reads = again;
            self.readable.push_back(Waiting { reads, deadline });
        }
    }

    /// What the group's first reads find, up to the bounds of a view and of a frame.
    fn view_some(&self, group: &ReadGroup) -> Result<(Revision, Vec<Found>), node::Error> {
        self.node.view(|view| {
            let mut found = Vec::with_capacity(group.len().min(VIEW_READS));
            let mut bytes = 0;
            for (_, query) in group.iter().take(VIEW_READS) {
                let one = look(view, query)?;
                bytes += one.as_ref().map_or(0, weight);
                found.push(one);
                if bytes >= super::outbox::FULL_BYTES {
                    break;
                }
            }
            Ok(found)
        })
    }
}

fn fail(group: ReadGroup, error: node::Error, outbox: &mut Outbox) {
    outbox.fail_all(
        group.into_iter().map(|(sequence, _)| sequence),
        &Error::Node(error),
    );
}
