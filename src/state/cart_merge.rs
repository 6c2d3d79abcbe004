//! What becomes of a session's cart when the session is rotated.
//!
//! The source is always the cart of a session that ends in the same entry, so it leaves no record behind: a replay of the
//! entry is answered from the reply table, and the old token finds neither session nor cart.

use super::apply::Stop;
use super::batch::{Batch, SlotId};
use super::keys::Key;
use super::{Rejection, Store};
use crate::limits;
use crate::proto::{internal as pb, v1};
use crate::types::{Invalid, Namespace, Quantity, TokenHash, UserId};

/// Who wins where two carts become one. Lines are the same if SKU and attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergePolicy {
    /// The same lines add up.
    Sum,
    /// Of the same lines the larger quantity stays.
    Max,
    /// The target stays as it is.
    KeepTarget,
    /// The source replaces the target.
    KeepSource,
    /// The source is taken only if the target has no lines.
    SourceIfTargetEmpty,
}

impl MergePolicy {
    /// From a message's field; unspecified is [`MergePolicy::Sum`].
    pub fn parse(policy: i32) -> Result<Self, Invalid> {
        use v1::CartMergePolicy as Wire;
        match Wire::try_from(policy) {
            Ok(Wire::Unspecified | Wire::Sum) => Ok(Self::Sum),
            Ok(Wire::Max) => Ok(Self::Max),
            Ok(Wire::KeepTarget) => Ok(Self::KeepTarget),
            Ok(Wire::KeepSource) => Ok(Self::KeepSource),
            Ok(Wire::SourceIfTargetEmpty) => Ok(Self::SourceIfTargetEmpty),
            Err(_) => Err(Invalid::Malformed {
                field: "cart_merge",
                expected: "SUM, MAX, KEEP_TARGET, KEEP_SOURCE or SOURCE_IF_TARGET_EMPTY",
            }),
        }
    }

    /// The message's field.
    #[must_use]
    pub fn to_wire(self) -> v1::CartMergePolicy {
        use v1::CartMergePolicy as Wire;
        match self {
            Self::Sum => Wire::Sum,
            Self::Max => Wire::Max,
            Self::KeepTarget => Wire::KeepTarget,
            Self::KeepSource => Wire::KeepSource,
            Self::SourceIfTargetEmpty => Wire::SourceIfTargetEmpty,
        }
    }
}

/// Whose the cart is afterwards.
pub(super) enum Destination<'a> {
    /// The user's, who may have one already.
    User(&'a UserId),
    /// That of a session which is about to be born.
    Session(&'a TokenHash),
}

/// Hands a session's cart on. It checks everything before it changes anything; if it changes something that a caller can
/// read, it is at the batch's next revision.
pub(super) fn move_or_merge_into_user<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    session: &TokenHash,
    destination: &Destination<'_>,
    policy: MergePolicy,
) -> Result<v1::CartMerge, Stop> {
    let from = batch.load(&Key::SessionCart(namespace.clone(), *session))?;
    let source = batch.read::<pb::CartRecord>(from).cloned();
    let source = source.unwrap_or_default();
    let (to, policy) = match destination {
        Destination::User(user) => {
            let key = Key::UserCart(namespace.clone(), (*user).clone());
            (batch.load(&key)?, policy)
        }
        Destination::Session(token) => {
            let to = batch.load(&Key::SessionCart(namespace.clone(), **token))?;
            return Ok(rename(batch, from, to, source, policy));
        }
    };
    let target = batch.read::<pb::CartRecord>(to).cloned();
    let mut target = target.unwrap_or_default();
    let mut told = v1::CartMerge {
        policy: policy.to_wire().into(),
        ..v1::CartMerge::default()
    };
    let changed = merge(&mut target, &source, policy, &mut told)?;
    if changed {
        let revision = batch.next_revision().get();
        target.mod_revision = revision;
        if target.create_revision == 0 {
            target.create_revision = revision;
        }
    }
    told.mod_revision = target.mod_revision;
    if changed {
        batch.put(to, target);
    }
    batch.delete(from);
    Ok(told)
}

/// The cart goes along as it is: ids of lines and revisions stay.
fn rename<S: Store>(
    batch: &mut Batch<'_, S>,
    from: SlotId,
    to: SlotId,
    cart: pb::CartRecord,
    policy: MergePolicy,
) -> v1::CartMerge {
    let told = v1::CartMerge {
        policy: policy.to_wire().into(),
        mod_revision: cart.mod_revision,
        moved: true,
        ..v1::CartMerge::default()
    };
    batch.put(to, cart);
    batch.delete(from);
    told
}

/// Merges into a copy of the target, and says whether that changed it.
fn merge(
    target: &mut pb::CartRecord,
    source: &pb::CartRecord,
    policy: MergePolicy,
    told: &mut v1::CartMerge,
) -> Result<bool, Rejection> {
    let takes_nothing = match policy {
        MergePolicy::KeepTarget => true,
        MergePolicy::SourceIfTargetEmpty => !target.lines.is_empty(),
        MergePolicy::Sum | MergePolicy::Max | MergePolicy::KeepSource => false,
    };
    if takes_nothing {
        told.dropped_lines = count(source.lines.len());
        return Ok(false);
    }
    if policy == MergePolicy::KeepSource {
        told.removed_lines = count(target.lines.len());
        target.lines.clear();
    }
    check_currency(target, source)?;
    for line in &source.lines {
        add(target, line, policy, told)?;
    }
    Ok(told.added_lines > 0 || told.changed_lines > 0 || told.removed_lines > 0)
}

fn count(lines: usize) -> u32 {
    u32::try_from(lines).unwrap_or(u32::MAX)
}

fn check_currency(target: &pb::CartRecord, source: &pb::CartRecord) -> Result<(), Rejection> {
    let currency = |cart: &pb::CartRecord| {
        let mut prices = cart.lines.iter().filter_map(|line| line.unit_price.clone());
        prices.next().map(|price| price.currency)
    };
    match (currency(target), currency(source)) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Rejection::CurrencyMismatch),
        _ => Ok(()),
    }
}

/// The source's price is the newer one.
fn add(
    target: &mut pb::CartRecord,
    line: &v1::CartLine,
    policy: MergePolicy,
    told: &mut v1::CartMerge,
) -> Result<(), Rejection> {
    let same =
        |other: &&mut v1::CartLine| other.sku == line.sku && other.attributes == line.attributes;
    let Some(found) = target.lines.iter_mut().find(same) else {
        if target.lines.len() >= limits::CART_LINES {
            return Err(Rejection::CartLinesLimit);
        }
        target.next_line_id = target.next_line_id.max(1);
        let mut line = line.clone();
        line.line_id = target.next_line_id;
        target.next_line_id = target.next_line_id.saturating_add(1);
        target.lines.push(line);
        told.added_lines = told.added_lines.saturating_add(1);
        return Ok(());
    };
    let quantity = if policy == MergePolicy::Max {
        found.quantity.max(line.quantity)
    } else {
        let sum = u64::from(found.quantity).saturating_add(u64::from(line.quantity));
        let sum = Quantity::parse(sum.cast_signed()).map_err(|_| Rejection::QuantityLimit)?;
        sum.get()
    };
    let price = line.unit_price.clone().or_else(|| found.unit_price.clone());
    if quantity == found.quantity && price == found.unit_price {
        return Ok(());
    }
    found.quantity = quantity;
    found.unit_price = price;
    told.changed_lines = told.changed_lines.saturating_add(1);
    Ok(())
}
