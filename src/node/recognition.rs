//! Whether the cluster that was configured knows this node.
//!
//! A data directory names its cluster, and nothing in it says whether that is the one which `--initial-cluster` means. A
//! node that was given another cluster's directory is refused by every peer and would run on for nothing; one that was
//! given the directory of a single node would even serve what nobody asked for. So a node that does not take part in a
//! cluster yet asks the nodes that it was configured with who they are, and ends if most of them disown it.
//!
//! Invariants:
//! 1. It takes a majority of the configured nodes to disown this one, in [`ROUNDS`] rounds in a row. So a node that was
//!    itself misconfigured never stops a good one, and among two nodes neither stops the other.
//! 2. A node that was heard or elected by others is of their cluster, and asks no more: `--initial-cluster` may have become
//!    outdated meanwhile.
//! 3. An address where another node answers than the one that was configured says nothing about this node, and neither
//!    does silence.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bootstrap::{BootstrapError, Newborn};
use super::{Shared, Stopped};
use crate::network::{LeaderContact, Pool};
use crate::proto::internal as pb;
use crate::types::{ClusterId, NodeId};

/// Rounds of greetings that it takes, so that a leader has the time to be heard first.
const ROUNDS: u32 = 3;
/// Between two of them.
const PERIOD: Duration = Duration::from_secs(1);

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

/// Asks until it is settled, and ends the node if the answer is no.
pub(super) async fn run(inquiry: Inquiry, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        error = inquiry.settle() => if let Some(error) = error {
            inquiry.shared.end(Stopped::Disowned(Arc::new(error)));
        }
    }
}

impl Inquiry {
    async fn settle(&self) -> Option<BootstrapError> {
        let mut rounds = 0;
        while !self.takes_part() {
            let answers = self.newborn.greet_each(&self.pool).await;
            let answers = answers.into_iter().filter_map(Result::ok).flatten();
            match weigh(&self.newborn, self.cluster, answers) {
                Verdict::Known => return None,
                Verdict::Open => rounds = 0,
                Verdict::Disowned(error) => {
                    rounds += 1;
                    if rounds == ROUNDS {
                        return Some(error);
                    }
                }
            }
            sleep(PERIOD).await;
        }
        None
    }

    /// Others have taken this node for one of theirs since it started.
    fn takes_part(&self) -> bool {
        let metrics = self.shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids().count();
        self.contact.get().leader != 0 || (metrics.state.is_leader() && voters > 1)
    }
}

/// Counts for whom the configured nodes take this one.
fn weigh(
    newborn: &Newborn,
    own: ClusterId,
    answers: impl IntoIterator<Item = (NodeId, pb::HelloResponse)>,
) -> Verdict {
    let majority = newborn.initial_cluster.len() / 2 + 1;
    let (mut knowing, mut disowning) = (1, 0);
    let mut reason = None;
    for (node, answer) in answers {
        match judge(newborn, own, node, &answer) {
            Verdict::Known => knowing += 1,
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

    /// One word for the verdict of these answers of nodes 2, 3, …
    fn verdict(nodes: u64, answers: &[pb::HelloResponse]) -> &'static str {
        let answers: BTreeMap<_, _> = (2..).map(id).zip(answers.iter().cloned()).collect();
        match weigh(&newborn(nodes), ours(), answers) {
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
        let cases: [(u64, Vec<pb::HelloResponse>, &str); 14] = [
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
