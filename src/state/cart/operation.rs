//! What can be done to carts, valid by construction.

use crate::state::command::{CartOwner, LineRef};
use crate::types::{
    Attributes, CouponCode, HolderId, Money, Note, OrderId, Quantity, Revision, Sku, TextMap, Ttl,
};

/// What a command does to a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum CartOperation {
    Add {
        owner: CartOwner,
        sku: Sku,
        quantity: Quantity,
        unit_price: Option<Money>,
        attributes: Attributes,
        if_revision: Option<Revision>,
    },
    SetQuantity {
        owner: CartOwner,
        line: LineRef,
        quantity: Quantity,
        if_revision: Option<Revision>,
    },
    Remove {
        owner: CartOwner,
        line: LineRef,
        if_revision: Option<Revision>,
    },
    Clear {
        owner: CartOwner,
        if_revision: Option<Revision>,
    },
    Update {
        owner: CartOwner,
        actions: Vec<CartAction>,
        if_revision: Option<Revision>,
    },
    Merge {
        source: CartOwner,
        target: CartOwner,
        policy: MergePolicy,
        if_source_revision: Option<Revision>,
        if_target_revision: Option<Revision>,
    },
    Freeze {
        owner: CartOwner,
        holder: HolderId,
        lease: Ttl,
        if_revision: Option<Revision>,
    },
    Release {
        owner: CartOwner,
        holder: HolderId,
    },
    CompleteOrder {
        owner: CartOwner,
        holder: HolderId,
        revision: Revision,
        order: OrderId,
    },
}

impl CartOperation {
    /// Whose cart is changed.
    pub(in crate::state) fn subject(&self) -> &CartOwner {
        match self {
            Self::Add { owner, .. }
            | Self::SetQuantity { owner, .. }
            | Self::Remove { owner, .. }
            | Self::Clear { owner, .. }
            | Self::Update { owner, .. }
            | Self::Freeze { owner, .. }
            | Self::Release { owner, .. }
            | Self::CompleteOrder { owner, .. } => owner,
            Self::Merge { target, .. } => target,
        }
    }
}

/// One change of a cart, as part of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum CartAction {
    Add {
        sku: Sku,
        quantity: Quantity,
        unit_price: Option<Money>,
        attributes: Attributes,
    },
    SetQuantity {
        line: LineRef,
        quantity: Quantity,
    },
    Remove {
        line: LineRef,
    },
    Move {
        line: LineRef,
        index: u32,
    },
    Clear,
    SetNote(Note),
    AddCouponCode(CouponCode),
    RemoveCouponCode(CouponCode),
    SetAttributes(TextMap),
    RemoveAttributes(Vec<String>),
    SetShippingAddress(TextMap),
    SetBillingAddress(TextMap),
}

/// What becomes of two carts. Lines are the same where SKU and attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergePolicy {
    /// All lines of both; the quantities of the same line are added up.
    Sum,
    /// All lines of both; of the same line the greater quantity.
    Max,
    /// The target stays as it is.
    KeepTarget,
    /// What the source held, unless it has no lines.
    KeepSource,
    /// What the source held, where the target has no lines.
    SourceIfTargetEmpty,
}
