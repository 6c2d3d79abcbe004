//! Carts as JSON has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::some;
use crate::client::MergePolicy;
use crate::proto::v1;

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Cents, for EUR.
    pub minor_units: i64,
    /// Three capital letters.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: String,
}

impl From<v1::Money> for Money {
    fn from(money: v1::Money) -> Self {
        Self {
            minor_units: money.minor_units,
            currency: money.currency,
        }
    }
}

impl From<Money> for v1::Money {
    fn from(money: Money) -> Self {
        Self {
            minor_units: money.minor_units,
            currency: money.currency,
        }
    }
}

/// One line of a cart.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the name is the one over gRPC")]
pub struct Line {
    /// Stable for the life of the line.
    line_id: u64,
    sku: String,
    quantity: u32,
    /// Of one piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_price: Option<Money>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    /// Quantity times price; 0 without one.
    total_minor_units: i64,
}

impl From<v1::CartLine> for Line {
    fn from(line: v1::CartLine) -> Self {
        Self {
            line_id: line.line_id,
            sku: line.sku,
            quantity: line.quantity,
            unit_price: line.unit_price.map(Money::from),
            attributes: line.attributes.into_iter().collect(),
            total_minor_units: line.total_minor_units,
        }
    }
}

/// What can be done to a cart.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It can be changed.
    Open,
    /// An order is being taken from it.
    Frozen,
    /// All of it was bought. The next change opens it.
    Ordered,
    /// It was merged into another.
    Merged,
}

impl From<v1::CartState> for State {
    fn from(state: v1::CartState) -> Self {
        match state {
            v1::CartState::Unspecified | v1::CartState::Open => Self::Open,
            v1::CartState::Frozen => Self::Frozen,
            v1::CartState::Ordered => Self::Ordered,
            v1::CartState::Merged => Self::Merged,
        }
    }
}

/// What becomes of two carts that are merged. Lines are the same where SKU and attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
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

impl Merge {
    /// The one that a message names.
    pub fn of(policy: v1::CartMergePolicy) -> Option<Self> {
        match policy {
            v1::CartMergePolicy::Unspecified => None,
            v1::CartMergePolicy::Sum => Some(Self::Sum),
            v1::CartMergePolicy::Max => Some(Self::Max),
            v1::CartMergePolicy::KeepTarget => Some(Self::KeepTarget),
            v1::CartMergePolicy::KeepSource => Some(Self::KeepSource),
            v1::CartMergePolicy::SourceIfTargetEmpty => Some(Self::SourceIfTargetEmpty),
        }
    }
}

impl From<Merge> for MergePolicy {
    fn from(merge: Merge) -> Self {
        match merge {
            Merge::Sum => Self::Sum,
            Merge::Max => Self::Max,
            Merge::KeepTarget => Self::KeepTarget,
            Merge::KeepSource => Self::KeepSource,
            Merge::SourceIfTargetEmpty => Self::SourceIfTargetEmpty,
        }
    }
}

/// Who takes an order from a cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct Freeze {
    holder: String,
    /// Names the freeze when the order is completed.
    revision: u64,
    /// When it ends, in Unix milliseconds.
    deadline_ms: u64,
}

impl From<v1::CartFreeze> for Freeze {
    fn from(freeze: v1::CartFreeze) -> Self {
        Self {
            holder: freeze.holder,
            revision: freeze.revision,
            deadline_ms: freeze.deadline_ms,
        }
    }
}

/// What a cart holds beside its lines.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    note: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    coupon_codes: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shipping_address: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    billing_address: BTreeMap<String, String>,
}

impl From<v1::CartDetails> for Details {
    fn from(details: v1::CartDetails) -> Self {
        Self {
            note: details.note,
            coupon_codes: details.coupon_codes,
            attributes: details.attributes.into_iter().collect(),
            shipping_address: details.shipping_address.into_iter().collect(),
            billing_address: details.billing_address.into_iter().collect(),
        }
    }
}

/// A cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cart {
    /// In the order in which they were added, unless they were moved.
    lines: Vec<Line>,
    state: State,
    /// The sum of the lines' totals; absent where no line has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    subtotal: Option<Money>,
    /// The sum of the lines' quantities.
    total_quantity: u64,
    details: Details,
    /// 0 for a cart that does not exist yet.
    create_revision: u64,
    /// The revision that changed it last; also in `ETag`.
    mod_revision: u64,
    /// When it is gone unless it is changed before, in Unix milliseconds; absent where it lives as long as its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    /// Only while it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze: Option<Freeze>,
    /// Only while it is ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
}

impl From<v1::Cart> for Cart {
    fn from(cart: v1::Cart) -> Self {
        Self {
            state: cart.state().into(),
            lines: cart.lines.into_iter().map(Line::from).collect(),
            subtotal: cart.subtotal.map(Money::from),
            total_quantity: cart.total_quantity,
            details: cart.details.map(Details::from).unwrap_or_default(),
            create_revision: cart.create_revision,
            mod_revision: cart.mod_revision,
            deadline_ms: some(cart.deadline_ms),
            freeze: cart.freeze.map(Freeze::from),
            order_id: Some(cart.order_id).filter(|id| !id.is_empty()),
        }
    }
}
