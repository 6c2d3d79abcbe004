//! Who belongs to the cluster: how a node is added, and how one is removed.
//!
//! A change is one entry of the log that makes one voter more or one less, so that a majority of the old voters and one
//! of the new always share a node (Ongaro, *Consensus: Bridging Theory and Practice*, 4.1). A node is added in two such
//! entries: as a learner, which is told everything and does not vote, and as a voter once it has answered and has nearly all of
//! the log.
//!
//! Invariants:
//! 1. One change after another: openraft takes it only if the last membership is the one that it was derived from and is
//!    committed, and if this leader has committed an entry of its own term. Without the latter two leaders can each commit
//!    a change that the other knows nothing of.
//! 2. A node id stands for one data directory for ever. An id is only added if it is higher than every one that any
//!    membership ever held, which is part of the state, and the membership names the directory's instance.
//! 3. A voter is removed only if a majority of those that stay answers this leader and has nearly all of the log: others answer as
//!    well, and nothing is committed until they have caught up.
//! 4. Each call may be repeated until it succeeds, by anyone and on any leader: it goes on where the last one came to.
//! 5. A call that succeeds says so of a committed entry, also where an earlier call had appended it: no later leader lacks it.
//!
//! Deliberately absent: removing the leader. It hands over, and the next leader removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::Instant as _;
use openraft::alias::InstantOf;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use openraft::raft::Precondition;
use openraft::{EntryPayload, Membership};
use tokio::time::{Instant, interval, timeout_at};

use super::propose::{refusal, stopped, write_error};
use super::{Base, Error, Node, Outcome, ReadMode};
use crate::network::Error as NetworkError;
use crate::proto::internal as pb;
use crate::raft::{self, LogId, Member, TypeConfig};
use crate::types::{ClusterId, InstanceId, NodeId, StateVersion};

/// How far a learner may be behind when it becomes a voter, and a voter that counts when another one is removed.
const LAG_ALLOWED: u64 = 1024;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long one call waits for that, and for an earlier change to be committed: whoever calls wants to see it come.
const WAIT: Duration = Duration::from_secs(1);
/// So many heartbeats a voter may leave unanswered before it counts as silent.
const HEARTBEATS: u32 = 10;
/// How long a new node may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the members stay as they are, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The id is, or was, another node's.
    #[error(
        "node id {id} is or was another node's, and none is used twice: start the new node as {next} or higher"
    )]
    IdUsed {
        /// The id that was asked for.
        id: NodeId,
        /// The lowest that was never used.
        next: u64,
    },
    /// Another member has this address.
    #[error("{address} is the address of node {node}")]
    AddressUsed {
        /// The address.
        address: String,
        /// Whose it is.
        node: u64,
    },
    /// Nobody says at this address who he is.
    #[error("no new node answers at {address}, {problem}: start it there with --join")]
    Unreachable {
        /// The address.
        address: String,
        /// What became of the question.
        problem: String,
    },
    /// Somebody else answers there.
    #[error("{address} answers as node {actual}, not as {expected}")]
    OtherNode {
        /// The address.
        address: String,
        /// Who was expected.
        expected: NodeId,
        /// Who answered.
        actual: u64,
    },
    /// The node there has been another cluster's, or has another data directory than when it was added.
    #[error(
        "the node at {address} has the data of another node or cluster: start it with an empty directory and a new id"
    )]
    Foreign {
        /// The address.
        address: String,
    },
    /// The node's program does not know the rules that the state follows.
    #[error(
        "the program of the node at {address} knows state version {newest} at most, the cluster follows {follows}: start a newer one"
    )]
    TooOld {
        /// The address.
        address: String,
        /// The newest that it knows.
        newest: StateVersion,
        /// What it would have to follow.
        follows: StateVersion,
    },
    /// Another change is not finished.
    #[error("another change of the members is under way")]
    UnderWay,
    /// It was added, and does not vote yet.
    #[error("node {node} is a learner, and {behind} entries behind: add it again to make it vote")]
    Learning {
        /// The new node.
        node: NodeId,
        /// What it lacks.
        behind: u64,
    },
    /// The others would have no majority.
    #[error(
        "without node {node} there are {voters} voters, of which {heard} answer the leader and have nearly all of its log: \
         that is no majority"
    )]
    NoMajority {
        /// The node that was to be removed.
        node: NodeId,
        /// How many would stay.
        voters: usize,
        /// How many of them answer, and are not far behind.
        heard: usize,
    },
}

/// Whether the members that a node goes by are committed.
pub(super) fn is_committed(metrics: &RaftServerMetrics<TypeConfig>) -> bool {
    metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
}

