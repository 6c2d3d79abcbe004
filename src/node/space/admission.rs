//! What a leader takes, from the room on the disks of all voters.
//!
//! Invariants:
//! 1. A write is taken only if a quorum of voters has the room for it. Otherwise soon nobody could append any more, and
//!    everything that was taken last would hang.
//! 2. It is refused for want of room only if room is what the quorum lacks: voters that do not answer are another matter.
//! 3. A leader whose own disk is strained takes nothing that its disk may not take, whoever else has room: it would be the
//!    first to stop. It hands leadership over, and whoever asks it meanwhile may ask again.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Error;
use crate::state::Operation;
use crate::types::{DiskSpace, Room};

/// Why a node refuses a write for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The nodes that lack it.
    pub nodes: Vec<u64>,
    /// Whether what does not make the store larger is still taken.
    pub only_growth: bool,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let nodes = if names.len() == 1 { "node" } else { "nodes" };
        let names = names.join(", ");
        if self.only_growth {
            write!(
                f,
                "the disk of {nodes} {names} is nearly full: free space there, or delete sessions, carts or keys; until then \
                 nothing is taken that makes the store larger"
            )
        } else {
            write!(
                f,
                "the disk of {nodes} {names} is full: free space there; until then no write is taken"
            )
        }
    }
}

/// What is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::node) enum Admission {
    /// Everything.
    #[default]
    Everything,
    /// What the shortage does not refuse.
    Without(Shortage),
    /// The same; but only this node lacks room, and another will lead.
    HandsOver(Shortage),
}

/// A voter, as the leader last heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Voter {
    /// On its disk.
    pub room: Room,
    /// It answers.
    pub answers: bool,
}

impl Admission {
    /// What the leader `node` takes, whose disk is `own`. `configs` are the sets of voters whose majorities must agree; one, but during a
    /// change of the membership.
    pub(super) fn new(
        node: u64,
        own: &DiskSpace,
        configs: &[BTreeSet<u64>],
        voters: &BTreeMap<u64, Voter>,
    ) -> Self {
        let lacks_quorum = |config: &BTreeSet<u64>, needed: Room| {
            let majority = config.len() / 2 + 1;
            let answering = || {
                let known = config.iter().filter_map(|id| voters.get(id));
                known.filter(|voter| voter.answers)
            };
            let with_room = answering().filter(|voter| voter.room >= needed).count();
            with_room < majority && answering().count() >= majority
        };
        let taken = |needed| !configs.iter().any(|config| lacks_quorum(config, needed));
        let lacking = |needed: Room| {
            let lacks = voters.iter().filter(|(_, voter)| voter.room < needed);
            lacks.map(|(id, _)| *id).collect()
        };
        let shortage = |only_growth, nodes| Shortage { nodes, only_growth };
        if !taken(Room::Short) {
            Self::Without(shortage(false, lacking(Room::Short)))
        } else if !taken(Room::Ample) {
            Self::Without(shortage(true, lacking(Room::Ample)))
        } else if own.room < Room::Short {
            Self::HandsOver(shortage(false, vec![node]))
        } else if own.is_strained() {
            Self::HandsOver(shortage(true, vec![node]))
        } else {
            Self::Everything
        }
    }

    /// What is refused; `None` while everything is taken.
    pub fn shortage(&self) -> Option<&Shortage> {
        match self {
            Self::Everything => None,
            Self::Without(shortage) | Self::HandsOver(shortage) => Some(shortage),
        }
    }

    /// What whoever is refused is told.
    pub fn refusal(&self) -> Option<Error> {
        match self {
            Self::Everything => None,
            Self::Without(shortage) => Some(Error::NoSpace(shortage.clone())),
            Self::HandsOver(_) => Some(Error::HandsOver),
        }
    }
}

