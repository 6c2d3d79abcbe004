//! Real nodes in this process: storage, Raft and transport together.

use std::path::Path;

use clap::Parser;
use futures::SinkExt as _;
use tempfile::TempDir;

use super::*;
use crate::process::{End as _, listen};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

fn parse(data_dir: &Path, flags: &[&str]) -> NodeConfig {
    let data_dir = data_dir
        .to_str()
        .expect("a temporary directory's name is UTF-8");
    let typed = ["trolley", "--data-dir", data_dir]
        .into_iter()
        .chain(flags.iter().copied());
    let cli = Cli::try_parse_from(typed).expect("clap accepts the flags");
    NodeConfig::try_from(cli.serve).expect("the flags are consistent")
}

/// A node that runs until it is stopped or dropped.
struct RealNode {
    address: String,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: JoinSet<Result<(), Error>>,
}

impl RealNode {
    fn start(listener: TcpListener, config: NodeConfig) -> Self {
        let address = listener.local_addr().expect("it is bound").to_string();
        let (shutdown, told) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(listener, config, Clock::System, async {
            let _ = told.await;
        }));
        Self {
            address,
            shutdown: Some(shutdown),
            tasks,
        }
    }

    async fn single(data_dir: &Path) -> Self {
        let listener = listen("127.0.0.1:0").await.expect("some port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let config = parse(data_dir, &["--single", "--listen", &address]);
        Self::start(listener, config)
    }

    fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.address);
        Channel::from_shared(uri)
            .expect("a valid uri")
            .connect_lazy()
    }

    async fn ready(&self) {
        let mut health = HealthClient::new(self.channel());
        let serving = async {
            loop {
                let answer = health.check(HealthCheckRequest::default()).await;
                if answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), serving)
            .await
            .expect("a leader is found");
    }

    async fn ended(&mut self) -> Result<(), Error> {
        let ended = timeout(Duration::from_secs(30), self.tasks.join_next()).await;
        ended
            .expect("it ends")
            .expect("it runs")
            .expect("it does not panic")
    }

    async fn stop(mut self) {
        drop(self.shutdown.take());
        self.ended().await.expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_keeps_its_data_across_restarts() {
    let dir = TempDir::new().expect("a temporary directory");
    let node = RealNode::single(dir.path()).await;
    node.ready().await;
    let mut keys = KvServiceClient::new(node.channel());
    let put = keys.put(put("k")).await.expect("applied").into_inner();
    node.stop().await;

    let node = RealNode::single(dir.path()).await;
    node.ready().await;
    let mut keys = KvServiceClient::new(node.channel());
    let found = keys
        .get(get("k"))
        .await
        .expect("it is still there")
        .into_inner();
    assert_eq!(found.item.expect("found").mod_revision, put.mod_revision);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_in_use_or_of_another_node_is_refused() {
    let dir = TempDir::new().expect("a temporary directory");
    let node = RealNode::single(dir.path()).await;
    node.ready().await;
    let error = RealNode::single(dir.path()).await.ended().await;
    let error = error.expect_err("it is in use");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    node.stop().await;

    let listener = listen("127.0.0.1:0").await.expect("some port is free");
    let config = parse(dir.path(), &["--single", "--node-id", "2"]);
    let error = RealNode::start(listener, config).ended().await;
    let error = error.expect_err("it belongs to node 1");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("belongs to node 1"), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_said_so() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("it is writable");
    let error = RealNode::single(&file.join("data")).await.ended().await;
    let error = error.expect_err("its parent is a file");
    assert_eq!(error.exit_code(), 3, "{error}");
}

/// Three nodes, and the directories that go with them.
async fn three() -> (Vec<RealNode>, Vec<TempDir>) {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(listen("127.0.0.1:0").await.expect("some port is free"));
    }
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
    let entries = listeners.iter().enumerate();
    let list: Vec<_> = entries
        .map(|(n, listener)| format!("{}={}", n + 1, address(listener)))
        .collect();
    let list = list.join(",");
    let (mut nodes, mut dirs) = (Vec::new(), Vec::new());
    for (n, listener) in listeners.into_iter().enumerate() {
        let dir = TempDir::new().expect("a temporary directory");
        let id = (n + 1).to_string();
        let config = parse(dir.path(), &["--node-id", &id, "--initial-cluster", &list]);
        nodes.push(RealNode::start(listener, config));
        dirs.push(dir);
    }
    for node in &nodes {
        node.ready().await;
    }
    (nodes, dirs)
}

/// Asks until an answer comes that is not about leadership: a machine that stalls takes a leader away at any time.
async fn steadily<T>(mut ask: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::task::yield_now().await;
                }
                answer => return answer.expect("served"),
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), asking).await;
    answer.expect("a leader stays for one answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_of_three_nodes_takes_writes_and_reads_its_own() {
    let (nodes, _dirs) = three().await;
    for (n, node) in nodes.iter().enumerate() {
        let mut keys = KvServiceClient::new(node.channel());
        let key = format!("k{n}");
        // Forwarded if need be.
        let written = steadily(async || keys.put(put(&key)).await).await;
        let written = written.into_inner();
        let revision = written.header.expect("every response has one").revision;
        // Linearizable, on a follower too.
        for reader in &nodes {
            let mut keys = KvServiceClient::new(reader.channel());
            let read = keys
                .get(get(&key))
                .await
                .expect("it was acknowledged")
                .into_inner();
            assert!(read.header.expect("every response has one").revision >= revision);
        }
    }
    let mut cluster = ClusterServiceClient::new(nodes[0].channel());
    let status = cluster
        .status(v1::StatusRequest {})
        .await
        .expect("served")
        .into_inner();
    assert_eq!(status.nodes.len(), 3);
    assert!(
        status.nodes.iter().all(|node| node.error.is_empty()),
        "{:?}",
        status.nodes
    );
    for node in nodes {
        node.stop().await;
    }
}

