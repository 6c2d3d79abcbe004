//! A whole server over loopback, with a node in memory; `real` has real ones.

mod real;
mod shops;
mod unread;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::*;
use crate::api::NO_FORWARD;
use crate::api::testing::{MemoryNode, node_id};
use crate::config::{LogFormat, Logging, Memory, Process, Snapshots, Timers};
use crate::limits;
use crate::process::listen;
use crate::proto::v1;
use crate::proto::v1::cluster_service_client::ClusterServiceClient;
use crate::proto::v1::exchange_service_client::ExchangeServiceClient;
use crate::proto::v1::kv_service_client::KvServiceClient;
use crate::proto::v1::session_service_client::SessionServiceClient;
use crate::types::StateVersion;

fn config() -> NodeConfig {
    NodeConfig {
        node_id: node_id(1),
        data_dir: "unused".into(),
        listen: String::new(),
        advertise: String::new(),
        initial_cluster: BTreeMap::new(),
        join: false,
        timers: Timers {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(500),
        },
        snapshots: Snapshots {
            log_bytes: 1,
            interval: Duration::from_secs(1),
            keep_entries: 0,
        },
        memory: Memory {
            record_cache: 0,
            block_cache: 0,
            log_buffer: 0,
            write_buffer: 0,
            state_layer: 0,
        },
        min_free_disk: None,
        message_bytes: limits::MESSAGE_BYTES,
        newest_state_version: StateVersion::NEWEST,
        process: Process {
            drain_timeout: Duration::from_secs(5),
            worker_threads: 1,
            logging: Logging {
                format: LogFormat::Text,
                filter: "off".to_owned(),
            },
        },
    }
}

/// A running server. Dropping it ends it at once.
struct Running {
    address: String,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: JoinSet<Result<(), Error>>,
}

impl Running {
    async fn start(node: MemoryNode) -> Self {
        let listener = listen("127.0.0.1:0").await.expect("some port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (shutdown, told) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let told = async {
                let _ = told.await;
            };
            let config = config();
            serve_node(
                listener,
                node,
                Routes::default(),
                CancellationToken::new(),
                &config,
                told,
            )
            .await
        });
        Self {
            address,
            shutdown: Some(shutdown),
            tasks,
        }
    }

    async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.address);
        Channel::from_shared(uri)
            .expect("a valid uri")
            .connect()
            .await
            .expect("it listens")
    }

    async fn stop(&mut self) -> Result<(), Error> {
        drop(self.shutdown.take());
        self.tasks
            .join_next()
            .await
            .expect("it runs")
            .expect("it does not panic")
    }
}

fn put(key: &str) -> v1::PutKeyRequest {
    v1::PutKeyRequest {
        key: key.to_owned(),
        value: "v".into(),
        ..Default::default()
    }
}

fn get(key: &str) -> v1::GetKeyRequest {
    v1::GetKeyRequest {
        key: key.to_owned(),
        ..Default::default()
    }
}

fn info(status: &Status) -> tonic_types::ErrorInfo {
    status
        .get_details_error_info()
        .expect("every status has an ErrorInfo")
}

#[tokio::test]
async fn a_session_lives_and_a_retry_tells_the_first_token() {
    let server = Running::start(MemoryNode::leader()).await;
    let mut sessions = SessionServiceClient::new(server.channel().await);
    let create = v1::CreateSessionRequest {
        request_id: "login-1".to_owned(),
        user_id: "ada".to_owned(),
        fields: BTreeMap::from([("theme".to_owned(), "dark".into())]),
        ..Default::default()
    };
    let first = sessions
        .create(create.clone())
        .await
        .expect("created")
        .into_inner();
    let again = sessions
        .create(create)
        .await
        .expect("replayed")
        .into_inner();
    assert_eq!(first.token, again.token);
    assert_eq!(first.session, again.session);
    let replayed =
        |response: &v1::CreateSessionResponse| response.header.as_ref().map(|h| h.replayed);
    assert_eq!(
        (replayed(&first), replayed(&again)),
        (Some(false), Some(true))
    );

    let read = v1::GetSessionRequest {
        token: first.token,
        ..Default::default()
    };
    let session = sessions.get(read).await.expect("it lives").into_inner();
    assert_eq!(session.session, first.session);
    let header = session.header.expect("every response has one");
    assert_eq!((header.node_id, header.term, header.leader_id), (1, 3, 1));
    assert!(header.revision >= 1 && header.cluster_id.len() == 36);
}

