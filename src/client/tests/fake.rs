//! A node that follows a script: it speaks the exchange stream over loopback and fails when it is told to.
//!
//! Fakes of one cluster share a [`Store`], which applies a sequence once, as the real state machine does.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use crate::proto::v1::exchange_service_server::{ExchangeService, ExchangeServiceServer};
use crate::proto::v1::kv_service_server::{KvService, KvServiceServer};
use crate::proto::v1::operation::Request as Asked;
use crate::proto::v1::outcome::Response as Answered;
use crate::proto::v1::watch_service_server::{WatchService, WatchServiceServer};
use crate::proto::v1::{self, Operation, Outcome};

/// What a script decides for one operation.
pub enum Step {
    /// Apply it, or read, and answer.
    Serve,
    /// Answer with a failure.
    Fail(v1::Failure),
    /// Do not answer.
    Ignore,
    /// Apply it, and end the stream before the answer.
    ServeAndBreak,
    /// End the stream.
    Break,
}

type Script = Box<dyn FnMut(usize, &Operation) -> Step + Send>;

/// What a watch from a revision on is sent, and whether it then stays open.
type WatchScript = Box<dyn Fn(u64) -> (Vec<v1::WatchResponse>, bool) + Send>;

/// What the fakes of one cluster agree on.
#[derive(Default)]
pub struct Store {
    state: Mutex<StoreState>,
}

#[derive(Default)]
struct StoreState {
    replies: HashMap<(Bytes, u64), Outcome>,
    values: HashMap<String, Bytes>,
    applied: HashMap<String, usize>,
    revision: u64,
}

impl Store {
    /// How often a put of this key was applied.
    pub fn applied(&self, key: &str) -> usize {
        let state = self.state.lock().expect("no holder panics");
        state.applied.get(key).copied().unwrap_or(0)
    }

    fn serve(&self, client: &Bytes, operation: &Operation) -> Outcome {
        let mut state = self.state.lock().expect("no holder panics");
        let id = (client.clone(), operation.sequence);
        if let Some(first) = state.replies.get(&id) {
            return Outcome {
                replayed: true,
                ..first.clone()
            };
        }
        match operation.request.as_ref().expect("clients send requests") {
            Asked::PutKey(put) => {
                state.revision += 1;
                let revision = state.revision;
                state.values.insert(put.key.clone(), put.value.clone());
                *state.applied.entry(put.key.clone()).or_default() += 1;
                let outcome = Outcome {
                    sequence: operation.sequence,
                    revision,
                    replayed: false,
                    response: Some(Answered::PutKey(v1::PutKeyResponse {
                        mod_revision: revision,
                        ..Default::default()
                    })),
                };
                state.replies.insert(id, outcome.clone());
                outcome
            }
            Asked::FreezeCart(freeze) => {
                let freeze = v1::CartFreeze {
                    holder: freeze.holder.clone(),
                    revision: state.revision,
                    deadline_ms: 1,
                };
                let frozen = v1::FreezeCartResponse {
                    freeze: Some(freeze),
                    ..Default::default()
                };
                Outcome {
                    sequence: operation.sequence,
                    revision: state.revision,
                    replayed: false,
                    response: Some(Answered::FreezeCart(frozen.into())),
                }
            }
            Asked::UpdateCart(_) => Outcome {
                sequence: operation.sequence,
                revision: state.revision,
                replayed: false,
                response: Some(Answered::UpdateCart(v1::UpdateCartResponse::default())),
            },
            Asked::GetKey(get) => Outcome {
                sequence: operation.sequence,
                revision: state.revision,
                replayed: false,
                response: Some(Answered::GetKey(v1::GetKeyResponse {
                    header: None,
                    item: Some(v1::KeyValue {
                        key: get.key.clone(),
                        value: state.values.get(&get.key).cloned().unwrap_or_default(),
                        ..Default::default()
                    }),
                })),
            },
            other => panic!("the fake does not know {other:?}"),
        }
    }
}

