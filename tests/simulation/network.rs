//! The network between nodes, and between nodes and clients (address 0): messages with a delay of their own each, which
//! may be lost, delivered twice between nodes, or stopped where a link is cut. What a link carries is not in order, but for the log's
//! appends, which are a stream.
//!
//! A message takes at least [`STEP_MS`], so that whatever it meets happens in a later step than its sending.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyerror::AnyError;
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt as _};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::sync::{mpsc, oneshot};
use trolley::clock::{LogClock, Testimony};
use trolley::limits;
use trolley::proto::internal as pb;
use trolley::raft::{Member, TypeConfig, Vote};
use trolley::types::LogTime;

use crate::asks::{Answer, Ask};
use crate::bugs::Bug;
use crate::disk::Snapshot;
use crate::world::World;

type C = TypeConfig;

/// How far the simulation goes at a time, and the shortest delay of a message.
pub const STEP_MS: u64 = 2;
/// Messages that wait for a node; more are lost.
const INBOX: usize = 4096;
/// How long a snapshot's transfer may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);

/// How many TTLs a stream waits for an answer, as the real one does.
const PROGRESS_TTLS: u32 = 20;

/// Where clients are.
pub const CLIENTS: u64 = 0;

/// What is asked of a node.
#[derive(Clone)]
pub enum Request {
    /// With the leader's log clock; 0 for none.
    Append(AppendEntriesRequest<C>, u64),
    /// The same, in the order of its stream.
    Stream(AppendEntriesRequest<C>, u64),
    Vote(VoteRequest<C>),
    PreVote(VoteRequest<C>),
    Transfer(TransferLeaderRequest<C>),
    Snapshot(Vote, Snapshot),
    ReadIndex,
    HeldVote,
    Hello,
    Client(Ask),
}

impl Request {
    fn describe(&self) -> String {
        match self {
            Self::Append(it, time) | Self::Stream(it, time) => format!(
                "append {} after {:?} {:?} commit {:?} time {time}",
                it.vote,
                it.prev_log_id.map(|id| id.index),
                it.entries
                    .iter()
                    .map(|e| e.log_id.index)
                    .collect::<Vec<_>>(),
                it.leader_commit.map(|id| id.index),
            ),
            Self::Vote(it) => format!("vote {}", it.vote),
            Self::PreVote(it) => format!("pre-vote {}", it.vote),
            Self::Transfer(it) => format!("transfer to {}", it.to_node_id()),
            Self::Snapshot(vote, it) => format!("snapshot {vote} {:?}", it.meta.last_log_id),
            Self::ReadIndex => "read index".to_owned(),
            Self::HeldVote => "held vote".to_owned(),
            Self::Hello => "hello".to_owned(),
            Self::Client(ask) => ask.describe(),
        }
    }
}

/// What a node answers.
pub enum Response {
    Append(AppendEntriesResponse<C>),
    Vote(VoteResponse<C>, Testimony),
    Transfer(TransferLeaderResponse<C>),
    Snapshot(SnapshotResponse<C>),
    /// `None`: no read index.
    ReadIndex(Option<u64>),
    HeldVote(Option<Vote>),
    Hello(Box<pb::HelloResponse>),
    Client(Answer),
    /// Nobody is there.
    Down,
}

impl Response {
    fn describe(&self) -> String {
        match self {
            Self::Append(it) => format!("{it:?}"),
            Self::Vote(it, _) => format!("vote {} {}", it.vote, it.vote_granted),
            Self::Transfer(_) => "transferring".to_owned(),
            Self::Snapshot(it) => format!("installed {}", it.vote),
            Self::ReadIndex(it) => format!("read index {it:?}"),
            Self::HeldVote(it) => format!("holds {it:?}"),
            Self::Hello(it) => format!("node {} of {} members", it.node_id, it.members.len()),
            Self::Client(it) => it.describe(),
            Self::Down => "down".to_owned(),
        }
    }
}

/// Where the answer goes. The first one counts: a request may be delivered twice.
#[derive(Clone)]
struct ReplyTo(Arc<Mutex<Option<oneshot::Sender<Response>>>>);

/// A request as a node gets it.
pub struct Delivery {
    pub from: u64,
    pub request: Request,
    /// What its answer belongs to.
    pub number: u64,
}

