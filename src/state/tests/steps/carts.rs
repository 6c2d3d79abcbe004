//! Random cart operations beside the single ones: few owners, holders, leases and orders, so that they meet.

use super::{Script, attributes, condition, pick, price};
use crate::limits;
use crate::state::{CartAction, CartOperation, CartOwner, LineRef, MergePolicy};
use crate::types::{
    CouponCode, HolderId, LineId, Namespace, Note, OrderId, Quantity, Revision, Sku, TextMap, Ttl,
};

impl Script {
    /// What the bytes mean for the model in its state.
    pub(super) fn cart(&self, ns: &Namespace, kind: u8, bytes: [u8; 7]) -> CartOperation {
        let [owner, kind_of_owner, c, d, e, f, _] = bytes;
        let owner = self.owner(owner, kind_of_owner);
        let holder = HolderId::parse(pick(&["till", "phone"], c)).expect("short");
        let if_revision = |owner: &CartOwner| condition(f, self.model.cart_revision(ns, owner));
        match kind % 8 {
            0 | 1 => CartOperation::Update {
                if_revision: if_revision(&owner),
                owner,
                actions: (0..=e % 4)
                    .map(|n| {
                        action(
                            c.wrapping_add(n),
                            d.wrapping_mul(n | 1),
                            e.wrapping_add(n * 5),
                        )
                    })
                    .collect(),
            },
            2 | 3 => CartOperation::Merge {
                if_target_revision: {
                    let target = self.model.cart_revision(ns, &self.owner(c, d));
                    condition(f / 8, target)
                },
                target: self.owner(c, d),
                policy: pick(
                    &[
                        MergePolicy::Sum,
                        MergePolicy::Max,
                        MergePolicy::KeepTarget,
                        MergePolicy::KeepSource,
                        MergePolicy::SourceIfTargetEmpty,
                    ],
                    e,
                ),
                if_source_revision: if_revision(&owner),
                source: owner,
            },
            4 | 5 => CartOperation::Freeze {
                if_revision: if_revision(&owner),
                owner,
                holder,
                lease: Ttl::from_millis(pick(&[1, 3, 10, 60, limits::CART_LEASE_MAX_MS], d)),
            },
            6 => CartOperation::Release { owner, holder },
            _ => {
                let cart = self.model.cart(ns, &owner);
                let freeze = cart.and_then(|cart| cart.freeze);
                let known = freeze.filter(|_| d % 8 != 0);
                CartOperation::CompleteOrder {
                    owner,
                    holder: known.as_ref().map_or(holder, |freeze| freeze.holder),
                    revision: Revision::new(known.map_or(u64::from(d), |freeze| freeze.revision)),
                    order: OrderId::parse(format!("o{}", self.era() + u16::from(e % 16)))
                        .expect("short"),
                }
            }
        }
    }
}

/// See [`super::names_a_revision`].
pub fn names_a_revision(operation: &CartOperation) -> bool {
    match operation {
        CartOperation::Add { if_revision, .. }
        | CartOperation::SetQuantity { if_revision, .. }
        | CartOperation::Remove { if_revision, .. }
        | CartOperation::Clear { if_revision, .. }
        | CartOperation::Update { if_revision, .. }
        | CartOperation::Freeze { if_revision, .. } => if_revision.is_some(),
        CartOperation::Merge {
            if_source_revision,
            if_target_revision,
            ..
        } => if_source_revision.is_some() || if_target_revision.is_some(),
        CartOperation::Release { .. } => false,
        // The freeze is named by its revision.
        CartOperation::CompleteOrder { .. } => true,
    }
}

fn action(a: u8, b: u8, c: u8) -> CartAction {
    let line = match b % 4 {
        0 => LineRef::Sku(sku(b)),
        n => LineRef::Id(LineId::new(n.into())),
    };
    let quantity = Quantity::parse(pick(&[1, 2, 3, 999_999], c)).expect("in range");
    let name = || format!("n{}", b % 3);
    let map = |field| {
        let entries = (0..c % 3).map(|n| (format!("n{n}"), format!("v{b}")));
        TextMap::parse(field, entries.collect()).expect("small")
    };
    match a % 16 {
        0..=3 => CartAction::Add {
            sku: sku(b),
            quantity,
            unit_price: price(c),
            attributes: attributes(c),
        },
        4 => CartAction::SetQuantity { line, quantity },
        5 => CartAction::Remove { line },
        6 | 7 => CartAction::Move {
            line,
            index: u32::from(c % 4),
        },
        8 => CartAction::Clear,
        9 => CartAction::SetNote(Note::parse("n".repeat(usize::from(c % 3))).expect("short")),
        10 => CartAction::AddCouponCode(CouponCode::parse(name()).expect("short")),
        11 => CartAction::RemoveCouponCode(CouponCode::parse(name()).expect("short")),
        12 => CartAction::SetAttributes(map("attributes")),
        13 => CartAction::RemoveAttributes(vec![name()]),
        14 => CartAction::SetShippingAddress(map("shipping_address")),
        _ => CartAction::SetBillingAddress(map("billing_address")),
    }
}

fn sku(byte: u8) -> Sku {
    Sku::parse(format!("s{}", byte % 3)).expect("short")
}
