//! What can be done to carts, valid by construction.

use crate::state::command::{CartOwner, LineRef};
use crate::types::{Attributes, Money, Quantity, Revision, Sku};

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
}
