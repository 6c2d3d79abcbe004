//! A cluster under test: processes, faults, and what the cluster says of itself.

pub mod balancer;
pub mod browser;
mod disk;
pub mod driver;
pub mod gateway;
pub mod haproxy;
pub mod inside;
mod link;
mod load;
mod node;
pub mod process;
mod random;
pub mod shoppers;
mod storm;
pub mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use tonic::transport::Channel;
use trolley::client::{Client, ClientConfig};
use trolley::proto::v1::{NodeStatus, Role};
use trolley::torture::cluster::ports;
use trolley::types::NodeId;

pub use self::disk::{Kind, SmallDisk, can_mount};
use self::link::Link;
pub use self::load::Load;
pub use self::node::Node;
pub use self::random::Random;
pub use self::storm::Storm;

/// For whatever must happen within a few seconds. Generous, because machines that run tests are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A call that outlives any election.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One cluster at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits until no other cluster runs; none does while the guard lives.
pub async fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// Nodes 1 to N with their data in one folder, which is kept when the test fails.
pub struct Cluster {
    nodes: Vec<Node>,
    /// One for each node, in a cluster that has them.
    links: Vec<Link>,
    /// Under the nodes' data, if they are to be small. They go before the folder that they are in.
    disks: Vec<SmallDisk>,
    folder: TempDir,
    /// How many of the nodes are no members any more.
    removed: usize,
    _turn: MutexGuard<'static, ()>,
}

/// Where nodes keep their data.
#[derive(Clone, Copy)]
enum Data<'a> {
    /// In the cluster's folder.
    InFolder,
    /// In these directories, one for each node.
    In(&'a [PathBuf]),
    /// In the cluster's folder, each on a disk of its own of so many bytes.
    OnSmallDisks(Kind, u64),
}

/// A cluster that went on without one of its followers.
pub struct LeftBehind {
    pub leader: u64,
    /// The follower that was killed.
    pub away: u64,
    /// Where its log ends: the leader's begins behind that.
    pub last: u64,
    /// Goes on until it is stopped.
    pub load: Load,
}

impl Cluster {
    /// Starts `size` nodes, with these flags beside the necessary ones, and waits for a leader.
    pub async fn start(size: usize, flags: &[&str]) -> Self {
        let addresses = unused_addresses(size);
        Self::of(&addresses, &addresses, Data::InFolder, flags, &[]).await
    }

    /// The same, each node on a disk of its own of so many bytes.
    pub async fn start_on_small_disks(size: usize, kind: Kind, bytes: u64, flags: &[&str]) -> Self {
        let addresses = unused_addresses(size);
        let data = Data::OnSmallDisks(kind, bytes);
        Self::of(&addresses, &addresses, data, flags, &[]).await
    }

    /// The same with nodes that dial each other, and are dialled by clients, through links that can be cut.
    pub async fn start_linked(size: usize, flags: &[&str]) -> Self {
        let (addresses, listening) = (unused_addresses(size), unused_addresses(size));
        Self::of(&addresses, &listening, Data::InFolder, flags, &[]).await
    }

    /// The same with a node for each of these data directories, and with this in their environment.
    pub async fn start_over(
        places: &[PathBuf],
        flags: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let addresses = unused_addresses(places.len());
        Self::of(&addresses, &addresses, Data::In(places), flags, environment).await
    }

