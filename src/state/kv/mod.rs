//! Keys: put, delete, count.
//!
//! Invariants:
//! 1. A key with a deadline and without a lease is indexed at exactly that deadline, because every put writes both.
//! 2. A key of a lease is live while both its own deadline and the lease are. It is indexed at or before the earlier of
//!    the two, and the sweep moves its entry on where the lease was kept alive: that costs one write, however many keys
//!    there are.
//! 3. A lease that has a record names exactly the keys that name it. One without has ended, and so have its keys,
//!    whether or not they were swept.
//! 4. A counter has a number in place of a value; a put makes it a plain key again.

mod counter;
mod operation;

pub use operation::{Increment, KeyOperation, PutCondition};

use bytes::Bytes;

use super::apply::{Outcome, detach};
use super::batch::{Batch, SlotId};
use super::keys::Key;
use super::{Fault, Rejection, Store, lease};
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{self, LeaseId, LogTime, Namespace, Revision, Ttl, Value};

/// When a key is gone: at its own deadline or with its lease, whichever is earlier; at the end of time, for most.
pub(super) fn due(kv: &pb::KvRecord, lease: Option<&pb::LeaseRecord>) -> LogTime {
    let own = match kv.deadline {
        0 => u64::MAX,
        deadline => deadline,
    };
    let leased = match (kv.lease, lease) {
        (0, _) => u64::MAX,
        (_, Some(lease)) => lease.deadline,
        (_, None) => 0,
    };
    LogTime::from_millis(own.min(leased))
}

/// A key's value as callers see it: a counter's is its number in decimal digits.
pub(super) fn value(kv: &pb::KvRecord) -> Bytes {
    match kv.counter {
        Some(number) => number.to_string().into(),
        None => kv.value.clone(),
    }
}

/// Where the deadline index holds a key; 0 for nowhere.
pub(super) fn indexed(kv: &pb::KvRecord) -> u64 {
    if kv.lease == 0 {
        kv.deadline
    } else {
        kv.indexed_deadline
    }
}

/// The sweep moved the index entry of a lease's key.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(kv) = batch.change_unseen::<pb::KvRecord>(id) {
        kv.indexed_deadline = deadline.as_millis();
    }
}

/// Where the index holds a key, and when it is really due; `None` for a key that is not there. One whose lease has ended
/// was due when it was indexed.
pub(super) fn deadlines<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    id: SlotId,
) -> Result<Option<(u64, u64)>, Fault> {
    let lease = lease_of(batch, namespace, id)?;
    let lease = lease.and_then(|lease| batch.read::<pb::LeaseRecord>(lease));
    let kv = batch.read::<pb::KvRecord>(id);
    Ok(kv.map(|kv| (indexed(kv), due(kv, lease).as_millis())))
}

/// The slot of the lease that a key names.
fn lease_of<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    id: SlotId,
) -> Result<Option<SlotId>, Fault> {
    let named = batch.read::<pb::KvRecord>(id).map_or(0, |kv| kv.lease);
    LeaseId::optional(named)
        .map(|lease| batch.load(&Key::Lease(namespace.clone(), lease)))
        .transpose()
}

/// A key that an operation is about.
struct Place<'a> {
    namespace: &'a Namespace,
    name: &'a types::Key,
    key: Key,
    id: SlotId,
    /// Create and mod revision, if it is live.
    live: Option<(Revision, Revision)>,
}

impl<'a> Place<'a> {
    fn find<S: Store>(
        batch: &mut Batch<'_, S>,
        namespace: &'a Namespace,
        name: &'a types::Key,
    ) -> Result<Self, Fault> {
        let key = Key::Kv(namespace.clone(), name.clone());
        let id = batch.load(&key)?;
        let lease = lease_of(batch, namespace, id)?;
        let lease = lease.and_then(|lease| batch.read::<pb::LeaseRecord>(lease));
        let kv = batch.read::<pb::KvRecord>(id);
        let live = kv.filter(|kv| due(kv, lease) > batch.now());
        let live = live.map(|kv| {
            (
                Revision::new(kv.create_revision),
                Revision::new(kv.mod_revision),
            )
        });
        Ok(Self {
            namespace,
            name,
            key,
            id,
            live,
        })
    }

    /// The mod revision; 0 for what is not there.
    fn actual(&self) -> Revision {
        self.live
            .map_or(Revision::default(), |(_, modified)| modified)
    }

