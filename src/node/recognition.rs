//! Whether its cluster knows this node.
//!
//! A data directory names its cluster, and nothing in it says whether that is the one which `--initial-cluster` means. A
//! node that was given another cluster's directory is refused by every peer and would run on for nothing; one that was
//! given the directory of a single node would even serve what nobody asked for. So a node that does not take part in a
//! cluster yet asks the nodes that it was configured with, and those that its log has as members, who they are, and ends if
//! most of either disown it.
//!
//! Nobody tells a node that it was removed: from that entry of the log on it is sent nothing. So a node that has heard no
//! leader for [`SILENCE`] asks those that it knows as members, and ends likewise.
//!
//! Invariants:
//! 1. It takes a majority of those that are asked to disown this one, in [`ROUNDS`] rounds in a row. So a node that was
//!    itself misconfigured never stops a good one, and among two nodes neither stops the other. A member is in the logs of a
//!    majority, which therefore does not disown it. One is enough if it is of the same cluster and has a committed membership
//!    without this node that is no older than the last that this node knows: ids are never used twice, so that it was removed.
//! 2. A node that was heard or elected by others is of their cluster, and no longer asks those that it was configured with:
//!    `--initial-cluster` may have become outdated meanwhile.
//! 3. An address where another node answers than the one that was configured says nothing about this node, and neither
//!    does silence.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bootstrap::{BootstrapError, Newborn};
use super::{Shared, Stopped};
use crate::network::{LeaderContact, Pool};
use crate::proto::internal as pb;
use crate::raft::LogId;
use crate::types::{ClusterId, NodeId};

/// Rounds of greetings that it takes, so that a leader has the time to be heard first.
const ROUNDS: u32 = 3;
/// Between two of them.
const PERIOD: Duration = Duration::from_secs(1);
/// The same while nothing is at stake but the reason for an end.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a member hears no leader before it asks whether it still is one.
const SILENCE: Duration = Duration::from_secs(5);

/// A node that asks.
pub(super) struct Inquiry {
    pub newborn: Newborn,
    /// The data directory's.
    pub cluster: ClusterId,
    pub pool: Pool,
    pub shared: Arc<Shared>,
    pub contact: LeaderContact,
}

/// What the answers of one round come to.
#[derive(Debug)]
enum Verdict {
    Known,
    Disowned(BootstrapError),
    Open,
}

impl Verdict {
    fn disowned(self) -> Option<BootstrapError> {
        match self {
            Self::Disowned(error) => Some(error),
            Self::Known | Self::Open => None,
        }
    }
}

/// Asks until it is settled, and ends the node if the answer is no.
pub(super) async fn run(inquiry: Inquiry, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        error = inquiry.disowned() => inquiry.shared.end(Stopped::Disowned(Arc::new(error))),
    }
}

/// Asks those that a node was configured with for its place, until they say something or have been silent for long: why it has none,
/// if so. For a node that ends in any case.
pub(super) async fn place_of(
    own: &Newborn,
    cluster: ClusterId,
    pool: &Pool,
) -> Result<(), BootstrapError> {
    let until = Instant::now() + SILENCE;
    while Instant::now() < until {
        let answers = own.greet_each(pool).await;
        let answers = answers.into_iter().filter_map(Result::ok).flatten();
        match weigh(own, cluster, None, answers) {
            Verdict::Known => return Ok(()),
            Verdict::Disowned(error) => return Err(error),
            Verdict::Open => sleep(PAUSE).await,
        }
    }
    Ok(())
}

impl Inquiry {
    /// Ends with why this node does not belong here, if it does not.
    async fn disowned(&self) -> BootstrapError {
        let both = [self.newborn.clone(), self.as_member()];
        if let Err(error) = self.ask(&both, || self.takes_part()).await {
            return error;
        }
        loop {
            let silent_at = self.contact.get().heard_at + SILENCE;
            if self.leads() || Instant::now() < silent_at {
                sleep_until(silent_at.max(Instant::now() + PERIOD)).await;
                continue;
            }
            let since = self.contact.get().heard_at;
            let is_over = || self.leads() || self.contact.get().heard_at != since;
            if let Err(error) = self.ask(&[self.as_member()], is_over).await {
                return error;
            }
            sleep(SILENCE).await;
        }
    }

