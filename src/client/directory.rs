//! The nodes a client knows, and which of them leads.
//!
//! Every node's header tells whom it takes for the leader, when its stream opens and when that changes. Invariants:
//! 1. A header of an older term than the leader's is ignored.
//! 2. A leader that was lost or fell silent is *suspected*: nothing but a newer term, or its own word, makes it the leader
//!    again, so that followers which have not noticed yet do not send callers back to it.
//!
//! An operation looks the leader up by a read lock and a reference count.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::node::{Cause, Node};
use crate::proto::v1;
use crate::types::Revision;

/// What is known now.
pub(super) struct Route {
    pub nodes: Vec<Arc<Node>>,
    pub leader: Option<Arc<Node>>,
    /// Of the newest leader that was heard of.
    term: u64,
    leader_id: u64,
    /// Since when this leader is known.
    since: Instant,
    /// The leader of `term` was lost.
    suspected: bool,
    called: bool,
    closed: bool,
}

pub(super) struct Directory {
    route: watch::Sender<Route>,
    /// A copy of the route's, for calls: it says so, or is about to.
    called: AtomicBool,
    /// Of the first node that introduced itself.
    cluster: OnceLock<String>,
    revision: AtomicU64,
    turn: AtomicUsize,
    /// Addresses that a header named and nobody knew.
    unknown: mpsc::Sender<String>,
    /// The list of members may be out of date.
    pub stale: Notify,
}

impl Directory {
    pub fn new(nodes: Vec<Arc<Node>>, unknown: mpsc::Sender<String>) -> Self {
        let route = Route {
            nodes,
            leader: None,
            term: 0,
            leader_id: 0,
            since: Instant::now(),
            suspected: false,
            called: false,
            closed: false,
        };
        Self {
            route: watch::Sender::new(route),
            called: AtomicBool::new(false),
            cluster: OnceLock::new(),
            revision: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            unknown,
            stale: Notify::new(),
        }
    }

    // ---- for callers ---------------------------------------------------------------------------------------

    /// The leader, whether or not its stream is open.
    pub fn leader(&self) -> Option<Arc<Node>> {
        self.route.borrow().leader.clone()
    }

    /// Some node with an open stream, another one each time, and `last` only if there is no other.
    pub fn any_open(&self, last: Option<&Arc<Node>>) -> Option<Arc<Node>> {
        let route = self.route.borrow();
        let is_last = |node: &Arc<Node>| last.is_some_and(|last| Arc::ptr_eq(last, node));
        let open = || {
            let nodes = route.nodes.iter();
            nodes.filter(|node| node.is_open() && !is_last(node))
        };
        let count = open().count();
        if count == 0 {
            return last.filter(|last| last.is_open()).cloned();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        open().nth(turn % count).cloned()
    }

    pub fn node_at(&self, id: u64, address: &str) -> Option<Arc<Node>> {
        self.route.borrow().find(id, address)
    }

    /// A node by its id, if its stream is open.
    pub fn open_node(&self, id: u64) -> Option<Arc<Node>> {
        self.route.borrow().open_node(id).cloned()
    }

    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.route.borrow().nodes.clone()
    }

    pub fn is_closed(&self) -> bool {
        self.route.borrow().closed
    }

    /// Why no stream is open, node by node.
    pub fn problems(&self) -> String {
        let nodes = self.nodes();
        let closed = nodes.iter().filter(|node| !node.is_open());
        let problems: Vec<_> = closed
            .map(|node| format!("{}: {}", node.address(), node.problem()))
            .collect();
        problems.join("; ")
    }

    /// Waits for something.
    pub async fn until(&self, condition: impl FnMut(&Route) -> bool) {
        let mut route = self.route.subscribe();
        // The sender is `self`, so it cannot be gone.
        route.wait_for(condition).await.ok();
    }

    /// Says that there is a reason to connect.
    pub fn call(&self) {
        // Every call comes this way, and after the first it is a load of a number that nobody changes.
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed);
            self.route.send_modify(|route| route.called = true);
        }
    }

    pub async fn first_call(&self) {
        self.until(|route| route.called).await;
    }

    pub fn revision(&self) -> Revision {
        Revision::new(self.revision.load(Ordering::Acquire))
    }

    pub fn raise_revision(&self, revision: u64) {
        if self.revision.load(Ordering::Relaxed) < revision {
            self.revision.fetch_max(revision, Ordering::AcqRel);
        }
    }

    // ---- for nodes -----------------------------------------------------------------------------------------

    /// Learns from what a node says of itself and its leader.
    pub fn observe(&self, from: &Arc<Node>, header: &v1::ResponseHeader) {
        let mut changed = false;
        self.route.send_if_modified(|route| {
            changed = route.learn(from, header, &self.unknown);
            changed
        });
        if changed {
            self.stale.notify_one();
        }
    }

    /// A node's stream is open.
    pub fn opened(&self) {
        self.route.send_modify(|_| ());
        self.stale.notify_one();
    }

    /// True unless a node that was met before belongs to another cluster: what that one would be told to write does
    /// not belong to this one.
    pub fn is_of_cluster(&self, header: Option<&v1::ResponseHeader>) -> bool {
        let Some(header) = header else {
            return true;
        };
        self.cluster.get_or_init(|| header.cluster_id.clone()) == &header.cluster_id
    }

    /// A node does not answer: its stream ended, could not be opened, or is silent.
    pub fn suspect(&self, node: &Arc<Node>) {
        self.route.send_if_modified(|route| {
            let leads = route.is_leader(node);
            if leads {
                route.leader = None;
                route.suspected = true;
            }
            leads
        });
    }

    /// Another node is known to lead, since when?
    pub fn leads_elsewhere(&self, node: &Arc<Node>) -> Option<Instant> {
        let route = self.route.borrow();
        let elsewhere = route.leader.is_some() && !route.is_leader(node);
        elsewhere.then_some(route.since)
    }

    // ---- for the supervisor --------------------------------------------------------------------------------

    pub fn add(&self, node: Arc<Node>) {
        self.route.send_modify(|route| route.nodes.push(node));
    }

    pub fn remove(&self, node: &Arc<Node>) {
        self.suspect(node);
        self.route
            .send_modify(|route| route.nodes.retain(|known| !Arc::ptr_eq(known, node)));
    }

    pub fn close(&self) {
        self.route.send_modify(|route| route.closed = true);
        for node in self.nodes() {
            node.shut(Cause::Disconnected);
        }
    }
}