enum Packet {
    Request(Request),
    Response(Response),
}

/// A message that was handed to the network, or is on its way.
struct Message {
    from: u64,
    to: u64,
    packet: Packet,
    reply: ReplyTo,
    /// Of the request, which its answers have too.
    number: u64,
}

/// A request that has arrived.
struct Waiting {
    from: u64,
    to: u64,
    reply: ReplyTo,
}

/// What a link does to messages.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// In a hundred.
    pub loss: u64,
    /// In a hundred.
    pub duplicates: u64,
    /// Longest delay.
    pub delay_ms: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            loss: 0,
            duplicates: 0,
            delay_ms: 6,
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Net(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the time when they arrive, and a number.
    in_flight: BTreeMap<(u64, u64), Message>,
    /// What was sent in this step, see [`Net::flush`].
    outbox: Vec<Message>,
    sent: u64,
    requests: u64,
    /// When the last message of each stream arrives.
    streams: BTreeMap<(u64, u64), u64>,
    weather: Weather,
    cut: BTreeSet<(u64, u64)>,
    /// Requests that have arrived and are not answered, by number. Not with the node: a task that is dropped with its node
    /// would wake who waits, in the order in which a runtime drops its tasks.
    waiting: BTreeMap<u64, Waiting>,
    inboxes: BTreeMap<u64, mpsc::Sender<Delivery>>,
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while it holds the network")
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Cuts these links, one way each, and no others.
    pub fn set_cut(&self, cut: BTreeSet<(u64, u64)>) {
        self.lock().cut = cut;
    }

    /// Whether messages get from one to the other.
    pub fn is_open(&self, from: u64, to: u64) -> bool {
        !self.lock().cut.contains(&(from, to))
    }

    /// Whether anybody is there.
    pub fn listens(&self, node: u64) -> bool {
        self.lock().inboxes.contains_key(&node)
    }

    /// A node listens from now on.
    pub fn listen(&self, node: u64) -> mpsc::Receiver<Delivery> {
        let (inbox, deliveries) = mpsc::channel(INBOX);
        self.lock().inboxes.insert(node, inbox);
        deliveries
    }

    /// A node is gone: whoever waits for it is told so. What is on its way from it arrives.
    pub fn hang_up(&self, node: u64) {
        let open: Vec<u64> = {
            let mut state = self.lock();
            state.inboxes.remove(&node);
            let waiting = state.waiting.iter();
            let waiting = waiting.filter(|(_, waiting)| waiting.to == node);
            waiting.map(|(number, _)| *number).collect()
        };
        for number in open {
            self.respond(number, Response::Down);
        }
    }

    /// Brings what is due.
    pub fn deliver(&self, world: &World, now: u64) {
        loop {
            let due = {
                let mut state = self.lock();
                match state.in_flight.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            let (from, to) = (due.from, due.to);
            if !self.is_open(from, to) {
                world.trace.note(format_args!("{from}>{to} cut"));
                continue;
            }
            match due.packet {
                Packet::Request(request) => {
                    world
                        .trace
                        .note(format_args!("{from}>{to} {}", request.describe()));
                    let inbox = self.lock().inboxes.get(&to).cloned();
                    let delivery = Delivery {
                        from,
                        request,
                        number: due.number,
                    };
                    let waiting = Waiting {
                        from,
                        to,
                        reply: due.reply.clone(),
                    };
                    self.lock().waiting.insert(due.number, waiting);
                    let is_sent = inbox.is_some_and(|inbox| inbox.try_send(delivery).is_ok());
                    if !is_sent {
                        self.respond(due.number, Response::Down);
                    }
                }
                Packet::Response(response) => {
                    world
                        .trace
                        .note(format_args!("{from}>{to} {}", response.describe()));
                    let waiter = due.reply.0.lock().expect("no panic").take();
                    if let Some(waiter) = waiter {
                        // Whoever no longer waits does not want to know.
                        drop(waiter.send(response));
                    }
                }
            }
        }
    }

    /// A node answers, if it is the first answer.
    fn respond(&self, number: u64, response: Response) {
        let waiting = self.lock().waiting.remove(&number);
        if let Some(Waiting { from, to, reply }) = waiting {
            self.send(Message {
                from: to,
                to: from,
                packet: Packet::Response(response),
                reply,
                number,
            });
        }
    }

    fn send(&self, message: Message) {
        self.lock().outbox.push(message);
    }

    /// Sends what one node, or all clients, handed in during a step. Tokio wakes those who wait for one thing in an order
    /// of its own, which nobody can seed; so the order in which they sent is none either, and delays are drawn in
    /// another: by where a message goes and what it says.
    pub fn flush(&self, world: &World) {
        let mut outbox = std::mem::take(&mut self.lock().outbox);
        outbox.sort_by_cached_key(|message| match &message.packet {
            Packet::Request(request) => (message.to, 0, request.describe()),
            Packet::Response(response) => (message.to, message.number, response.describe()),
        });
        for message in outbox {
            self.dispatch(world, message);
        }
    }

    fn dispatch(&self, world: &World, mut message: Message) {
        let weather = self.lock().weather;
        if matches!(message.packet, Packet::Request(_)) {
            let mut state = self.lock();
            state.requests += 1;
            message.number = state.requests;
        }
        if world.chance(weather.loss) {
            let Message { from, to, .. } = message;
            world.ledger.count("lost");
            world.trace.note(format_args!("{from}>{to} lost"));
            return;
        }
        // A client's call is one message on one connection. If it was there twice, and one copy was refused, that would say
        // nothing of the other; a client that asks again says so itself.
        if let Packet::Request(request) = &message.packet
            && message.from != CLIENTS
            && world.chance(weather.duplicates)
        {
            world.ledger.count("doubled");
            let packet = Packet::Request(request.clone());
            let reply = message.reply.clone();
            self.depart(
                world,
                Message {
                    packet,
                    reply,
                    ..message
                },
            );
        }
        self.depart(world, message);
    }

    fn depart(&self, world: &World, message: Message) {
        let longest = self.lock().weather.delay_ms.max(STEP_MS + 1);
        let delay = world.draw(STEP_MS..longest + 1);
        let mut due = world.trace.now() + delay;
        let mut state = self.lock();
        if matches!(message.packet, Packet::Request(Request::Stream(..))) {
            // A stream brings what it brings in its order.
            let last = state.streams.entry((message.from, message.to)).or_default();
            due = due.max(*last);
            *last = due;
        }
        state.sent += 1;
        let key = (due, state.sent);
        state.in_flight.insert(key, message);
    }
}

/// Asks a node, and waits so long for the answer.
pub async fn call(
    world: &World,
    from: u64,
    to: u64,
    request: Request,
    patience: Duration,
) -> Option<Response> {
    let (waiter, answer) = oneshot::channel();
    let reply = ReplyTo(Arc::new(Mutex::new(Some(waiter))));
    world.net.send(Message {
        from,
        to,
        packet: Packet::Request(request),
        reply,
        number: 0,
    });
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(Response::Down) | Err(_)) | Err(_) => None,
        Ok(Ok(response)) => Some(response),
    }
}

