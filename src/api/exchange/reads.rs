//! The reads of a stream: one barrier for all of a frame that ask for the same freshness, then one view.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::outbox::Outbox;
use crate::api::parse::Query;
use crate::api::read::{Found, answer, check_touch, look, owed_touch};
use crate::api::{Backend, Error};
use crate::limits;
use crate::node::{self, Outcome, ReadMode};
use crate::state::Command;
use crate::types::Revision;

/// Reads that share a barrier, with their sequences.
pub(super) type ReadGroup = VecDeque<(u64, Query)>;

/// Reads answered from one view. Writers wait for a view to end, so a large group takes several.
const VIEW_READS: usize = 512;

type Barrier = BoxFuture<'static, (Result<(), node::Error>, ReadGroup)>;

/// Reads whose sessions are being touched, and what came of it for each.
type Touching =
    BoxFuture<'static, Result<Vec<(u64, Query, Result<(), Error>)>, (ReadGroup, node::Error)>>;

/// Every read under way.
pub(super) struct Reads<B> {
    node: B,
    barriers: FuturesUnordered<Barrier>,
    /// Their barrier is passed.
    readable: VecDeque<ReadGroup>,
    /// They were read, and asked for a touch that was due. Behind it they are read again: so nothing of what was read is
    /// kept meanwhile.
    touching: FuturesUnordered<Touching>,
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
    pub fn start(&mut self, mode: ReadMode, group: ReadGroup, deadline: Instant) {
        if mode == ReadMode::Stale {
            self.readable.push_back(group);
            return;
        }
        let node = self.node.clone();
        let barrier = async move { (node.read_barrier(mode, deadline).await, group) };
        self.barriers.push(barrier.boxed());
    }

    /// Answers what can be answered, as far as the outbox has room: what is not read yet costs no memory.
    pub fn poll(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) {
        while let Poll::Ready(Some((passed, group))) = self.barriers.poll_next_unpin(cx) {
            match passed {
                Ok(()) => self.readable.push_back(group),
                Err(error) => fail(group, error, outbox),
            }
        }
        loop {
            while !outbox.is_full()
                && let Some(mut group) = self.readable.pop_front()
            {
                self.answer_some(&mut group, outbox);
                if !group.is_empty() {
                    self.readable.push_front(group);
                }
            }
            match self.touching.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(touched))) => self.read_again(touched, outbox),
                Poll::Ready(Some(Err((group, error)))) => fail(group, error, outbox),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn answer_some(&mut self, group: &mut ReadGroup, outbox: &mut Outbox) {
        match self.view_some(group) {
            Ok((revision, found)) => {
                let now = self.node.log_now();
                let mut touches = Vec::new();
                for found in found {
                    let Some((sequence, query)) = group.pop_front() else {
                        break;
                    };
                    let owed = found.as_ref().ok();
                    if let Some(touch) = owed.and_then(|found| owed_touch(&query, found, now)) {
                        touches.push((sequence, query, touch));
                        continue;
                    }
                    let found = found.map_err(Error::Rejected);
                    outbox.push(sequence, found.map(|response| answer(revision, response)));
                }
                if !touches.is_empty() {
                    self.touch(touches);
                }
            }
            Err(error) => fail(std::mem::take(group), error, outbox),
        }
    }

    /// Proposes touches, all at once.
    fn touch(&mut self, touches: Vec<(u64, Query, Command)>) {
        let node = self.node.clone();
        let deadline = Instant::now() + Duration::from_millis(limits::REQUEST_DEADLINE_MS);
        let mut group = ReadGroup::with_capacity(touches.len());
        let mut commands = Vec::with_capacity(touches.len());
        for (sequence, query, touch) in touches {
            group.push_back((sequence, query));
            commands.push(touch);
        }
        let touching = async move {
            let replies = async {
                let replies = node.propose_many(commands).await?;
                Ok::<Vec<_>, node::Error>(replies.collect().await)
            };
            let late = node::Error::Deadline {
                outcome: Outcome::Unknown,
            };
            let replies = match timeout_at(deadline, replies).await {
                Ok(Ok(replies)) => replies,
                Ok(Err(error)) => return Err((group, error)),
                Err(_) => return Err((group, late)),
            };
            let lost = || Err(node::Error::Stopped("a touch was dropped".to_owned()));
            let replies = replies.into_iter().chain(std::iter::repeat_with(lost));
            let answered = group.into_iter().zip(replies);
            let checked = answered.map(|((sequence, query), reply)| {
                let reply = reply.map_err(Error::Node);
                (sequence, query, reply.and_then(|reply| check_touch(&reply)))
            });
            Ok(checked.collect())
        };
        self.touching.push(touching.boxed());
    }

    fn read_again(&mut self, touched: Vec<(u64, Query, Result<(), Error>)>, outbox: &mut Outbox) {
        let mut group = ReadGroup::with_capacity(touched.len());
        for (sequence, mut query, checked) in touched {
            if let Err(error) = checked {
                outbox.push(sequence, Err(error));
                continue;
            }
            if let Query::Session { touch, .. } = &mut query {
                // Once is enough, even where touches are stored as fast as they come.
                *touch = false;
            }
            group.push_back((sequence, query));
        }
        if !group.is_empty() {
            self.readable.push_back(group);
        }
    }

    /// What the group's first reads find, up to the bounds of a view and of a frame.
    fn view_some(&self, group: &ReadGroup) -> Result<(Revision, Vec<Found>), node::Error> {
        self.node.view(|view| {
            let mut found = Vec::with_capacity(group.len().min(VIEW_READS));
            let mut bytes = 0;
            for (_, query) in group.iter().take(VIEW_READS) {
                let one = look(view, query)?;
                bytes += one.as_ref().map_or(0, super::outbox::weight);
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
