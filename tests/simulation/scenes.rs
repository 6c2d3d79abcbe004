//! Single situations that the runs of seeds meet too seldom, or not in a way that shows.

use std::sync::Arc;

use openraft::EntryPayload;
use trolley::raft::{Entry, LogId, Vote};

use crate::disk::{Change, Waiter, encode};
use crate::network::STEP_MS;
use crate::node::SimNode;
use crate::world::World;

/// Longest wait for anything, in simulated time.
const DEADLINE_MS: u64 = 60_000;

/// Three nodes, and nobody who asks them for anything.
struct Scene {
    world: Arc<World>,
    nodes: Vec<SimNode>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, None, false);
        fastrand::seed(seed);
        world.roster.found(3);
        let node = |id| SimNode::new(Arc::clone(&world), id, 3);
        let nodes = (1..=3).map(node).collect();
        Self { world, nodes }
    }

    /// Founds the cluster on disks that sync within these times, and waits until all know a leader.
    fn found(seed: u64, sync_ms: (u64, u64)) -> Self {
        let mut scene = Self::new(seed);
        for node in &mut scene.nodes {
            node.disk.lock().expect("no panic").sync_ms = sync_ms;
            node.start();
        }
        scene.until("a leader that all know", |scene| {
            scene.nodes.iter().all(SimNode::knows_leader) && scene.leader().is_some()
        });
        scene
    }

    fn step(&mut self) {
        let now = self.world.trace.now();
        self.world.net.deliver(&self.world, now);
        self.world.net.flush(&self.world);
        for node in &mut self.nodes {
            node.step(now + STEP_MS);
            self.world.net.flush(&self.world);
        }
        self.world.trace.set_now(now + STEP_MS);
        assert_eq!(self.world.ledger.violation(), None);
    }

    fn until(&mut self, what: &str, is_met: impl Fn(&Self) -> bool) {
        let end = self.world.trace.now() + DEADLINE_MS;
        while !is_met(self) {
            assert!(self.world.trace.now() < end, "never came: {what}");
            self.step();
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP_MS {
            self.step();
        }
    }

    /// Starts node 1, whose power went when its log had twenty entries of the first leader. A later one had put others in the place of
    /// those from 10 on: their truncation is lost, and of what came after it this is left.
    fn start_overtaken(applied: LogId, committed: LogId) -> Self {
        let mut scene = Self::new(1);
        {
            let mut disk = scene.nodes[0].disk.lock().expect("no panic");
            let entry = |index| {
                let entry = Entry {
                    log_id: id(1, index),
                    payload: EntryPayload::Blank,
                };
                (index, encode(&entry))
            };
            for change in [
                Change::Vote(Vote::new_committed(2, 2)),
                Change::Append((0..=20).map(entry).collect()),
                Change::Committed(Some(committed)),
            ] {
                disk.write(change, Waiter::Nobody);
            }
            disk.sync(3);
            disk.state.last = Some(applied);
        }
        scene.nodes[0].start();
        scene.run(1_000);
        scene
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(SimNode::leads)
    }

    /// Kills the leader; the others see that its connections broke.
    fn kill_leader(&mut self) {
        let leader = self.leader().expect("there is one");
        let id = self.nodes[leader].id;
        self.nodes[leader].crash();
        for node in self.nodes.iter().filter(|node| node.is_up()) {
            node.lose(id);
        }
    }
}

/// Of the leader that each term has.
fn id(term: u64, index: u64) -> LogId {
    LogId::new(Vote::new_committed(term, term).leader_id, index)
}

/// Voters sync a vote before they answer, and whoever stands again meanwhile throws their answers away.
#[test]
fn a_leader_that_is_killed_is_replaced_by_the_first_who_stands() {
    for seed in 1..=20 {
        let mut scene = Scene::found(seed, (40, 50));
        scene.run(1_000);
        let leader = scene.leader().expect("it goes on");
        let before = scene.nodes[leader].term();
        scene.kill_leader();
        scene.until("another leader", |scene| scene.leader().is_some());
        let leader = scene.leader().expect("it came");
        let after = scene.nodes[leader].term();
        assert_eq!(after, before + 1, "seed {seed}");
    }
}

/// Half a lease is not enough for a vote on such disks; who waits no longer than that never hears one.
#[test]
fn a_leader_is_elected_though_a_vote_takes_most_of_a_lease() {
    for seed in 1..=5 {
        drop(Scene::found(seed, (150, 150)));
    }
}

#[test]
fn what_a_later_leader_replaced_is_not_applied_because_it_committed_something() {
    let scene = Scene::start_overtaken(id(1, 9), id(2, 12));
    assert_eq!(scene.nodes[0].applied(), 9);
}

#[test]
fn a_state_that_is_ahead_of_what_was_replaced_goes_on_without_it() {
    let scene = Scene::start_overtaken(id(2, 12), id(2, 12));
    assert_eq!(scene.nodes[0].applied(), 12);
    let disk = scene.nodes[0].disk.lock().expect("no panic");
    assert_eq!(disk.log.last(), Some(id(2, 12)));
    assert_eq!(disk.log.purged, Some(id(2, 12)));
}