/// Answers a delivery.
pub fn answer(world: &World, number: u64, response: Response) {
    world.net.respond(number, response);
}

/// Makes openraft's clients for one node.
#[derive(Clone)]
pub struct SimDialer {
    pub world: Arc<World>,
    pub node: u64,
    pub clock: Arc<LogClock>,
}

impl RaftNetworkFactory<C> for SimDialer {
    type Network = SimPeer;

    async fn new_client(&mut self, target: u64, _: &Member) -> SimPeer {
        SimPeer {
            dialer: self.clone(),
            target,
            is_pipelined: true,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> SimPeer {
        SimPeer {
            is_pipelined: false,
            ..self.new_client(target, node).await
        }
    }
}

/// openraft's client of one peer.
pub struct SimPeer {
    dialer: SimDialer,
    target: u64,
    /// Its appends are a stream, as those of the log are; a heartbeat stands alone.
    is_pipelined: bool,
}

impl SimPeer {
    async fn call(&self, request: Request, patience: Duration) -> Result<Response, RPCError<C>> {
        let SimDialer { world, node, .. } = &self.dialer;
        let response = call(world, *node, self.target, request, patience).await;
        response.ok_or_else(|| unreachable("no answer"))
    }
}

fn unreachable(why: &str) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(why)))
}