    async fn of(
        addresses: &[String],
        listening: &[String],
        data: Data<'_>,
        flags: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let turn = take_turn().await;
        let folder =
            TempDir::with_prefix("trolley-cluster-").expect("a temporary folder can be made");
        let both = addresses.iter().zip(listening);
        let apart = both.filter(|(address, listening)| address != listening);
        let links = apart.map(|(from, to)| Link::new(from, to)).collect();
        let mut nodes = Node::all(addresses, listening, folder.path(), flags);
        let mut disks = Vec::new();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.set_environment(environment);
            match data {
                Data::InFolder => {}
                Data::In(places) => node.keep_data_in(&places[index]),
                Data::OnSmallDisks(kind, bytes) => {
                    let mounted = SmallDisk::mount(kind, node.data_dir(), bytes);
                    disks.push(mounted.expect("it was found that mounts work"));
                }
            }
        }
        let mut cluster = Self {
            nodes,
            links,
            disks,
            folder,
            removed: 0,
            _turn: turn,
        };
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.wait_for_leader().await;
        cluster
    }

    /// Where data and logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node by its id.
    pub fn node(&mut self, id: u64) -> &mut Node {
        let index = usize::try_from(id - 1).expect("node ids are small");
        &mut self.nodes[index]
    }

    /// The way to a node, in a cluster that was started with links.
    pub fn link(&self, id: u64) -> &Link {
        &self.links[usize::try_from(id - 1).expect("node ids are small")]
    }

    /// A node's disk, if disks are small.
    pub fn disk(&self, id: u64) -> &SmallDisk {
        &self.disks[usize::try_from(id - 1).expect("node ids are small")]
    }

    /// A connection to a node that listens, past its link if it has one.
    pub async fn channel(&mut self, id: u64) -> Channel {
        let address = format!("http://{}", self.node(id).listening());
        let endpoint = Channel::from_shared(address).expect("an address");
        endpoint.connect().await.expect("the node listens")
    }

    /// All of them.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The ids of all nodes but one.
    pub fn others(&self, id: u64) -> Vec<u64> {
        let ids = self.nodes.iter().map(Node::id);
        ids.filter(|other| *other != id).collect()
    }

    /// Starts one more node, with the next id and these flags, that waits to be added; gives its id.
    pub fn start_newcomer(&mut self, flags: &[&str]) -> u64 {
        let id = self.nodes.last().map_or(1, |last| last.id() + 1);
        let address = unused_addresses(1).remove(0);
        let known = self.nodes.iter();
        let mut members: Vec<_> = known
            .map(|node| format!("{}={}", node.id(), node.address()))
            .collect();
        members.push(format!("{id}={address}"));
        let mut all = vec!["--join"];
        all.extend(flags);
        let members = members.join(",");
        let node = Node::new(id, &address, &address, &members, self.folder.path(), &all);
        self.nodes.push(node);
        self.node(id).start();
        id
    }

    /// Has a node that waits added, and waits until it votes.
    pub async fn add(&mut self, client: &Client, id: u64) {
        self.node(id).wait_until_listening().await;
        let address = self.node(id).address().to_owned();
        let node = NodeId::new(id).expect("ids begin at 1");
        let started = Instant::now();
        while let Err(error) = client.cluster().add_member(node, &address).await {
            // It has to open its databases before it says who it is, and to get the log before it votes.
            let passes = ["MEMBER_UNREACHABLE", "MEMBER_BEHIND"];
            let will_pass = error.reason().is_some_and(|it| passes.contains(&it));
            assert!(will_pass && started.elapsed() < DEADLINE, "{error}");
        }
    }

    /// Has a node removed, which takes no more part in what is waited for.
    pub async fn remove(&mut self, client: &Client, id: u64) {
        let node = NodeId::new(id).expect("ids begin at 1");
        let removed = client.cluster().remove_member(node).await;
        let members = removed.expect("the others are well").members;
        assert!(members.iter().all(|member| member.node_id != id));
        self.removed += 1;
    }

    /// Every address.
    pub fn endpoints(&self) -> Vec<String> {
        let addresses = self.nodes.iter().map(|node| node.address().to_owned());
        addresses.collect()
    }

    /// A client of its own, with every address.
    pub fn client(&self) -> Client {
        connect(&self.endpoints())
    }

    /// What every node says of itself; a node that does not answer is left out.
    pub async fn status(&self) -> Vec<NodeStatus> {
        let client = self.client().timeout(Duration::from_secs(3));
        let status = client.cluster().status().await;
        let nodes = status.map(|status| status.nodes).unwrap_or_default();
        client.close().await;
        nodes
            .into_iter()
            .filter(|node| node.error.is_empty())
            .collect()
    }

    /// What a node that runs says of itself.
    pub async fn figures(&self, id: u64) -> NodeStatus {
        let mut found = None;
        eventually("a node's status", async || {
            let nodes = self.status().await;
            found = nodes.into_iter().find(|node| node.node_id == id);
            found.is_some()
        })
        .await;
        found.expect("it was just found")
    }

    /// Has the leader take snapshots under load until its log no longer has what follows on `last`: a node that ends
    /// there can come back through a snapshot only. Start the cluster with few entries to keep.
    pub async fn purge_beyond(&self, client: &Client, leader: u64, last: u64, load: &Load) {
        let node = NodeId::new(leader).expect("node ids begin at 1");
        eventually("a log that is purged far enough", async || {
            load.wait_for(500).await;
            let taken = client.cluster().snapshot(Some(node)).await;
            taken.expect("the leader takes a snapshot");
            self.figures(leader).await.purged_index > last
        })
        .await;
    }

    /// Kills a follower, and has the leader go on under load until its log no longer has what the follower lacks. Start
    /// the cluster with few entries to keep.
    pub async fn leave_behind(&mut self, client: &Client) -> LeftBehind {
        let leader = self.wait_for_leader().await;
        let away = self.others(leader)[0];
        let last = self.figures(away).await.last_log_index;
        self.node(away).kill();
        let load = Load::start(client, "guest", 16);
        self.purge_beyond(client, leader, last, &load).await;
        LeftBehind {
            leader,
            away,
            last,
            load,
        }
    }

    /// The node that leads in the highest term, if one says so.
    pub async fn leader(&self) -> Option<u64> {
        let leaders = self
            .status()
            .await
            .into_iter()
            .filter(|node| node.role() == Role::Leader);
        leaders
            .max_by_key(|node| node.term)
            .map(|node| node.node_id)
    }

    /// Waits until a node leads.
    pub async fn wait_for_leader(&self) -> u64 {
        self.wait_for_leader_beside(0).await
    }

    /// Waits until a node other than this one leads.
    pub async fn wait_for_leader_beside(&self, id: u64) -> u64 {
        let mut found = None;
        eventually("a leader", async || {
            found = self.leader().await.filter(|leader| *leader != id);
            found.is_some()
        })
        .await;
        found.expect("it was just found")
    }

    /// Waits until a node has applied what the others had when this was asked.
    pub async fn wait_until_caught_up(&self, id: u64) {
        let mut goal = None;
        eventually("a node that has caught up", async || {
            let nodes = self.status().await;
            let applied = |node: &NodeStatus| node.applied_index;
            // The goal stands still, or a node under load would chase it for ever.
            let goal = *goal.get_or_insert(nodes.iter().map(applied).max().unwrap_or(u64::MAX));
            nodes
                .iter()
                .any(|node| node.node_id == id && node.applied_index >= goal)
        })
        .await;
    }

    /// Waits until all nodes answer and have applied the same state, and checks that it *is* the same.
    pub async fn wait_for_agreement(&self) -> Vec<NodeStatus> {
        let mut nodes = Vec::new();
        eventually("all nodes at one revision", async || {
            nodes = self.status().await;
            nodes.len() == self.nodes.len() - self.removed
                && nodes.windows(2).all(|w| {
                    // A sweep of what nobody could read any more changes the digest and no revision.
                    w[0].revision == w[1].revision && w[0].applied_index == w[1].applied_index
                })
        })
        .await;
        // At one revision there is one state, whatever each node went through to get there.
        for pair in nodes.windows(2) {
            assert_eq!(
                pair[0].digest, pair[1].digest,
                "replicas differ: {nodes:#?}"
            );
        }
        nodes
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!("data and logs are kept in {}", self.folder.path().display());
            for node in &self.nodes {
                println!(
                    "--- the end of node {}'s log ---\n{}",
                    node.id(),
                    node.log_end()
                );
            }
        }
    }
}

/// For what is killed and started again at the same port.
pub fn unused_port() -> u16 {
    ports::unused().expect("some port is free")
}

/// The first of so many such ports in a row.
pub fn unused_ports(count: u16) -> u16 {
    let mut first = unused_port();
    let mut last = first;
    while last - first + 1 < count {
        let next = unused_port();
        if next != last + 1 {
            first = next;
        }
        last = next;
    }
    first
}

fn unused_addresses(count: usize) -> Vec<String> {
    let ports = (0..count).map(|_| unused_port());
    ports.map(|port| format!("127.0.0.1:{port}")).collect()
}

/// A client of these members.
pub fn connect(endpoints: &[String]) -> Client {
    let config = ClientConfig::new(endpoints).expect("addresses are well formed");
    Client::connect(config.timeout(PATIENCE)).expect("a client can be made")
}

/// Polls until the condition holds, and fails the test with `what` after the deadline.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(
            started.elapsed() < DEADLINE,
            "never came, within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Copies a folder and what is in it: contents, and nothing else.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it can be copied");
        }
    }
}
