//! The serving side: what peers ask of this node's Raft.
//!
//! Every call passes the [`Gate`] first. Append streams are handed to openraft as streams, so that the requests of
//! one leader are pipelined through core and disk. A peer may hang up at any time, so openraft is only asked through
//! [`raft::ask`] and [`Appending`]. What openraft takes for granted about its input is checked here.
//!
//! Whoever listens must set `TCP_NODELAY` on what it accepts: without it the first answer of every stream waits 40 ms
//! for a delayed acknowledgement, and a new leader opens two of them before its first write.

use std::cmp::Ordering;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, Raft};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, Streaming};

use super::envelope::bad_message;
use super::receive::{Incoming, Installation, nothing_new};
use super::{Gate, LeaderContact, SnapshotSink, SnapshotStore, message};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use crate::proto::v1;
use crate::raft::{self, Appending, Entry, LogId, SnapshotMeta, TypeConfig, Vote};
use crate::types::{DiskSpace, NodeId, Room, ShardId};

type C = TypeConfig;
/// openraft's view of the server, as it changes.
pub type ServerMetrics = WatchReceiverOf<C, RaftServerMetrics<C>>;
/// Longest wait for the first request of an append stream.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a leader waits for a full disk, and for the refusal of a snapshot that does not fit.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

type Answers = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;

/// Raft as peers reach it.
pub struct RaftEndpoint<SM, S>
where
    SM: RaftStateMachine<C>,
    S: SnapshotStore,
{
    raft: Raft<C, SM>,
    gate: Gate,
    contact: LeaderContact,
    disk: watch::Receiver<DiskSpace>,
    incoming: Incoming<S>,
    shutdown: CancellationToken,
    /// Calls into openraft.
    tasks: TaskTracker,
}

impl<SM, S> RaftEndpoint<SM, S>
where
    SM: RaftStateMachine<C, SnapshotData = <S::Sink as SnapshotSink>::Data>,
    S: SnapshotStore,
{
    /// Serves `raft` to whom `gate` lets in, and keeps incoming snapshots in `store`. Takes no commands while `disk` is full.
    /// Append streams end when `shutdown` is cancelled; without that a graceful shutdown of the server would wait for the
    /// leader. `tasks` are to be waited for once `raft` has ended.
    pub fn new(
        raft: Raft<C, SM>,
        gate: Gate,
        contact: LeaderContact,
        disk: watch::Receiver<DiskSpace>,
        store: S,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            raft,
            gate,
            contact,
            disk,
            incoming: Incoming::new(store),
            shutdown,
            tasks,
        }
    }

    /// The gRPC service with the message limits of peers.
    #[must_use]
    pub fn service(self) -> RaftServiceServer<Self> {
        RaftServiceServer::new(self)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES)
    }

    /// An offer that makes sense, whoever made it.
    async fn check_offer(&self, offer: pb::SnapshotOffer) -> Result<Offer, Status> {
        let source = self.gate.check(offer.envelope.as_ref())?;
        let vote = message::vote_from(offer.vote, source)?;
        let manifest = offer
            .manifest
            .ok_or_else(|| bad_message("an offer without a manifest"))?;
        check_manifest(&manifest, self.gate.cluster().as_bytes())?;
        let meta = message::snapshot_meta(&manifest)?;
        let (_, committed) = self.standing().await?;
        check_position(vote, meta.last_log_id, committed)?;
        Ok(Offer {
            vote,
            manifest,
            meta,
        })
    }

    /// The local vote, and the last log id that is known here to be committed.
    async fn standing(&self) -> Result<(Vote, Option<LogId>), Status> {
        let raft = self.raft.clone();
        ask(&self.tasks, async move {
            raft.with_raft_state(|state| (*state.vote_ref(), state.local_committed().copied()))
                .await
        })
        .await
    }

    /// What an offer is worth here.
    async fn weigh(&self, offer: &Offer) -> Result<Worth, Status> {
        let (local, committed) = self.standing().await?;
        if local > offer.vote {
            return Ok(Worth::Outvoted(local));
        }
        // Committed, and on this disk: of a snapshot that is being installed openraft says the first alone.
        let flushed = self.raft.watch_log_progress().get();
        let flushed = flushed.and_then(|flushed| flushed.last_log_id);
        let last = offer.meta.last_log_id;
        Ok(if last <= committed && last <= flushed {
            Worth::NothingNew
        } else {
            Worth::News
        })
    }

    /// Has openraft install the snapshot of an offer, which was received.
    async fn install(&self, offer: &Offer) -> Result<Installation, Status> {
        let (raft, tasks) = (self.raft.clone(), self.tasks.clone());
        let (vote, meta) = (offer.vote, offer.meta.clone());
        let install = move |snapshot| async move {
            let snapshot = openraft::Snapshot { meta, snapshot };
            let installed = async move { raft.install_full_snapshot(vote, snapshot).await };
            let answer = ask(&tasks, installed).await?;
            if answer.vote > vote {
                return Err(Status::aborted(
                    "a later leader came before the installation",
                ));
            }
            Ok(())
        };
        let ends_with = (&self.tasks, &self.shutdown);
        let installed = self.incoming.install(&offer.manifest, ends_with, install);
        installed.await
    }
}

