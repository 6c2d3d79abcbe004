//! openraft's types as messages, for disk and wire alike, so that both have one form.
//!
//! Log ids and votes always convert. Entries and memberships are checked on the way in: what a message lacks or
//! contradicts is a [`Fault`] of whoever wrote it, and the caller decides whether that was a disk or a peer.
//! Deliberately absent: openraft's own serialized forms, which move between its versions, and any meaning of
//! node id 0, which openraft uses before the first election.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use prost::encoding::{self, WireType};

use super::{Entry, LogId, Member, Membership, Proposal, StoredMembership, Vote};
use crate::proto::internal as pb;
use crate::state::{Command, Fault};
use crate::types::{InstanceId, LogTime};

type LeaderId = openraft::alias::LeaderIdOf<super::TypeConfig>;

impl From<LogId> for pb::LogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            node_id: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<pb::LogId> for LogId {
    fn from(id: pb::LogId) -> Self {
        let leader_id = LeaderId {
            term: id.term,
            node_id: id.node_id,
        };
        Self::new(leader_id, id.index)
    }
}

impl From<Vote> for pb::Vote {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node_id: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<pb::Vote> for Vote {
    fn from(vote: pb::Vote) -> Self {
        Self {
            leader_id: LeaderId {
                term: vote.term,
                node_id: vote.node_id,
            },
            committed: vote.committed,
        }
    }
}

impl From<&Entry> for pb::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
            EntryPayload::Normal(proposal) => pb::entry::Payload::Proposal(proposal.encode()),
            EntryPayload::Membership(membership) => {
                pb::entry::Payload::Membership(membership.into())
            }
        };
        Self {
            log_id: Some(entry.log_id.into()),
            payload: Some(payload),
        }
    }
}

/// A [`pb::Proposal`], written field by field: the message itself would need a shared copy of every command's bytes.
pub(super) fn encode_proposal(stamp: LogTime, commands: &[Command]) -> Bytes {
    const STAMP: u32 = 1;
    const COMMANDS: u32 = 2;
    /// More than a key and a length or number take.
    const FRAMING_BYTES: usize = 16;

    let sizes = commands.iter().map(|command| command.encoded().len());
    let capacity = sizes.map(|size| size + FRAMING_BYTES).sum::<usize>() + FRAMING_BYTES;
    let mut bytes = Vec::with_capacity(capacity);
    let stamp = stamp.as_millis();
    if stamp != 0 {
        encoding::uint64::encode(STAMP, &stamp, &mut bytes);
    }
    for command in commands {
        encoding::encode_key(COMMANDS, WireType::LengthDelimited, &mut bytes);
        encoding::encode_varint(command.encoded().len() as u64, &mut bytes);
        bytes.extend_from_slice(command.encoded());
    }
    bytes.into()
}

// Written out, because the compiler does not see through openraft's projection when it looks for conflicts.
impl TryFrom<pb::Entry> for openraft::Entry<LeaderId, EntryPayload<Proposal, u64, Member>> {
    type Error = Fault;

    fn try_from(entry: pb::Entry) -> Result<Self, Fault> {
        let log_id = required("log entry", "its log id", entry.log_id)?;
        let payload = match required("log entry", "its payload", entry.payload)? {
            pb::entry::Payload::Blank(_) => EntryPayload::Blank,
            pb::entry::Payload::Proposal(proposal) => {
                EntryPayload::Normal(Proposal::decode(proposal)?)
            }
            pb::entry::Payload::Membership(membership) => {
                EntryPayload::Membership(membership.try_into()?)
            }
        };
        Ok(Self {
            log_id: log_id.into(),
            payload,
        })
    }
}

impl From<&Membership> for pb::Membership {
    fn from(membership: &Membership) -> Self {
        let configs = membership
            .get_joint_config()
            .iter()
            .map(|voters| pb::Voters {
                node_ids: voters.iter().copied().collect(),
            });
        let nodes = membership.nodes().map(|(id, member)| pb::Member {
            node_id: *id,
            address: member.address.clone(),
            instance: bytes::Bytes::copy_from_slice(member.instance.as_bytes()),
        });
        Self {
            configs: configs.collect(),
            nodes: nodes.collect(),
        }
    }
}

impl TryFrom<pb::Membership> for Membership {
    type Error = Fault;

    fn try_from(membership: pb::Membership) -> Result<Self, Fault> {
        let configs = membership
            .configs
            .into_iter()
            .map(|voters| voters.node_ids.into_iter().collect::<BTreeSet<_>>())
            .collect();
        let mut nodes = BTreeMap::new();
        for node in membership.nodes {
            let id = node.node_id;
            if nodes.insert(id, Member::try_from(node)?).is_some() {
                return Err(Fault::corrupt(
                    "membership",
                    format!("node {id} appears twice"),
                ));
            }
        }
        Self::new(configs, nodes).map_err(|e| Fault::corrupt("membership", e.to_string()))
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = Fault;

    /// The node id is left to the caller.
    fn try_from(member: pb::Member) -> Result<Self, Fault> {
        let instance = InstanceId::parse(&member.instance)
            .map_err(|e| Fault::corrupt("membership", e.to_string()))?;
        Ok(Self {
            address: member.address,
            instance,
        })
    }
}

impl From<&StoredMembership> for pb::StoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: stored.log_id().map(Into::into),
            membership: Some(stored.membership().into()),
            highest_removed_id: 0,
        }
    }
}

