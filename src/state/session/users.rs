//! Whose sessions are whose: epochs, places, limits and ends.
//!
//! Each session of a user has a place among the user's sessions, its *birth*: the revision that it was born at, or one
//! more than its predecessor's. The index of a user's sessions is ordered by it. The user's *epoch* is a place, too:
//! whoever was born before it is revoked, but for the one session that was kept. So ending all sessions but one is one
//! write, and every read afterwards compares two numbers.
//!
//! ```text
//! births     17   23   31   40   52  │  57   61
//! revoked     x    x  kept   x    x  │  live      epoch = 53, kept = 31
//! ```
//!
//! Invariants:
//! 1. A user's record stands exactly as long as the index has an entry of the user's, and counts them: `sessions` are
//!    those that are not revoked, `revoked` the others.
//! 2. While `revoked` is not 0 the record has an entry in the deadline index, at the time of the revocation: work for the
//!    sweep, which turns revoked sessions into tombstones, oldest first.
//! 3. No revoked session has a birth below `swept_below`, so that a sweep of many never looks at what it has swept.
//!
//! A session that an earlier version stored has no birth and no entry. It is adopted when it is next written.

use super::{deadline, entomb, live};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::apply::{Outcome, Stop};
use crate::state::batch::{Batch, SlotId};
use crate::state::events::Gone;
use crate::state::keys::Key;
use crate::state::namespace::SessionPolicy;
use crate::state::sweep::Swept;
use crate::state::{Fault, Rejection, Store};
use crate::types::{LogTime, Namespace, Revision, SessionHandle, TokenHash, UserId};

/// Whether the user's epoch ended a session with this birth.
pub(in crate::state) fn is_revoked(user: &pb::UserRecord, birth: u64) -> bool {
    birth < user.epoch && (user.kept == 0 || birth != user.kept)
}

/// Whether the epoch of its user ended the session in this slot.
pub(super) fn is_revoked_in<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    id: SlotId,
) -> Result<bool, Fault> {
    let Some(session) = batch.read::<pb::SessionRecord>(id) else {
        return Ok(false);
    };
    let birth = session.birth;
    let Some(user) = super::user_of(session)? else {
        return Ok(false);
    };
    let user = batch.load(&Key::User(ns.clone(), user))?;
    let user = batch.read::<pb::UserRecord>(user);
    Ok(user.is_some_and(|user| is_revoked(user, birth)))
}

/// Gives a session of the user a place and an index entry.
pub(super) fn enroll<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    token: &TokenHash,
    revision: Revision,
) -> Result<u64, Fault> {
    let id = batch.load(&Key::User(ns.clone(), user.clone()))?;
    if batch.read::<pb::UserRecord>(id).is_none() {
        batch.put(id, pb::UserRecord::default());
    }
    let mut birth = revision.get();
    if let Some(record) = batch.change::<pb::UserRecord>(id) {
        birth = birth
            .max(record.last_birth.saturating_add(1))
            .max(record.epoch);
        record.last_birth = birth;
        record.sessions = record.sessions.saturating_add(1);
    }
    batch.enroll(ns, user, birth, token);
    Ok(birth)
}

/// Gives a place to a session that was stored before there were any.
pub(super) fn adopt<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    token: &TokenHash,
    revision: Revision,
) -> Result<(), Fault> {
    let orphan = batch
        .read::<pb::SessionRecord>(id)
        .filter(|session| session.birth == 0 && !session.user_id.is_empty());
    let Some(user) = orphan.map(super::user_of).transpose()?.flatten() else {
        return Ok(());
    };
    let birth = enroll(batch, ns, &user, token, revision)?;
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        session.birth = birth;
    }
    Ok(())
}

/// Takes back [`enroll`] for a session that ends. The user's record goes with the last of them.
pub(super) fn withdraw<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    let member = batch
        .read::<pb::SessionRecord>(id)
        .filter(|session| session.birth != 0);
    let Some(member) = member else {
        return Ok(());
    };
    let birth = member.birth;
    let Some(user) = super::user_of(member)? else {
        return Ok(());
    };
    let key = Key::User(ns.clone(), user.clone());
    let id = batch.load(&key)?;
    batch.strike(ns, &user, birth, token);
    let Some(record) = batch.change::<pb::UserRecord>(id) else {
        return Err(missing());
    };
    let was_revoked = is_revoked(record, birth);
    if was_revoked {
        record.revoked = record.revoked.saturating_sub(1);
    } else {
        record.sessions = record.sessions.saturating_sub(1);
    }
    if record.kept == birth {
        record.kept = 0;
    }
    let is_empty = record.sessions == 0 && record.revoked == 0;
    if was_revoked && record.revoked == 0 {
        let indexed = LogTime::from_millis(record.indexed_deadline);
        record.indexed_deadline = 0;
        batch.unindex(indexed, &key);
    }
    if is_empty {
        batch.delete(id);
    }
    Ok(())
}

fn missing() -> Fault {
    Fault::corrupt(
        "the index of a user's sessions",
        "it has an entry of a user that has no record",
    )
}

/// The sessions that end so that the user may have one more: none while there is room, the oldest beyond. `leaving`
/// is the birth of one that makes room by itself.
pub(super) fn admit<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    limit: usize,
    policy: &SessionPolicy,
    leaving: Option<u64>,
) -> Result<Vec<TokenHash>, Stop> {
    let id = batch.load(&Key::User(ns.clone(), user.clone()))?;
    let Some(record) = batch.read::<pb::UserRecord>(id) else {
        return Ok(Vec::new());
    };
    let counted = record.sessions.saturating_sub(u64::from(leaving.is_some()));
    if counted < limit as u64 {
        return Ok(Vec::new());
    }
    // Some of those that are counted may have expired.
    let (kept, epoch) = (record.kept, record.epoch);
    let live = live_sessions(batch, ns, user, (kept, epoch), limit, leaving)?;
    let excess = live.len().saturating_add(1).saturating_sub(limit);
    if excess > 0 && policy.rejects_newest() {
        return Err(Rejection::SessionsLimit {
            limit: limit as u64,
        }
        .into());
    }
    let ending = live.into_iter().take(excess.min(limits::ENDED_PER_LOGIN));
    Ok(ending.collect())
}

