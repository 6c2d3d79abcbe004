//! Machines that live through crashes, restarts and snapshots at random points, and end like one that never met any.

use super::equal::{Memory, assert_equal, over_memory};
use super::telling::{Pace, history_at};
use super::*;

/// Entries of a life.
const LAST: u64 = 1200;
/// Most entries between two turns of it.
const STRIDE: u64 = 120;

/// A life as far as it has come.
struct Life {
    seed: u64,
    random: Random,
    memory: Memory,
    node: Node,
    /// The last entry that was applied.
    at: u64,
    counts: Counts,
}

/// What happened in a life.
#[derive(Debug, Default)]
struct Counts {
    crashes: u64,
    /// Crashes that returned to an earlier point.
    lost: u64,
    /// Entries that were applied again.
    again: u64,
    restarts: u64,
    /// Other nodes that went on from a snapshot of this one.
    moves: u64,
}

fn entries(seed: u64, indexes: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = Entry> {
    indexes.map(move |index| history_at(Pace::WithLulls, seed, index))
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random::new(!seed),
            memory: over_memory(entries(seed, 1..=LAST)),
            node: Node::new(),
            at: 0,
            counts: Counts::default(),
        }
    }

    async fn turn(&mut self) {
        match self.random.below(10) {
            0 | 1 => self.crash().await,
            2 => self.restart().await,
            3 => self.snapshot().await,
            4 => self.node.machine.state().persist().expect("written"),
            _ => self.go_on().await,
        }
        self.check();
    }

    /// What is known of the place where it is: its digest is that of memory, and of its records.
    fn check(&self) {
        let state = self.node.machine.state();
        let digest = state.header().digest;
        if let Some(nth) = self.at.checked_sub(1) {
            let nth = usize::try_from(nth).expect("small");
            assert_eq!(digest, self.memory.digests[nth], "{}", self.place());
        }
        assert_eq!(digest, recomputed(&state), "{}", self.place());
    }

    fn place(&self) -> String {
        format!("seed {}, entry {}", self.seed, self.at)
    }

    async fn go_on(&mut self) {
        let end = (self.at + 1 + self.random.below(STRIDE)).min(LAST);
        let next = entries(self.seed, self.at + 1..=end);
        apply(&mut self.node.machine, next).await;
        self.at = end;
    }

    async fn crash(&mut self) {
        let crashed = self.node.crashed();
        self.node = Node::at(crashed).unwrap_or_else(|e| panic!("{}: {e}", self.place()));
        let at = applied(&mut self.node).await;
        assert!(at <= self.at, "{} became {at}", self.place());
        self.counts.crashes += 1;
        self.counts.lost += u64::from(at < self.at);
        self.counts.again += self.at - at;
        self.at = at;
    }

    async fn restart(&mut self) {
        let whole = dump(&self.node.machine.state());
        let node = std::mem::replace(&mut self.node, Node::new());
        let data = node.close().await;
        self.node = Node::at(data).unwrap_or_else(|e| panic!("{}: {e}", self.place()));
        assert_eq!(applied(&mut self.node).await, self.at);
        assert!(
            dump(&self.node.machine.state()) == whole,
            "{}",
            self.place()
        );
        self.counts.restarts += 1;
    }

    /// Another node, which has come to some earlier point by itself, goes on from a snapshot of this one.
    async fn snapshot(&mut self) {
        if self.at == 0 {
            return;
        }
        let built = build(&mut self.node.machine).await;
        if self.random.below(2) == 0 {
            return;
        }
        let mut other = Node::new();
        let earlier = self.random.below(self.at);
        apply(&mut other.machine, entries(self.seed, 1..=earlier)).await;
        let received = super::snapshots::receive(&built.snapshot, &other.shard_dir());
        let installed = other.machine.install_snapshot(&built.meta, received).await;
        installed.unwrap_or_else(|e| panic!("{}: {e}", self.place()));
        assert_eq!(applied(&mut other).await, self.at);
        self.node = other;
        self.counts.moves += 1;
    }
}

async fn applied(node: &mut Node) -> u64 {
    let (applied, _) = node.machine.applied_state().await.expect("readable");
    applied.map_or(0, |applied| applied.index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_machine_goes_through_it_ends_the_same() {
    let mut all = Counts::default();
    for seed in 1..=4 {
        let mut life = Life::new(seed);
        while life.at < LAST {
            life.turn().await;
        }
        assert_equal(&life.node.machine.state(), &life.memory.store);
        println!("seed {seed}: {:?}", life.counts);
        all.crashes += life.counts.crashes;
        all.lost += life.counts.lost;
        all.again += life.counts.again;
        all.restarts += life.counts.restarts;
        all.moves += life.counts.moves;
    }
    assert!(all.crashes > all.lost && all.lost > 0, "{all:?}");
    assert!(
        all.again > 0 && all.restarts > 0 && all.moves > 0,
        "{all:?}"
    );
}