impl Shortage {
    /// Whether an operation is refused for it.
    pub fn refuses(&self, operation: &Operation) -> bool {
        !self.only_growth || operation.grows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a leader, node 1, takes, given the rooms of nodes 1, 2 and so on; `None` for one that does not answer.
    fn taken(rooms: &[Option<Room>]) -> Admission {
        let ids = 1_u64..;
        let voters: BTreeMap<u64, Voter> = ids
            .zip(rooms)
            .map(|(id, room)| {
                let voter = Voter {
                    room: room.unwrap_or(Room::Ample),
                    answers: room.is_some(),
                };
                (id, voter)
            })
            .collect();
        let config = voters.keys().copied().collect();
        let room = rooms[0].expect("a leader answers itself");
        Admission::new(1, &disk(room, 60), &[config], &voters)
    }

    fn disk(room: Room, free: u64) -> DiskSpace {
        DiskSpace {
            room,
            free,
            floor: 100,
            ballast: 0,
        }
    }

    fn told(rooms: &[Option<Room>]) -> Option<(Vec<u64>, bool)> {
        let admission = taken(rooms);
        let shortage = admission.shortage();
        shortage.map(|shortage| (shortage.nodes.clone(), shortage.only_growth))
    }

    #[test]
    fn a_majority_decides() {
        use Room::{Ample, Full, Scarce, Short};
        let (a, s, c, f, dead) = (Some(Ample), Some(Short), Some(Scarce), Some(Full), None);
        let everything = None;
        let growth = |nodes: &[u64]| Some((nodes.to_vec(), true));
        let all = |nodes: &[u64]| Some((nodes.to_vec(), false));
        let table = [
            (vec![a, a, a], everything.clone()),
            // One of three may be as full as it likes.
            (vec![a, a, f], everything.clone()),
            (vec![a, s, s], growth(&[2, 3])),
            (vec![a, s, f], growth(&[2, 3])),
            (vec![a, c, f], all(&[2, 3])),
            (vec![s, s, s], growth(&[1, 2, 3])),
            // A leader that is short hands over, and works until then.
            (vec![s, a, a], everything.clone()),
            (vec![s, a, s], growth(&[1, 3])),
            // Who does not answer has no room.
            (vec![a, dead, a], everything.clone()),
            (vec![a, dead, s], growth(&[3])),
            (vec![a, dead, f], all(&[3])),
            // It is not for want of room that there is no quorum.
            (vec![a, dead, dead], everything.clone()),
            (vec![a, a, a, f, f], everything.clone()),
            (vec![a, a, s, f, f], growth(&[3, 4, 5])),
            (vec![a, dead, dead, s, a], growth(&[4])),
            (vec![a], everything),
            (vec![s], growth(&[1])),
            (vec![f], all(&[1])),
        ];
        for (rooms, expected) in table {
            assert_eq!(told(&rooms), expected, "{rooms:?}");
        }
    }

    #[test]
    fn a_leader_that_is_strained_hands_over() {
        let others = |room| Voter {
            room,
            answers: true,
        };
        let of = |own: DiskSpace, other| {
            let voters = [
                (1, others(own.room)),
                (2, others(other)),
                (3, others(other)),
            ];
            Admission::new(1, &own, &[(1..=3).collect()], &voters.into())
        };
        let told = |admission: &Admission| {
            let refusal = admission.refusal().expect("something is refused");
            let only_growth = admission.shortage().expect("the same").only_growth;
            (matches!(refusal, Error::HandsOver), only_growth)
        };
        let (strained, scarce) = (disk(Room::Short, 49), disk(Room::Scarce, 9));
        assert_eq!(told(&of(strained, Room::Ample)), (true, true));
        assert_eq!(told(&of(scarce, Room::Ample)), (true, false));
        // There is nobody who could lead with more room.
        assert_eq!(told(&of(strained, Room::Short)), (false, true));
        assert_eq!(told(&of(scarce, Room::Full)), (false, false));
    }

    #[test]
    fn in_a_joint_membership_each_half_needs_its_majority() {
        let voter = |room| Voter {
            room,
            answers: true,
        };
        let rooms = [
            Room::Ample,
            Room::Ample,
            Room::Ample,
            Room::Short,
            Room::Short,
        ];
        let voters: BTreeMap<u64, Voter> = (1..).zip(rooms.map(voter)).collect();
        let of = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let configs = [of(&[1, 2, 3]), of(&[1, 4, 5])];
        let admission = Admission::new(1, &disk(Room::Ample, 200), &configs, &voters);
        let shortage = admission
            .shortage()
            .expect("4 and 5 are a majority of theirs");
        assert_eq!(shortage.nodes, [4, 5]);
        let admission = Admission::new(1, &disk(Room::Ample, 200), &configs[..1], &voters);
        assert_eq!(admission.shortage(), None);
    }
}
