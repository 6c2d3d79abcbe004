//! Births: create and rotate.
//!
//! Invariant: everything is checked before anything is changed, so that a login happens whole or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::fields::check_limits;
use super::operation::{Rotation, SessionOperation};
use super::{Standing, clear, entomb, live, standing, user_of, users};
use crate::planted::{self, Bug};
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::apply::{Outcome, Stop, detach};
use crate::state::batch::{Batch, SlotId};
use crate::state::cart::{self, merge};
use crate::state::events::Gone;
use crate::state::keys::Key;
use crate::state::namespace::{self, SessionPolicy};
use crate::state::{Fault, Rejection, Store};
use crate::types::{LogTime, Namespace, Revision, StateVersion, TokenHash, UserId};

/// A session that is about to be born.
struct Newborn<'a> {
    token: &'a TokenHash,
    sealed_token: &'a Bytes,
    user: Option<UserId>,
    fields: pb::PackedFields,
    client: BTreeMap<String, String>,
    idle_ttl: u64,
    touch_interval: u64,
    absolute_deadline: LogTime,
    /// Sessions of the same user that make room.
    ending: Vec<TokenHash>,
}

pub(super) fn create<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    operation: &SessionOperation,
) -> Outcome {
    let SessionOperation::Create {
        token,
        sealed_token,
        user,
        fields,
        client,
        idle_ttl,
        absolute_ttl,
    } = operation
    else {
        unreachable!("session::operate sends creations here");
    };
    let id = claim(batch, ns, token)?;
    let policy = namespace::session_policy(batch, ns)?;
    let none = pb::PackedFields::default();
    let fields = fields.packed().clone();
    check_limits(&policy, &none, &fields)?;
    let idle_ttl = policy.idle_ttl(*idle_ttl)?;
    let absolute_ttl = policy.absolute_ttl(*absolute_ttl)?;
    let newborn = Newborn {
        token,
        sealed_token,
        user: user.clone(),
        fields,
        client: client.as_map().clone(),
        idle_ttl: idle_ttl.as_millis(),
        touch_interval: policy.touch_interval(idle_ttl),
        absolute_deadline: batch.now().after(absolute_ttl),
        ending: admit(batch, ns, user.as_ref(), &policy, None)?,
    };
    let revision = batch.next_revision();
    let created = bear(batch, ns, id, newborn, revision)?;
    Ok(Body::SessionCreated(created))
}

pub(super) fn rotate<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    rotation: &Rotation,
) -> Outcome {
    let Rotation {
        token: old_token,
        new_token,
        sealed_token,
        user: asked_user,
        set,
        remove,
        idle_ttl,
        absolute_ttl,
        client,
        cart_merge,
    } = rotation;
    let old_id = live(batch, ns, old_token)?;
    let new_id = claim(batch, ns, new_token)?;
    let policy = namespace::session_policy(batch, ns)?;
    let old = read(batch, old_id)?;
    let kept = if planted::has(Bug::ForgottenFields) {
        &pb::PackedFields::default()
    } else {
        &old.fields
    };
    let fields = kept.changed(set.packed(), remove);
    check_limits(&policy, &old.fields, &fields)?;
    let idle_ttl = match idle_ttl {
        None => namespace::kept_ttl(old.idle_ttl),
        asked => policy.idle_ttl(*asked)?,
    };
    let old_user = user_of(old)?;
    let user = asked_user.clone().or_else(|| old_user.clone());
    let absolute_deadline = if absolute_ttl.is_none() && user == old_user {
        LogTime::from_millis(old.absolute_deadline)
    } else {
        batch.now().after(policy.absolute_ttl(*absolute_ttl)?)
    };
    let client = if client.as_map().is_empty() {
        old.client.clone()
    } else {
        client.as_map().clone()
    };
    let leaving = (user == old_user && old.birth != 0).then_some(old.birth);
    let ending = admit(batch, ns, user.as_ref(), &policy, leaving)?;
    let has_cart = cart::has_own(batch, ns, old_token)?;
    let merge = match &user {
        Some(user) if has_cart => {
            let owners = (old_token, user);
            let plan = merge::plan_at_end(batch, ns, owners, *cart_merge, &ending)?;
            Some(plan).filter(|plan| !plan.leads_elsewhere())
        }
        _ => None,
    };
    let moves = has_cart && user.is_none();

    // From here on nothing is refused.
    let revision = batch.next_revision();
    let mut cart = merge.map(|plan| plan.carry_out(batch, revision));
    let newborn = Newborn {
        token: new_token,
        sealed_token,
        fields,
        client,
        idle_ttl: idle_ttl.as_millis(),
        touch_interval: policy.touch_interval(idle_ttl),
        absolute_deadline,
        ending,
        user,
    };
    let user_id = newborn.user.as_ref().map(ToString::to_string);
    let created = bear(batch, ns, new_id, newborn, revision)?;
    if moves {
        cart = Some(pb::CartsMerged {
            mod_revision: merge::hand_over(batch, ns, old_token, new_token)?,
            ..pb::CartsMerged::default()
        });
    }
    entomb(batch, old_id, ns, old_token)?;
    if let Some(cart) = cart.as_mut().filter(|_| moves)
        && batch.version() >= StateVersion::SECOND
    {
        cart.mod_revision = cart::filled_revision(batch, ns, new_token)?;
    }
    Ok(Body::SessionRotated(pb::SessionRotated {
        created: Some(created),
        user_id: user_id.unwrap_or_default(),
        cart,
        cart_policy: v1::CartMergePolicy::from(*cart_merge).into(),
        cart_moved: moves,
    }))
}

