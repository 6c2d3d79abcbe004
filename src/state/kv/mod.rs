//! Keys: put and delete.
//!
//! Invariant: a key with a deadline is indexed at exactly that deadline, because every put writes both.

mod operation;

pub use operation::{KeyOperation, PutCondition};

use super::apply::{Outcome, detach};
use super::batch::{Batch, SlotId};
use super::keys::Key;
use super::{Rejection, Store};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{self, LogTime, Namespace, Revision, Ttl, Value};

/// Whether a key is there, at a time.
pub(super) fn is_live(kv: &pb::KvRecord, now: LogTime) -> bool {
    kv.deadline == 0 || kv.deadline > now.as_millis()
}

/// Executes a key operation.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &KeyOperation,
) -> Outcome {
    match operation {
        KeyOperation::Put {
            key,
            value,
            ttl,
            condition,
        } => put(batch, &stored_key(namespace, key), value, *ttl, *condition),
        KeyOperation::Delete { key, if_revision } => {
            delete(batch, &stored_key(namespace, key), *if_revision)
        }
    }
}

fn stored_key(namespace: &Namespace, key: &types::Key) -> Key {
    Key::Kv(namespace.clone(), key.clone())
}

/// The key's create and mod revision, if it is live.
fn live<S: Store>(batch: &Batch<'_, S>, id: SlotId) -> Option<(Revision, Revision)> {
    let kv = batch.read::<pb::KvRecord>(id)?;
    let revisions = (
        Revision::new(kv.create_revision),
        Revision::new(kv.mod_revision),
    );
    is_live(kv, batch.now()).then_some(revisions)
}

fn put<S: Store>(
    batch: &mut Batch<'_, S>,
    key: &Key,
    value: &Value,
    ttl: Option<Ttl>,
    condition: PutCondition,
) -> Outcome {
    let id = batch.load(key)?;
    let live = live(batch, id);
    let actual = live.map_or(Revision::default(), |(_, modified)| modified);
    match condition {
        PutCondition::IfRevision(asked) if asked != actual => {
            return Err(Rejection::RevisionMismatch { actual }.into());
        }
        PutCondition::IfAbsent if live.is_some() => {
            return Err(Rejection::KeyExists { actual }.into());
        }
        _ => {}
    }
    remove_index(batch, id, key);
    let revision = batch.next_revision();
    let created = live.map_or(revision, |(created, _)| created);
    let deadline = ttl.map(|ttl| batch.now().after(ttl));
    if let Some(deadline) = deadline {
        batch.index(deadline, key);
    }
    let deadline = deadline.map_or(0, LogTime::as_millis);
    let record = pb::KvRecord {
        value: detach(value.as_bytes()),
        create_revision: created.get(),
        mod_revision: revision.get(),
        deadline,
    };
    batch.put(id, record);
    Ok(Body::KeyPut(pb::KeyPut {
        create_revision: created.get(),
        mod_revision: revision.get(),
        deadline,
    }))
}

fn delete<S: Store>(batch: &mut Batch<'_, S>, key: &Key, if_revision: Option<Revision>) -> Outcome {
    let id = batch.load(key)?;
    let Some((_, actual)) = live(batch, id) else {
        return Err(Rejection::KeyNotFound.into());
    };
    if if_revision.is_some_and(|asked| asked != actual) {
        return Err(Rejection::RevisionMismatch { actual }.into());
    }
    remove_index(batch, id, key);
    batch.delete(id);
    batch.next_revision();
    Ok(Body::KeyDeleted(pb::KeyDeleted {}))
}

fn remove_index<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, key: &Key) {
    let deadline = batch.read::<pb::KvRecord>(id).map_or(0, |kv| kv.deadline);
    if deadline != 0 {
        batch.unindex(LogTime::from_millis(deadline), key);
    }
}
