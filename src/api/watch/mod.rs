//! Events over a stream: what the node tells a watcher, filtered and encoded.
//!
//! Invariants:
//! 1. Events go out in the order of revisions and positions, each that matches exactly once.
//! 2. `progress_revision` never passes an event that matches and was not sent. A message may end within a revision: then
//!    it names the one before.
//! 3. Between two messages a watcher holds its place and nothing else, so that one which does not read costs the
//!    one message that waits for it, and the one before that HTTP/2 has. A message ends with the event that crosses its bound.
//! 4. The first message comes at once, and then at least one in each progress interval for as long as the caller reads.
//!
//! Deliberately absent: a deadline. A watch ends when its caller, its node or its slowness ends it.

mod encode;
mod filter;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status};

use super::parse::{self, Watch};
use super::{Api, Backend, Error, encode as responses};
use crate::limits;
use crate::node::{self, Told, Watcher};
use crate::proto::v1::watch_service_server::WatchService;
use crate::proto::v1::{ResponseHeader, WatchRequest, WatchResponse};
use crate::state::events::Event;
use crate::types::Revision;

#[tonic::async_trait]
impl<B: Backend> WatchService for Api<B> {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = parse::watch(request.into_inner())?;
        let watching = Watching::begin(self, watch)?;
        Ok(Response::new(messages(watching)))
    }
}

/// The stream: messages until one is a status.
fn messages(watching: Watching) -> BoxStream<'static, Result<WatchResponse, Status>> {
    let messages = stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(message) => Some((Ok(message), Some(watching))),
            Err(error) => Some((Err(error.into()), None)),
        }
    });
    messages.boxed()
}

/// One watch.
struct Watching {
    watcher: Watcher,
    watch: Watch,
    place: Place,
    /// To be sent with the next message.
    header: Option<ResponseHeader>,
    /// When the next message is due, whatever happens.
    due: Instant,
    drain: CancellationToken,
    _under_way: TaskTrackerToken,
}

/// The next event to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    revision: Revision,
    position: u32,
}

impl Place {
    fn start_of(revision: Revision) -> Self {
        Self {
            revision,
            position: 0,
        }
    }

    fn of(event: &Event) -> Self {
        Self {
            revision: event.revision,
            position: event.position,
        }
    }

    /// The last revision of which everything was looked at.
    fn progress(self) -> u64 {
        self.revision.get().saturating_sub(1)
    }
}

impl Watching {
    fn begin<B: Backend>(api: &Api<B>, watch: Watch) -> Result<Self, Error> {
        let watcher = api.node.watch()?;
        let applied = watcher.applied();
        let start = watch.start.unwrap_or_else(|| applied.revision.next());
        let header = responses::header(&api.node.leadership(), applied.revision, false);
        Ok(Self {
            watcher,
            watch,
            place: Place::start_of(start),
            header: Some(header),
            due: Instant::now(),
            drain: api.drain.clone(),
            _under_way: api.under_way.token(),
        })
    }

    /// The next message, or why there is none any more.
    async fn next(&mut self) -> Result<WatchResponse, Error> {
        let mut message = WatchResponse::default();
        let mut bytes = 0;
        loop {
            if self.drain.is_cancelled() {
                return Err(node::Error::Draining.into());
            }
            match self.watcher.look(self.place.revision)? {
                Told::Events { events, through } => {
                    bytes += self.take(&events, through, bytes, &mut message);
                    if bytes >= limits::WATCH_RESPONSE_BYTES || self.is_due() {
                        return Ok(self.finish(message));
                    }
                    // Others want to run while this one catches up.
                    tokio::task::yield_now().await;
                }
                Told::Nothing(applied) => {
                    message.log_time_ms = applied.log_time.as_millis();
                    if bytes > 0 || self.is_due() {
                        return Ok(self.finish(message));
                    }
                    self.wait().await?;
                }
            }
        }
    }

    /// Puts into a message what matches, up to its bound, and moves the place behind it. Returns the bytes added.
    fn take(
        &mut self,
        events: &Arc<[Event]>,
        through: Revision,
        before: usize,
        message: &mut WatchResponse,
    ) -> usize {
        let first = events.partition_point(|event| Place::of(event) < self.place);
        let mut added = 0;
        for event in events.iter().skip(first) {
            if before + added >= limits::WATCH_RESPONSE_BYTES {
                self.place = Place::of(event);
                return added;
            }
            message.log_time_ms = event.log_time.as_millis();
            if self.watch.matches(event) {
                let event = encode::event(event);
                added += event.encoded_len();
                message.events.push(event);
            }
        }
        self.place = Place::start_of(through.next());
        added
    }

    fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    fn finish(&mut self, mut message: WatchResponse) -> WatchResponse {
        self.due = Instant::now() + self.progress_interval();
        message.header = self.header.take();
        message.progress_revision = self.place.progress();
        message
    }

    fn progress_interval(&self) -> Duration {
        self.watch.progress
    }

    /// Until there may be something new, or a message is due.
    async fn wait(&mut self) -> Result<(), Error> {
        tokio::select! {
            () = self.drain.cancelled() => Ok(()),
            beat = timeout_at(self.due, self.watcher.beat()) => match beat {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
