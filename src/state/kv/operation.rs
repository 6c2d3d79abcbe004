//! What can be asked of keys, and its form in the log.

use crate::proto::internal as pb;
use crate::proto::internal::command::Operation as Wire;
use crate::state::command_wire::ttl;
use crate::types::{Bounds, Invalid, Key, LeaseId, Revision, Ttl, Value};

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
        lease: Option<LeaseId>,
        condition: PutCondition,
    },
    Delete {
        key: Key,
        if_revision: Option<Revision>,
    },
    Increment(Increment),
}

impl KeyOperation {
    /// The key that is changed.
    pub(in crate::state) fn subject(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
            Self::Increment(increment) => &increment.key,
        }
    }
}

/// What is added to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Increment {
    /// The counter.
    pub key: Key,
    /// What to add.
    pub delta: i64,
    /// What the sum must keep to.
    pub bounds: Bounds,
    /// What a counter that is not there counts from.
    pub initial: i64,
    /// How long a counter that is not there will live.
    pub ttl: Option<Ttl>,
}

impl From<&KeyOperation> for Wire {
    fn from(operation: &KeyOperation) -> Self {
        match operation {
            KeyOperation::Put {
                key,
                value,
                ttl,
                lease,
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
                lease: lease.map_or(0, LeaseId::get),
            }),
            KeyOperation::Delete { key, if_revision } => Self::KeyDelete(pb::KeyDeleteCommand {
                key: key.as_str().to_owned(),
                if_revision: if_revision.map(Revision::get),
            }),
            KeyOperation::Increment(it) => Self::KeyIncrement(pb::KeyIncrementCommand {
                key: it.key.as_str().to_owned(),
                delta: it.delta,
                min: it.bounds.min(),
                max: it.bounds.max(),
                initial: it.initial,
                ttl: it.ttl.map_or(0, Ttl::as_millis),
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
            lease: LeaseId::optional(it.lease),
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

impl TryFrom<pb::KeyIncrementCommand> for KeyOperation {
    type Error = Invalid;

    fn try_from(it: pb::KeyIncrementCommand) -> Result<Self, Invalid> {
        Ok(Self::Increment(Increment {
            key: Key::parse(it.key)?,
            delta: it.delta,
            bounds: Bounds::parse(Some(it.min), Some(it.max))?,
            initial: it.initial,
            ttl: ttl("ttl", it.ttl)?,
        }))
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
