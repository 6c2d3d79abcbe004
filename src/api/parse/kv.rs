//! The key service's requests.

use super::{Echo, Origin, Query, Read, Write, identity, page_size, read_mode, revision};
use crate::api::{Error, cursor};
use crate::proto::v1;
use crate::state::{Command, Increment, KeyOperation, Operation, PutCondition};
use crate::types::{Bounds, Invalid, Key, KeyPrefix, LeaseId, Namespace, Revision, Ttl, Value};

pub(super) fn get(r: v1::GetKeyRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Key {
            namespace: Namespace::parse(r.namespace)?,
            key: Key::parse(r.key)?,
        },
    })
}

pub(super) fn put(r: v1::PutKeyRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::Key(KeyOperation::Put {
        key: Key::parse(r.key)?,
        value: Value::parse(r.value)?,
        ttl: Ttl::parse("ttl_ms", r.ttl_ms)?,
        lease: LeaseId::optional(r.lease_id),
        condition: condition(r.if_revision, r.if_absent)?,
    });
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::KeyPut,
    })
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

pub(super) fn delete(r: v1::DeleteKeyRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::Key(KeyOperation::Delete {
        key: Key::parse(r.key)?,
        if_revision: revision(r.if_revision),
    });
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::KeyDelete,
    })
}

pub(super) fn increment(r: v1::IncrementKeyRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::Key(KeyOperation::Increment(Increment {
        key: Key::parse(r.key)?,
        delta: r.delta,
        bounds: Bounds::parse(r.min, r.max)?,
        initial: r.initial,
        ttl: Ttl::parse("ttl_ms", r.ttl_ms)?,
    }));
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::KeyIncrement,
    })
}

pub(super) fn list(r: v1::ListKeysRequest) -> Result<Read, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let prefix = KeyPrefix::parse(r.prefix)?;
    let after = if r.cursor.is_empty() {
        None
    } else {
        Some(cursor::decode(&namespace, &prefix, &r.cursor)?)
    };
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::List {
            limit: page_size(r.limit)?,
            namespace,
            prefix,
            after,
        },
    })
}
