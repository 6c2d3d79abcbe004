//! Reads, at the store's own log time: what is due at or before it is not there, swept or not.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::command::CartOwner;
use super::keys::{Key, KeyRange};
use super::roster::{Member, Roster};
use super::store::Record;
use super::{
    Fault, Store, cart as carts, kv, lease as leases, record::Content, session as sessions,
};
use crate::limits;
use crate::proto::internal as pb;
use crate::types::{
    self, KeyPrefix, LeaseId, LogTime, Namespace, SessionHandle, TokenHash, UserId,
};

pub use super::cart::{line_total, subtotal, total_quantity};

/// What a cart's owner has.
#[derive(Debug, Clone, PartialEq)]
pub enum CartRead {
    /// The session that was named is not live.
    SessionNotFound,
    /// Nothing was ever added: an empty cart without a record.
    Absent,
    /// A cart, maybe without lines.
    Cart(Arc<pb::CartRecord>),
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyPage {
    /// Live keys, in byte order.
    pub items: Vec<(types::Key, pb::KvRecord)>,
    /// Where the next page goes on after; `None` for the last page. A page may be short, even empty, and not be
    /// the last, where many keys have expired and are not swept yet.
    pub next: Option<types::Key>,
}

/// A live session.
pub fn session(
    store: &impl Store,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<Option<Arc<pb::SessionRecord>>, Fault> {
    let found = get::<pb::SessionRecord>(store, &Key::Session(namespace.clone(), *token))?;
    let Some(session) = found else {
        return Ok(None);
    };
    let user = match sessions::user_of(&session)? {
        Some(user) => get::<pb::UserRecord>(store, &Key::User(namespace.clone(), user))?,
        None => None,
    };
    let is_live = sessions::is_live(&session, user.as_deref(), now(store));
    Ok(is_live.then_some(session))
}

/// A touch at this time would be stored, of a session that was last seen then and has this touch interval, all in
/// milliseconds.
#[must_use]
pub fn is_touch_due(last_seen_ms: u64, touch_interval_ms: u64, now: LogTime) -> bool {
    sessions::is_touch_due(last_seen_ms, touch_interval_ms, now)
}

/// What the session's user may call it; `None` for a guest's.
#[must_use]
pub fn session_handle(session: &pb::SessionRecord) -> Option<SessionHandle> {
    sessions::handle(session)
}

/// A page of a user's sessions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserSessions {
    /// Live ones, oldest first.
    pub items: Vec<(TokenHash, Arc<pb::SessionRecord>)>,
    /// The birth after which the next page goes on; `None` for the last page.
    pub next: Option<u64>,
}

/// The live sessions of a user, oldest first, from the first one after a birth: at most `limit`. A page may be short,
/// even empty, and not be the last, where sessions have expired and are not swept yet.
pub fn user_sessions(
    store: &impl Store,
    namespace: &Namespace,
    user: &UserId,
    limit: usize,
    after: u64,
) -> Result<UserSessions, Fault> {
    let now = now(store);
    let limit = limit.clamp(1, limits::LIST_MAX);
    let mut page = UserSessions::default();
    let key = Key::User(namespace.clone(), user.clone());
    let Some(record) = get::<pb::UserRecord>(store, &key)? else {
        return Ok(page);
    };
    let from = after.saturating_add(1);
    // What lies below the epoch is revoked, but for one.
    let kept = record.kept.max(from)..record.kept.saturating_add(1);
    let mut members = members(store, namespace, user, kept, 1)?;
    let current = record.epoch.max(from)..u64::MAX;
    let current = self::members(store, namespace, user, current, limit.saturating_add(1))?;
    let is_last = current.len() <= limit;
    members.extend(current);
    let mut last = 0;
    for (birth, token) in members {
        if page.items.len() == limit {
            page.next = Some(last);
            return Ok(page);
        }
        last = birth;
        let key = Key::Session(namespace.clone(), token);
        let session = get::<pb::SessionRecord>(store, &key)?;
        if let Some(session) = session.filter(|it| sessions::is_live(it, Some(&record), now)) {
            page.items.push((token, session));
        }
    }
    page.next = (!is_last).then_some(last);
    Ok(page)
}

fn members(
    store: &impl Store,
    namespace: &Namespace,
    user: &UserId,
    births: std::ops::Range<u64>,
    limit: usize,
) -> Result<Vec<Member>, Fault> {
    let range = KeyRange::user_sessions(namespace, user, births);
    Roster::default().scan(store, &range, limit)
}

/// What was set for a namespace; `None` if nothing ever was.
pub fn namespace(
    store: &impl Store,
    namespace: &Namespace,
) -> Result<Option<Arc<pb::NamespaceRecord>>, Fault> {
    get(store, &Key::Settings(namespace.clone()))
}

/// When a session is gone unless it is seen before: its idle deadline, or its absolute one if that is earlier.
#[must_use]
pub fn session_idle_deadline(session: &pb::SessionRecord) -> LogTime {
    sessions::deadline(session)
}

/// The cart that an owner fills: its own, or the one that it was merged into.
pub fn cart(
    store: &impl Store,
    namespace: &Namespace,
    owner: &CartOwner,
) -> Result<CartRead, Fault> {
    let own = own_cart(store, namespace, owner)?;
    let mut found = own.clone();
    for _ in 0..limits::CART_POINTERS {
        let Some(target) = pointer(&found)? else {
            return Ok(found);
        };
        found = match own_cart(store, namespace, &target)? {
            // The session that owned the target has ended, and the lines with it.
            CartRead::SessionNotFound => return Ok(CartRead::Absent),
            found => found,
        };
    }
    Ok(match pointer(&found)? {
        None => found,
        // The chain is cut: the owner has a cart of its own again, which nobody has begun.
        Some(_) => CartRead::Absent,
    })
}

/// An owner's own cart, merged or not.
pub fn own_cart(
    store: &impl Store,
    namespace: &Namespace,
    owner: &CartOwner,
) -> Result<CartRead, Fault> {
    let key = match owner {
        CartOwner::User(user) => Key::UserCart(namespace.clone(), user.clone()),
        CartOwner::Session(token) => match session(store, namespace, token)? {
            None => return Ok(CartRead::SessionNotFound),
            Some(session) if !session.has_cart => return Ok(CartRead::Absent),
            Some(_) => Key::SessionCart(namespace.clone(), *token),
        },
    };
    let found = get::<pb::CartRecord>(store, &key)?;
    let live = found.filter(|cart| carts::is_live(cart, now(store)));
    Ok(live.map_or(CartRead::Absent, CartRead::Cart))
}

fn pointer(found: &CartRead) -> Result<Option<CartOwner>, Fault> {
    match found {
        CartRead::Cart(cart) => cart
            .merged_into
            .as_ref()
            .map(carts::parse_pointer)
            .transpose(),
        CartRead::SessionNotFound | CartRead::Absent => Ok(None),
    }
}

/// Who holds a cart at the store's log time.
#[must_use]
pub fn running_freeze<'c>(
    store: &impl Store,
    cart: &'c pb::CartRecord,
) -> Option<&'c pb::StoredFreeze> {
    carts::running_freeze(cart, now(store))
}