impl TryFrom<pb::StoredMembership> for StoredMembership {
    type Error = Fault;

    /// An absent membership is the empty one, which a node has before it belongs to a cluster.
    fn try_from(stored: pb::StoredMembership) -> Result<Self, Fault> {
        let membership = stored.membership.unwrap_or_default().try_into()?;
        Ok(Self::new(stored.log_id.map(Into::into), membership))
    }
}

fn required<T>(what: &'static str, part: &str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::corrupt(what, format!("{part} is missing")))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn membership() -> Membership {
        let nodes: BTreeMap<u64, Member> = (1..=3)
            .map(|id| {
                let member = Member {
                    address: format!("host-{id}:7000"),
                    instance: InstanceId::new([u8::try_from(id).expect("small"); 16]),
                };
                (id, member)
            })
            .collect();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes)
            .expect("voters are nodes")
    }

    #[test]
    fn log_ids_and_votes_survive_the_round_trip() {
        let log_id = pb::LogId {
            term: 7,
            node_id: 2,
            index: 99,
        };
        assert_eq!(pb::LogId::from(LogId::from(log_id)), log_id);
        let vote = pb::Vote {
            term: 7,
            node_id: 2,
            committed: true,
        };
        assert_eq!(pb::Vote::from(Vote::from(vote)), vote);
    }

    #[test]
    fn memberships_survive_the_round_trip() {
        let message = pb::Membership::from(&membership());
        let back = Membership::try_from(message).expect("valid");
        assert_eq!(back, membership());
        let empty = StoredMembership::default();
        let back = StoredMembership::try_from(pb::StoredMembership::from(&empty)).expect("valid");
        assert_eq!(back, empty);
    }

    #[test]
    fn a_membership_that_contradicts_itself_is_refused() {
        let mut unknown_voter = pb::Membership::from(&membership());
        unknown_voter.nodes.pop();
        assert!(Membership::try_from(unknown_voter).is_err());

        let mut twice = pb::Membership::from(&membership());
        twice.nodes.push(twice.nodes[0].clone());
        assert!(Membership::try_from(twice).is_err());

        let mut short_instance = pb::Membership::from(&membership());
        short_instance.nodes[0].instance = bytes::Bytes::from_static(b"short");
        assert!(Membership::try_from(short_instance).is_err());
    }

    #[test]
    fn an_entry_without_its_parts_is_refused() {
        let log_id = Some(pb::LogId::default());
        let payload = Some(pb::entry::Payload::Blank(pb::Blank {}));
        let no_payload = pb::Entry {
            log_id,
            payload: None,
        };
        let no_log_id = pb::Entry {
            log_id: None,
            payload: payload.clone(),
        };
        assert!(Entry::try_from(no_payload).is_err());
        assert!(Entry::try_from(no_log_id).is_err());
        assert!(Entry::try_from(pb::Entry { log_id, payload }).is_ok());
    }

    /// Yesterday's log opens tomorrow: an entry of one command has the bytes that it had when an entry was one command.
    #[test]
    fn an_entry_of_one_command_has_its_first_form() {
        let operation = crate::state::Operation::Tick {
            checkpoint: true,
            expect: None,
        };
        let command = Command::new(
            crate::types::Namespace::default(),
            crate::state::Identity::Anonymous,
            operation,
        );
        let encoded = command.encode();
        let length = u8::try_from(encoded.len()).expect("a small command");
        let proposal = [&[8, 5, 0x12, length], &encoded[..]].concat();
        let log_id = [0x0a, 6, 8, 3, 16, 2, 24, 7];
        let stored = [&log_id[..], &[0x1a, length + 4], &proposal].concat();

        let message = pb::Entry::decode(&stored[..]).expect("well formed");
        let entry = Entry::try_from(message).expect("valid");
        let EntryPayload::Normal(found) = &entry.payload else {
            panic!("it is a proposal");
        };
        assert_eq!(found.stamp.as_millis(), 5);
        assert_eq!(found.commands[..], [command]);
        assert_eq!(pb::Entry::from(&entry).encode_to_vec(), stored);

        for (stamp, count) in [(0, 1), (7, 0), (1 << 40, 3)] {
            let commands = vec![found.commands[0].clone(); count];
            let message = pb::Proposal {
                stamp,
                commands: commands.iter().map(Command::encode).collect(),
            };
            let encoded = encode_proposal(LogTime::from_millis(stamp), &commands);
            assert_eq!(encoded, message.encode_to_vec());
        }

        let empty = [&log_id[..], &[0x1a, 2, 8, 5]].concat();
        let message = pb::Entry::decode(&empty[..]).expect("well formed");
        assert!(Entry::try_from(message).is_err(), "no command");
    }
}
