//! What is done to a cluster: the kinds of faults, the plan that a seed makes of them, and who carries it out.
//!
//! A fault is worth something only if it took effect. So each one carries a [`Proof`]: what was seen of it from outside, or why
//! nothing was. What this machine cannot do is skipped and says so.

mod acts;
pub mod chronicle;
mod clocks;
pub mod damage;
pub mod disks;
pub mod nemesis;
pub mod plan;
mod syncs;
pub mod toolbox;
mod world;

use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of a follower.
    KillFollower,
    /// SIGKILL of a majority, the leader among them.
    KillMajority,
    /// SIGKILL of all nodes.
    KillAll,
    /// SIGSTOP of the leader.
    PauseLeader,
    /// SIGSTOP of a follower.
    PauseFollower,
    /// SIGSTOP of a majority, the leader among them.
    PauseMajority,
    /// The leader and the other nodes do not reach each other; clients reach all.
    IsolateLeader,
    /// A follower and the other nodes do not reach each other: the leader is in the majority.
    IsolateFollower,
    /// The leader and one follower do not reach each other; a third node reaches both.
    Bridge,
    /// What the leader sends to nodes is lost; what they send arrives.
    OneWayOut,
    /// What nodes send to the leader is lost; what it sends arrives.
    OneWayIn,
    /// Each node reaches the next one only, in one direction.
    Ring,
    /// Everything between nodes takes longer.
    Latency,
    /// What nodes send over one connection overtakes what they sent before over another one.
    Reorder,
    /// Links stall for moments, now this one, now that one.
    Stall,
    /// All connections between nodes are cut, again and again.
    CutConnections,
    /// Clients do not reach the leader; nodes do.
    ClientsLoseLeader,
    /// Leadership moves to another node, on demand.
    TransferLeader,
    /// A node takes a snapshot and purges its log.
    Snapshot,
    /// One node after the other is asked to stop, and started again.
    RollingRestart,
    /// A node is lost with all that it stored and leaves the cluster; a new one joins it.
    Membership,
    /// A node's disk keeps what was synced and nothing else.
    PowerCut,
    /// The disks of all nodes do, at the same moment.
    PowerCutAll,
    /// Those who have just elected a leader lose power, and it sleeps while they go on without it.
    CutVoter,
    /// A node's syncs take long.
    SlowSync,
    /// A node's syncs fail.
    FailedSync,
    /// A node's disk is full.
    FullDisk,
    /// A node's wall clock jumps by an hour.
    ClockJump,
    /// A file of a node that is down is damaged.
    Damage,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillMajority,
        Self::KillAll,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::PauseMajority,
        Self::IsolateLeader,
        Self::IsolateFollower,
        Self::Bridge,
        Self::OneWayOut,
        Self::OneWayIn,
        Self::Ring,
        Self::Latency,
        Self::Reorder,
        Self::Stall,
        Self::CutConnections,
        Self::ClientsLoseLeader,
        Self::TransferLeader,
        Self::Snapshot,
        Self::RollingRestart,
        Self::Membership,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::CutVoter,
        Self::SlowSync,
        Self::FailedSync,
        Self::FullDisk,
        Self::ClockJump,
        Self::Damage,
    ];

    /// As it is typed and written.
    #[must_use]
    pub fn name(self) -> String {
        let name = clap::ValueEnum::to_possible_value(&self);
        name.map(|name| name.get_name().to_owned())
            .unwrap_or_default()
    }

    /// It asks the cluster for something, so that it cannot happen without a majority.
    #[must_use]
    pub fn needs_majority(self) -> bool {
        matches!(
            self,
            Self::TransferLeader | Self::RollingRestart | Self::Membership | Self::CutVoter
        )
    }

    /// Of three nodes, it leaves a majority that works, together with another one that has this, too.
    #[must_use]
    pub fn is_gentle(self) -> bool {
        matches!(
            self,
            Self::Latency
                | Self::Reorder
                | Self::ClientsLoseLeader
                | Self::SlowSync
                | Self::Snapshot
                | Self::CutConnections
        )
    }

    /// It happens at one moment, so that nothing overlaps with it unless that lasts.
    #[must_use]
    pub fn is_momentary(self) -> bool {
        matches!(
            self,
            Self::TransferLeader | Self::Snapshot | Self::RollingRestart | Self::Membership
        )
    }

    /// It takes tools of the machine, which have to be put away.
    #[must_use]
    pub fn takes_tools(self) -> bool {
        self >= Self::PowerCut
    }

    /// It leaves no node up.
    #[must_use]
    pub fn is_total(self) -> bool {
        matches!(self, Self::KillAll | Self::PowerCutAll)
    }

    /// Nodes must keep their data on disks of their own.
    #[must_use]
    pub fn needs_disks(self) -> bool {
        matches!(
            self,
            Self::PowerCut | Self::PowerCutAll | Self::CutVoter | Self::FullDisk
        )
    }
}

/// Whether a fault took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It did: this was seen.
    Proven(String),
    /// Nothing was seen of it.
    Unproven(String),
    /// It was not tried.
    Skipped(String),
}

impl Proof {
    /// Proven if the condition holds.
    #[must_use]
    pub fn of(holds: bool, seen: String) -> Self {
        if holds {
            Self::Proven(seen)
        } else {
            Self::Unproven(seen)
        }
    }
}

/// One fault, as it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// What.
    pub kind: Kind,
    /// The nodes that it was done to.
    pub nodes: Vec<u64>,
    /// Who led when it began; 0 if that is not known.
    #[serde(default)]
    pub leader: u64,
    /// When it began.
    pub begun_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// Whether it took effect.
    pub proof: Proof,
}

/// A moment at which what works changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub at_us: u64,
    /// What began or ended.
    pub what: String,
    /// Some majority, one of whom clients reach, is as able to serve as ever.
    pub can_serve: bool,
}

/// A node that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which.
    pub node: u64,
    /// When it was noticed.
    pub at_us: u64,
    /// Its exit code, if it was not a signal.
    pub code: Option<i32>,
    /// A fault was to bring it about.
    pub is_expected: bool,
    /// The last lines of its log.
    pub said: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_named_as_it_is_stored() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.map(Kind::name).into();
        assert_eq!(
            names.len(),
            <Kind as clap::ValueEnum>::value_variants().len()
        );
        for kind in Kind::ALL {
            let stored = serde_json::to_string(&kind).expect("it is a word");
            assert_eq!(stored, format!("{:?}", kind.name()));
        }
    }
}
