//! What holds at one moment: which nodes are down or asleep, which directions are blocked, and by which fault.
//!
//! Faults overlap, so a node may be down for two reasons; it comes back when the last of them ends. Nothing here touches a
//! process or a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::torture::cluster::network::{Direction, End, Rule, Rules};

/// A fault that is under way, by its number.
pub(super) type Reason = usize;

/// Everything that is wrong now.
#[derive(Debug, Default)]
pub(super) struct World {
    pub nodes: u64,
    down: BTreeSet<(u64, Reason)>,
    asleep: BTreeSet<(u64, Reason)>,
    blocked: BTreeMap<Reason, Vec<Direction>>,
    slowed: BTreeMap<Reason, (Vec<Direction>, Rule)>,
}

impl World {
    pub fn of(nodes: u64) -> Self {
        Self {
            nodes,
            ..Self::default()
        }
    }

    pub fn keep_down(&mut self, node: u64, reason: Reason) {
        self.down.insert((node, reason));
    }

    pub fn keep_asleep(&mut self, node: u64, reason: Reason) {
        self.asleep.insert((node, reason));
    }

    pub fn block(&mut self, directions: Vec<Direction>, reason: Reason) {
        self.blocked.insert(reason, directions);
    }

    pub fn delay(&mut self, directions: Vec<Direction>, by: Duration, reason: Reason) {
        let rule = Rule {
            delay: by,
            ..Rule::default()
        };
        self.slowed.insert(reason, (directions, rule));
    }

    /// Messages of different connections overtake each other.
    pub fn shuffle(&mut self, directions: Vec<Direction>, jitter: Duration, reason: Reason) {
        let rule = Rule {
            jitter,
            ..Rule::default()
        };
        self.slowed.insert(reason, (directions, rule));
    }

    /// A fault is over.
    pub fn forget(&mut self, reason: Reason) {
        self.down.retain(|(_, of)| *of != reason);
        self.asleep.retain(|(_, of)| *of != reason);
        self.blocked.remove(&reason);
        self.slowed.remove(&reason);
    }

    pub fn is_down(&self, node: u64) -> bool {
        self.down.iter().any(|(down, _)| *down == node)
    }

    pub fn is_asleep(&self, node: u64) -> bool {
        self.asleep.iter().any(|(asleep, _)| *asleep == node)
    }

    /// Those that something can still be done to.
    pub fn awake(&self) -> Vec<u64> {
        let ids = self.ids();
        ids.filter(|id| !self.is_down(*id) && !self.is_asleep(*id))
            .collect()
    }

    pub fn rules(&self) -> Rules {
        let mut rules = Rules::new();
        for (directions, more) in self.slowed.values() {
            for direction in directions {
                let rule: &mut Rule = rules.entry(*direction).or_default();
                rule.delay = rule.delay.max(more.delay);
                rule.jitter = rule.jitter.max(more.jitter);
            }
        }
        for direction in self.blocked.values().flatten() {
            rules.entry(*direction).or_default().is_blocked = true;
        }
        rules
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> + Clone + use<> {
        1..=self.nodes
    }

    /// Some node that clients reach could lead a majority.
    pub fn can_serve(&self) -> bool {
        let rules = self.rules();
        let reaches = |from: End, to: End| rules.get(&(from, to)).is_none_or(|it| !it.is_blocked);
        let both_ways = |a: End, b: End| reaches(a, b) && reaches(b, a);
        let works = |node: &u64| !self.is_down(*node) && !self.is_asleep(*node);
        let majority = self.nodes / 2 + 1;
        self.ids().filter(works).any(|node| {
            let of = End::Node(node);
            let peers = self.ids().filter(works);
            let voters = peers.filter(|peer| *peer == node || both_ways(of, End::Node(*peer)));
            both_ways(of, End::Clients) && voters.count() as u64 >= majority
        })
    }
}

/// Both directions between each of some and each of the others.
pub(super) fn between(some: &[u64], others: &[u64]) -> Vec<Direction> {
    let mut directions = one_way(some, others);
    directions.extend(one_way(others, some));
    directions
}

/// From each of these to each of those.
pub(super) fn one_way(from: &[u64], to: &[u64]) -> Vec<Direction> {
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs
        .map(|(from, to)| (End::Node(*from), End::Node(*to)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_down_until_the_last_reason_ends() {
        let mut world = World::of(3);
        world.keep_down(1, 0);
        world.keep_down(1, 1);
        world.forget(0);
        assert!(world.is_down(1));
        world.forget(1);
        assert!(!world.is_down(1));
    }

    #[test]
    fn a_majority_that_clients_reach_can_serve() {
        let mut world = World::of(3);
        assert!(world.can_serve());
        world.keep_down(1, 0);
        assert!(world.can_serve());
        world.keep_asleep(2, 1);
        assert!(!world.can_serve());
        world.forget(0);
        assert!(world.can_serve());
        // Nodes 1 and 3 are left, and do not reach each other one way.
        world.block(one_way(&[3], &[1]), 2);
        assert!(!world.can_serve());
        world.forget(1);
        // Through node 2, which reaches both.
        assert!(world.can_serve());
        // Clients reach node 1, which node 2 follows.
        world.block(vec![(End::Clients, End::Node(2))], 3);
        assert!(world.can_serve());
        world.block(
            vec![(End::Clients, End::Node(1)), (End::Node(3), End::Clients)],
            4,
        );
        assert!(!world.can_serve());
    }

    #[test]
    fn rules_of_faults_that_overlap_add_up() {
        let mut world = World::of(2);
        let link = (End::Node(1), End::Node(2));
        world.delay(between(&[1], &[2]), Duration::from_millis(5), 0);
        world.delay(one_way(&[1], &[2]), Duration::from_millis(9), 1);
        world.block(one_way(&[1], &[2]), 2);
        let rule = world.rules()[&link];
        assert!(rule.is_blocked && rule.delay == Duration::from_millis(9));
        world.forget(2);
        world.forget(1);
        assert_eq!(world.rules()[&link].delay, Duration::from_millis(5));
        assert_eq!(between(&[1], &[1, 2]).len(), 2);
    }
}
