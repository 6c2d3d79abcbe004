//! Nodes within the test's own process, for what no flag sets: their clocks, and what their programs know. Each has a data directory, a
//! socket and threads of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use clap::Parser;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trolley::client::Client;
use trolley::clock::Clock;
use trolley::config::{NodeConfig, ServeArgs};
use trolley::proto::v1::{NodeStatus, Role};
use trolley::types::StateVersion;
use trolley::{process, server};

use super::{connect, eventually, unused_port};

/// What `trolley serve` is given.
#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

/// A node within this process.
pub struct Inside {
    pub address: String,
    data: PathBuf,
    arguments: Vec<String>,
    /// What its wall clock shows. It moves only when the test moves it.
    pub hand: Arc<AtomicU64>,
    /// Of which kind that is: whether the node's machine is restarted with it.
    clock: fn(Arc<AtomicU64>) -> Clock,
    /// What the program knows that it is started with.
    pub newest_state_version: StateVersion,
    running: Option<Running>,
}

struct Running {
    threads: Runtime,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), server::Error>>,
}

impl Inside {
    /// Nodes 1, 2 and so on of one cluster, one for each hand, not started yet.
    pub fn all(folder: &Path, clock: fn(Arc<AtomicU64>) -> Clock, hands: &[u64]) -> Vec<Self> {
        let addresses: Vec<_> = hands.iter().map(|_| unused_address()).collect();
        let members: Vec<_> = (1..)
            .zip(&addresses)
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        (1..)
            .zip(addresses.iter().zip(hands))
            .map(|(id, (address, hand))| {
                let words = [format!("--initial-cluster={}", members.join(","))];
                Self::new(folder, clock, *hand, (id, address), &words)
            })
            .collect()
    }

    /// A node that is to be added to a cluster, as one more than those it names.
    pub fn joining(folder: &Path, clock: fn(Arc<AtomicU64>) -> Clock, others: &[Self]) -> Self {
        let (id, address) = (others.len() as u64 + 1, unused_address());
        let others = (1..)
            .zip(others)
            .map(|(id, other): (u64, _)| format!("{id}={},", other.address));
        let members = others.collect::<String>() + &format!("{id}={address}");
        let words = [format!("--initial-cluster={members}"), "--join".to_owned()];
        Self::new(folder, clock, 0, (id, &address), &words)
    }

    fn new(
        folder: &Path,
        clock: fn(Arc<AtomicU64>) -> Clock,
        hand: u64,
        (id, address): (u64, &String),
        more: &[String],
    ) -> Self {
        let words = [
            format!("--node-id={id}"),
            format!("--listen={address}"),
            format!("--advertise={address}"),
        ];
        Self {
            address: address.clone(),
            data: folder.join(format!("node-{id}")),
            arguments: words.iter().chain(more).cloned().collect(),
            hand: Arc::new(AtomicU64::new(hand)),
            clock,
            newest_state_version: StateVersion::NEWEST,
            running: None,
        }
    }

    fn config(&self) -> NodeConfig {
        let data = format!("--data-dir={}", self.data.display());
        let words = ["trolley", &data].map(str::to_owned);
        let words = words.into_iter().chain(self.arguments.iter().cloned());
        let config = NodeConfig::try_from(Serve::parse_from(words).args).expect("valid flags");
        NodeConfig {
            newest_state_version: self.newest_state_version,
            ..config
        }
    }

