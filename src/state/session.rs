//! Sessions: create, update, touch, destroy.
//!
//! Invariants:
//! 1. A session is live until the earlier of `last_seen + idle_ttl` and its absolute deadline. It only ever moves
//!    later, so the index entry that its creation made stays at or before it.
//! 2. `mod_revision` is of what a caller wrote: an update moves it, a touch does not. Else every page view would
//!    fail the next `if_revision`.
//! 3. `has_cart` says whether the session's own cart has a record, so that the two end together.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::apply::{Outcome, Stop, detach};
use super::batch::{Batch, SlotId};
use super::command::Operation;
use super::keys::Key;
use super::{Fault, Rejection, Store, cart};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{Fields, LogTime, Namespace, Revision, TokenHash, Ttl, UserId};

/// When a session is gone unless it is seen before.
pub(super) fn deadline(session: &pb::SessionRecord) -> LogTime {
    let idle = session.last_seen.saturating_add(session.idle_ttl);
    LogTime::from_millis(idle.min(session.absolute_deadline))
}

/// The sweep moved the session's index entry.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        session.indexed_deadline = deadline.as_millis();
    }
}

/// The slot of a live session.
pub(super) fn live<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<SlotId, Stop> {
    let id = batch.load(&Key::Session(namespace.clone(), *token))?;
    match batch.read::<pb::SessionRecord>(id) {
        Some(session) if deadline(session) > batch.now() => Ok(id),
        _ => Err(Rejection::SessionNotFound.into()),
    }
}

/// Executes a session operation.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &Operation,
) -> Outcome {
    match operation {
        Operation::SessionCreate {
            token,
            sealed_token,
            user,
            fields,
            idle_ttl,
            absolute_ttl,
        } => {
            let session = new_session(batch.now(), user.as_ref(), fields, *idle_ttl, *absolute_ttl);
            create(batch, namespace, token, sealed_token, session)
        }
        Operation::SessionUpdate {
            token,
            set,
            remove,
            if_revision,
        } => update(batch, namespace, token, set, remove, *if_revision),
        Operation::SessionTouch { token } => touch(batch, namespace, token),
        Operation::SessionDestroy { token } => destroy(batch, namespace, token),
        _ => unreachable!("apply sends session operations here"),
    }
}

/// A session as it begins, without the places that its revision and its index entry give it.
fn new_session(
    now: LogTime,
    user: Option<&UserId>,
    fields: &Fields,
    idle_ttl: Ttl,
    absolute_ttl: Ttl,
) -> pb::SessionRecord {
    let fields = fields.as_map().iter();
    pb::SessionRecord {
        user_id: user
            .map(|user| user.as_str().to_owned())
            .unwrap_or_default(),
        fields: fields
            .map(|(name, value)| (name.clone(), detach(value)))
            .collect(),
        created_at: now.as_millis(),
        last_seen: now.as_millis(),
        idle_ttl: idle_ttl.as_millis(),
        absolute_deadline: now.after(absolute_ttl).as_millis(),
        ..pb::SessionRecord::default()
    }
}

fn create<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
    sealed_token: &Bytes,
    mut session: pb::SessionRecord,
) -> Outcome {
    let key = Key::Session(namespace.clone(), *token);
    let id = batch.load(&key)?;
    if let Some(old) = batch.read::<pb::SessionRecord>(id) {
        if deadline(old) > batch.now() {
            return Err(Rejection::SessionExists.into());
        }
        // Its cart must not be inherited.
        end(batch, id, namespace, token)?;
    }
    let revision = batch.next_revision().get();
    let deadline = deadline(&session);
    session.create_revision = revision;
    session.mod_revision = revision;
    session.indexed_deadline = deadline.as_millis();
    let created = pb::SessionCreated {
        sealed_token: detach(sealed_token),
        token_hash: Bytes::copy_from_slice(token.as_bytes()),
        created_at: session.created_at,
        idle_ttl: session.idle_ttl,
        idle_deadline: deadline.as_millis(),
        absolute_deadline: session.absolute_deadline,
    };
    batch.index(deadline, &key);
    batch.put(id, session);
    Ok(Body::SessionCreated(created))
}

/// Removes before it sets, so that a name in both is set.
fn update<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
    set: &Fields,
    remove: &[String],
    if_revision: Option<Revision>,
) -> Outcome {
    let id = live(batch, namespace, token)?;
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        let actual = Revision::new(session.mod_revision);
        if if_revision.is_some_and(|asked| asked != actual) {
            return Err(Rejection::RevisionMismatch { actual }.into());
        }
        check_limits(&session.fields, set.as_map(), remove)?;
    }
    let now = batch.now();
    let revision = batch.next_revision();
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        for name in remove {
            session.fields.remove(name);
        }
        for (name, value) in set.as_map() {
            session.fields.insert(name.clone(), detach(value));
        }
        session.last_seen = now.as_millis();
        session.mod_revision = revision.get();
    }
    Ok(changed(batch, id))
}

fn touch<S: Store>(batch: &mut Batch<'_, S>, namespace: &Namespace, token: &TokenHash) -> Outcome {
    let id = live(batch, namespace, token)?;
    let now = batch.now();
    batch.next_revision();
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        session.last_seen = now.as_millis();
    }
    Ok(changed(batch, id))
}

fn destroy<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Outcome {
    let id = live(batch, namespace, token)?;
    end(batch, id, namespace, token)?;
    batch.next_revision();
    Ok(Body::SessionDestroyed(pb::SessionDestroyed {}))
}

/// Deletes a session with its index entry and its cart.
fn end<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        let indexed = LogTime::from_millis(session.indexed_deadline);
        cart::delete_with_session(batch, id, namespace, token)?;
        batch.unindex(indexed, &Key::Session(namespace.clone(), *token));
        batch.delete(id);
    }
    Ok(())
}

fn changed<S: Store>(batch: &Batch<'_, S>, id: SlotId) -> Body {
    let session = batch.read::<pb::SessionRecord>(id);
    Body::SessionChanged(pb::SessionChanged {
        mod_revision: session.map_or(0, |session| session.mod_revision),
        idle_deadline: session.map_or(0, |session| deadline(session).as_millis()),
    })
}

/// Whether the session stays within its limits, computed before anything is changed.
fn check_limits(
    fields: &BTreeMap<String, Bytes>,
    set: &BTreeMap<String, Bytes>,
    remove: &[String],
) -> Result<(), Rejection> {
    let (mut count, mut bytes) = (set.len(), Fields::size(set));
    for (name, value) in fields {
        if !set.contains_key(name) && !remove.contains(name) {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        }
    }
    if count > limits::SESSION_FIELDS {
        return Err(Rejection::SessionFieldsLimit);
    }
    if bytes > limits::SESSION_BYTES {
        return Err(Rejection::SessionBytesLimit);
    }
    Ok(())
}