impl RaftNetworkV2<C> for SimPeer {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let time = self.dialer.clock.peek().map_or(0, LogTime::as_millis);
        let request = Request::Append(rpc, time);
        match self.call(request, option.soft_ttl()).await? {
            Response::Append(response) => Ok(response),
            _ => Err(unreachable("another answer")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        if !self.is_pipelined {
            return stream_append_sequential(self, input, option);
        }
        let session = Session {
            peer: self,
            input: Some(input),
            under_way: FuturesOrdered::new(),
            patience: option.soft_ttl() * PROGRESS_TTLS,
        };
        let results = stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            let result = session.next().await?;
            let goes_on = matches!(result, Ok(Ok(_)));
            Some((result, goes_on.then_some(session)))
        });
        let results: AppendResults<'s> = Box::pin(results);
        Box::pin(std::future::ready(Ok(results)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let response = self.call(Request::Vote(rpc), option.hard_ttl()).await?;
        self.voted(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let response = self.call(Request::PreVote(rpc), option.hard_ttl()).await?;
        self.voted(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<C, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let request = Request::Snapshot(vote, snapshot.snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            response = self.call(request, SNAPSHOT_PATIENCE) => match response? {
                Response::Snapshot(response) => Ok(response),
                _ => Err(unreachable("another answer").into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let request = Request::Transfer(rpc);
        match self.call(request, option.soft_ttl()).await? {
            Response::Transfer(response) => Ok(response),
            _ => Err(unreachable("another answer")),
        }
    }

    /// As the real one: short at first, then steady.
    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(10), |ms| Some((ms * 2).min(200)));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

/// What openraft reads the results of an append stream from.
type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

/// An append stream: requests go out while earlier ones wait for their answers, which are taken in the order of the
/// requests.
struct Session<'s, S> {
    peer: &'s SimPeer,
    /// Taken away when it has ended.
    input: Option<S>,
    under_way:
        FuturesOrdered<futures::future::BoxFuture<'s, Result<StreamAppendResult<C>, RPCError<C>>>>,
    patience: Duration,
}

impl<S> Session<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<C>> + Unpin,
{
    async fn next(&mut self) -> Option<Result<StreamAppendResult<C>, RPCError<C>>> {
        loop {
            let has_room = self.under_way.len() < limits::APPEND_PIPELINE;
            let request = match &mut self.input {
                Some(input) if has_room => tokio::select! {
                    biased;
                    Some(result) = self.under_way.next() => return Some(result),
                    request = input.next() => request,
                },
                _ => return self.under_way.next().await,
            };
            match request {
                Some(request) => self.send(request),
                None => self.input = None,
            }
        }
    }

    fn send(&mut self, rpc: AppendEntriesRequest<C>) {
        let (peer, patience) = (self.peer, self.patience);
        let last = rpc
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(rpc.prev_log_id);
        let previous = rpc.prev_log_id;
        let time = peer.dialer.clock.peek().map_or(0, LogTime::as_millis);
        let answer = async move {
            let answer = peer.call(Request::Stream(rpc, time), patience).await?;
            match answer {
                Response::Append(AppendEntriesResponse::Success) => Ok(Ok(last)),
                Response::Append(AppendEntriesResponse::PartialSuccess(to)) => Ok(Ok(to)),
                Response::Append(AppendEntriesResponse::Conflict) => {
                    let previous =
                        previous.ok_or_else(|| unreachable("a conflict with nothing"))?;
                    Ok(Err(StreamAppendError::Conflict(previous)))
                }
                Response::Append(AppendEntriesResponse::HigherVote(vote)) => {
                    Ok(Err(StreamAppendError::HigherVote(vote)))
                }
                _ => Err(unreachable("another answer")),
            }
        };
        self.under_way.push_back(Box::pin(answer));
    }
}

impl SimPeer {
    /// What a voter says of time is heard before its vote counts.
    fn voted(&self, response: Response) -> Result<VoteResponse<C>, RPCError<C>> {
        let Response::Vote(response, testimony) = response else {
            return Err(unreachable("another answer"));
        };
        if !self.dialer.world.has(Bug::WallClockStamps) {
            self.dialer.clock.hear(testimony);
        }
        Ok(response)
    }
}