#[tokio::test]
async fn a_follower_forwards_writes_once() {
    let leader = MemoryNode::leader();
    let leading = Running::start(leader.clone()).await;
    let following = Running::start(MemoryNode::follower(Some(&leading.address))).await;
    let mut keys = KvServiceClient::new(following.channel().await);
    let response = keys.put(put("k")).await.expect("forwarded").into_inner();
    assert_eq!(response.mod_revision, 1);
    assert_eq!(leader.proposed(), 1);

    let bad = keys.put(put("")).await.expect_err("the key is empty");
    assert_eq!(
        (bad.code(), info(&bad).reason.as_str()),
        (Code::InvalidArgument, "EMPTY_FIELD")
    );

    let mut direct = Request::new(put("k"));
    direct
        .metadata_mut()
        .insert(NO_FORWARD, "1".parse().expect("ASCII"));
    let told = keys.put(direct).await.expect_err("not to be forwarded");
    assert_eq!(info(&told).reason, "NOT_LEADER");
    assert_eq!(info(&told).metadata["leader_address"], leading.address);
    assert_eq!(leader.proposed(), 1);

    // The leader that was believed in follows, too: its refusal comes back, and nothing goes in circles.
    leader.follow(Some(&following.address));
    let circle = keys.put(put("k")).await.expect_err("nobody leads");
    assert_eq!(
        (info(&circle).reason.as_str(), circle.code()),
        ("NOT_LEADER", Code::Unavailable)
    );
}

#[tokio::test]
async fn a_refusal_names_the_revision_that_it_saw() {
    let leading = Running::start(MemoryNode::leader()).await;
    let following = Running::start(MemoryNode::follower(Some(&leading.address))).await;
    let revision = |status: &Status| info(status).metadata.get("revision").cloned();
    let mut keys = KvServiceClient::new(leading.channel().await);
    keys.put(put("k")).await.expect("it is put");
    let absent = keys.get(get("absent")).await.expect_err("nobody put it");
    assert_eq!(revision(&absent).as_deref(), Some("1"));
    let create = v1::PutKeyRequest {
        if_absent: true,
        ..put("k")
    };
    // From the leader, and from one that has forwarded it.
    for server in [&leading, &following] {
        let mut keys = KvServiceClient::new(server.channel().await);
        let exists = keys.put(create.clone()).await.expect_err("it is there");
        assert_eq!(info(&exists).reason, "KEY_EXISTS");
        assert_eq!(revision(&exists).as_deref(), Some("1"));
    }
    let invalid = keys.put(put("")).await.expect_err("the key is empty");
    assert_eq!(revision(&invalid), None, "no state was looked at");
}

#[tokio::test]
async fn a_leader_that_is_gone_was_certainly_sent_nothing() {
    let gone = listen("127.0.0.1:0").await.expect("some port is free");
    let address = gone.local_addr().expect("it is bound").to_string();
    drop(gone);
    let server = Running::start(MemoryNode::follower(Some(&address))).await;
    let mut keys = KvServiceClient::new(server.channel().await);
    let status = keys.put(put("k")).await.expect_err("nobody is there");
    assert_eq!(info(&status).reason, "LEADER_UNREACHABLE");
    assert_eq!(info(&status).metadata["outcome"], "not_applied");
}

#[tokio::test]
async fn a_deadline_passes_with_an_outcome() {
    let node = MemoryNode::leader();
    node.hold(true);
    let server = Running::start(node).await;
    let mut keys = KvServiceClient::new(server.channel().await);
    let mut codes = Vec::new();
    // Where the machine stalls for longer than the node's margin, the caller's own timer fires first.
    while codes.len() < 20 {
        let mut request = Request::new(put("k"));
        request.set_timeout(Duration::from_millis(300));
        let status = keys.put(request).await.expect_err("no reply comes");
        if status.code() == Code::DeadlineExceeded {
            assert_eq!(info(&status).metadata["outcome"], "unknown");
            return;
        }
        codes.push(status.code());
    }
    panic!("the node never answered in time: {codes:?}");
}