/// The members, and the entry that made them so.
struct Known {
    at: Option<LogId>,
    voters: BTreeSet<u64>,
    members: BTreeMap<u64, Member>,
}

impl Known {
    /// Unless another change is under way.
    fn committed(metrics: &RaftServerMetrics<TypeConfig>) -> Option<Self> {
        if !is_committed(metrics) {
            return None;
        }
        let known = &metrics.membership_config;
        let membership = known.membership();
        let members = membership.nodes();
        Some(Self {
            at: *known.log_id(),
            voters: membership.voter_ids().collect(),
            members: members.map(|(id, member)| (*id, member.clone())).collect(),
        })
    }

    fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id.get())
    }
}

impl<B: Base> Node<B> {
    /// Makes the new node at `address` a voter. Waits until it has nearly all of the log.
    pub async fn add_member(
        &self,
        id: NodeId,
        address: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut known = self.known_members(deadline).await?;
        if let Some(member) = known.members.get(&id.get()) {
            if member.address != address {
                return Err(self.id_used(id, &known).into());
            }
        } else {
            let instance = self.check_newcomer(id, address, &known).await?;
            let member = Member {
                address: address.to_owned(),
                instance,
            };
            tracing::info!(node = id.get(), address, "adding a learner");
            known.members.insert(id.get(), member);
            known.at = Some(self.change_members(&known, deadline).await?);
        }
        if !known.is_voter(id) {
            self.wait_until_near(id, &known, deadline).await?;
            tracing::info!(node = id.get(), "the learner becomes a voter");
            known.voters.insert(id.get());
            self.change_members(&known, deadline).await?;
        }
        Ok(())
    }

    /// Takes a node out of the cluster. One that was removed before is no error.
    pub async fn remove_member(&self, id: NodeId, deadline: Instant) -> Result<(), Error> {
        let mut known = self.known_members(deadline).await?;
        if !known.members.contains_key(&id.get()) {
            return if id.get() < self.next_id(&known) {
                Ok(())
            } else {
                Err(Error::UnknownMember(id.get()))
            };
        }
        if known.voters.remove(&id.get()) {
            self.hear_majority(id, &known.voters).await?;
        }
        if id == self.leadership().node {
            self.transfer_leader(None, deadline).await?;
            return Err(refusal(&self.leadership()).unwrap_or(Error::NoLeader));
        }
        tracing::info!(node = id.get(), "removing a member");
        known.members.remove(&id.get());
        self.change_members(&known, deadline).await.map(drop)
    }

    /// The members as the leader knows them that this node is for certain, when they are committed: a call that finds nothing left to
    /// do says that it is done, and whoever hears that ends a node for it.
    async fn known_members(&self, deadline: Instant) -> Result<Known, Error> {
        if let Some(refusal) = refusal(&self.leadership()) {
            return Err(refusal);
        }
        // From then on the state knows every id that was ever used.
        self.read_barrier(ReadMode::Linearizable, deadline).await?;
        // What is not was asked for before, perhaps by the same caller.
        let mut metrics = self.shared.raft.server_metrics();
        let committed = async {
            loop {
                if let Some(known) = Known::committed(&metrics.borrow_watched()) {
                    return Ok(known);
                }
                let ended = |_| Error::Stopped("openraft ended".to_owned());
                metrics.changed().await.map_err(ended)?;
            }
        };
        let deadline = deadline.min(Instant::now() + WAIT);
        let committed = timeout_at(deadline, committed).await;
        committed.unwrap_or_else(|_| Err(MembershipError::UnderWay.into()))
    }

    /// The lowest id that no node ever had.
    fn next_id(&self, known: &Known) -> u64 {
        let highest = known.members.keys().next_back().copied().unwrap_or(0);
        let ever = self.shared.base.highest_node_id();
        highest.max(ever).saturating_add(1)
    }

    fn id_used(&self, id: NodeId, known: &Known) -> MembershipError {
        let next = self.next_id(known);
        MembershipError::IdUsed { id, next }
    }

    /// The data directory of a node that can be added.
    async fn check_newcomer(
        &self,
        id: NodeId,
        address: &str,
        known: &Known,
    ) -> Result<InstanceId, Error> {
        if id.get() < self.next_id(known) {
            return Err(self.id_used(id, known).into());
        }
        let mut others = known.members.iter();
        if let Some((node, _)) = others.find(|(_, member)| member.address == address) {
            let (address, node) = (address.to_owned(), *node);
            return Err(MembershipError::AddressUsed { address, node }.into());
        }
        let base = &self.shared.base;
        let answer = base.greet(address, self.greeting(), PATIENCE).await;
        let own = (self.leadership().cluster, self.state_version());
        Ok(judge(id, address, own, answer)?)
    }

