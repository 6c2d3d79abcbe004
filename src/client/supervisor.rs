//! The task that owns a client's other tasks, and that follows who the members are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::directory::{Directory, Route};
use super::ledger::Ledger;
use super::node::Node;
use super::{ClientConfig, Error};
use crate::proto::v1;
use crate::proto::v1::cluster_service_client::ClusterServiceClient;

/// Members are asked for again after this, whatever happens.
const REFRESH: Duration = Duration::from_secs(30);
/// And not more often than this.
const REFRESH_PAUSE: Duration = Duration::from_millis(500);
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes that one client keeps streams to.
const NODES: usize = 64;
/// Unknown addresses that may wait to be looked at.
const UNKNOWN: usize = 16;

/// What a client's calls and tasks share.
pub(super) struct Shared {
    pub ledger: Ledger,
    pub directory: Directory,
    config: ClientConfig,
}

impl Shared {
    /// How long a connection may take to be made.
    pub fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }
}

/// A client's life: its tasks end with it.
pub(super) struct Core {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// The supervisor alone. Dropping the set aborts it, and with it the set that it owns.
    tasks: Mutex<JoinSet<()>>,
}

impl Core {
    pub fn start(config: ClientConfig) -> Result<Self, Error> {
        let (unknown, names) = mpsc::channel(UNKNOWN);
        let nodes = config
            .endpoints
            .iter()
            .map(|address| new_node(&config, address))
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            ledger: Ledger::new()?,
            directory: Directory::new(nodes, unknown),
            config,
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(Arc::clone(&shared), names, stop.clone()));
        Ok(Self {
            shared,
            stop,
            tasks: Mutex::new(tasks),
        })
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub async fn close(&self) {
        self.stop.cancel();
        let mut tasks = {
            let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
            std::mem::take(&mut *tasks)
        };
        while tasks.join_next().await.is_some() {}
        self.shared.directory.close();
    }
}

fn new_node(config: &ClientConfig, address: &str) -> Result<Arc<Node>, Error> {
    let node = Node::new(address, config.connect_timeout, config.attempt_timeout);
    let node = node.map_err(|_| Error::Endpoint {
        endpoint: address.to_owned(),
        problem: "expected host:port or http://host:port",
    })?;
    Ok(Arc::new(node))
}

async fn supervise(
    shared: Arc<Shared>,
    mut names: mpsc::Receiver<String>,
    stop: CancellationToken,
) {
    let mut nodes = JoinSet::new();
    for node in shared.directory.nodes() {
        nodes.spawn(node.run(Arc::clone(&shared)));
    }
    let mut is_due = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(address) = names.recv() => add(&shared, &mut nodes, &address),
            members = next_members(&shared), if is_due => {
                follow(&shared, &mut nodes, &members);
                is_due = false;
            }
            () = refresh_due(&shared), if !is_due => is_due = true,
        }
    }
    nodes.shutdown().await;
}

/// Asks for the members when they may have changed, and now and then.
async fn next_members(shared: &Shared) -> Vec<v1::Member> {
    loop {
        shared.directory.until(Route::has_open_node).await;
        if let Some(members) = ask_members(shared).await {
            return members;
        }
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

async fn refresh_due(shared: &Shared) {
    tokio::time::sleep(REFRESH_PAUSE).await;
    let stale = shared.directory.stale.notified();
    // Either is a reason.
    tokio::time::timeout(REFRESH, stale).await.ok();
}

async fn ask_members(shared: &Shared) -> Option<Vec<v1::Member>> {
    let node = shared.directory.any_open(None)?;
    let mut client = ClusterServiceClient::new(node.link());
    let asked = client.members(v1::MembersRequest {});
    // A node that cannot tell now is asked again when something changes, as others are.
    let answer = tokio::time::timeout(MEMBERS_TIMEOUT, asked).await.ok()?;
    Some(answer.ok()?.into_inner().members)
}

fn follow(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, members: &[v1::Member]) {
    if members.is_empty() {
        return;
    }
    for member in members {
        if shared
            .directory
            .node_at(member.node_id, &member.address)
            .is_none()
        {
            add(shared, tasks, &member.address);
        }
    }
    for node in shared.directory.nodes() {
        let is_member = members
            .iter()
            .any(|member| member.address == node.address());
        let is_given = shared
            .config
            .endpoints
            .iter()
            .any(|endpoint| endpoint == node.address());
        if !is_member && !is_given && !node.is_open() {
            shared.directory.remove(&node);
        }
    }
}

fn add(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, address: &str) {
    let nodes = shared.directory.nodes();
    let is_known = nodes.iter().any(|node| node.address() == address);
    if is_known || nodes.len() >= NODES {
        return;
    }
    // A member whose address cannot be dialled from here is no use to this client.
    let Ok(node) = new_node(&shared.config, address) else {
        return;
    };
    shared.directory.add(Arc::clone(&node));
    tasks.spawn(node.run(Arc::clone(shared)));
}