#[tokio::test]
async fn health_follows_the_leader() {
    let node = MemoryNode::leader();
    let server = Running::start(node.clone()).await;
    let mut health = HealthClient::new(server.channel().await);
    let watch = HealthCheckRequest {
        service: "trolley.v1.KvService".to_owned(),
    };
    let mut statuses = health
        .watch(watch)
        .await
        .expect("it is watched")
        .into_inner();
    let mut until = async |wanted: ServingStatus| {
        let reached = async {
            loop {
                let status = statuses
                    .message()
                    .await
                    .expect("the stream is open")
                    .expect("not ended");
                if status.status() == wanted {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), reached)
            .await
            .expect("the status is reached");
    };
    until(ServingStatus::Serving).await;
    node.follow(None);
    until(ServingStatus::NotServing).await;
    node.follow(Some("other:1"));
    until(ServingStatus::Serving).await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way() {
    let node = MemoryNode::leader();
    let mut server = Running::start(node.clone()).await;
    let channel = server.channel().await;
    node.hold(true);
    let mut calls = JoinSet::new();
    let mut keys = KvServiceClient::new(channel.clone());
    calls.spawn(async move { keys.put(put("k")).await });
    let mut exchange = ExchangeServiceClient::new(channel);
    let mut frames = exchange
        .exchange(tokio_stream::pending())
        .await
        .expect("it opens")
        .into_inner();
    assert!(
        frames.message().await.expect("not failed").is_some(),
        "the header comes first"
    );
    let proposed = async {
        while node.proposed() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), proposed)
        .await
        .expect("the call arrives");

    drop(server.shutdown.take());
    let ended = async {
        loop {
            if let Err(status) = frames.message().await {
                return status;
            }
        }
    };
    let status = timeout(Duration::from_secs(10), ended)
        .await
        .expect("the stream ends");
    assert_eq!(info(&status).reason, "DRAINING");
    node.hold(false);
    let finished = calls
        .join_next()
        .await
        .expect("one call")
        .expect("it does not panic");
    assert_eq!(
        finished
            .expect("it was under way")
            .into_inner()
            .mod_revision,
        1
    );
    server.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let server = Running::start(MemoryNode::leader()).await;
    let mut keys = KvServiceClient::new(server.channel().await);
    let huge = v1::PutKeyRequest {
        value: vec![0; limits::MESSAGE_BYTES].into(),
        ..put("k")
    };
    assert_eq!(
        keys.put(huge).await.expect_err("too large").code(),
        Code::OutOfRange
    );
    let missing = keys.get(get("k")).await.expect_err("it was not put");
    assert_eq!(info(&missing).reason, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = Running::start(MemoryNode::leader()).await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .expect("served")
        .into_inner()
        .message()
        .await
        .expect("not failed");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.and_then(|a| a.message_response)
    else {
        panic!("not a list");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for service in [
        "trolley.v1.KvService",
        "trolley.v1.ExchangeService",
        "hipstershop.CartService",
        "oteldemo.CartService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&service), "{names:?}");
    }
}

#[tokio::test]
async fn cluster_calls_answer() {
    let server = Running::start(MemoryNode::leader()).await;
    let mut cluster = ClusterServiceClient::new(server.channel().await);
    let members = cluster
        .members(v1::MembersRequest {})
        .await
        .expect("served")
        .into_inner();
    assert_eq!(members.members.len(), 1);
    let status = cluster
        .status(v1::StatusRequest {})
        .await
        .expect("served")
        .into_inner();
    assert_eq!(status.nodes.len(), 1);
    let snapshot = cluster
        .snapshot(v1::SnapshotRequest {})
        .await
        .expect("served")
        .into_inner();
    assert_eq!(snapshot.snapshot_index, 42);
    let transfer = v1::TransferLeaderRequest { target_node_id: 0 };
    assert!(cluster.transfer_leader(transfer).await.is_ok());
    let add = |node_id, address: &str| v1::AddMemberRequest {
        node_id,
        address: address.to_owned(),
    };
    let added = cluster.add_member(add(2, "127.0.0.1:7401")).await;
    assert_eq!(added.expect("served").into_inner().members.len(), 1);
    for (node_id, address) in [(0, "127.0.0.1:7401"), (2, "127.0.0.1:0"), (2, "nonsense")] {
        let refused = cluster.add_member(add(node_id, address)).await;
        let code = refused.expect_err("nonsense").code();
        assert_eq!(code, tonic::Code::InvalidArgument, "{node_id} {address}");
    }
    let remove = v1::RemoveMemberRequest { node_id: 2 };
    let removed = cluster.remove_member(remove).await;
    assert_eq!(removed.expect("served").into_inner().members.len(), 1);
}