/// One operation as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub client: Bytes,
    pub sequence: u64,
    pub confirmed_below: u64,
}

pub struct Fake {
    pub id: u64,
    pub address: String,
    node: Arc<Node>,
}

struct Node {
    store: Arc<Store>,
    script: Mutex<Script>,
    header: watch::Sender<v1::ResponseHeader>,
    /// Neither introduces itself nor answers.
    muted: watch::Sender<bool>,
    seen: Mutex<Vec<Seen>>,
    frames: AtomicUsize,
    streams: AtomicUsize,
    members: Mutex<Vec<v1::Member>>,
    tasks: Mutex<JoinSet<()>>,
    watch_script: Mutex<Option<WatchScript>>,
    watch_refusal: Mutex<Option<Status>>,
    watch_starts: Mutex<Vec<u64>>,
}

impl Fake {
    /// A node that serves everything and knows no leader.
    pub async fn start(id: u64, store: &Arc<Store>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let header = v1::ResponseHeader {
            cluster_id: "cluster".to_owned(),
            node_id: id,
            term: 1,
            ..Default::default()
        };
        let node = Arc::new(Node {
            store: Arc::clone(store),
            script: Mutex::new(Box::new(|_, _| Step::Serve)),
            header: watch::Sender::new(header),
            muted: watch::Sender::new(false),
            seen: Mutex::default(),
            frames: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            members: Mutex::default(),
            tasks: Mutex::default(),
            watch_script: Mutex::default(),
            watch_refusal: Mutex::default(),
            watch_starts: Mutex::default(),
        });
        let serving = Server::builder()
            .add_service(ExchangeServiceServer::new(Service(Arc::clone(&node))))
            .add_service(ClusterServiceServer::new(Service(Arc::clone(&node))))
            .add_service(WatchServiceServer::new(Service(Arc::clone(&node))))
            .add_service(KvServiceServer::new(Service(Arc::clone(&node))))
            .serve_with_incoming(TcpListenerStream::new(listener));
        node.spawn(async move {
            serving.await.expect("loopback does not fail");
        });
        Self { id, address, node }
    }

    /// What to do with the n-th operation that comes, from 0 on.
    pub fn script(&self, script: impl FnMut(usize, &Operation) -> Step + Send + 'static) {
        *self.node.script.lock().expect("no holder panics") = Box::new(script);
    }

    /// What watches are sent.
    pub fn watch_script(
        &self,
        script: impl Fn(u64) -> (Vec<v1::WatchResponse>, bool) + Send + 'static,
    ) {
        *self.node.watch_script.lock().expect("no holder panics") = Some(Box::new(script));
    }

    /// How watches end that do not stay open.
    pub fn watch_refusal(&self, status: Status) {
        *self.node.watch_refusal.lock().expect("no holder panics") = Some(status);
    }

