//! Sessions: from birth to tombstone.
//!
//! | file | owns |
//! |---|---|
//! | `operation`, `given`, `wire` | what is asked, and its bytes |
//! | `birth` | create and rotate |
//! | `fields` | update, save and touch |
//! | `users` | whose sessions are whose: epochs, listings, limits, ends |
//!
//! Invariants:
//! 1. A session is live until the earlier of `last_seen + touch_interval + idle_ttl` and its absolute deadline. The index
//!    entry is at or before that: only an update that names a TTL moves it earlier, and takes the entry along.
//! 2. A touch is stored only if the last stored one is `touch_interval` ago. Because the deadline counts from the end of
//!    that interval, no session dies early, and none lives longer than one interval late.
//! 3. A session that was ended leaves a tombstone under its key until its absolute deadline, whether it was destroyed,
//!    rotated or revoked: no token that somebody brings, and no late write, finds anything there to bring back.
//! 4. A session of a user is live only if its user's epoch allows it, see `users`. So all of a user's sessions end
//!    with one write.
//! 5. `mod_revision` is of what a caller wrote: an update moves it, a touch does not. Else every page view would
//!    fail the next `if_revision`.
//! 6. `has_cart` says whether the session's own cart has a record, so that the two end together.

mod birth;
mod fields;
mod given;
mod operation;
mod users;
mod wire;

use super::apply::{Outcome, Stop};
use super::batch::{Batch, SlotId};
use super::keys::Key;
use super::{Fault, Rejection, Store, cart};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{LogTime, Namespace, SessionHandle, TokenHash, UserId};

pub use given::Fields;
pub use operation::{Rotation, SavePolicy, SessionOperation};
pub(super) use users::{is_revoked, sweep_revoked};

/// When the session's record has served its time: the session is gone unless it is seen before, or its tombstone is.
pub(super) fn deadline(session: &pb::SessionRecord) -> LogTime {
    if is_tombstone(session) {
        return LogTime::from_millis(session.tombstone_until);
    }
    let awake = session.last_seen.saturating_add(session.touch_interval);
    let idle = awake.saturating_add(session.idle_ttl);
    LogTime::from_millis(idle.min(session.absolute_deadline))
}

/// Whether the record only remembers that there was a session.
pub(super) fn is_tombstone(session: &pb::SessionRecord) -> bool {
    session.tombstone_until != 0
}

/// Whether a caller may see the session. `user` is the record of the user that it belongs to.
pub(super) fn is_live(
    session: &pb::SessionRecord,
    user: Option<&pb::UserRecord>,
    now: LogTime,
) -> bool {
    let revoked = user.is_some_and(|user| is_revoked(user, session.birth));
    !is_tombstone(session) && deadline(session) > now && !revoked
}

/// A touch of a session that was last seen then would be stored.
pub(super) fn is_touch_due(last_seen: u64, touch_interval: u64, now: LogTime) -> bool {
    now.as_millis() >= last_seen.saturating_add(touch_interval)
}

/// Whom the session belongs to; `None` for a guest's.
pub(super) fn user_of(session: &pb::SessionRecord) -> Result<Option<UserId>, Fault> {
    if session.user_id.is_empty() {
        return Ok(None);
    }
    let user = UserId::parse(session.user_id.as_str());
    user.map(Some)
        .map_err(|e| Fault::corrupt("a session", e.to_string()))
}

/// What the user may call the session; `None` for a guest's.
pub(super) fn handle(session: &pb::SessionRecord) -> Option<SessionHandle> {
    let created_at = LogTime::from_millis(session.created_at);
    (session.birth != 0).then(|| SessionHandle::new(session.birth, created_at))
}

/// The sweep moved the session's index entry.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(session) = batch.change_unseen::<pb::SessionRecord>(id) {
        session.indexed_deadline = deadline.as_millis();
    }
}

/// A session's deadline may have moved earlier, where the sweep has to look for it then.
fn reindex<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) {
    let Some(session) = batch.read::<pb::SessionRecord>(id) else {
        return;
    };
    let (due, indexed) = (
        deadline(session),
        LogTime::from_millis(session.indexed_deadline),
    );
    if due < indexed {
        let key = Key::Session(namespace.clone(), *token);
        batch.unindex(indexed, &key);
        batch.index(due, &key);
        note_indexed(batch, id, due);
    }
}

/// The slot of a live session.
pub(super) fn live<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<SlotId, Stop> {
    let id = batch.load(&Key::Session(namespace.clone(), *token))?;
    if standing(batch, namespace, id)? == Standing::Live {
        Ok(id)
    } else {
        Err(Rejection::SessionNotFound.into())
    }
}

/// What stands under a session's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing, or what is as good as nothing: it expired and was not swept yet.
    Free,
    Live,
    /// A session that was ended and could have lived on, swept or not.
    Ended,
}

