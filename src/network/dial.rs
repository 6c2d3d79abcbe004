//! The dialling side: openraft's network over the connections of a [`Pool`].

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{Backoff, RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2, StorageError};
use tonic::transport::Channel;

use super::append::Session;
use super::channel::within;
use super::snapshot::{SendError, Transfer};
use super::{Error, Lane, Local, PeerRooms, Pool, SnapshotFiles, message};
use crate::clock::LogClock;
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_client::RaftServiceClient;
use crate::raft::{LogId, Member, TypeConfig, Vote};

type C = TypeConfig;

/// Attempts of one snapshot transfer before openraft is told that it failed.
const SNAPSHOT_ATTEMPTS: u32 = 5;
/// First and longest pause between two attempts at a peer that is unreachable.
const BACKOFF_MS: (u64, u64) = (10, 200);

/// Makes openraft's clients, and asks peers what only nodes ask each other. Cloning shares the connections.
pub struct Dialer<S> {
    local: Local,
    pool: Pool,
    clock: Arc<LogClock>,
    rooms: PeerRooms,
    refusals: Arc<Refusals>,
    snapshots: PhantomData<fn() -> S>,
}

impl<S> fmt::Debug for Dialer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl<S> Clone for Dialer<S> {
    fn clone(&self) -> Self {
        Self {
            local: self.local,
            pool: self.pool.clone(),
            clock: self.clock.clone(),
            rooms: self.rooms.clone(),
            refusals: self.refusals.clone(),
            snapshots: PhantomData,
        }
    }
}

impl<S: SnapshotFiles> Dialer<S> {
    /// A dialler that signs its calls as `local`. Its appends tell what `clock` shows, and the answers what there is in
    /// `rooms`.
    #[must_use]
    pub fn new(local: Local, pool: Pool, clock: Arc<LogClock>, rooms: PeerRooms) -> Self {
        Self {
            local,
            pool,
            clock,
            rooms,
            refusals: Arc::default(),
            snapshots: PhantomData,
        }
    }

    /// Asks the leader for the log id that a linearizable read must wait for; absent while its log is empty.
    pub async fn read_index(
        &self,
        target: u64,
        member: &Member,
        deadline: Duration,
    ) -> Result<Option<LogId>, Error> {
        let request = pb::ReadIndexRequest {
            envelope: Some(self.local.envelope(target, member.instance)),
        };
        let mut client = self.pool.peer(&member.address)?;
        let answer = within(deadline, client.read_index(request)).await?;
        Ok(answer.read_log_id.map(Into::into))
    }

    /// Asks a member for the vote that it holds; absent before the first.
    pub async fn held_vote(
        &self,
        target: u64,
        member: &Member,
        deadline: Duration,
    ) -> Result<Option<Vote>, Error> {
        let request = pb::HeldVoteRequest {
            envelope: Some(self.local.envelope(target, member.instance)),
        };
        let mut client = self.pool.peer(&member.address)?;
        let answer = within(deadline, client.held_vote(request)).await?;
        Ok(answer.vote.map(Into::into))
    }

    /// Asks a member for its own status: an encoded `trolley.v1.NodeStatus`.
    pub async fn node_status(
        &self,
        target: u64,
        member: &Member,
        deadline: Duration,
    ) -> Result<bytes::Bytes, Error> {
        let request = pb::NodeStatusRequest {
            envelope: Some(self.local.envelope(target, member.instance)),
        };
        let mut client = self.pool.peer(&member.address)?;
        Ok(within(deadline, client.node_status(request)).await?.status)
    }

    fn client(&self, target: u64, member: &Member, lane: Lane) -> Peer<S> {
        Peer {
            local: self.local,
            target,
            member: member.clone(),
            lane,
            pool: self.pool.clone(),
            clock: self.clock.clone(),
            rooms: self.rooms.clone(),
            refusals: self.refusals.clone(),
            snapshots: PhantomData,
        }
    }
}

impl<S: SnapshotFiles> RaftNetworkFactory<C> for Dialer<S> {
    type Network = Peer<S>;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer<S> {
        self.client(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Peer<S> {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Peer<S> {
        self.client(target, node, Lane::Snapshot)
    }
}

/// One of openraft's clients of one peer. It owns no connection: those are the pool's.
pub struct Peer<S> {
    local: Local,
    target: u64,
    member: Member,
    lane: Lane,
    pool: Pool,
    clock: Arc<LogClock>,
    rooms: PeerRooms,
    refusals: Arc<Refusals>,
    snapshots: PhantomData<fn() -> S>,
}

impl<S> fmt::Debug for Peer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Peer({} at {}, {:?})",
            self.target, self.member, self.lane
        )
    }
}

impl<S> Peer<S> {
    fn envelope(&self) -> pb::Envelope {
        self.local.envelope(self.target, self.member.instance)
    }

    fn connect(&self, lane: Lane) -> Result<RaftServiceClient<Channel>, Error> {
        self.pool.raft(&self.member.address, lane)
    }

    /// Notes how a call went, and turns its error into openraft's.
    fn told<T>(&self, action: RPCTypes, result: Result<T, Error>) -> Result<T, RPCError<C>> {
        self.refusals
            .observe(self.target, &self.member, result.as_ref().err());
        result.map_err(|error| error.into_rpc(action, self.local.node.get(), self.target))
    }