/// A stream to a node that leads: it has acknowledged a write.
struct ToLeader {
    leader: u64,
    index: usize,
    answers: tonic::Streaming<v1::ExchangeResponse>,
    /// The node ends the stream when this end of it is gone.
    _frames: futures::channel::mpsc::Sender<v1::ExchangeRequest>,
}

impl ToLeader {
    async fn open(nodes: &[RealNode]) -> Result<Self, Status> {
        let mut cluster = ClusterServiceClient::new(nodes[0].channel());
        let members = cluster.members(v1::MembersRequest {}).await?.into_inner();
        let leader = members.header.expect("every response has one").leader_id;
        let nobody_leads = || Status::unavailable("nobody leads");
        let index = leader.checked_sub(1).ok_or_else(nobody_leads)?;
        let index = usize::try_from(index).expect("small");

        let (mut send, frames) = futures::channel::mpsc::channel(4);
        let mut exchange = ExchangeServiceClient::new(nodes[index].channel());
        let mut answers = exchange.exchange(frames).await?.into_inner();
        let operation = v1::Operation {
            sequence: 1,
            request: Some(v1::operation::Request::PutKey(put("k"))),
        };
        let frame = v1::ExchangeRequest {
            client_id: vec![1; 16].into(),
            confirmed_below: 0,
            operations: vec![operation],
        };
        send.send(frame).await.expect("the stream is open");
        let mut outcomes = Vec::new();
        while outcomes.is_empty() {
            let frame = answers.message().await?.expect("not ended");
            outcomes = frame.outcomes;
        }
        match &outcomes[0].response {
            Some(v1::outcome::Response::PutKey(_)) => Ok(Self {
                leader,
                index,
                answers,
                _frames: send,
            }),
            Some(v1::outcome::Response::Failure(failure)) => {
                Err(Status::new(Code::from(failure.code), &failure.reason))
            }
            other => panic!("no answer to a put: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_shut_down_hands_over_and_names_its_successor() {
    let (mut nodes, _dirs) = three().await;
    let to_leader = steadily(async || ToLeader::open(&nodes).await).await;
    let ToLeader {
        leader,
        index,
        mut answers,
        _frames,
    } = to_leader;

    let old = nodes.remove(index);
    let stopping = old.stop();
    let told = async {
        let mut successor = 0;
        loop {
            match answers.message().await {
                Ok(Some(frame)) => {
                    successor = frame.header.map_or(successor, |header| header.leader_id);
                }
                Ok(None) => panic!("the stream ends with a status"),
                Err(status) => return (successor, info(&status).reason),
            }
        }
    };
    let ((), (successor, reason)) = tokio::join!(stopping, told);
    assert_eq!(reason, "DRAINING");
    assert!(
        successor != 0 && successor != leader,
        "{successor} follows {leader}"
    );

    let mut keys = KvServiceClient::new(nodes[0].channel());
    // That node may not have heard of its successor yet.
    steadily(async || keys.get(get("k")).await).await;
    for node in nodes {
        node.stop().await;
    }
}