/// The same, as it was at a time.
#[must_use]
pub fn freeze_at(cart: &pb::CartRecord, time: LogTime) -> Option<&pb::StoredFreeze> {
    carts::running_freeze(cart, time)
}

/// A live key.
pub fn key(
    store: &impl Store,
    namespace: &Namespace,
    key: &types::Key,
) -> Result<Option<Arc<pb::KvRecord>>, Fault> {
    let Some(found) = get::<pb::KvRecord>(store, &Key::Kv(namespace.clone(), key.clone()))? else {
        return Ok(None);
    };
    Ok(is_live(store, namespace, &found)?.then_some(found))
}

/// Looks for the lease only of a key that names one.
fn is_live(store: &impl Store, namespace: &Namespace, kv: &pb::KvRecord) -> Result<bool, Fault> {
    let lease = match LeaseId::optional(kv.lease) {
        Some(lease) => get::<pb::LeaseRecord>(store, &Key::Lease(namespace.clone(), lease))?,
        None => None,
    };
    Ok(kv::due(kv, lease.as_deref()) > now(store))
}

/// A key's value as callers see it.
#[must_use]
pub fn key_value(record: &pb::KvRecord) -> Bytes {
    kv::value(record)
}

/// A live lease, with its live keys alone.
pub fn lease(
    store: &impl Store,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<Option<pb::LeaseRecord>, Fault> {
    let found = get::<pb::LeaseRecord>(store, &Key::Lease(namespace.clone(), lease))?;
    let live = found.filter(|found| LogTime::from_millis(found.deadline) > now(store));
    let Some(live) = live else {
        return Ok(None);
    };
    let mut live = (*live).clone();
    let mut keys = Vec::with_capacity(live.keys.len());
    for name in std::mem::take(&mut live.keys) {
        if key(store, namespace, &leases::key_name(&name)?)?.is_some() {
            keys.push(name);
        }
    }
    Ok(Some(pb::LeaseRecord { keys, ..live }))
}

/// The live keys with a prefix, in byte order, from the first one after `after`: at most `limit`, and no more than
/// [`limits::LIST_PAGE_BYTES`] hold or [`limits::LIST_SCAN`] stored keys give.
pub fn list(
    store: &impl Store,
    namespace: &Namespace,
    prefix: &KeyPrefix,
    limit: usize,
    after: Option<&types::Key>,
) -> Result<KeyPage, Fault> {
    let limit = limit.clamp(1, limits::LIST_MAX);
    let mut page = KeyPage::default();
    let (mut bytes, mut seen) = (0usize, 0usize);
    let mut last: Option<types::Key> = None;
    store.scan(
        &KeyRange::kv(namespace, prefix, after),
        &mut |key, value| {
            let full = page.items.len() >= limit
                || bytes >= limits::LIST_PAGE_BYTES
                || seen >= limits::LIST_SCAN;
            if full {
                page.next = last.take();
                return Ok(ControlFlow::Break(()));
            }
            let name = kv_name(key)?;
            let record = pb::KvRecord::decode(Bytes::copy_from_slice(value))
                .map_err(|e| Fault::corrupt("a key's value", e.to_string()))?;
            last = Some(name.clone());
            seen = seen.saturating_add(1);
            if is_live(store, namespace, &record)? {
                bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
                page.items.push((name, record));
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(page)
}

fn kv_name(bytes: &[u8]) -> Result<types::Key, Fault> {
    match Key::decode(bytes)? {
        Key::Kv(_, name) => Ok(name),
        _ => Err(Fault::corrupt("the key space", "another key stands in it")),
    }
}

fn now(store: &impl Store) -> LogTime {
    LogTime::from_millis(store.header().log_time)
}

fn get<C: Content>(store: &impl Store, key: &Key) -> Result<Option<Arc<C>>, Fault> {
    let stored = store.get(key)?;
    Ok(stored.map(|stored| content(&stored.record)))
}

fn content<C: Content>(record: &Record) -> Arc<C> {
    Arc::clone(C::of(record).expect("a key decides its record's kind"))
}