/// An offer of a snapshot.
struct Offer {
    vote: Vote,
    manifest: pb::SnapshotManifest,
    meta: SnapshotMeta,
}

/// What an offer is worth to its receiver.
enum Worth {
    /// It follows this vote, which is higher than the sender's.
    Outvoted(Vote),
    /// It has all of it.
    NothingNew,
    News,
}

#[tonic::async_trait]
impl<SM, S> RaftService for RaftEndpoint<SM, S>
where
    SM: RaftStateMachine<C, SnapshotData = <S::Sink as SnapshotSink>::Data>,
    S: SnapshotStore,
{
    type StreamAppendStream = Answers;

    async fn stream_append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        // The client opens the stream together with its first request.
        let first = tokio::time::timeout(FIRST_PATIENCE, requests.message());
        let first = first
            .await
            .map_err(|_| Status::deadline_exceeded("no append came"))?;
        let Some(first) = first? else {
            return Ok(Response::new(Box::pin(stream::empty())));
        };
        let source = self.gate.check(first.envelope.as_ref())?;
        let reading = Reading {
            first: Some(first),
            requests,
            contact: self.contact.clone(),
            metrics: self.raft.server_metrics(),
            disk: self.disk.clone(),
            source,
            leader_time: Arc::default(),
            failed: Failure::default(),
            is_open: true,
        };
        let (failed, leader_time) = (reading.failed.clone(), reading.leader_time.clone());
        let contact = self.contact.clone();
        let answers = Appending::new(&self.raft, self.tasks.clone(), reading.requests())
            .map(move |result| match result {
                Ok(result) => {
                    // Before the leader counts this node among those who have the entry.
                    if result.is_ok() {
                        contact.told_time(leader_time.swap(0, Relaxed));
                    }
                    Ok(message::append_response(&result))
                }
                Err(fatal) => Err(stopped(fatal)),
            })
            .chain(stream::iter(std::iter::from_fn(move || {
                failed.take().map(Err)
            })))
            .take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        let source = self.gate.check(request.envelope.as_ref())?;
        let leader_time = request.leader_time;
        let request = message::append_from(request, source)?;
        if is_current(&self.raft.server_metrics(), &request) {
            self.contact.heard(source.get());
        }
        wait_for_room(&mut self.disk.clone(), &request).await?;
        let (last, prev) = message::range(&request);
        let raft = self.raft.clone();
        let answer = ask(
            &self.tasks,
            async move { raft.append_entries(request).await },
        )
        .await?;
        if answer.is_success() {
            self.contact.told_time(leader_time);
        }
        let room = v1::DiskRoom::from(self.disk.borrow().room);
        Ok(Response::new(pb::AppendResponse {
            disk_room: room.into(),
            ..message::append_unary_response(last, prev, answer)
        }))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        let source = self.gate.check(request.envelope.as_ref())?;
        let request = message::vote_request_from(&request, source)?;
        let raft = self.raft.clone();
        let answer = ask(&self.tasks, async move { raft.vote(request).await }).await?;
        let testimony = self.contact.testify();
        Ok(Response::new(message::vote_response(&answer, testimony)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        let source = self.gate.check(request.envelope.as_ref())?;
        let request = message::vote_request_from(&request, source)?;
        let raft = self.raft.clone();
        let answer = ask(&self.tasks, async move { raft.pre_vote(request).await }).await?;
        let testimony = self.contact.testify();
        Ok(Response::new(message::vote_response(&answer, testimony)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferResponse>, Status> {
        let request = request.into_inner();
        let source = self.gate.check(request.envelope.as_ref())?;
        let request = message::transfer_request_from(&request, source)?;
        let raft = self.raft.clone();
        let answer = ask(&self.tasks, async move {
            raft.handle_transfer_leader(request).await
        })
        .await?;
        Ok(Response::new(message::transfer_response(answer)))
    }

    async fn offer_snapshot(
        &self,
        request: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotProgress>, Status> {
        let offer = self.check_offer(request.into_inner()).await?;
        match self.weigh(&offer).await? {
            Worth::News => {}
            Worth::NothingNew => return Ok(Response::new(nothing_new(&offer.manifest))),
            Worth::Outvoted(higher) => {
                return Ok(Response::new(pb::SnapshotProgress {
                    higher_vote: Some(higher.into()),
                    ..pb::SnapshotProgress::default()
                }));
            }
        }
        let offered = self.incoming.offer(offer.manifest).await;
        if let Err(refusal) = &offered
            && refusal.code() == Code::ResourceExhausted
        {
            tokio::time::sleep(ROOM_PATIENCE).await;
        }
        Ok(Response::new(offered?))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotProgress>, Status> {
        let received = tokio::select! {
            () = self.shutdown.cancelled() => return Err(Status::unavailable("shutting down")),
            received = self.incoming.receive(&self.gate, request.into_inner()) => received?,
        };
        Ok(Response::new(received))
    }

    async fn install_snapshot(
        &self,
        request: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotInstalled>, Status> {
        let offer = self.check_offer(request.into_inner()).await?;
        let vote = match self.weigh(&offer).await? {
            Worth::Outvoted(higher) => Some(higher),
            Worth::NothingNew => Some(offer.vote),
            Worth::News => match self.install(&offer).await? {
                Installation::Done => Some(offer.vote),
                Installation::UnderWay => None,
            },
        };
        Ok(Response::new(pb::SnapshotInstalled {
            vote: vote.map(Into::into),
            under_way: vote.is_none(),
        }))
    }
}

/// A leader's requests on their way into openraft.
struct Reading {
    first: Option<pb::AppendRequest>,
    requests: Streaming<pb::AppendRequest>,
    contact: LeaderContact,
    metrics: ServerMetrics,
    disk: watch::Receiver<DiskSpace>,
    source: NodeId,
    /// What the last request said of log time, until one is accepted; 0 is nothing.
    leader_time: Arc<AtomicU64>,
    failed: Failure,
    /// Neither side has ended the stream of its own will.
    is_open: bool,
}

/// A connection that broke is noticed by whoever is first: here, or by the server, which drops the answers and with them this.
impl Drop for Reading {
    fn drop(&mut self) {
        if self.is_open {
            self.contact.lost(self.source.get());
        }
    }
}

impl Reading {
    /// Ends with the first request that is broken, and leaves why in `failed`.
    fn requests(self) -> impl Stream<Item = AppendEntriesRequest<C>> + Send + 'static {
        stream::unfold(self, |mut reading| async move {
            let request = reading.next().await?;
            Some((request, reading))
        })
    }

    async fn next(&mut self) -> Option<AppendEntriesRequest<C>> {
        let request = match self.first.take() {
            Some(first) => first,
            None => match self.requests.message().await {
                Ok(Some(request)) => request,
                Ok(None) => {
                    self.is_open = false;
                    return None;
                }
                Err(status) => {
                    tracing::debug!(source = self.source.get(), %status, "an append stream broke");
                    return None;
                }
            },
        };
        self.leader_time.store(request.leader_time, Relaxed);
        let request = match message::append_from(request, self.source) {
            Ok(request) => request,
            Err(status) => {
                tracing::error!(source = self.source.get(), %status, "a peer sent an append that cannot be");
                self.refuse(status);
                return None;
            }
        };
        if is_current(&self.metrics, &request) {
            self.contact.heard(self.source.get());
        }
        match wait_for_room(&mut self.disk, &request).await {
            Ok(()) => Some(request),
            Err(full) => {
                self.refuse(full);
                None
            }
        }
    }

    /// Ends the stream, and says why.
    fn refuse(&mut self, status: Status) {
        self.is_open = false;
        self.failed.set(status);
    }
}

/// Whether an append may come from this node's leader. One that was deposed and has not heard of it would be taken for a
/// sign of life, and keep this node from asking for votes.
#[must_use]
pub fn is_current(metrics: &ServerMetrics, request: &AppendEntriesRequest<C>) -> bool {
    let own = metrics.borrow_watched().vote;
    // Terms order votes, and within a term the nodes that they are for.
    !matches!(own.partial_cmp(&request.vote), Some(Ordering::Greater))
}

/// Commands are not appended to a full disk: the append would fail, and end this node. Whatever else Raft appends is
/// small, and it can do nothing without. The leader asks again at once, so that a refusal takes its time.
async fn wait_for_room(
    disk: &mut watch::Receiver<DiskSpace>,
    request: &AppendEntriesRequest<C>,
) -> Result<(), Status> {
    let is_command = |entry: &Entry| matches!(entry.payload, EntryPayload::Normal(_));
    if !request.entries.iter().any(is_command) {
        return Ok(());
    }
    let room = disk.wait_for(|disk| disk.room > Room::Full);
    match tokio::time::timeout(ROOM_PATIENCE, room).await {
        Ok(Ok(_)) => Ok(()),
        // Nobody looks any more: the node is being closed.
        Ok(Err(_)) => Err(Status::unavailable("shutting down")),
        Err(_) => Err(Status::unavailable("this node's disk is full")),
    }
}

/// Why the requests of a stream ended, for the end of its answers.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<Status>>>);

impl Failure {
    fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    fn take(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Asks openraft to the end, whether or not the peer waits for it.
async fn ask<T, E>(
    tasks: &TaskTracker,
    question: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Status>
where
    T: Send + 'static,
    E: From<Fatal<C>> + Display + Send + 'static,
{
    raft::ask(tasks, question).await.map_err(stopped)
}

/// This node's Raft is not running: the peer should back off.
fn stopped(error: impl Display) -> Status {
    Status::unavailable(format!("raft is not running: {error}"))
}

fn check_manifest(manifest: &pb::SnapshotManifest, cluster: &[u8; 16]) -> Result<(), Status> {
    if manifest.cluster_id.as_ref() != cluster {
        return Err(bad_message("a snapshot of another cluster"));
    }
    if manifest.shard_id != u32::from(ShardId::ZERO.get()) {
        return Err(bad_message("a snapshot of another shard"));
    }
    if manifest.files.len() > limits::SNAPSHOT_FILES {
        return Err(bad_message("a snapshot of too many files"));
    }
    Ok(())
}

/// openraft panics when a snapshot goes beyond its sender's leadership, or contradicts what is committed here. No
/// leader that follows the protocol has such a snapshot.
fn check_position(vote: Vote, last: Option<LogId>, committed: Option<LogId>) -> Result<(), Status> {
    let Some(last) = last else {
        return Err(bad_message("a snapshot of an empty log"));
    };
    if !vote.committed {
        return Err(bad_message("a snapshot without an established leader"));
    }
    if last.leader_id > vote.leader_id {
        return Err(bad_message("a snapshot from beyond its sender's term"));
    }
    match committed {
        Some(committed) if last > committed && last.index <= committed.index => {
            Err(bad_message("a snapshot that contradicts the committed log"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_that_its_sender_can_have_is_installed() {
        let leader = |term| Vote::new_committed(term, 1);
        let at = |term, index| Some(LogId::new(leader(term).leader_id, index));
        for (vote, last, committed, is_taken) in [
            (leader(3), at(2, 20), None, true),
            (leader(3), at(3, 20), at(2, 19), true),
            (leader(3), at(2, 20), at(2, 20), true),
            (leader(3), at(2, 15), at(2, 20), true),
            (leader(3), None, None, false),
            (Vote::new(3, 1), at(2, 20), None, false),
            (leader(3), at(4, 20), None, false),
            (leader(3), at(3, 20), at(2, 20), false),
            (leader(3), at(3, 19), at(2, 20), false),
        ] {
            let checked = check_position(vote, last, committed);
            assert_eq!(checked.is_ok(), is_taken, "{vote} {last:?} {committed:?}");
        }
    }
}
