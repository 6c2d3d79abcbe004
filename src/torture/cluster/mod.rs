//! A cluster of real processes: started, killed, paused and partitioned from outside, without any knowledge of their inside.
//!
//! Every node advertises the address of a front in this process, see [`network`], and listens behind it. Peers and the clients of
//! workloads go through the fronts; the one who looks on goes past them, see [`view`].

pub mod network;
mod node;
mod origin;
pub mod ports;
pub mod view;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use self::network::{Network, Processes};
use self::node::Killed;
pub use self::node::{Node, serve};

/// How long a node that was asked to stop may take.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The `trolley` that is under test.
    pub binary: PathBuf,
    /// Where data and logs go.
    pub folder: PathBuf,
    /// How many nodes.
    pub nodes: u64,
    /// Flags beside the necessary ones.
    pub flags: Vec<String>,
    /// Where each node's data goes, if not into `folder`.
    pub places: Vec<PathBuf>,
    /// The environment of each node, beside what it inherits.
    pub environment: Vec<Vec<(String, String)>>,
}

/// Nodes 1 to N.
pub struct Cluster {
    nodes: Vec<Node>,
    network: Network,
    processes: Processes,
    /// Nodes that were found to have ended by themselves when they were to be killed.
    found: Vec<(u64, ExitStatus)>,
}

impl Cluster {
    /// The nodes and their fronts; none of the nodes runs yet.
    pub async fn open(layout: &Layout) -> io::Result<Self> {
        let logs = layout.folder.join("logs");
        fs::create_dir_all(&logs)?;
        let address = || ports::unused_address().ok_or_else(|| io::Error::other("no port is free"));
        let mut addresses = Vec::new();
        for id in 1..=layout.nodes {
            addresses.push((id, address()?, address()?));
        }
        let members: Vec<_> = addresses
            .iter()
            .map(|(id, advertised, _)| format!("{id}={advertised}"))
            .collect();
        let members = members.join(",");
        let processes = Processes::default();
        let network = Network::open(&addresses, Arc::clone(&processes)).await?;
        let mut nodes = Vec::new();
        for ((id, advertised, listening), index) in addresses.into_iter().zip(0..) {
            let data = layout.places.get(index).cloned();
            let environment = layout.environment.get(index);
            nodes.push(Node::new(node::Plan {
                id,
                advertised,
                listening,
                members: &members,
                data: data.unwrap_or_else(|| layout.folder.join(format!("node-{id}"))),
                log: logs.join(format!("node-{id}.log")),
                binary: &layout.binary,
                flags: &layout.flags,
                environment: environment.map_or(&[], Vec::as_slice),
            }));
        }
        Ok(Self {
            nodes,
            network,
            processes,
            found: Vec::new(),
        })
    }

    /// The network between them.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its id.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[index(id)]
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[index(id)]
    }

    /// How many nodes make a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// Where clients dial.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let advertised = self.nodes.iter().map(Node::advertised);
        advertised.map(str::to_owned).collect()
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, id: u64) -> io::Result<()> {
        if self.node(id).is_running() {
            return Ok(());
        }
        let pid = self.node_mut(id).start()?;
        self.remember(id, Some(pid));
        Ok(())
    }

    /// SIGKILL. `false` if it did not run, or had come to an end of its own: [`Self::ended`] tells of that.
    pub async fn kill(&mut self, id: u64) -> io::Result<bool> {
        let killed = self.node_mut(id).kill().await?;
        self.remember(id, None);
        if let Killed::HadEnded(status) = killed {
            self.found.push((id, status));
        }
        Ok(killed == Killed::Now)
    }

    /// If it was killed when it had ended with one of these exit codes, that is no news.
    pub fn excuse(&mut self, id: u64, codes: &[i32]) {
        let is_excused = |status: &ExitStatus| status.code().is_some_and(|it| codes.contains(&it));
        self.found
            .retain(|(of, status)| *of != id || !is_excused(status));
    }

    /// SIGTERM: how it left, if it did in good time; it is killed otherwise.
    pub async fn stop(&mut self, id: u64) -> io::Result<Option<ExitStatus>> {
        let status = self.node_mut(id).terminate(FAREWELL).await;
        self.remember(id, None);
        status
    }

    /// Makes a node that does not run a new one at the same place, with an empty data directory: the id that it will have as a
    /// member.
    pub fn renew(&mut self, id: u64) -> io::Result<u64> {
        let highest = self.nodes.iter().map(Node::member).max().unwrap_or(0);
        let member = highest + 1;
        let members: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let at = if node.id() == id {
                    member
                } else {
                    node.member()
                };
                format!("{at}={}", node.advertised())
            })
            .collect();
        let members = members.join(",");
        self.node_mut(id).become_newcomer(member, &members)?;
        Ok(member)
    }

    /// SIGSTOP or SIGCONT, unless it is so already.
    pub fn set_paused(&mut self, id: u64, is_paused: bool) -> io::Result<()> {
        self.node_mut(id).set_paused(is_paused)
    }

    /// Nodes that have ended by themselves since this was asked last.
    pub fn ended(&mut self) -> Vec<(u64, ExitStatus)> {
        let mut ended = std::mem::take(&mut self.found);
        let nodes = self.nodes.iter_mut();
        ended.extend(nodes.filter_map(|node| Some((node.id(), node.has_ended()?))));
        ended
    }

    fn remember(&self, id: u64, pid: Option<u32>) {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match pid {
            Some(pid) => processes.insert(id, pid),
            None => processes.remove(&id),
        };
    }
}

fn index(id: u64) -> usize {
    usize::try_from(id.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// Copies a directory and all that is in it.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
