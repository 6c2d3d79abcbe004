//! What can be asked of keys, and its form in the log.

use crate::proto::internal as pb;
use crate::proto::internal::command::Operation as Wire;
use crate::state::command_wire::ttl;
use crate::types::{Invalid, Key, Revision, Ttl, Value};

/// What a put requires of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutCondition {
    /// Nothing.
    Always,
    /// The key exists at this revision.
    IfRevision(Revision),
    /// The key does not exist.
    IfAbsent,
}

/// What a command does with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum KeyOperation {
    Put {
        key: Key,
        value: Value,
        ttl: Option<Ttl>,
        condition: PutCondition,
    },
    Delete {
        key: Key,
        if_revision: Option<Revision>,
    },
}

impl From<&KeyOperation> for Wire {
    fn from(operation: &KeyOperation) -> Self {
        match operation {
            KeyOperation::Put {
                key,
                value,
                ttl,
                condition,
            } => Self::KeyPut(pb::KeyPutCommand {
                key: key.as_str().to_owned(),
                value: value.as_bytes().clone(),
                ttl: ttl.map_or(0, Ttl::as_millis),
                if_revision: match condition {
                    PutCondition::IfRevision(revision) => Some(revision.get()),
                    PutCondition::Always | PutCondition::IfAbsent => None,
                },
                if_absent: *condition == PutCondition::IfAbsent,
            }),
            KeyOperation::Delete { key, if_revision } => Self::KeyDelete(pb::KeyDeleteCommand {
                key: key.as_str().to_owned(),
                if_revision: if_revision.map(Revision::get),
            }),
        }
    }
}

impl TryFrom<pb::KeyPutCommand> for KeyOperation {
    type Error = Invalid;

    fn try_from(it: pb::KeyPutCommand) -> Result<Self, Invalid> {
        Ok(Self::Put {
            condition: condition(it.if_revision, it.if_absent)?,
            key: Key::parse(it.key)?,
            value: Value::parse(it.value)?,
            ttl: ttl("ttl", it.ttl)?,
        })
    }
}

impl TryFrom<pb::KeyDeleteCommand> for KeyOperation {
    type Error = Invalid;

    fn try_from(it: pb::KeyDeleteCommand) -> Result<Self, Invalid> {
        Ok(Self::Delete {
            key: Key::parse(it.key)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

fn condition(if_revision: Option<u64>, if_absent: bool) -> Result<PutCondition, Invalid> {
    match (if_revision, if_absent) {
        (None, false) => Ok(PutCondition::Always),
        (Some(revision), false) => Ok(PutCondition::IfRevision(Revision::new(revision))),
        (None, true) => Ok(PutCondition::IfAbsent),
        (Some(_), true) => Err(Invalid::Exclusive {
            first: "if_revision",
            second: "if_absent",
        }),
    }
}
