//! Many operations over one stream: what the client library speaks, and the hot path of the server.
//!
//! The stream is one state machine, [`Exchange`], that is polled in the task which writes to the connection. So an
//! operation costs no task, no channel and no lock here:
//!
//! ```text
//! frames in ─▶ split ─▶ writes ─▶ one propose_many per frame ─▶ replies, in order ─┐
//!                    └▶ reads ──▶ one barrier per mode and frame ─▶ one view ───────┴▶ outbox ─▶ frames out
//! ```
//!
//! Invariants:
//! 1. Every operation of an accepted frame gets exactly one outcome, unless the stream breaks first.
//! 2. A bad operation fails alone. A frame that is bad as a whole ends the stream with a status.
//! 3. At most [`limits::STREAM_IN_FLIGHT`] operations and about [`limits::STREAM_IN_FLIGHT_BYTES`] of writes are under
//!    way; the stream is not read beyond. A caller that does not read its outcomes is not read either, because
//!    this stream is then not polled.
//! 4. Frames enter Raft in their order. Nothing waits for an earlier frame's outcome.
//! 5. No operation stays without an outcome beyond [`limits::REQUEST_DEADLINE_MS`].
//!
//! The header goes out when the stream opens and when leadership changes; a frame without one goes on under the
//! last.
//!
//! Deliberately absent: forwarding. A caller of this stream follows the leader itself.

mod outbox;
mod reads;
mod split;
mod writes;

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use self::outbox::Outbox;
use self::reads::Reads;
use self::split::{Split, split};
use self::writes::Writes;
use super::{Api, Backend, Error, encode};
use crate::limits;
use crate::node::{self, Leadership};
use crate::proto::v1::exchange_service_server::ExchangeService;
use crate::proto::v1::{ExchangeRequest, ExchangeResponse, ResponseHeader};
use crate::types::{ClientId, Invalid, Revision};

#[tonic::async_trait]
impl<B: Backend> ExchangeService for Api<B> {
    type ExchangeStream = Exchange<B, Streaming<ExchangeRequest>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Ok(Response::new(Exchange::new(self, request.into_inner())))
    }
}

/// One exchange stream. It owns whatever is under way on it, so that dropping it ends that too.
pub struct Exchange<B, F> {
    node: B,
    frames: F,
    /// Known from the first frame on.
    client: Option<ClientId>,
    leadership: WatchStream<Leadership>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    writes: Writes,
    reads: Reads<B>,
    outbox: Outbox,
    /// To be sent with the next frame.
    header: Option<ResponseHeader>,
    /// Operations without a sent outcome.
    in_flight: usize,
    intake: Intake,
    expiry: Expiry,
    /// The outbox was given a turn of the scheduler to fill up.
    lingered: bool,
    _under_way: TaskTrackerToken,
}

/// Whether more frames are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// The caller has sent all it wanted.
    Closed,
    /// This node shuts down.
    Draining,
    /// The last item was returned.
    Ended,
}

