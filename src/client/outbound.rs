//! The outgoing half of a node's stream.
//!
//! HTTP/2 polls it when it can take more, so that a frame carries whatever has come together in the meantime, and a
//! connection that is slow makes larger frames and no queue of them.
//!
//! Invariant: a node takes every frame, for it ends the stream over one that it does not. So a frame is bounded in operations, bytes
//! and parts, and none of the requests that get here is beyond these bounds by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

use super::frame::Frame;
use super::node::{Cause, Node, Sent, Submission, lose};
use super::supervisor::Shared;
use crate::limits;

/// A frame ends with the operation that crosses it.
const FRAME_BYTES: usize = 1 << 20;
/// Whatever is larger is beyond every limit of a request's parts. It is refused here, because a node that met a frame
/// beyond [`limits::MESSAGE_BYTES`] would end the stream, and with it the operations of others.
pub(super) const LARGEST_REQUEST: usize = 2 << 20;
/// Tag, length and sequence of an operation in a frame: more than they ever take.
const FRAMING_BYTES: usize = 32;

const _: () = {
    let framing = limits::FRAME_OPERATIONS * FRAMING_BYTES;
    assert!(FRAME_BYTES + LARGEST_REQUEST + framing < limits::MESSAGE_BYTES);
    assert!(limits::VALUE_BYTES + limits::KEY_BYTES + limits::SESSION_BYTES < LARGEST_REQUEST);
};

pub(super) struct Outbound {
    node: Arc<Node>,
    shared: Arc<Shared>,
    session: u64,
    /// Sent with the first frame.
    client_id: Option<Bytes>,
    /// The inbox was given a turn of the scheduler to fill up.
    lingered: bool,
}

impl Outbound {
    pub fn new(node: &Arc<Node>, shared: &Arc<Shared>, session: u64) -> Self {
        Self {
            node: Arc::clone(node),
            shared: Arc::clone(shared),
            session,
            client_id: Some(shared.ledger.client_id()),
            lingered: false,
        }
    }

    /// Takes a frame's worth out of the inbox. `None` when this stream is not the node's any more.
    fn take(&self, room: usize) -> Option<Vec<Submission>> {
        let mut inbox = self.node.lock_inbox();
        if inbox.session != self.session {
            return None;
        }
        let mut bytes = 0;
        let mut parts = 0;
        let fits = inbox.waiting.iter().take(room).take_while(|submission| {
            parts += submission.excess_parts as usize;
            let fits = bytes < FRAME_BYTES && parts <= limits::MESSAGE_PARTS;
            bytes += submission.request.len();
            fits
        });
        let count = fits.count();
        let was_full = inbox.waiting.len() >= limits::FRAME_OPERATIONS;
        let taken = inbox.waiting.drain(..count).collect();
        drop(inbox);
        if was_full {
            self.node.announce_room();
        }
        Some(taken)
    }

    /// Puts what is about to be sent on the table.
    fn enter(&self, taken: Vec<Submission>) -> Frame {
        let now = Instant::now();
        let mut operations = Vec::with_capacity(taken.len());
        let mut fenced = Vec::new();
        let mut table = self.node.lock_table();
        let received = self.node.received.load(Ordering::Relaxed);
        for submission in taken {
            if submission.waiter.is_closed() {
                continue;
            }
            // The stream ended between the two locks; nobody empties this session's table again.
            if table.session != self.session {
                fenced.push(submission.waiter);
                continue;
            }
            let length = u32::try_from(submission.request.len());
            operations.push((submission.sequence, submission.request));
            let sent = Sent {
                at: now,
                deadline: submission.deadline,
                bytes: length.expect("it is no larger than the largest request"),
                needs_leader: submission.needs_leader,
                waiter: submission.waiter,
            };
            table.insert(submission.sequence, sent);
            table.owe(now, received);
        }
        drop(table);
        for waiter in fenced {
            lose(waiter, false, Cause::Disconnected);
        }
        self.node.keep_sweeping();
        Frame {
            client_id: Bytes::new(),
            confirmed_below: self.shared.ledger.confirmed_below(),
            operations,
        }
    }

    fn room(&self) -> usize {
        let sent = self.node.lock_table().sent().len();
        let free = limits::STREAM_IN_FLIGHT.saturating_sub(sent);
        free.min(limits::FRAME_OPERATIONS)
    }
}

impl Stream for Outbound {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let stream = self.get_mut();
        if let Some(client_id) = stream.client_id.take() {
            return Poll::Ready(Some(Frame {
                client_id,
                confirmed_below: stream.shared.ledger.confirmed_below(),
                operations: Vec::new(),
            }));
        }
        // Before the inbox is looked at, so that what comes in between is not missed.
        stream.node.drain.register(cx.waker());
        {
            let inbox = stream.node.lock_inbox();
            if inbox.session != stream.session {
                return Poll::Ready(None);
            }
            if inbox.waiting.is_empty() {
                stream.lingered = false;
                return Poll::Pending;
            }
        }
        // An incoming frame wakes many callers, and the first to submit wakes this stream ahead of the others. One turn
        // of the scheduler is cheaper than a frame for each of them.
        if !stream.lingered {
            stream.lingered = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        stream.lingered = false;
        let room = stream.room();
        if room == 0 {
            // The next dispatch wakes it.
            return Poll::Pending;
        }
        let Some(taken) = stream.take(room) else {
            return Poll::Ready(None);
        };
        let frame = stream.enter(taken);
        if frame.operations.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(frame))
    }
}