    /// The revisions that were asked for.
    pub fn watch_starts(&self) -> Vec<u64> {
        self.node
            .watch_starts
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// Says to all streams, and to those that open, who leads.
    pub fn announce(&self, term: u64, leader: Option<&Fake>) {
        self.node.header.send_modify(|header| {
            header.term = term;
            header.leader_id = leader.map_or(0, |leader| leader.id);
            header.leader_address = leader.map_or(String::new(), |leader| leader.address.clone());
        });
    }

    pub fn join_cluster(&self, cluster: &str) {
        let cluster = cluster.to_owned();
        self.node
            .header
            .send_modify(|header| header.cluster_id = cluster);
    }

    pub fn mute(&self, is_muted: bool) {
        self.node.muted.send_replace(is_muted);
    }

    pub fn set_members(&self, members: &[&Fake]) {
        let members = members.iter().map(|member| v1::Member {
            node_id: member.id,
            address: member.address.clone(),
            voter: true,
        });
        *self.node.members.lock().expect("no holder panics") = members.collect();
    }

    /// Every operation that arrived, in its order.
    pub fn seen(&self) -> Vec<Seen> {
        self.node.seen.lock().expect("no holder panics").clone()
    }

    /// Frames with operations.
    pub fn frames(&self) -> usize {
        self.node.frames.load(Ordering::SeqCst)
    }

    /// Open streams.
    pub fn streams(&self) -> usize {
        self.node.streams.load(Ordering::SeqCst)
    }

    pub fn failure(&self, code: Code, reason: &str, outcome: &str) -> v1::Failure {
        v1::Failure {
            code: code.into(),
            reason: reason.to_owned(),
            message: format!("node {} says no", self.id),
            metadata: BTreeMap::from([("outcome".to_owned(), outcome.to_owned())]),
        }
    }

    /// What a follower answers.
    pub fn not_leader(&self, leader: &Fake) -> v1::Failure {
        let mut failure = self.failure(Code::Unavailable, "NOT_LEADER", "not_applied");
        let hint = [
            ("leader_id".to_owned(), leader.id.to_string()),
            ("leader_address".to_owned(), leader.address.clone()),
        ];
        failure.metadata.extend(hint);
        failure
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.node
            .tasks
            .lock()
            .expect("no holder panics")
            .abort_all();
    }
}

impl Node {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().expect("no holder panics").spawn(task);
    }

    async fn run(
        &self,
        mut frames: Streaming<v1::ExchangeRequest>,
        out: mpsc::Sender<Result<v1::ExchangeResponse, Status>>,
    ) {
        let mut header = self.header.subscribe();
        let mut muted = self.muted.subscribe();
        let mut client = Bytes::new();
        header.mark_changed();
        loop {
            tokio::select! {
                () = out.closed() => return,
                changed = header.changed(), if !*muted.borrow() => {
                    changed.expect("the sender is this node");
                    let header = Some(header.borrow_and_update().clone());
                    let frame = v1::ExchangeResponse { header, outcomes: Vec::new() };
                    out.send(Ok(frame)).await.ok();
                }
                changed = muted.changed() => changed.expect("the sender is this node"),
                frame = frames.message() => {
                    let Ok(Some(frame)) = frame else { return };
                    if !frame.client_id.is_empty() {
                        client = frame.client_id.clone();
                    }
                    let (outcomes, goes_on) = self.serve(&client, frame);
                    let is_muted = *muted.borrow();
                    if !outcomes.is_empty() && !is_muted {
                        let frame = v1::ExchangeResponse { header: None, outcomes };
                        out.send(Ok(frame)).await.ok();
                    }
                    if !goes_on {
                        out.send(Err(Status::unavailable("broken"))).await.ok();
                        return;
                    }
                }
            }
        }
    }

    /// The outcomes of a frame, last first, and whether the stream goes on.
    fn serve(&self, client: &Bytes, frame: v1::ExchangeRequest) -> (Vec<Outcome>, bool) {
        if frame.operations.is_empty() {
            return (Vec::new(), true);
        }
        self.frames.fetch_add(1, Ordering::SeqCst);
        let mut script = self.script.lock().expect("no holder panics");
        let mut outcomes = Vec::new();
        let mut goes_on = true;
        for operation in frame.operations {
            let nth = {
                let mut seen = self.seen.lock().expect("no holder panics");
                seen.push(Seen {
                    client: client.clone(),
                    sequence: operation.sequence,
                    confirmed_below: frame.confirmed_below,
                });
                seen.len() - 1
            };
            match script(nth, &operation) {
                Step::Serve => outcomes.push(self.store.serve(client, &operation)),
                Step::Fail(failure) => outcomes.push(Outcome {
                    sequence: operation.sequence,
                    revision: 0,
                    replayed: false,
                    response: Some(Answered::Failure(failure)),
                }),
                Step::Ignore => {}
                Step::ServeAndBreak => {
                    self.store.serve(client, &operation);
                    goes_on = false;
                }
                Step::Break => goes_on = false,
            }
        }
        outcomes.reverse();
        (outcomes, goes_on)
    }
}