impl Route {
    pub fn is_leader(&self, node: &Arc<Node>) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|leader| Arc::ptr_eq(leader, node))
    }

    pub fn knows(&self, node: &Arc<Node>) -> bool {
        self.nodes.iter().any(|known| Arc::ptr_eq(known, node))
    }

    /// There is a leader that can be asked.
    pub fn has_open_leader(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.is_open())
    }

    pub fn has_open_node(&self) -> bool {
        self.nodes.iter().any(|node| node.is_open())
    }

    pub fn open_node(&self, id: u64) -> Option<&Arc<Node>> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.id() == id && node.is_open())
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// By id first: the address that members know may not be the one that leads there from here.
    fn find(&self, id: u64, address: &str) -> Option<Arc<Node>> {
        let at_address = |node: &&Arc<Node>| node.address() == address;
        let found = self.open_node(id);
        let found = found.or_else(|| self.nodes.iter().find(at_address));
        found.cloned()
    }

    /// True if the leader is another than before.
    fn learn(
        &mut self,
        from: &Arc<Node>,
        header: &v1::ResponseHeader,
        unknown: &mpsc::Sender<String>,
    ) -> bool {
        if header.leader_id == 0 {
            let stepped_down = self.is_leader(from) && header.term >= self.term;
            if stepped_down {
                self.leader = None;
            }
            return stepped_down;
        }
        let is_own_word = header.leader_id == header.node_id;
        let is_same = (header.term, header.leader_id) == (self.term, self.leader_id);
        if header.term < self.term || (is_same && self.suspected && !is_own_word) {
            return false;
        }
        let Some(leader) = self.find(header.leader_id, &header.leader_address) else {
            // Full: this is said again.
            unknown.try_send(header.leader_address.clone()).ok();
            return false;
        };
        let leader = if is_own_word {
            Arc::clone(from)
        } else {
            leader
        };
        if is_same && self.is_leader(&leader) {
            return false;
        }
        self.leader = Some(leader);
        self.term = header.term;
        self.leader_id = header.leader_id;
        self.since = Instant::now();
        self.suspected = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn setup() -> (Directory, Vec<Arc<Node>>, mpsc::Receiver<String>) {
        let node = |address| {
            let second = Duration::from_secs(1);
            Arc::new(Node::new(address, second, second).expect("the address is well formed"))
        };
        let nodes: Vec<_> = ["a:1", "b:2", "c:3"].into_iter().map(node).collect();
        let (unknown, names) = mpsc::channel(4);
        (Directory::new(nodes.clone(), unknown), nodes, names)
    }

    fn header(node_id: u64, term: u64, leader_id: u64) -> v1::ResponseHeader {
        let address = ["", "a:1", "b:2", "c:3", "d:4"][usize::try_from(leader_id).expect("small")];
        v1::ResponseHeader {
            node_id,
            term,
            leader_id,
            leader_address: address.to_owned(),
            ..Default::default()
        }
    }

    fn leader_of(directory: &Directory) -> Option<String> {
        Some(directory.leader()?.address().to_owned())
    }

    #[tokio::test]
    async fn the_newest_term_is_believed() {
        let (directory, nodes, _names) = setup();
        directory.observe(&nodes[0], &header(1, 5, 2));
        directory.observe(&nodes[2], &header(3, 4, 3));
        assert_eq!(leader_of(&directory).as_deref(), Some("b:2"));
        directory.observe(&nodes[2], &header(3, 6, 3));
        assert_eq!(leader_of(&directory).as_deref(), Some("c:3"));
    }

    #[tokio::test]
    async fn a_suspected_leader_returns_by_its_own_word_only() {
        let (directory, nodes, _names) = setup();
        directory.observe(&nodes[0], &header(1, 5, 2));
        directory.suspect(&nodes[1]);
        directory.observe(&nodes[0], &header(1, 5, 2));
        assert_eq!(leader_of(&directory), None);
        directory.observe(&nodes[1], &header(2, 5, 2));
        assert_eq!(leader_of(&directory).as_deref(), Some("b:2"));
    }

    #[tokio::test]
    async fn only_the_leader_itself_can_step_down() {
        let (directory, nodes, _names) = setup();
        directory.observe(&nodes[0], &header(1, 5, 2));
        directory.observe(&nodes[2], &header(3, 6, 0));
        assert_eq!(leader_of(&directory).as_deref(), Some("b:2"));
        directory.observe(&nodes[1], &header(2, 6, 0));
        assert_eq!(leader_of(&directory), None);
    }

    #[tokio::test]
    async fn an_unknown_leader_is_reported() {
        let (directory, nodes, mut names) = setup();
        directory.observe(&nodes[0], &header(1, 5, 4));
        assert_eq!(leader_of(&directory), None);
        assert_eq!(names.recv().await.as_deref(), Some("d:4"));
    }
}
