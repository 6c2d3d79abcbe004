//! What a session holds: update, save and touch.
//!
//! A save is for callers that know a session as one blob: they load it, change it, and give it back whole. Two of them
//! must not undo each other's changes, so a save is a three-way merge by field between what was loaded (the *base*), what
//! the caller made of it, and what the session has become meanwhile.
//!
//! The base comes with the save, and is not kept here. A store that remembered only *which* fields changed since a
//! revision could not tell a field that the caller left alone from one that it set back; to tell, it would have to keep
//! every old value, or a bounded number of them and be wrong beyond. The caller has them all. On the way into the log what
//! is equal on both sides is left out, so that a save costs what an update of the same fields costs, twice at most.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::operation::SavePolicy;
use super::{deadline, is_touch_due, live, users};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::apply::{Outcome, Stop, detach};
use crate::state::batch::{Batch, SlotId};
use crate::state::namespace::{self, SessionPolicy};
use crate::state::{Rejection, Store};
use crate::types::{Fields, Namespace, Revision, TokenHash};

/// Removes before it sets, so that a name in both is set.
pub(super) fn update<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    token: &TokenHash,
    set: &Fields,
    remove: &[String],
    if_revision: Option<Revision>,
) -> Outcome {
    let id = live(batch, ns, token)?;
    let policy = namespace::session_policy(batch, ns)?;
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        let actual = Revision::new(session.mod_revision);
        if if_revision.is_some_and(|asked| asked != actual) {
            return Err(Rejection::RevisionMismatch { actual }.into());
        }
        check_limits(&policy, &session.fields, set.as_map(), remove)?;
    }
    write(batch, id, ns, token, |session| {
        for name in remove {
            session.fields.remove(name);
        }
        for (name, value) in set.as_map() {
            session.fields.insert(name.clone(), detach(value));
        }
    })?;
    Ok(changed(batch, id))
}

/// Changes a session's fields at a new revision. Whoever writes has seen it.
fn write<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    token: &TokenHash,
    change: impl FnOnce(&mut pb::SessionRecord),
) -> Result<(), Stop> {
    let now = batch.now();
    let revision = batch.next_revision();
    users::adopt(batch, id, ns, token, revision)?;
    if let Some(session) = batch.change::<pb::SessionRecord>(id) {
        change(session);
        session.last_seen = now.as_millis();
        session.mod_revision = revision.get();
    }
    Ok(())
}

/// Stores the touch if it is due; otherwise it changes nothing at all.
pub(super) fn touch<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    token: &TokenHash,
) -> Outcome {
    let id = live(batch, ns, token)?;
    see(batch, id, ns, token)?;
    Ok(changed(batch, id))
}

fn see<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    token: &TokenHash,
) -> Result<(), Stop> {
    let now = batch.now();
    let session = batch.read::<pb::SessionRecord>(id);
    if session.is_some_and(|session| is_touch_due(session, now)) {
        let revision = batch.next_revision();
        users::adopt(batch, id, ns, token, revision)?;
        if let Some(session) = batch.change::<pb::SessionRecord>(id) {
            session.last_seen = now.as_millis();
        }
    }
    Ok(())
}

/// A session that comes back from its caller.
pub(super) struct Save<'a> {
    pub loaded: Revision,
    pub base: Option<&'a Fields>,
    pub fields: &'a Fields,
    pub policy: SavePolicy,
}

/// What a save comes to.
#[derive(Default)]
struct Merge {
    set: BTreeMap<String, Bytes>,
    remove: Vec<String>,
    conflicts: Vec<String>,
}

impl Save<'_> {
    /// Compares the three, field by field. At the revision that was loaded nobody else has changed anything.
    fn merge(&self, current: &BTreeMap<String, Bytes>, others_wrote: bool) -> Merge {
        let base = self.base.map(Fields::as_map);
        let wanted = self.fields.as_map();
        let names: BTreeSet<_> = wanted
            .keys()
            .chain(base.unwrap_or(current).keys())
            .collect();
        let mut merge = Merge::default();
        for name in names {
            let (mine, theirs) = (wanted.get(name), current.get(name));
            let loaded = base.map(|base| base.get(name));
            if mine == theirs || loaded == Some(mine) {
                continue;
            }
            if others_wrote && loaded != Some(theirs) {
                merge.conflicts.push(name.clone());
            }
            match mine {
                Some(value) => drop(merge.set.insert(name.clone(), value.clone())),
                None => merge.remove.push(name.clone()),
            }
        }
        merge
    }
}

pub(super) fn save<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    token: &TokenHash,
    save: &Save<'_>,
) -> Outcome {
    let id = live(batch, ns, token)?;
    let policy = namespace::session_policy(batch, ns)?;
    let Some(session) = batch.read::<pb::SessionRecord>(id) else {
        return Err(Rejection::SessionNotFound.into());
    };
    let others_wrote = session.mod_revision != save.loaded.get();
    let merge = save.merge(&session.fields, others_wrote);
    if !merge.conflicts.is_empty() && save.policy == SavePolicy::FailOnConflict {
        return Err(Stop::Conflict(pb::SaveConflict {
            fields: merge.conflicts,
            actual_revision: session.mod_revision,
        }));
    }
    check_limits(&policy, &session.fields, &merge.set, &merge.remove)?;
    if merge.set.is_empty() && merge.remove.is_empty() {
        see(batch, id, ns, token)?;
    } else {
        write(batch, id, ns, token, |session| {
            for name in &merge.remove {
                session.fields.remove(name);
            }
            let set = merge.set.iter();
            session
                .fields
                .extend(set.map(|(name, value)| (name.clone(), detach(value))));
        })?;
    }
    let session = batch.read::<pb::SessionRecord>(id);
    Ok(Body::SessionSaved(pb::SessionSaved {
        mod_revision: session.map_or(0, |session| session.mod_revision),
        idle_deadline: session.map_or(0, |session| deadline(session).as_millis()),
        merged: others_wrote,
        overwritten: merge.conflicts,
    }))
}

fn changed<S: Store>(batch: &Batch<'_, S>, id: SlotId) -> Body {
    let session = batch.read::<pb::SessionRecord>(id);
    Body::SessionChanged(pb::SessionChanged {
        mod_revision: session.map_or(0, |session| session.mod_revision),
        idle_deadline: session.map_or(0, |session| deadline(session).as_millis()),
    })
}

/// Whether the session stays within its limits, computed before anything is changed.
pub(super) fn check_limits(
    policy: &SessionPolicy,
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
    policy.check(count, bytes)
}
