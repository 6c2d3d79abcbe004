//! One pipelined append stream to one follower.
//!
//! Requests go out while earlier ones wait for their answers, at most [`limits::APPEND_PIPELINE`] of them; answers
//! come in the order of the requests, as the transport keeps it.
//!
//! A request without entries tells the follower how far the log is committed, and nothing else. Under load the next
//! entries, which tell it too, are a moment away, so such a request is held back for [`COMMIT_LINGER`] and dropped when
//! another comes. openraft takes the answer to a later request for all before it.
//!
//! Invariant: the input lives and dies with the output. openraft's request stream holds a lock of its replication
//! task while it waits for entries, so it is polled by whoever polls the output and is never moved into a task
//! that could outlive it. The connection gets the requests through a channel that is never full.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Error, message};
use crate::clock::LogClock;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_client::RaftServiceClient;
use crate::raft::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;
type Response = StreamAppendResult<TypeConfig>;

/// How many soft TTLs a stream may go without progress. The TTL is shorter than a heartbeat interval, and a disk
/// that stalls for that long is no reason to throw the whole pipeline away and send it again.
const PROGRESS_TTLS: u32 = 20;

/// How long a request without entries is held back: this much later a follower may apply a lone write.
const COMMIT_LINGER: Duration = Duration::from_millis(1);

/// What happens next on an open stream.
enum Event {
    Answer(Result<Option<pb::AppendResponse>, Status>),
    /// `None`: there will be no more.
    Request(Option<Request>),
    /// The held request must go.
    Due,
}

/// An append stream before and while it is open.
pub(super) struct Session<I> {
    client: RaftServiceClient<Channel>,
    /// Taken by the first request.
    envelope: Option<pb::Envelope>,
    clock: Arc<LogClock>,
    input: I,
    /// Taken away when the input ended, which tells the peer so.
    requests: Option<mpsc::Sender<pb::AppendRequest>>,
    responses: Option<Streaming<pb::AppendResponse>>,
    /// A request without entries, and when it must go.
    held: Option<(Request, Instant)>,
    in_flight: usize,
    /// Longest time from the last progress to an answer.
    patience: Duration,
    progress_at: Instant,
}

impl<I> Session<I>
where
    I: Stream<Item = Request> + Send + Unpin + 'static,
{
    pub(super) fn new(
        client: RaftServiceClient<Channel>,
        envelope: pb::Envelope,
        clock: Arc<LogClock>,
        input: I,
        soft_ttl: Duration,
    ) -> Self {
        Self {
            client,
            envelope: Some(envelope),
            clock,
            input,
            requests: None,
            responses: None,
            held: None,
            in_flight: 0,
            patience: soft_ttl * PROGRESS_TTLS,
            progress_at: Instant::now(),
        }
    }

    /// The answers in the order of the requests. Ends when the input did and all is answered, or with the first
    /// error; a conflict or a higher vote is the last answer too.
    pub(super) fn results(self) -> impl Stream<Item = Result<Response, Error>> + Send {
        stream::unfold(Some(self), |session| async move {
            let mut session = session?;
            let result = session.next().await.transpose()?;
            let goes_on = matches!(result, Ok(Ok(_)));
            Some((result, goes_on.then_some(session)))
        })
    }

    async fn next(&mut self) -> Result<Option<Response>, Error> {
        if self.responses.is_none() {
            let Some(first) = self.input.next().await else {
                return Ok(None);
            };
            self.open(&first).await?;
        }
        loop {
            let Some(responses) = &mut self.responses else {
                return Ok(None);
            };
            if self.requests.is_none() && self.in_flight == 0 {
                // The peer's last word, without which the stream would be reset instead of ended. Whatever it is,
                // everything is answered.
                let _ = tokio::time::timeout(self.patience, responses.message()).await;
                return Ok(None);
            }
            let may_send = self.requests.is_some() && self.in_flight < limits::APPEND_PIPELINE;
            let held_until = self.held.as_ref().map(|(_, until)| *until);
            let event = tokio::select! {
                // Answers first: they free the pipeline. They are awaited while nothing is under way too, so that a
                // connection that breaks in a quiet moment is noticed in that moment.
                biased;
                response = responses.message() => Event::Answer(response),
                request = self.input.next(), if may_send => Event::Request(request),
                () = until(held_until), if held_until.is_some() => Event::Due,
                () = tokio::time::sleep_until(self.progress_at + self.patience), if self.in_flight > 0 => {
                    return Err(Error::Timeout(self.patience));
                }
            };
            match event {
                Event::Answer(response) => {
                    self.progress_at = Instant::now();
                    return answered(&mut self.in_flight, response).map(Some);
                }
                Event::Request(Some(request)) if request.entries.is_empty() => {
                    self.held = Some((request, Instant::now() + COMMIT_LINGER));
                }
                Event::Request(Some(request)) => {
                    self.held = None;
                    self.send(&request);
                }
                Event::Request(None) => {
                    self.send_held();
                    self.requests = None;
                }
                Event::Due => self.send_held(),
            }
        }
    }

    fn send_held(&mut self) {
        if let Some((request, _)) = self.held.take() {
            self.send(&request);
        }
    }

    fn send(&mut self, request: &Request) {
        if self.in_flight == 0 {
            self.progress_at = Instant::now();
        }
        let request = self.encode(request);
        // A channel that is closed is no error yet: the responses will say why it is.
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(request);
        }
        self.in_flight += 1;
    }

    /// With what the clock shows as it goes out: whoever takes a stamp knows what came of it since, see [`crate::clock`].
    fn encode(&mut self, request: &Request) -> pb::AppendRequest {
        message::append_request(request, self.envelope.take(), self.clock.peek())
    }

    /// Opens the stream with its first request already under way, which saves a round trip.
    async fn open(&mut self, first: &Request) -> Result<(), Error> {
        let (requests, body) = mpsc::channel(limits::APPEND_PIPELINE);
        let _ = requests.try_send(self.encode(first));
        self.requests = Some(requests);
        self.in_flight = 1;
        self.progress_at = Instant::now();
        let opening = self.client.stream_append(ReceiverStream::new(body));
        let opened = tokio::time::timeout(self.patience, opening).await;
        let responses = opened.map_err(|_| Error::Timeout(self.patience))??;
        self.responses = Some(responses.into_inner());
        Ok(())
    }
}

/// Resolves at that time; never without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn answered(
    in_flight: &mut usize,
    response: Result<Option<pb::AppendResponse>, Status>,
) -> Result<Response, Error> {
    let Some(response) = response? else {
        let ended = Status::unknown("the follower ended the append stream");
        return Err(Error::Broken(Box::new(ended)));
    };
    *in_flight = in_flight
        .checked_sub(1)
        .ok_or_else(|| Error::Failed("an answer to an append that was not sent".to_owned()))?;
    message::append_result(response)
}