fn standing<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    id: SlotId,
) -> Result<Standing, Fault> {
    let now = batch.now();
    let Some(session) = batch.read::<pb::SessionRecord>(id) else {
        return Ok(Standing::Free);
    };
    if is_tombstone(session) {
        let stands = deadline(session) > now;
        return Ok(if stands {
            Standing::Ended
        } else {
            Standing::Free
        });
    }
    let could_live = session.absolute_deadline > now.as_millis();
    let is_due = deadline(session) <= now;
    if users::is_revoked_in(batch, namespace, id)? {
        return Ok(if could_live {
            Standing::Ended
        } else {
            Standing::Free
        });
    }
    Ok(if is_due {
        Standing::Free
    } else {
        Standing::Live
    })
}

/// Executes a session operation.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &SessionOperation,
) -> Outcome {
    match operation {
        SessionOperation::Create { .. } => birth::create(batch, namespace, operation),
        SessionOperation::Rotate(rotation) => birth::rotate(batch, namespace, rotation),
        SessionOperation::Update {
            token,
            set,
            remove,
            idle_ttl,
            absolute_ttl,
            if_revision,
        } => {
            let update = fields::Update {
                set,
                remove,
                idle_ttl: *idle_ttl,
                absolute_ttl: *absolute_ttl,
                if_revision: *if_revision,
            };
            fields::update(batch, namespace, token, &update)
        }
        SessionOperation::Save {
            token,
            loaded,
            base,
            fields,
            policy,
        } => {
            let save = fields::Save {
                loaded: *loaded,
                base: base.as_ref(),
                fields,
                policy: *policy,
            };
            fields::save(batch, namespace, token, &save)
        }
        SessionOperation::Touch { token } => fields::touch(batch, namespace, token),
        SessionOperation::Destroy { token } => {
            let id = live(batch, namespace, token)?;
            entomb(batch, id, namespace, token)?;
            batch.next_revision();
            Ok(Body::SessionDestroyed(pb::SessionDestroyed {}))
        }
        SessionOperation::End { user, handle } => users::end(batch, namespace, user, *handle),
        SessionOperation::RevokeAll { user, except } => {
            users::revoke_all(batch, namespace, user, except.as_ref())
        }
    }
}

/// Ends a session: its cart goes with it, its user's index forgets it, and its record turns into a tombstone. The entry
/// of the deadline index may stay, because a tombstone is due no earlier than the session was.
fn entomb<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    cart::delete_with_session(batch, id, namespace, token)?;
    users::withdraw(batch, id, namespace, token)?;
    batch.note_end(id);
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        *session = pb::SessionRecord {
            tombstone_until: session.absolute_deadline,
            indexed_deadline: session.indexed_deadline,
            ..pb::SessionRecord::default()
        };
    }
    Ok(())
}

/// Deletes what an expired session left, with its index entry, so that its successor under the same token inherits nothing.
fn clear<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        let indexed = LogTime::from_millis(session.indexed_deadline);
        batch.unindex(indexed, &Key::Session(namespace.clone(), *token));
        remove(batch, id, namespace, token)?;
    }
    Ok(())
}

/// Deletes a session's record, with its cart and its place among its user's. If the session was revoked, that was told
/// then.
fn remove<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    let remove = |batch: &mut Batch<'_, S>| {
        cart::delete_with_session(batch, id, namespace, token)?;
        users::withdraw(batch, id, namespace, token)?;
        batch.delete(id);
        Ok(())
    };
    if users::is_revoked_in(batch, namespace, id)? {
        batch.unseen(remove)
    } else {
        remove(batch)
    }
}

/// Whether the epoch of its user ended the session.
pub(super) fn is_cut_off<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<bool, Fault> {
    let id = batch.load(&Key::Session(namespace.clone(), *token))?;
    users::is_revoked_in(batch, namespace, id)
}

/// The sweep meets a session whose deadline has come, and has taken its index entry. Returns whether a caller could
/// read it until then. One that was revoked before becomes a tombstone like any other that was ended; its revocation
/// has been told.
pub(super) fn expire<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<bool, Fault> {
    let Some(session) = batch.read::<pb::SessionRecord>(id) else {
        return Ok(false);
    };
    let absolute = LogTime::from_millis(session.absolute_deadline);
    let was_tombstone = is_tombstone(session);
    let was_revoked = users::is_revoked_in(batch, namespace, id)?;
    if was_revoked && absolute > batch.now() {
        batch.unseen(|batch| entomb(batch, id, namespace, token))?;
        batch.index(absolute, &Key::Session(namespace.clone(), *token));
        note_indexed(batch, id, absolute);
        return Ok(false);
    }
    remove(batch, id, namespace, token)?;
    Ok(!was_tombstone && !was_revoked)
}