    async fn call_append(
        &self,
        rpc: &AppendEntriesRequest<C>,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse<C>, Error> {
        let request = message::append_request(rpc, Some(self.envelope()), self.clock.peek());
        let mut client = self.connect(self.lane)?;
        let term = rpc.vote.leader_id.term;
        match within(deadline, client.append(request)).await {
            Ok(response) => {
                let room = response.disk_room().into();
                self.rooms.heard(self.target, term, room);
                message::append_unary_result(rpc, response)
            }
            Err(error) => {
                self.rooms.missed(self.target, term);
                Err(error)
            }
        }
    }

    async fn call_vote(
        &self,
        rpc: &VoteRequest<C>,
        deadline: Duration,
    ) -> Result<VoteResponse<C>, Error> {
        let request = message::vote_request(rpc, self.envelope());
        let mut client = self.connect(Lane::Control)?;
        self.voted(within(deadline, client.vote(request)).await?)
    }

    async fn call_pre_vote(
        &self,
        rpc: &VoteRequest<C>,
        deadline: Duration,
    ) -> Result<VoteResponse<C>, Error> {
        let request = message::vote_request(rpc, self.envelope());
        let mut client = self.connect(Lane::Control)?;
        self.voted(within(deadline, client.pre_vote(request)).await?)
    }

    /// A voter's answer. What it says of time is heard before openraft counts the vote, so that whoever is elected knows
    /// what its electors knew.
    fn voted(&self, response: pb::VoteResponse) -> Result<VoteResponse<C>, Error> {
        self.clock.hear(message::testimony(&response));
        message::vote_response_from(response)
    }

    async fn call_transfer(
        &self,
        rpc: &TransferLeaderRequest<C>,
        deadline: Duration,
    ) -> Result<TransferLeaderResponse<C>, Error> {
        let request = message::transfer_request(rpc, self.envelope());
        let mut client = self.connect(Lane::Control)?;
        let response = within(deadline, client.transfer_leader(request)).await?;
        Ok(message::transfer_response_from(rpc, response))
    }
}

impl<S: SnapshotFiles> RaftNetworkV2<C> for Peer<S> {
    type SnapshotData = S;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let result = self.call_append(&rpc, option.soft_ttl()).await;
        self.told(RPCTypes::AppendEntries, result)
    }

    fn stream_append<'s, I>(
        &'s mut self,
        input: I,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<C>>>
    where
        I: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        // A heartbeat is a stream of one request: a unary call costs less and ends with its answer.
        if self.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        let opened = self.connect(Lane::Log).map(|client| {
            let clock = self.clock.clone();
            let session = Session::new(client, self.envelope(), clock, input, option.soft_ttl());
            let results: AppendResults<'s> = Box::pin(
                session
                    .results()
                    .map(|result| self.told(RPCTypes::AppendEntries, result)),
            );
            results
        });
        let opened = opened.map_err(|error| {
            error.into_rpc(RPCTypes::AppendEntries, self.local.node.get(), self.target)
        });
        Box::pin(std::future::ready(opened))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        // A voter syncs its vote first, so it is given all the time in which openraft listens.
        let result = self.call_vote(&rpc, option.hard_ttl()).await;
        self.told(RPCTypes::Vote, result)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let result = self.call_pre_vote(&rpc, option.hard_ttl()).await;
        self.told(RPCTypes::Vote, result)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<C, S>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, &snapshot.snapshot, option.soft_ttl()) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let result = self.call_transfer(&rpc, option.soft_ttl()).await;
        self.told(RPCTypes::TransferLeader, result)
    }

    /// Short at first, because a peer that restarted should catch up at once, then steady.
    fn backoff(&self) -> Option<Backoff> {
        let (first, longest) = BACKOFF_MS;
        let pauses = std::iter::successors(Some(first), move |ms| Some((ms * 2).min(longest)));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

/// What openraft reads the results of an append stream from.
type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

impl<S: SnapshotFiles> Peer<S> {
    /// Several attempts, each of which goes on where the last one broke.
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: &S,
        deadline: Duration,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let mut pauses = RaftNetworkV2::backoff(self).into_iter().flatten();
        let mut attempt = 1;
        loop {
            let result = self.attempt_snapshot(vote, snapshot, deadline).await;
            match result {
                Err(error) if error.is_transient() && attempt < SNAPSHOT_ATTEMPTS => {
                    tracing::info!(target = self.target, %error, attempt, "snapshot transfer broke, resuming");
                    attempt += 1;
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                }
                Err(SendError::Read(error)) => {
                    return Err(StorageError::read_snapshot(None, C::err_from_error(&error)).into());
                }
                Err(SendError::Peer(error)) => {
                    return self
                        .told(RPCTypes::InstallSnapshot, Err(error))
                        .map_err(Into::into);
                }
                Ok(vote) => {
                    return self
                        .told(RPCTypes::InstallSnapshot, Ok(SnapshotResponse::new(vote)))
                        .map_err(Into::into);
                }
            }
        }
    }

    async fn attempt_snapshot(
        &self,
        vote: Vote,
        snapshot: &S,
        deadline: Duration,
    ) -> Result<Vote, SendError> {
        let client = self.connect(Lane::Snapshot)?;
        let mut transfer = Transfer::new(client, self.envelope(), vote.into(), snapshot, deadline);
        Ok(transfer.run().await?.into())
    }
}

/// Remembers which peers refuse this node, so that each change is logged once and not with every heartbeat.
#[derive(Debug, Default)]
struct Refusals {
    /// The last reason by node id, while it lasts.
    reasons: Mutex<HashMap<u64, String>>,
}

impl Refusals {
    fn observe(&self, target: u64, member: &Member, error: Option<&Error>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => {
                if reasons.remove(&target).is_some() {
                    tracing::info!(target, address = %member, "the peer accepts this node again");
                }
            }
            Some(Error::Refused { reason, message }) => {
                if reasons.insert(target, reason.clone()).as_ref() != Some(reason) {
                    tracing::error!(target, address = %member, reason, message, "the peer refuses this node");
                }
            }
            // Says nothing about whether the peer would accept this node.
            Some(_) => {}
        }
    }
}
