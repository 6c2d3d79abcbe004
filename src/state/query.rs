//! Reads, at the store's own log time: what is due at or before it is not there, swept or not.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::command::CartOwner;
use super::keys::{Key, KeyRange};
use super::store::Record;
use super::{
    Fault, Store, cart as carts, kv, lease as leases, record::Content, session as sessions,
};
use crate::limits;
use crate::proto::internal as pb;
use crate::types::{self, KeyPrefix, LeaseId, LogTime, Namespace, TokenHash};

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
    Ok(found.filter(|session| sessions::deadline(session) > now(store)))
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