    /// Waits until a learner has the entry that made the members what they are, and nearly all others. One that has answered
    /// nothing yet would be a voter who does not vote, however short the log is.
    async fn wait_until_near(
        &self,
        id: NodeId,
        known: &Known,
        deadline: Instant,
    ) -> Result<(), Error> {
        let added_at = known.at.map(|at| at.index);
        let deadline = deadline.min(Instant::now() + WAIT);
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if let Some(refusal) = refusal(&self.leadership()) {
                return Err(refusal);
            }
            let (matched, behind) = {
                let metrics = self.shared.raft.metrics();
                let metrics = metrics.borrow_watched();
                let matched = matched(&metrics, id.get());
                let behind = behind(&metrics, matched);
                (matched, behind)
            };
            if matched >= added_at && behind <= LAG_ALLOWED {
                return Ok(());
            }
            if Instant::now() + LOOK >= deadline {
                return Err(MembershipError::Learning { node: id, behind }.into());
            }
        }
    }

    /// Waits until a majority of those that stay has answered what they were asked from now on, and is not far behind.
    async fn hear_majority(&self, node: NodeId, voters: &BTreeSet<u64>) -> Result<(), Error> {
        let since = InstantOf::<TypeConfig>::now();
        let heartbeat = Duration::from_millis(self.shared.raft.config().heartbeat_interval);
        let patience = heartbeat * HEARTBEATS;
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let heard = {
                let metrics = self.shared.raft.metrics();
                let metrics = metrics.borrow_watched();
                let heard = |id: &&u64| can_commit(&metrics, **id, since);
                voters.iter().filter(heard).count()
            };
            if 2 * heard > voters.len() {
                return Ok(());
            }
            if since.elapsed() >= patience {
                let voters = voters.len();
                return Err(MembershipError::NoMajority {
                    node,
                    voters,
                    heard,
                }
                .into());
            }
        }
    }

    /// Proposes these members in place of those that they were made from, and waits until that is applied: where it stands. A leader that
    /// was cut off would wait until it hears of the next one.
    async fn change_members(&self, wanted: &Known, deadline: Instant) -> Result<LogId, Error> {
        let membership = Membership::new(vec![wanted.voters.clone()], wanted.members.clone())
            .map_err(|error| Error::Stopped(error.to_string()))?;
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: wanted.at,
        };
        let core = self.shared.raft.clone();
        let changed = raft::ask(&self.shared.tasks, async move {
            let blank = EntryPayload::Blank;
            core.append_membership(membership, blank, [unchanged]).await
        });
        match timeout_at(deadline, changed).await {
            Ok(changed) => Ok(changed.map_err(not_changed)?.log_id),
            Err(_) => Err(Error::Deadline {
                outcome: Outcome::Unknown,
            }),
        }
    }
}

/// Whether a voter could commit entries with this leader at once, by what it has answered since then.
fn can_commit(metrics: &RaftMetrics<TypeConfig>, id: u64, since: InstantOf<TypeConfig>) -> bool {
    let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id));
    let heard = heard.and_then(Option::as_ref);
    let answers = heard.is_some_and(|at| **at >= since);
    let is_near = || behind(metrics, matched(metrics, id)) <= LAG_ALLOWED;
    id == metrics.id || (answers && is_near())
}

/// Up to where another node has the log, as far as this leader knows.
fn matched(metrics: &RaftMetrics<TypeConfig>, id: u64) -> Option<u64> {
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id));
    matched.and_then(Option::as_ref).map(|id| id.index)
}

/// How many entries of this log are beyond that.
fn behind(metrics: &RaftMetrics<TypeConfig>, matched: Option<u64>) -> u64 {
    let entries = |last: Option<u64>| last.map_or(0, |last| last + 1);
    entries(metrics.last_log_index).saturating_sub(entries(matched))
}

/// What a node said that is to be added.
fn judge(
    id: NodeId,
    address: &str,
    (own, follows): (ClusterId, StateVersion),
    answer: Result<pb::HelloResponse, NetworkError>,
) -> Result<InstanceId, MembershipError> {
    let address = address.to_owned();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::info!(%error, address, "a new node does not answer");
            let problem = match error {
                NetworkError::Unreachable(_) => "nobody listens there".to_owned(),
                error if error.is_initial_cluster_differs() => {
                    "the one there was started without --join".to_owned()
                }
                error => error.to_string(),
            };
            return Err(MembershipError::Unreachable { address, problem });
        }
    };
    if answer.node_id != id.get() {
        return Err(MembershipError::OtherNode {
            address,
            expected: id,
            actual: answer.node_id,
        });
    }
    let newest = StateVersion::new(answer.newest_state_version);
    if newest < follows {
        return Err(MembershipError::TooOld {
            address,
            newest,
            follows,
        });
    }
    // Of this cluster it is if it was added by a leader whose entry was lost.
    let cluster = &answer.cluster_id[..];
    match InstanceId::parse(&answer.instance) {
        Ok(instance) if cluster.is_empty() || cluster == own.as_bytes() => Ok(instance),
        _ => Err(MembershipError::Foreign { address }),
    }
}

