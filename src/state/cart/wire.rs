//! Cart operations to messages of the log and back.

use super::operation::CartOperation;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::{internal as pb, v1};
use crate::state::command_wire::{line, owner};
use crate::types::{Attributes, Invalid, Money, Quantity, Revision, Sku};

impl From<Money> for v1::Money {
    fn from(money: Money) -> Self {
        Self {
            minor_units: money.minor_units(),
            currency: money.currency().as_str().to_owned(),
        }
    }
}

impl TryFrom<v1::Money> for Money {
    type Error = Invalid;

    fn try_from(money: v1::Money) -> Result<Self, Invalid> {
        Self::parse(money.minor_units, &money.currency)
    }
}

impl From<&CartOperation> for Wire {
    fn from(operation: &CartOperation) -> Self {
        match operation {
            CartOperation::Add {
                owner,
                sku,
                quantity,
                unit_price,
                attributes,
                if_revision,
            } => Self::CartAdd(pb::CartAdd {
                owner: Some(owner.into()),
                sku: sku.as_str().to_owned(),
                quantity: quantity.get(),
                unit_price: unit_price.map(v1::Money::from),
                attributes: attributes.as_map().clone(),
                if_revision: if_revision.map(Revision::get),
            }),
            CartOperation::SetQuantity {
                owner,
                line,
                quantity,
                if_revision,
            } => Self::CartSetQuantity(pb::CartSetQuantity {
                owner: Some(owner.into()),
                line: Some(line.into()),
                quantity: quantity.get(),
                if_revision: if_revision.map(Revision::get),
            }),
            CartOperation::Remove {
                owner,
                line,
                if_revision,
            } => Self::CartRemove(pb::CartRemove {
                owner: Some(owner.into()),
                line: Some(line.into()),
                if_revision: if_revision.map(Revision::get),
            }),
            CartOperation::Clear { owner, if_revision } => Self::CartClear(pb::CartClear {
                owner: Some(owner.into()),
                if_revision: if_revision.map(Revision::get),
            }),
        }
    }
}

impl TryFrom<pb::CartAdd> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartAdd) -> Result<Self, Invalid> {
        Ok(Self::Add {
            owner: owner(it.owner)?,
            sku: Sku::parse(it.sku)?,
            quantity: Quantity::parse(i64::from(it.quantity))?,
            unit_price: it.unit_price.map(Money::try_from).transpose()?,
            attributes: Attributes::parse(it.attributes)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartSetQuantity> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartSetQuantity) -> Result<Self, Invalid> {
        Ok(Self::SetQuantity {
            owner: owner(it.owner)?,
            line: line(it.line)?,
            quantity: Quantity::parse(i64::from(it.quantity))?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartRemove> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartRemove) -> Result<Self, Invalid> {
        Ok(Self::Remove {
            owner: owner(it.owner)?,
            line: line(it.line)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartClear> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartClear) -> Result<Self, Invalid> {
        Ok(Self::Clear {
            owner: owner(it.owner)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}
