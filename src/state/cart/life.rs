//! How long a cart lives, and who may change it meanwhile.
//!
//! A cart is gone once nobody has changed it for its TTL, which depends on what it holds, whose it is, and what is set for
//! its namespace. Its deadline moves with every change, and its index entry stays behind until the sweep meets it: only a
//! deadline that moves *earlier* (a cart that was emptied) takes its entry along.
//!
//! Invariants:
//! 1. Every cart has a deadline of its own, which every reader goes by. (Carts that an earlier version stored may have none
//!    until they are next changed, or the end of their session is moved.)
//! 2. A cart whose session would outlive it is in the index. One whose session ends first, as most do, needs no entry: it
//!    goes with the session. So whoever moves the end of a session calls [`follow_session`].

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
    let Some(cart) = batch.read::<pb::CartRecord>(open.cart) else {
        return;
    };
    let is_empty = cart.lines.is_empty() && cart.merged_into.is_none();
    let ttl = match (is_empty, open.session) {
        (true, _) => open.ttls.empty,
        (false, Some(_)) => open.ttls.guest,
        (false, None) => open.ttls.user,
    };
    let lease = cart.freeze.as_ref().map_or(0, |freeze| freeze.deadline);
    let deadline = now.after(ttl).max(LogTime::from_millis(lease));
    if let Some(cart) = batch.change::<pb::CartRecord>(open.cart) {
        cart.deadline = deadline.as_millis();
    }
    place(batch, open);
}

/// The end of a cart's session was moved, which is no change of the cart.
pub(super) fn follow_session<S: Store>(batch: &mut Batch<'_, S>, open: &Open) {
    let cart = batch.read::<pb::CartRecord>(open.cart);
    if cart.is_some_and(|cart| cart.deadline == 0) {
        batch.unseen(|batch| renew(batch, open));
    } else {
        place(batch, open);
    }
}

/// Puts a cart where the sweep finds it, unless its session ends first.
fn place<S: Store>(batch: &mut Batch<'_, S>, open: &Open) {
    let session = open.session.and_then(|id| batch.read(id));
    let session_end = session.map(|session: &pb::SessionRecord| session.absolute_deadline);
    let Some(cart) = batch.read::<pb::CartRecord>(open.cart) else {
        return;
    };
    let goes_with_session = session_end.is_some_and(|end| end <= cart.deadline);
    let sweep_at = (!goes_with_session).then_some(LogTime::from_millis(cart.deadline));
    let indexed = cart.indexed_deadline;
    let moved = reindex(batch, &open.key, indexed, sweep_at);
    if moved != indexed {
        note_indexed(batch, open.cart, LogTime::from_millis(moved));
    }
}

/// Moves an index entry only if the deadline would pass it by, and says where it is; 0 for nowhere.
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

/// The cart's index entry was moved.
pub(in crate::state) fn note_indexed<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    deadline: LogTime,
) {
    if let Some(cart) = batch.change_unseen::<pb::CartRecord>(id) {
        cart.indexed_deadline = deadline.as_millis();
    }
}
