//! The reads of a stream: one barrier for all of a frame that ask for the same freshness, then one view.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::outbox::Outbox;
use crate::api::parse::Query;
use crate::api::read::{Found, answer, look};
use crate::api::{Backend, Error};
use crate::node::{self, ReadMode};
use crate::types::Revision;

/// Reads that share a barrier, with their sequences.
pub(super) type ReadGroup = VecDeque<(u64, Query)>;

/// Reads answered from one view. Writers wait for a view to end, so a large group takes several.
const VIEW_READS: usize = 512;

type Barrier = BoxFuture<'static, (Result<(), node::Error>, ReadGroup)>;

/// Every read under way.
pub(super) struct Reads<B> {
    node: B,
    barriers: FuturesUnordered<Barrier>,
    /// Their barrier is passed.
    readable: VecDeque<ReadGroup>,
}

impl<B: Backend> Reads<B> {
    pub fn new(node: B) -> Self {
        Self {
            node,
            barriers: FuturesUnordered::new(),
            readable: VecDeque::new(),
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
        while !outbox.is_full()
            && let Some(mut group) = self.readable.pop_front()
        {
            self.answer_some(&mut group, outbox);
            if !group.is_empty() {
                self.readable.push_front(group);
            }
        }
    }

    fn answer_some(&self, group: &mut ReadGroup, outbox: &mut Outbox) {
        match self.view_some(group) {
            Ok((revision, found)) => {
                for found in found {
                    let Some((sequence, _)) = group.pop_front() else {
                        return;
                    };
                    let found = found.map_err(Error::Rejected);
                    outbox.push(sequence, found.map(|response| answer(revision, response)));
                }
            }
            Err(error) => fail(std::mem::take(group), error, outbox),
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