impl<B, F> Exchange<B, F>
where
    B: Backend,
    F: Stream<Item = Result<ExchangeRequest, Status>> + Unpin,
{
    fn new(api: &Api<B>, frames: F) -> Self {
        Self {
            node: api.node.clone(),
            frames,
            client: None,
            leadership: WatchStream::new(api.node.leadership_changes()),
            drain: Box::pin(api.drain.clone().cancelled_owned()),
            writes: Writes::default(),
            reads: Reads::new(api.node.clone()),
            outbox: Outbox::default(),
            header: None,
            in_flight: 0,
            intake: Intake::Open,
            expiry: Expiry::new(),
            lingered: false,
            _under_way: api.under_way.token(),
        }
    }

    fn poll_leadership(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(leadership)) = self.leadership.poll_next_unpin(cx) {
            let revision = self.node.view(|_| Ok(()));
            let revision = revision.map_or(Revision::default(), |(revision, ())| revision);
            self.header = Some(encode::header(&leadership, revision, false));
            self.writes.set_leads(leadership.is_leader());
        }
    }

    /// Reads frames while there is room for what they bring.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        if self.intake == Intake::Open && self.drain.as_mut().poll(cx).is_ready() {
            self.intake = Intake::Draining;
        }
        // A frame enters Raft before the next is read: that keeps their order and passes on Raft's backpressure.
        while self.writes.poll_proposal(cx, &mut self.outbox) && self.has_room() {
            match self.frames.poll_next_unpin(cx) {
                Poll::Ready(Some(frame)) => self.accept(frame?)?,
                Poll::Ready(None) => self.intake = Intake::Closed,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.intake == Intake::Open
            && self.in_flight + limits::FRAME_OPERATIONS <= limits::STREAM_IN_FLIGHT
            && self.writes.bytes() < limits::STREAM_IN_FLIGHT_BYTES
            && !self.outbox.is_full()
    }

    fn accept(&mut self, frame: ExchangeRequest) -> Result<(), Error> {
        let client = match self.client {
            Some(client) => client,
            None => ClientId::parse(&frame.client_id)?,
        };
        self.client = Some(client);
        let operations = frame.operations.len();
        if operations > limits::FRAME_OPERATIONS {
            return Err(Error::Invalid(Invalid::TooMany {
                field: "operations",
                limit: limits::FRAME_OPERATIONS,
                actual: operations,
            }));
        }
        self.in_flight += operations;
        let deadline = Instant::now() + Duration::from_millis(limits::REQUEST_DEADLINE_MS);
        let Split { writes, reads } = split(frame, client, &mut self.outbox);
        if !writes.pending.is_empty() {
            self.writes.propose(&self.node, writes, deadline);
        }
        for (mode, group) in reads {
            self.reads.start(mode, group, deadline);
        }
        Ok(())
    }

    fn poll_expiry(&mut self, cx: &mut Context<'_>) {
        while let Some(deadline) = self.writes.oldest_deadline() {
            if !self.expiry.poll(cx, deadline) {
                return;
            }
            self.writes.expire(Instant::now(), &mut self.outbox);
        }
    }

    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ExchangeResponse, Status>>> {
        if self.outbox.is_empty() && self.header.is_none() {
            return self.poll_end();
        }
        if self.is_worth_lingering() {
            self.lingered = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.lingered = false;
        let outcomes = self.outbox.take();
        self.in_flight -= outcomes.len();
        Poll::Ready(Some(Ok(ExchangeResponse {
            header: self.header.take(),
            outcomes,
        })))
    }

    /// Replies of one log batch arrive one by one, on another thread. One turn of the scheduler is cheaper than a
    /// frame of its own for each.
    fn is_worth_lingering(&self) -> bool {
        !self.lingered
            && self.header.is_none()
            && !self.outbox.is_full()
            && self.in_flight > self.outbox.len()
    }

    fn poll_end(&mut self) -> Poll<Option<Result<ExchangeResponse, Status>>> {
        if self.in_flight > 0 {
            return Poll::Pending;
        }
        match self.intake {
            Intake::Open => Poll::Pending,
            Intake::Closed | Intake::Ended => Poll::Ready(None),
            Intake::Draining => self.end(Error::Node(node::Error::Draining).into()),
        }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<ExchangeResponse, Status>>> {
        self.intake = Intake::Ended;
        Poll::Ready(Some(Err(status)))
    }
}

impl<B, F> Stream for Exchange<B, F>
where
    B: Backend,
    F: Stream<Item = Result<ExchangeRequest, Status>> + Unpin,
{
    type Item = Result<ExchangeResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        if stream.intake == Intake::Ended {
            return Poll::Ready(None);
        }
        stream.poll_leadership(cx);
        if let Err(status) = stream.poll_frames(cx) {
            return stream.end(status);
        }
        stream.poll_expiry(cx);
        stream.writes.poll_replies(cx, &mut stream.outbox);
        stream.reads.poll(cx, &mut stream.outbox);
        stream.poll_output(cx)
    }
}

/// One timer for the oldest deadline of a stream. Deadlines are in the order of frames, so it is set again only when it
/// has fired, and a finished frame leaves it alone.
struct Expiry {
    sleep: Pin<Box<Sleep>>,
    is_set: bool,
}

impl Expiry {
    fn new() -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_set: false,
        }
    }

    /// The deadline has passed.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        loop {
            if !self.is_set {
                self.sleep.as_mut().reset(deadline);
                self.is_set = true;
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.is_set = false;
            // It may have been set for an older frame, which is finished.
            if deadline <= Instant::now() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
