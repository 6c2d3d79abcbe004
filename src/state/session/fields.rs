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

use super::given::Fields;
use super::operation::SavePolicy;
use super::{deadline, is_touch_due, live, reindex, users};
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::apply::{Outcome, Stop};
use crate::state::batch::{Batch, SlotId};
use crate::state::namespace::{self, SessionPolicy};
use crate::state::{Rejection, Store, cart};
use crate::types::{LogTime, Namespace, Revision, TokenHash, Ttl};

/// What an update asks for.
pub(super) struct Update<'a> {
    pub set: &'a Fields,
    pub remove: &'a [String],
    pub idle_ttl: Option<Ttl>,
    pub absolute_ttl: Option<Ttl>,
    pub if_revision: Option<Revision>,
}

/// Removes before it sets, so that a name in both is set.
pub(super) fn update<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    token: &TokenHash,
    update: &Update<'_>,
) -> Outcome {
    let id = live(batch, ns, token)?;
    let policy = namespace::session_policy(batch, ns)?;
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        let actual = Revision::new(session.mod_revision);
        if update.if_revision.is_some_and(|asked| asked != actual) {
            return Err(Rejection::RevisionMismatch { actual }.into());
        }
        let fields = session.fields.changed(update.set.packed(), update.remove);
        check_limits(&policy, &session.fields, &fields)?;
        let term = Term::new(&policy, batch.now(), update)?;
        write(batch, id, ns, token, fields)?;
        if !term.is_as_before() {
            if let Some(session) = batch.change::<pb::SessionRecord>(id) {
                term.give(session);
            }
            reindex(batch, id, ns, token);
        }
        if term.absolute_deadline.is_some() {
            cart::follow_session(batch, id, ns, token)?;
        }
    }
    Ok(changed(batch, id))
}

/// How long a session lives from now on, where an update names it.
struct Term {
    /// Idle TTL and touch interval.
    idle: Option<(u64, u64)>,
    absolute_deadline: Option<LogTime>,
}

impl Term {
    fn new(policy: &SessionPolicy, now: LogTime, update: &Update<'_>) -> Result<Self, Rejection> {
        let idle = match update.idle_ttl {
            None => None,
            asked => {
                let ttl = policy.idle_ttl(asked)?;
                Some((ttl.as_millis(), policy.touch_interval(ttl)))
            }
        };
        let absolute_deadline = match update.absolute_ttl {
            None => None,
            asked => Some(now.after(policy.absolute_ttl(asked)?)),
        };
        Ok(Self {
            idle,
            absolute_deadline,
        })
    }

    fn is_as_before(&self) -> bool {
        self.idle.is_none() && self.absolute_deadline.is_none()
    }

    fn give(&self, session: &mut pb::SessionRecord) {
        if let Some((idle_ttl, touch_interval)) = self.idle {
            session.idle_ttl = idle_ttl;
            session.touch_interval = touch_interval;
        }
        if let Some(deadline) = self.absolute_deadline {
            session.absolute_deadline = deadline.as_millis();
        }
    }
}

/// Gives a session these fields at a new revision. Whoever writes has seen it.
fn write<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    ns: &Namespace,
    token: &TokenHash,
    fields: pb::PackedFields,
) -> Result<(), Stop> {
    let now = batch.now();
    let revision = batch.next_revision();
    users::adopt(batch, id, ns, token, revision)?;
    if let Some(session) = batch.read::<pb::SessionRecord>(id) {
        // A new record, because to change the old one in place is to copy first what is replaced.
        let session = pb::SessionRecord {
            fields,
            last_seen: now.as_millis(),
            mod_revision: revision.get(),
            user_id: session.user_id.clone(),
            client: session.client.clone(),
            create_revision: session.create_revision,
            created_at: session.created_at,
            idle_ttl: session.idle_ttl,
            absolute_deadline: session.absolute_deadline,
            indexed_deadline: session.indexed_deadline,
            has_cart: session.has_cart,
            tombstone_until: session.tombstone_until,
            birth: session.birth,
            touch_interval: session.touch_interval,
        };
        batch.put(id, session);
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
    if session.is_some_and(|session| is_touch_due(session.last_seen, session.touch_interval, now)) {
        let revision = batch.next_revision();
        users::adopt(batch, id, ns, token, revision)?;
        if planted::has(Bug::LostTouches) {
            return Ok(());
        }
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
    set: pb::PackedFields,
    remove: Vec<String>,
    conflicts: Vec<String>,
}

impl Save<'_> {
    /// Compares the three, field by field. At the revision that was loaded nobody else has changed anything.
    fn merge(&self, current: &pb::PackedFields, others_wrote: bool) -> Merge {
        let current: BTreeMap<_, _> = current
            .iter()
            .map(|field| (field.name, field.value))
            .collect();
        let names: BTreeSet<_> = match self.base {
            Some(base) => names(self.fields).chain(names(base)).collect(),
            None => names(self.fields).chain(current.keys().copied()).collect(),
        };
        let (mut merge, mut set) = (Merge::default(), Vec::new());
        for name in names {
            let (mine, theirs) = (self.fields.get(name), current.get(name).copied());
            let same = |value: Option<&[u8]>| value == theirs;
            let loaded = self.base.map(|base| base.get(name));
            if same(mine) || loaded == Some(mine) {
                continue;
            }
            if others_wrote && !loaded.is_some_and(same) {
                merge.conflicts.push(name.to_owned());
            }
            match mine {
                Some(value) => set.push((name, value)),
                None => merge.remove.push(name.to_owned()),
            }
        }
        merge.set = pb::PackedFields::pack(set.into_iter());
        merge
    }
}

fn names(fields: &Fields) -> impl Iterator<Item = &str> {
    fields.iter().map(|field| field.name)
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
    let fields = session.fields.changed(&merge.set, &merge.remove);
    check_limits(&policy, &session.fields, &fields)?;
    if merge.set.is_empty() && merge.remove.is_empty() {
        see(batch, id, ns, token)?;
    } else {
        write(batch, id, ns, token, fields)?;
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

/// Whether a session may come to hold these fields. What is stored stays as it is: a limit that was lowered since refuses what
/// grows, and neither a login nor a change that makes the session smaller.
pub(super) fn check_limits(
    policy: &SessionPolicy,
    old: &pb::PackedFields,
    fields: &pb::PackedFields,
) -> Result<(), Rejection> {
    let (before, after) = (old.size(), fields.size());
    let count = if fields.len() > old.len() {
        fields.len()
    } else {
        0
    };
    let bytes = if after > before { after } else { 0 };
    policy.check(count, bytes)
}