    /// Asks everybody else whom any of these names, until one round says that those of the first know this node, or it
    /// `is_over`. Those of each may disown it.
    async fn ask(
        &self,
        among: &[Newborn],
        is_over: impl Fn() -> bool,
    ) -> Result<(), BootstrapError> {
        let mut rounds = 0;
        while !is_over() {
            let mut verdicts = Vec::new();
            let known = {
                let metrics = self.shared.raft.server_metrics();
                let metrics = metrics.borrow_watched();
                *metrics.membership_config.log_id()
            };
            for own in among {
                let answers = own.greet_each(&self.pool).await;
                let answers = answers.into_iter().filter_map(Result::ok).flatten();
                verdicts.push(weigh(own, self.cluster, known, answers));
            }
            let is_known = matches!(verdicts.first(), Some(Verdict::Known));
            let disowned = verdicts.into_iter().find_map(Verdict::disowned);
            match disowned {
                Some(error) if rounds + 1 == ROUNDS => return Err(error),
                Some(_) => rounds += 1,
                None if is_known => break,
                None => rounds = 0,
            }
            sleep(PERIOD).await;
        }
        Ok(())
    }

    /// This node among the members that it knows of.
    fn as_member(&self) -> Newborn {
        let metrics = self.shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership().nodes();
        let addresses = members.filter_map(|(id, member)| {
            let id = NodeId::new(*id).ok()?;
            Some((id, member.address.clone()))
        });
        Newborn {
            initial_cluster: addresses.collect(),
            ..self.newborn.clone()
        }
    }

    fn leads(&self) -> bool {
        self.shared
            .raft
            .server_metrics()
            .borrow_watched()
            .state
            .is_leader()
    }

    /// Others have taken this node for one of theirs since it started.
    fn takes_part(&self) -> bool {
        let metrics = self.shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids().count();
        self.contact.get().leader != 0 || (metrics.state.is_leader() && voters > 1)
    }
}

/// Counts for whom those that were asked take this one, whose last membership stands at `known`.
fn weigh(
    newborn: &Newborn,
    own: ClusterId,
    known: Option<LogId>,
    answers: impl IntoIterator<Item = (NodeId, pb::HelloResponse)>,
) -> Verdict {
    let majority = newborn.initial_cluster.len() / 2 + 1;
    let (mut knowing, mut disowning) = (1, 0);
    let mut reason = None;
    for (node, answer) in answers {
        match judge(newborn, own, node, &answer) {
            Verdict::Known => knowing += 1,
            Verdict::Disowned(error @ BootstrapError::NotAMember { .. })
                if is_news(known, &answer) =>
            {
                return Verdict::Disowned(error);
            }
            Verdict::Disowned(error) => {
                disowning += 1;
                reason = Some(error);
            }
            Verdict::Open => {}
        }
    }
    match reason {
        Some(error) if disowning >= majority => Verdict::Disowned(error),
        _ if knowing >= majority => Verdict::Known,
        _ => Verdict::Open,
    }
}

/// Whether an answer is of a committed membership that is no older than what this node knows.
fn is_news(known: Option<LogId>, answer: &pb::HelloResponse) -> bool {
    let theirs = answer.members_at.map(LogId::from);
    known.is_some() && theirs >= known
}

