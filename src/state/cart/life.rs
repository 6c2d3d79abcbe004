//! How long a cart lives, and who may change it meanwhile.
//!
//! A cart is gone once nobody has changed it for its TTL, which depends on what it holds, whose it is, and what is set for
//! its namespace. Its deadline moves with every change, and its index entry stays behind until the sweep meets it: only a deadline that moves
//! *earlier* (a cart that was emptied) takes its entry along.
//!
//! A session's cart whose session ends first needs no deadline: it goes with the session.

use super::Open;
use crate::proto::internal as pb;
use crate::state::batch::{Batch, SlotId};
use crate::state::{Key, Rejection, Store};
use crate::types::{HolderId, LogTime};

/// Whether a cart is there, at a time.
pub(in crate::state) fn is_live(cart: &pb::CartRecord, now: LogTime) -> bool {
    cart.deadline == 0 || cart.deadline > now.as_millis()
}

/// The freeze whose lease runs, at a time.
pub(in crate::state) fn running_freeze(
    cart: &pb::CartRecord,
    now: LogTime,
) -> Option<&pb::StoredFreeze> {
    let freeze = cart.freeze.as_ref()?;
    (freeze.deadline > now.as_millis()).then_some(freeze)
}

/// Refuses to change a cart while somebody holds it.
pub(super) fn check_thawed(cart: Option<&pb::CartRecord>, now: LogTime) -> Result<(), Rejection> {
    match cart.and_then(|cart| running_freeze(cart, now)) {
        Some(freeze) => Err(frozen(freeze)),
        None => Ok(()),
    }
}

/// Names the holder.
pub(super) fn frozen(freeze: &pb::StoredFreeze) -> Rejection {
    match HolderId::parse(&freeze.holder) {
        Ok(holder) => Rejection::CartFrozen {
            holder,
            until: LogTime::from_millis(freeze.deadline),
        },
        // A record without a holder was never written.
        Err(_) => Rejection::CartNotFrozen,
    }
}

/// Gives a cart that was changed its new deadline. A merged cart is not empty: what it is kept for is its pointer.
pub(super) fn renew<S: Store>(batch: &mut Batch<'_, S>, open: &Open) {
    let now = batch.now();
    let session_end = open
        .session
        .and_then(|id| batch.read::<pb::SessionRecord>(id))
        .map(|session| LogTime::from_millis(session.absolute_deadline));
    let Some(cart) = batch.read::<pb::CartRecord>(open.cart) else {
        return;
    };
    let is_empty = cart.lines.is_empty() && cart.merged_into.is_none();
    let ttl = match (is_empty, session_end) {
        (true, _) => open.ttls.empty,
        (false, Some(_)) => open.ttls.guest,
        (false, None) => open.ttls.user,
    };
    let lease = cart.freeze.as_ref().map_or(0, |freeze| freeze.deadline);
    let deadline = now.after(ttl).max(LogTime::from_millis(lease));
    let deadline = match session_end {
        Some(end) if end <= deadline => None,
        _ => Some(deadline),
    };
    let indexed = cart.indexed_deadline;
    let indexed = reindex(batch, &open.key, indexed, deadline);
    if let Some(cart) = batch.change::<pb::CartRecord>(open.cart) {
        cart.deadline = deadline.map_or(0, LogTime::as_millis);
        cart.indexed_deadline = indexed;
    }
}

/// Moves an index entry only if the deadline would pass it by, and says where it is.
fn reindex<S: Store>(
    batch: &mut Batch<'_, S>,
    key: &Key,
    indexed: u64,
    deadline: Option<LogTime>,
) -> u64 {
    let wanted = deadline.map_or(0, LogTime::as_millis);
    if indexed != 0 && indexed <= wanted {
        return indexed;
    }
    unindex(batch, key, indexed);
    if let Some(deadline) = deadline {
        batch.index(deadline, key);
    }
    wanted
}

/// Takes a record out of the index, if it is in it.
pub(super) fn unindex<S: Store>(batch: &mut Batch<'_, S>, key: &Key, indexed: u64) {
    if indexed != 0 {
        batch.unindex(LogTime::from_millis(indexed), key);
    }
}

/// The sweep moved the cart's index entry.
pub(in crate::state) fn note_indexed<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    deadline: LogTime,
) {
    if let Some(cart) = batch.change_unseen::<pb::CartRecord>(id) {
        cart.indexed_deadline = deadline.as_millis();
    }
}