    /// Takes the key out of the deadline index and from its lease, whether or not it is live.
    fn unlink<S: Store>(&self, batch: &mut Batch<'_, S>) -> Result<(), Fault> {
        let indexed = batch.read::<pb::KvRecord>(self.id).map_or(0, indexed);
        if indexed != 0 {
            batch.unindex(LogTime::from_millis(indexed), &self.key);
        }
        leave_lease(batch, self.namespace, self.name, self.id)
    }
}

/// Takes a key from the lease that it names, if that has not ended.
pub(super) fn leave_lease<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    name: &types::Key,
    id: SlotId,
) -> Result<(), Fault> {
    if let Some(lease) = lease_of(batch, namespace, id)?
        && !planted::has(Bug::ForgottenMoves)
    {
        lease::remove_key(batch, lease, name);
    }
    Ok(())
}

/// A live key's slot.
pub(super) fn live<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    name: &types::Key,
) -> Result<Option<SlotId>, Fault> {
    let place = Place::find(batch, namespace, name)?;
    Ok(place.live.map(|_| place.id))
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
            lease,
            condition,
        } => {
            let place = Place::find(batch, namespace, key)?;
            put(batch, &place, value, *ttl, *lease, *condition)
        }
        KeyOperation::Delete { key, if_revision } => {
            let place = Place::find(batch, namespace, key)?;
            delete(batch, &place, *if_revision)
        }
        KeyOperation::Increment(increment) => {
            let place = Place::find(batch, namespace, &increment.key)?;
            counter::increment(batch, &place, increment)
        }
    }
}

fn put<S: Store>(
    batch: &mut Batch<'_, S>,
    place: &Place<'_>,
    value: &Value,
    ttl: Option<Ttl>,
    lease: Option<LeaseId>,
    condition: PutCondition,
) -> Outcome {
    let actual = place.actual();
    match condition {
        PutCondition::IfRevision(asked) if asked != actual => {
            return Err(Rejection::RevisionMismatch { actual }.into());
        }
        PutCondition::IfAbsent
            if place.live.is_some() && !(planted::has(Bug::SharedLocks) && lease.is_some()) =>
        {
            return Err(Rejection::KeyExists { actual }.into());
        }
        _ => {}
    }
    let lease = match lease {
        Some(id) => Some((id, lease::open(batch, place.namespace, id, place.name)?)),
        None => None,
    };
    place.unlink(batch)?;
    let revision = batch.next_revision();
    let mut record = pb::KvRecord {
        value: detach(value.as_bytes()),
        create_revision: place.live.map_or(revision, |(created, _)| created).get(),
        mod_revision: revision.get(),
        deadline: ttl.map_or(0, |ttl| batch.now().after(ttl).as_millis()),
        ..pb::KvRecord::default()
    };
    if let Some((id, slot)) = lease {
        lease::add_key(batch, slot, place.name);
        record.lease = id.get();
        record.indexed_deadline = due(&record, batch.read(slot)).as_millis();
    }
    let body = Body::KeyPut(pb::KeyPut {
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        deadline: record.deadline,
    });
    store(batch, place, record);
    Ok(body)
}

/// Puts a record where nothing is indexed any more.
fn store<S: Store>(batch: &mut Batch<'_, S>, place: &Place<'_>, record: pb::KvRecord) {
    let indexed = indexed(&record);
    if indexed != 0 {
        batch.index(LogTime::from_millis(indexed), &place.key);
    }
    batch.put(place.id, record);
}

fn delete<S: Store>(
    batch: &mut Batch<'_, S>,
    place: &Place<'_>,
    if_revision: Option<Revision>,
) -> Outcome {
    let Some((_, actual)) = place.live else {
        return Err(Rejection::KeyNotFound.into());
    };
    if if_revision.is_some_and(|asked| asked != actual) {
        return Err(Rejection::RevisionMismatch { actual }.into());
    }
    place.unlink(batch)?;
    batch.delete(place.id);
    batch.next_revision();
    Ok(Body::KeyDeleted(pb::KeyDeleted {}))
}

/// Deletes a key that its lease names, and says whether it was live.
pub(super) fn delete_with_lease<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    name: &str,
) -> Result<bool, Fault> {
    let name = lease::key_name(name)?;
    let place = Place::find(batch, namespace, &name)?;
    place.unlink(batch)?;
    batch.delete(place.id);
    Ok(place.live.is_some())
}