type Frames = ReceiverStream<Result<v1::ExchangeResponse, Status>>;

/// Counts a stream for as long as the client holds it.
pub struct Counted {
    node: Arc<Node>,
    frames: Frames,
}

impl Stream for Counted {
    type Item = Result<v1::ExchangeResponse, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.frames).poll_next(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The gRPC side of a node.
struct Service(Arc<Node>);

#[tonic::async_trait]
impl ExchangeService for Service {
    type ExchangeStream = Counted;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Counted>, Status> {
        let (out, frames) = mpsc::channel(64);
        let node = Arc::clone(&self.0);
        self.0
            .spawn(async move { node.run(request.into_inner(), out).await });
        self.0.streams.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(Counted {
            node: Arc::clone(&self.0),
            frames: ReceiverStream::new(frames),
        }))
    }
}

#[tonic::async_trait]
impl ClusterService for Service {
    async fn members(
        &self,
        _: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let members = self.0.members.lock().expect("no holder panics").clone();
        Ok(Response::new(v1::MembersResponse {
            header: None,
            members,
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn add_member(
        &self,
        _: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn remove_member(
        &self,
        _: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn snapshot(
        &self,
        _: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

#[tonic::async_trait]
impl WatchService for Service {
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let node = &self.0;
        let start = request.into_inner().start_revision;
        let mut starts = node.watch_starts.lock().expect("no holder panics");
        starts.push(start);
        let script = node.watch_script.lock().expect("no holder panics");
        let script = script
            .as_ref()
            .ok_or_else(|| Status::unimplemented("no script"))?;
        let (messages, stays_open) = script(start);
        let messages = stream::iter(messages.into_iter().map(Ok));
        if stays_open {
            return Ok(Response::new(messages.chain(stream::pending()).boxed()));
        }
        let refusal = node.watch_refusal.lock().expect("no holder panics").clone();
        let end = stream::iter(refusal.map(Err));
        Ok(Response::new(messages.chain(end).boxed()))
    }
}

/// A put is served as if it came over a stream, from a client that is known by the request's id.
#[tonic::async_trait]
impl KvService for Service {
    async fn put(
        &self,
        request: Request<v1::PutKeyRequest>,
    ) -> Result<Response<v1::PutKeyResponse>, Status> {
        let put = request.into_inner();
        let client = if put.request_id.is_empty() {
            uuid::Uuid::new_v4().simple().to_string()
        } else {
            put.request_id.clone()
        };
        let operation = Operation {
            sequence: 0,
            request: Some(Asked::PutKey(put)),
        };
        let frame = v1::ExchangeRequest {
            operations: vec![operation],
            ..Default::default()
        };
        let (mut outcomes, goes_on) = self.0.serve(&client.into(), frame);
        match outcomes.pop().and_then(|outcome| outcome.response) {
            Some(Answered::PutKey(answer)) => Ok(Response::new(answer)),
            Some(Answered::Failure(failure)) => {
                let details = ErrorDetails::with_error_info(
                    failure.reason,
                    "trolley",
                    failure.metadata.into_iter().collect::<HashMap<_, _>>(),
                );
                let code = Code::from_i32(failure.code);
                Err(Status::with_error_details(code, failure.message, details))
            }
            Some(other) => panic!("a put has no such outcome: {other:?}"),
            None if goes_on => std::future::pending().await,
            None => Err(Status::unavailable("broken")),
        }
    }

    async fn get(
        &self,
        _: Request<v1::GetKeyRequest>,
    ) -> Result<Response<v1::GetKeyResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn delete(
        &self,
        _: Request<v1::DeleteKeyRequest>,
    ) -> Result<Response<v1::DeleteKeyResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn list(
        &self,
        _: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn increment(
        &self,
        _: Request<v1::IncrementKeyRequest>,
    ) -> Result<Response<v1::IncrementKeyResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }
}