fn judge(newborn: &Newborn, own: ClusterId, node: NodeId, answer: &pb::HelloResponse) -> Verdict {
    match newborn.cluster_of(node, answer) {
        Ok(Some(theirs)) if theirs != own => {
            Verdict::Disowned(BootstrapError::ForeignCluster { own, theirs })
        }
        Ok(Some(_)) => match newborn.find_place(node, own, answer) {
            Ok(()) => Verdict::Known,
            Err(BootstrapError::Malformed { .. }) => Verdict::Open,
            Err(error) => Verdict::Disowned(error),
        },
        Ok(None) | Err(_) => Verdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::types::InstanceId;

    fn ours() -> ClusterId {
        ClusterId::new([1; 16])
    }

    fn id(number: u64) -> NodeId {
        NodeId::new(number).expect("not 0")
    }

    fn instance(number: u64) -> InstanceId {
        InstanceId::new([u8::try_from(number).expect("small"); 16])
    }

    /// Node 1 of as many.
    fn newborn(nodes: u64) -> Newborn {
        let addresses = (1..=nodes).map(|number| (id(number), format!("host-{number}:1")));
        Newborn {
            node: id(1),
            instance: instance(1),
            initial_cluster: addresses.collect(),
            joins: false,
        }
    }

    /// What a member of a cluster with these members says.
    fn of(cluster: [u8; 16], members: &[(u64, InstanceId)]) -> pb::HelloResponse {
        let members = members.iter().map(|(number, instance)| pb::Member {
            node_id: *number,
            address: String::new(),
            instance: Bytes::copy_from_slice(instance.as_bytes()),
        });
        pb::HelloResponse {
            cluster_id: Bytes::copy_from_slice(&cluster),
            members: members.collect(),
            ..pb::HelloResponse::default()
        }
    }

    fn at(index: u64) -> LogId {
        pb::LogId {
            term: 1,
            node_id: 1,
            index,
        }
        .into()
    }

    /// One word for the verdict of these answers of nodes 2, 3, …
    fn verdict(nodes: u64, answers: &[pb::HelloResponse]) -> &'static str {
        let answers: BTreeMap<_, _> = (2..).map(id).zip(answers.iter().cloned()).collect();
        match weigh(&newborn(nodes), ours(), Some(at(5)), answers) {
            Verdict::Known => "known",
            Verdict::Open => "open",
            Verdict::Disowned(BootstrapError::ForeignCluster { own, theirs }) => {
                assert!(own == ours() && theirs != own);
                "foreign cluster"
            }
            Verdict::Disowned(BootstrapError::ForeignInstance { listed, own, .. }) => {
                assert!(own == instance(1) && listed == instance(9));
                "foreign instance"
            }
            Verdict::Disowned(BootstrapError::NotAMember { .. }) => "not a member",
            Verdict::Disowned(other) => panic!("{other}"),
        }
    }

    #[test]
    fn only_a_majority_of_the_configured_nodes_can_disown_one() {
        let known = || of([1; 16], &[(1, instance(1))]);
        let foreign = || of([2; 16], &[(1, instance(1))]);
        let replaced = || of([1; 16], &[(1, instance(9))]);
        let removed = || of([1; 16], &[(2, instance(2))]);
        let unborn = pb::HelloResponse::default;
        let malformed = || pb::HelloResponse {
            cluster_id: Bytes::from_static(b"short"),
            ..pb::HelloResponse::default()
        };
        let removed_at = |index| pb::HelloResponse {
            members_at: Some(at(index).into()),
            ..removed()
        };
        let replaced_at = |index| pb::HelloResponse {
            members_at: Some(at(index).into()),
            ..replaced()
        };
        let cases: [(u64, Vec<pb::HelloResponse>, &str); 20] = [
            // Whoever is sure of it can disown a node alone.
            (2, vec![removed_at(6)], "not a member"),
            (3, vec![known(), removed_at(6)], "not a member"),
            (3, vec![removed_at(5)], "not a member"),
            (3, vec![removed_at(4)], "open"),
            (3, vec![removed()], "open"),
            (3, vec![replaced_at(6)], "open"),
            (3, vec![], "open"),
            (3, vec![foreign()], "open"),
            (3, vec![foreign(), known()], "known"),
            (3, vec![foreign(), unborn()], "open"),
            (3, vec![foreign(), malformed()], "open"),
            (3, vec![foreign(), foreign()], "foreign cluster"),
            (3, vec![foreign(), replaced()], "foreign instance"),
            (3, vec![replaced(), replaced()], "foreign instance"),
            (3, vec![removed(), removed()], "not a member"),
            (3, vec![known()], "known"),
            (5, vec![foreign(), foreign()], "open"),
            (5, vec![foreign(), foreign(), foreign()], "foreign cluster"),
            (2, vec![foreign()], "open"),
            (1, vec![], "known"),
        ];
        for (nodes, answers, expected) in cases {
            assert_eq!(verdict(nodes, &answers), expected, "{nodes}: {answers:?}");
        }
    }
}