fn not_changed(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
    match error {
        RaftError::APIError(
            ClientWriteError::PreconditionFailed(_)
            | ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_),
            ),
        ) => MembershipError::UnderWay.into(),
        RaftError::APIError(error) => write_error(&error),
        RaftError::Fatal(fatal) => stopped(&fatal),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::errors::ForwardToLeader;
    use openraft::metrics::SerdeInstant;

    use super::*;
    use crate::raft::Vote;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).expect("not 0")
    }

    /// A voter whose disk is full, or that gets a snapshot, answers heartbeats all the same.
    #[test]
    fn a_voter_that_answers_and_has_the_log_counts_and_no_other() {
        let early = InstantOf::<TypeConfig>::now();
        let now = early + Duration::from_millis(1);
        let term = Vote::new_committed(2, 1).leader_id;
        let last = 10 * LAG_ALLOWED;
        let mut metrics = RaftMetrics::new_initial(1);
        let counts = |metrics: &_| [1, 2, 3].map(|id| can_commit(metrics, id, now));
        assert_eq!(counts(&metrics), [true, false, false], "it is no leader");
        let answered = |at| Some(SerdeInstant::new(at));
        metrics.heartbeat = Some([(2, answered(now)), (3, answered(now))].into());
        metrics.last_log_index = Some(last);
        let at = |index| Some(LogId::new(term, index));
        for (matched, is_near) in [
            (at(last), true),
            (at(last - LAG_ALLOWED), true),
            (at(last - LAG_ALLOWED - 1), false),
            (None, false),
        ] {
            metrics.replication = Some([(2, at(last)), (3, matched)].into());
            assert_eq!(counts(&metrics), [true, true, is_near], "{matched:?}");
        }
        metrics.replication = Some([(2, at(last)), (3, at(last))].into());
        metrics.heartbeat = Some([(2, answered(early)), (3, None)].into());
        assert_eq!(counts(&metrics), [true, false, false], "they are silent");
    }

    #[test]
    fn a_change_that_was_discarded_may_be_made_all_the_same() {
        let discarded = ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty());
        let error = not_changed(RaftError::APIError(discarded));
        assert!(matches!(error, Error::LeadershipLost(None)), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[test]
    fn only_a_node_that_belongs_nowhere_can_be_added() {
        let newcomer = || pb::HelloResponse {
            node_id: 4,
            instance: Bytes::from_static(&[7; 16]),
            newest_state_version: 3,
            ..pb::HelloResponse::default()
        };
        let own = (ClusterId::new([2; 16]), StateVersion::new(2));
        let judged = |answer| judge(node(4), "host:1", own, Ok(answer));
        assert_eq!(judged(newcomer()), Ok(InstanceId::new([7; 16])));
        let added_before = pb::HelloResponse {
            cluster_id: Bytes::from_static(&[2; 16]),
            ..newcomer()
        };
        assert_eq!(judged(added_before), Ok(InstanceId::new([7; 16])));
        let address = "host:1".to_owned();
        let foreign = Err(MembershipError::Foreign {
            address: address.clone(),
        });
        let member = pb::HelloResponse {
            cluster_id: Bytes::from_static(&[1; 16]),
            ..newcomer()
        };
        assert_eq!(judged(member), foreign);
        let malformed = pb::HelloResponse {
            instance: Bytes::from_static(b"short"),
            ..newcomer()
        };
        assert_eq!(judged(malformed), foreign);
        let old = pb::HelloResponse {
            newest_state_version: 0,
            ..newcomer()
        };
        let too_old = MembershipError::TooOld {
            address: address.clone(),
            newest: StateVersion::FIRST,
            follows: own.1,
        };
        assert_eq!(judged(old), Err(too_old));
        let other = pb::HelloResponse {
            node_id: 5,
            ..newcomer()
        };
        let (expected, actual) = (node(4), 5);
        assert_eq!(
            judged(other),
            Err(MembershipError::OtherNode {
                address,
                expected,
                actual
            })
        );
    }
}