    pub fn start(&mut self) {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let config = self.config();
        let clock = (self.clock)(Arc::clone(&self.hand));
        let address = self.address.clone();
        let (stop, stopped) = oneshot::channel();
        let ended = threads.spawn(async move {
            let listener = process::listen(&address).await.expect("the port is free");
            let asked = async move { stopped.await.unwrap_or(()) };
            server::run(listener, config, clock, asked).await
        });
        self.running = Some(Running {
            threads,
            stop,
            ended,
        });
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Drops whatever the node was doing, without a farewell.
    pub async fn kill(&mut self) {
        let Running { threads, ended, .. } = self.running.take().expect("it runs");
        assert!(
            !ended.is_finished(),
            "the node at {} had ended: {:?}",
            self.address,
            ended.await
        );
        release(threads).await;
    }

    /// Kills it, and leaves what was in its files at the moment before: a node that is killed within a process still closes its databases.
    pub async fn cut_power(&mut self) {
        let image = self.data.with_extension("image");
        // What is written meanwhile makes a copy one of no single moment.
        super::eventually("a quiet moment of the node's files", async || {
            let _ = fs::remove_dir_all(&image);
            let Ok(before) = files(&self.data) else {
                return false;
            };
            copy(&before, &self.data, &image).is_ok()
                && files(&self.data).is_ok_and(|after| after == before)
        })
        .await;
        self.kill().await;
        fs::remove_dir_all(&self.data).expect("it is the test's");
        fs::rename(&image, &self.data).expect("they lie in one folder");
    }

    /// Stops it as a signal does.
    pub async fn stop(&mut self) {
        let Running {
            threads,
            stop,
            ended,
        } = self.running.take().expect("it runs");
        // If nobody listens it has ended, and says why.
        let _ = stop.send(());
        let ended = ended.await.expect("it does not panic");
        ended.unwrap_or_else(|error| panic!("the node at {} ended: {error}", self.address));
        release(threads).await;
    }

    /// Waits until it ends by itself, and returns why.
    pub async fn failure(&mut self) -> server::Error {
        let Running {
            threads,
            stop,
            ended,
        } = self.running.take().expect("it runs");
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        let ended = ended.unwrap_or_else(|_| panic!("the node at {} goes on", self.address));
        drop(stop);
        release(threads).await;
        let ended = ended.expect("it does not panic");
        ended.expect_err("nobody asked it to end")
    }
}

/// Every file below a directory, with its length and when it was written.
fn files(directory: &Path) -> io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let (path, kind) = entry.and_then(|it| Ok((it.path(), it.metadata()?)))?;
        if kind.is_dir() {
            found.append(&mut files(&path)?);
        } else {
            found.insert(path, (kind.len(), kind.modified()?));
        }
    }
    Ok(found)
}

fn copy<T>(files: &BTreeMap<PathBuf, T>, from: &Path, to: &Path) -> io::Result<()> {
    for file in files.keys() {
        let target = to.join(file.strip_prefix(from).expect("it lies there"));
        fs::create_dir_all(target.parent().expect("it is in a directory"))?;
        fs::copy(file, target)?;
    }
    Ok(())
}

fn unused_address() -> String {
    format!("127.0.0.1:{}", unused_port())
}

async fn release(threads: Runtime) {
    let dropped = tokio::task::spawn_blocking(|| threads.shutdown_timeout(Duration::from_secs(30)));
    dropped.await.expect("threads end");
}

/// The nodes that answer.
pub async fn status(client: &Client) -> Vec<NodeStatus> {
    let client = client.clone().timeout(Duration::from_secs(3));
    let status = client.cluster().status().await;
    let nodes = status.map(|status| status.nodes).unwrap_or_default();
    let answered = nodes.into_iter().filter(|node| node.error.is_empty());
    answered.collect()
}

/// The index of the node that leads, once so many answer.
pub async fn leader_of(client: &Client, running: usize) -> usize {
    let mut found = None;
    eventually("a leader of the nodes that run", async || {
        let nodes = status(client).await;
        let leading = nodes.iter().filter(|node| node.role() == Role::Leader);
        let newest = leading.max_by_key(|node| node.term);
        found = newest.map(|node| usize::try_from(node.node_id - 1).expect("a small id"));
        found.is_some() && nodes.len() == running
    })
    .await;
    found.expect("it was just found")
}

/// Three nodes that have a leader, and a client of theirs.
pub async fn running(
    folder: &Path,
    clock: fn(Arc<AtomicU64>) -> Clock,
    hands: [u64; 3],
) -> (Vec<Inside>, Client) {
    let mut nodes = Inside::all(folder, clock, &hands);
    for node in &mut nodes {
        node.start();
    }
    let endpoints: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    let client = connect(&endpoints);
    leader_of(&client, nodes.len()).await;
    (nodes, client)
}

/// Ends what [`running`] began.
pub async fn end(mut nodes: Vec<Inside>, client: Client) {
    client.close().await;
    for node in nodes.iter_mut().filter(|node| node.is_running()) {
        node.kill().await;
    }
}
