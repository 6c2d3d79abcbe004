//! Whom a fault hits: decided when it begins, from who leads then and what is wrong already.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::torture::cluster::network::{Direction, End};
use crate::torture::faults::Kind;
use crate::torture::faults::world::{World, one_way};

/// What a choice is made from.
pub(super) struct Choice<'a> {
    /// What holds now.
    pub world: &'a World,
    /// Whoever leads.
    pub leader: u64,
    /// Those that a fault of links was aimed at.
    pub troubled: BTreeSet<u64>,
}

impl Choice<'_> {
    fn has_trouble(&self, id: u64) -> bool {
        self.troubled.contains(&id)
    }

    /// The nodes that a fault is done to.
    pub fn of(&self, kind: Kind, random: &mut Rng) -> Vec<u64> {
        let leader = self.leader;
        let all: Vec<u64> = self.world.ids().collect();
        let mut followers: Vec<u64> = all.iter().copied().filter(|id| *id != leader).collect();
        random.shuffle(&mut followers);
        // Those that something can still be done to come first. Among them, now and then, the one that has trouble already, so
        // that the others go on serving; and now and then another one.
        let again = random.bool();
        followers.sort_by_key(|id| {
            let is_gone = self.world.is_down(*id) || self.world.is_asleep(*id);
            (is_gone, self.has_trouble(*id) != again)
        });
        let majority = all.len() / 2 + 1;
        let first = |count: usize| {
            let nodes = std::iter::once(leader).chain(followers.iter().copied());
            nodes.take(count).collect()
        };
        match kind {
            Kind::KillMajority | Kind::PauseMajority => first(majority),
            Kind::Bridge => first(2),
            Kind::KillFollower
            | Kind::PauseFollower
            | Kind::IsolateFollower
            | Kind::TransferLeader => followers.into_iter().take(1).collect(),
            Kind::KillAll
            | Kind::Ring
            | Kind::Latency
            | Kind::Reorder
            | Kind::Stall
            | Kind::CutConnections
            | Kind::RollingRestart
            | Kind::PowerCutAll => all,
            Kind::PowerCut
            | Kind::Membership
            | Kind::Damage
            | Kind::FullDisk
            | Kind::SlowSync
            | Kind::ClockJump
            | Kind::Snapshot => {
                let nodes = self.world.awake();
                random.choice(&nodes).copied().into_iter().collect()
            }
            // The leader's is the one that everybody waits for.
            Kind::FailedSync if random.u8(0..4) == 0 => followers.into_iter().take(1).collect(),
            Kind::KillLeader
            | Kind::FailedSync
            | Kind::CutVoter
            | Kind::PauseLeader
            | Kind::IsolateLeader
            | Kind::OneWayOut
            | Kind::OneWayIn
            | Kind::ClientsLoseLeader => first(1),
        }
    }
}

/// Everything but what goes from each node to the next one.
pub(super) fn ring(nodes: &[u64]) -> Vec<Direction> {
    let count = nodes.len();
    let mut directions = one_way(nodes, nodes);
    directions.retain(|(from, to)| {
        let at = |end: &End| nodes.iter().position(|id| End::Node(*id) == *end);
        match (at(from), at(to)) {
            (Some(from), Some(to)) => to != (from + 1) % count,
            _ => true,
        }
    });
    directions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_leaves_one_direction_to_each_next_node() {
        let blocked = ring(&[1, 2, 3]);
        let link = |from, to| (End::Node(from), End::Node(to));
        assert_eq!(blocked, [link(1, 3), link(2, 1), link(3, 2)]);
        assert_eq!(ring(&[1, 2, 3, 4, 5]).len(), 15);
    }

    #[test]
    fn what_is_aimed_at_the_leader_hits_it_and_followers_are_hit_by_the_rest() {
        let world = World::of(3);
        let choice = Choice {
            world: &world,
            leader: 2,
            troubled: BTreeSet::from([3]),
        };
        for seed in 0..20 {
            let mut random = Rng::with_seed(seed);
            assert_eq!(choice.of(Kind::KillLeader, &mut random), [2]);
            assert_eq!(choice.of(Kind::CutVoter, &mut random), [2]);
            assert_ne!(choice.of(Kind::PauseFollower, &mut random), [2]);
            let majority = choice.of(Kind::KillMajority, &mut random);
            assert!(majority.len() == 2 && majority[0] == 2);
        }
    }
}