fn read<'b, S: Store>(batch: &'b Batch<'_, S>, id: SlotId) -> Result<&'b pb::SessionRecord, Stop> {
    let session = batch.read::<pb::SessionRecord>(id);
    session.ok_or_else(|| Rejection::SessionNotFound.into())
}

/// The slot of a token that no session has, and none had that was ended before its time.
fn claim<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    token: &TokenHash,
) -> Result<SlotId, Stop> {
    let id = batch.load(&Key::Session(ns.clone(), *token))?;
    match standing(batch, ns, id)? {
        Standing::Free => Ok(id),
        Standing::Live => Err(Rejection::SessionExists.into()),
        Standing::Ended => Err(Rejection::SessionEnded.into()),
    }
}

/// Who has to make room for one more session of a user. Where one is leaving there is none more.
fn admit<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    user: Option<&UserId>,
    policy: &SessionPolicy,
    leaving: Option<u64>,
) -> Result<Vec<TokenHash>, Stop> {
    if leaving.is_some() && batch.version() >= StateVersion::SECOND {
        return Ok(Vec::new());
    }
    match (user, policy.max_per_user()) {
        (Some(user), Some(limit)) => users::admit(batch, ns, user, limit, policy, leaving),
        _ => Ok(Vec::new()),
    }
}

/// Ends who makes room, and brings the session into the world. The slot was claimed.
fn bear<S: Store>(
    batch: &mut Batch<'_, S>,
    ns: &Namespace,
    id: SlotId,
    newborn: Newborn<'_>,
    revision: Revision,
) -> Result<pb::SessionCreated, Fault> {
    clear(batch, id, ns, newborn.token)?;
    let mut ended = Vec::with_capacity(newborn.ending.len());
    for token in &newborn.ending {
        let id = batch.load(&Key::Session(ns.clone(), *token))?;
        let session = batch.read::<pb::SessionRecord>(id);
        let handle = session.and_then(super::handle);
        ended.extend(handle.map(pb::SessionPlace::from));
        batch.ending(Gone::Revoked);
        entomb(batch, id, ns, token)?;
        batch.ending(Gone::Deleted);
    }
    let birth = match &newborn.user {
        Some(user) => users::enroll(batch, ns, user, newborn.token, revision)?,
        None => 0,
    };
    let now = batch.now().as_millis();
    let mut session = pb::SessionRecord {
        user_id: newborn.user.map_or_else(String::new, UserId::into_string),
        fields: newborn.fields,
        create_revision: revision.get(),
        mod_revision: revision.get(),
        created_at: now,
        last_seen: now,
        idle_ttl: newborn.idle_ttl,
        absolute_deadline: newborn.absolute_deadline.as_millis(),
        indexed_deadline: 0,
        has_cart: false,
        tombstone_until: 0,
        birth,
        touch_interval: newborn.touch_interval,
        client: newborn.client,
    };
    let deadline = super::deadline(&session);
    session.indexed_deadline = deadline.as_millis();
    let created = pb::SessionCreated {
        sealed_token: detach(newborn.sealed_token),
        token_hash: Bytes::copy_from_slice(newborn.token.as_bytes()),
        created_at: session.created_at,
        idle_ttl: session.idle_ttl,
        idle_deadline: deadline.as_millis(),
        absolute_deadline: session.absolute_deadline,
        touch_interval: session.touch_interval,
        birth,
        ended,
    };
    batch.index(deadline, &Key::Session(ns.clone(), *newborn.token));
    batch.put(id, session);
    Ok(created)
}
