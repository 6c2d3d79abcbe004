//! Leases: grant, keep alive, revoke.
//!
//! A key of a lease is there while the lease is. Whoever holds the lease keeps it alive; who does not, because it died or
//! was cut off, loses its keys when the TTL is over, in log time.
//!
//! Invariants:
//! 1. A lease's id is the revision that granted it. No two have the same, so that a key which still names a lease that
//!    ended never comes back under another. Hence a transaction, which has one revision, grants none.
//! 2. A lease has at most [`limits::LEASE_KEYS`] keys, and its record names them, so that a revocation finds them.
//! 3. A lease that runs out takes its keys along at once: they are live only while it is, see [`super::kv`]. The sweep
//!    deletes it and them one by one, each from an index entry of its own, so that one entry of the log deletes no more
//!    than it may.

mod operation;

pub use operation::LeaseOperation;

use super::apply::{Outcome, Stop};
use super::batch::{Batch, SlotId};
use super::keys::Key;
use super::{Fault, Rejection, Store, kv};
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{self, LeaseId, LogTime, Namespace, Ttl};

/// The sweep moved the lease's index entry.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(lease) = batch.change::<pb::LeaseRecord>(id) {
        lease.indexed_deadline = deadline.as_millis();
    }
}

/// The slot of a live lease.
fn live<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<SlotId, Stop> {
    let id = batch.load(&Key::Lease(namespace.clone(), lease))?;
    match batch.read::<pb::LeaseRecord>(id) {
        Some(lease) if lease.deadline > batch.now().as_millis() => Ok(id),
        _ => Err(Rejection::LeaseNotFound.into()),
    }
}

/// The slot of a live lease that has room for a key, or has the key already.
pub(super) fn open<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    lease: LeaseId,
    name: &types::Key,
) -> Result<SlotId, Stop> {
    let id = live(batch, namespace, lease)?;
    let is_full = batch.read::<pb::LeaseRecord>(id).is_some_and(|lease| {
        lease.keys.len() >= limits::LEASE_KEYS && !lease.keys.iter().any(|key| key == name.as_str())
    });
    if is_full {
        return Err(Rejection::LeaseKeysLimit.into());
    }
    Ok(id)
}

/// Notes a key that names the lease. The lease is open for it, and does not have it any more.
pub(super) fn add_key<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, name: &types::Key) {
    if let Some(lease) = batch.change::<pb::LeaseRecord>(id) {
        lease.keys.push(name.as_str().to_owned());
    }
}

/// Forgets a key. A lease that was deleted has no keys.
pub(super) fn remove_key<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, name: &types::Key) {
    if let Some(lease) = batch.change::<pb::LeaseRecord>(id) {
        lease.keys.retain(|key| key != name.as_str());
    }
}

/// Executes a lease operation.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: LeaseOperation,
) -> Outcome {
    match operation {
        LeaseOperation::Grant { ttl } => grant(batch, namespace, ttl),
        LeaseOperation::KeepAlive { lease } => keep_alive(batch, namespace, lease),
        LeaseOperation::Revoke { lease } => revoke(batch, namespace, lease),
    }
}

fn grant<S: Store>(batch: &mut Batch<'_, S>, namespace: &Namespace, ttl: Ttl) -> Outcome {
    let revision = batch.next_revision();
    let lease = LeaseId::optional(revision.get()).expect("a change's revision is not 0");
    let deadline = batch.now().after(ttl);
    let key = Key::Lease(namespace.clone(), lease);
    let id = batch.load(&key)?;
    batch.index(deadline, &key);
    let record = pb::LeaseRecord {
        ttl: ttl.as_millis(),
        deadline: deadline.as_millis(),
        indexed_deadline: deadline.as_millis(),
        create_revision: revision.get(),
        keys: Vec::new(),
    };
    batch.put(id, record);
    Ok(Body::LeaseGranted(pb::LeaseGranted {
        lease: lease.get(),
        ttl: ttl.as_millis(),
        deadline: deadline.as_millis(),
    }))
}

/// Log time never goes back, so neither does the deadline, and the index entry may stay where it is.
fn keep_alive<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Outcome {
    let id = live(batch, namespace, lease)?;
    let now = batch.now();
    batch.next_revision();
    let lease = batch
        .change::<pb::LeaseRecord>(id)
        .expect("a live lease has a record");
    let deadline = now.after(Ttl::from_millis(lease.ttl)).as_millis();
    if !planted::has(Bug::LostKeepAlives) {
        lease.deadline = deadline;
    }
    Ok(Body::LeaseRenewed(pb::LeaseRenewed {
        ttl: lease.ttl,
        deadline,
    }))
}

/// Deletes the keys first: each is live or not by its own deadline alone, as long as the lease is there.
fn revoke<S: Store>(batch: &mut Batch<'_, S>, namespace: &Namespace, lease: LeaseId) -> Outcome {
    let id = live(batch, namespace, lease)?;
    let record = batch.read::<pb::LeaseRecord>(id);
    let record = record.expect("a live lease has a record");
    let indexed = LogTime::from_millis(record.indexed_deadline);
    let mut deleted_keys = 0u32;
    for name in record.keys.clone() {
        let was_live = kv::delete_with_lease(batch, namespace, &name)?;
        deleted_keys = deleted_keys.saturating_add(u32::from(was_live));
    }
    batch.unindex(indexed, &Key::Lease(namespace.clone(), lease));
    batch.delete(id);
    batch.next_revision();
    Ok(Body::LeaseRevoked(pb::LeaseRevoked { deleted_keys }))
}

/// Whether a stored name is a key's.
pub(super) fn key_name(name: &str) -> Result<types::Key, Fault> {
    types::Key::parse(name).map_err(|e| Fault::corrupt("a lease's keys", e.to_string()))
}