/// The live sessions of a user, oldest first, but for the one that is leaving: a bounded number of them.
fn live_sessions<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    (kept, epoch): (u64, u64),
    limit: usize,
    leaving: Option<u64>,
) -> Result<Vec<TokenHash>, Fault> {
    let mut members = Vec::new();
    if kept != 0 {
        members = batch.roster(ns, user, kept..kept.saturating_add(1), 1)?;
    }
    let bound = limit.saturating_add(limits::LOGIN_SCAN);
    members.extend(batch.roster(ns, user, epoch..u64::MAX, bound)?);
    let now = batch.now();
    let mut live = Vec::with_capacity(members.len());
    for (birth, token) in members {
        let id = batch.load(&Key::Session(ns.clone(), token))?;
        let session = batch.read::<pb::SessionRecord>(id);
        // Those of the scan are not revoked.
        if Some(birth) != leaving && session.is_some_and(|session| deadline(session) > now) {
            live.push(token);
        }
    }
    Ok(live)
}

/// Ends the session that has this handle.
pub(super) fn end<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    handle: SessionHandle,
) -> Outcome {
    let births = handle.birth()..handle.birth().saturating_add(1);
    let found = batch.roster(ns, user, births, 1)?;
    let Some((_, token)) = found.first() else {
        return Err(Rejection::SessionNotFound.into());
    };
    let id = live(batch, ns, token)?;
    let session = batch.read::<pb::SessionRecord>(id);
    if session.and_then(super::handle) != Some(handle) {
        return Err(Rejection::SessionNotFound.into());
    }
    batch.ending(Gone::Revoked);
    entomb(batch, id, ns, token)?;
    batch.ending(Gone::Deleted);
    batch.next_revision();
    Ok(Body::SessionDestroyed(pb::SessionDestroyed {}))
}

/// Raises the user's epoch over everybody that was born so far, but for one. What is revoked so is gone at once; the sweep
/// turns it into tombstones later.
pub(super) fn revoke_all<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    except: Option<&TokenHash>,
) -> Outcome {
    let kept = except
        .map(|token| member(batch, ns, user, token))
        .transpose()?;
    let key = Key::User(ns.clone(), user.clone());
    let id = batch.load(&key)?;
    let staying = u64::from(kept.is_some());
    let ended = batch
        .read::<pb::UserRecord>(id)
        .map_or(0, |record| record.sessions.saturating_sub(staying));
    if ended > 0 {
        let revision = batch.next_revision();
        let now = batch.now();
        let mut begins_sweep = false;
        if let Some(record) = batch.change::<pb::UserRecord>(id) {
            if record.kept != 0 && Some(record.kept) != kept {
                // It stands where the sweep has been.
                record.swept_below = record.swept_below.min(record.kept);
            }
            record.epoch = revision.get().max(record.last_birth.saturating_add(1));
            record.kept = kept.unwrap_or(0);
            record.sessions = staying;
            begins_sweep = record.revoked == 0;
            record.revoked = record.revoked.saturating_add(ended);
            if begins_sweep {
                record.indexed_deadline = now.as_millis();
            }
        }
        if begins_sweep {
            batch.index(now, &key);
        }
        batch.note_revocation(id, except);
    }
    Ok(Body::SessionsRevoked(pb::SessionsRevoked { ended }))
}

/// The birth of a live session that must be the user's.
fn member<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: &UserId,
    token: &TokenHash,
) -> Result<u64, Stop> {
    let id = live(batch, ns, token)?;
    let is_theirs = |session: &&pb::SessionRecord| session.user_id == user.as_str();
    let session = batch.read::<pb::SessionRecord>(id).filter(is_theirs);
    match session.map(|session| session.birth) {
        None => Err(Rejection::SessionNotFound.into()),
        // Stored by an earlier version, and never written since.
        Some(0) => {
            let revision = batch.revision();
            adopt(batch, id, ns, token, revision)?;
            let session = batch.read::<pb::SessionRecord>(id);
            Ok(session.map_or(0, |session| session.birth))
        }
        Some(birth) => Ok(birth),
    }
}

/// Turns revoked sessions of a user into tombstones, the oldest of them, as many as the budget allows.
pub(in crate::state) fn sweep_revoked<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    user: &UserId,
    budget: usize,
) -> Result<Swept, Fault> {
    let Some(record) = batch.read::<pb::UserRecord>(id) else {
        return Err(missing());
    };
    let (kept, births) = (record.kept, record.swept_below..record.epoch);
    let members = batch.roster(ns, user, births, budget)?;
    let Some((last, _)) = members.last() else {
        return Err(Fault::corrupt(
            "the index of a user's sessions",
            "revoked sessions are counted that it does not have",
        ));
    };
    if let Some(record) = batch.change::<pb::UserRecord>(id) {
        record.swept_below = last.saturating_add(1);
    }
    for (birth, token) in &members {
        if *birth != kept {
            let session = batch.load(&Key::Session(ns.clone(), *token))?;
            // The revocation was told when it was done.
            batch.unseen(|batch| entomb(batch, session, ns, token))?;
        }
    }
    Ok(Swept {
        records: members.len(),
        readable: false,
    })
}
