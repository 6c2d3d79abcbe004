//! One pipelined append stream to one follower.
//!
//! Requests go out while earlier ones wait for their answers, at most [`limits::APPEND_PIPELINE`] of them; answers
//! come in the order of the requests, as the transport keeps it.
//!
//! Invariant: the input lives and dies with the output. openraft's request stream holds a lock of its replication
//! task while it waits for entries, so it is polled by whoever polls the output and is never moved into a task
//! that could outlive it. The connection gets the requests through a channel that is never full.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Error, message};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_client::RaftServiceClient;
use crate::raft::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;
type Response = StreamAppendResult<TypeConfig>;

/// How many soft TTLs a stream may go without progress. The TTL is shorter than a heartbeat interval, and a disk
/// that stalls for that long is no reason to throw the whole pipeline away and send it again.
const PROGRESS_TTLS: u32 = 20;

/// An append stream before and while it is open.
pub(super) struct Session<I> {
    client: RaftServiceClient<Channel>,
    /// Taken by the first request.
    envelope: Option<pb::Envelope>,
    input: I,
    /// Taken away when the input ended, which tells the peer so.
    requests: Option<mpsc::Sender<pb::AppendRequest>>,
    responses: Option<Streaming<pb::AppendResponse>>,
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
        input: I,
        soft_ttl: Duration,
    ) -> Self {
        Self {
            client,
            envelope: Some(envelope),
            input,
            requests: None,
            responses: None,
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
        let Some(responses) = &mut self.responses else {
            return Ok(None);
        };
        loop {
            if self.requests.is_none() && self.in_flight == 0 {
                // The peer's last word, without which the stream would be reset instead of ended. Whatever it is,
                // everything is answered.
                let _ = tokio::time::timeout(self.patience, responses.message()).await;
                return Ok(None);
            }
            let may_send = self.requests.is_some() && self.in_flight < limits::APPEND_PIPELINE;
            tokio::select! {
                // Answers first: they free the pipeline. They are awaited while nothing is under way too, so that a
                // connection that breaks in a quiet moment is noticed in that moment.
                biased;
                response = responses.message() => {
                    self.progress_at = Instant::now();
                    return answered(&mut self.in_flight, response).map(Some);
                }
                request = self.input.next(), if may_send => {
                    match request {
                        Some(request) => {
                            if self.in_flight == 0 {
                                self.progress_at = Instant::now();
                            }
                            // A channel that is closed is no error yet: the responses will say why it is.
                            if let Some(requests) = &self.requests {
                                let _ = requests.try_send(message::append_request(&request, None));
                            }
                            self.in_flight += 1;
                        }
                        None => self.requests = None,
                    }
                }
                () = tokio::time::sleep_until(self.progress_at + self.patience), if self.in_flight > 0 => {
                    return Err(Error::Timeout(self.patience));
                }
            }
        }
    }

    /// Opens the stream with its first request already under way, which saves a round trip.
    async fn open(&mut self, first: &Request) -> Result<(), Error> {
        let (requests, body) = mpsc::channel(limits::APPEND_PIPELINE);
        let _ = requests.try_send(message::append_request(first, self.envelope.take()));
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
