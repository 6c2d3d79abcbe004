//! Cart operations to messages of the log and back.

use super::operation::{CartAction, CartOperation, MergePolicy};
use crate::limits;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::v1::cart_action::Action;
use crate::proto::{internal as pb, v1};
use crate::state::command_wire::{line, owner};
use crate::types::{
    Attributes, CouponCode, HolderId, Invalid, Money, Note, OrderId, Quantity, Revision, Sku,
    TextMap, Ttl,
};

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
            CartOperation::Update {
                owner,
                actions,
                if_revision,
            } => Self::CartUpdate(pb::CartUpdate {
                owner: Some(owner.into()),
                actions: actions.iter().map(v1::CartAction::from).collect(),
                if_revision: if_revision.map(Revision::get),
            }),
            CartOperation::Merge {
                source,
                target,
                policy,
                if_source_revision,
                if_target_revision,
            } => Self::CartMerge(pb::CartMerge {
                source: Some(source.into()),
                target: Some(target.into()),
                policy: v1::CartMergePolicy::from(*policy).into(),
                if_source_revision: if_source_revision.map(Revision::get),
                if_target_revision: if_target_revision.map(Revision::get),
            }),
            CartOperation::Freeze {
                owner,
                holder,
                lease,
                if_revision,
            } => Self::CartFreeze(pb::CartFreezeCommand {
                owner: Some(owner.into()),
                holder: holder.as_str().to_owned(),
                lease: lease.as_millis(),
                if_revision: if_revision.map(Revision::get),
            }),
            CartOperation::Release { owner, holder } => Self::CartRelease(pb::CartRelease {
                owner: Some(owner.into()),
                holder: holder.as_str().to_owned(),
            }),
            CartOperation::CompleteOrder {
                owner,
                holder,
                revision,
                order,
            } => Self::OrderComplete(pb::OrderComplete {
                owner: Some(owner.into()),
                holder: holder.as_str().to_owned(),
                revision: revision.get(),
                order_id: order.as_str().to_owned(),
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

impl TryFrom<pb::CartUpdate> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartUpdate) -> Result<Self, Invalid> {
        Ok(Self::Update {
            owner: owner(it.owner)?,
            actions: CartAction::parse_all(it.actions)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartMerge> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartMerge) -> Result<Self, Invalid> {
        Ok(Self::Merge {
            source: owner(it.source)?,
            target: owner(it.target)?,
            policy: MergePolicy::parse(it.policy)?,
            if_source_revision: it.if_source_revision.map(Revision::new),
            if_target_revision: it.if_target_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartFreezeCommand> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartFreezeCommand) -> Result<Self, Invalid> {
        Ok(Self::Freeze {
            owner: owner(it.owner)?,
            holder: HolderId::parse(&it.holder)?,
            lease: Ttl::from_millis(it.lease),
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::CartRelease> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::CartRelease) -> Result<Self, Invalid> {
        Ok(Self::Release {
            owner: owner(it.owner)?,
            holder: HolderId::parse(&it.holder)?,
        })
    }
}

impl TryFrom<pb::OrderComplete> for CartOperation {
    type Error = Invalid;

    fn try_from(it: pb::OrderComplete) -> Result<Self, Invalid> {
        Ok(Self::CompleteOrder {
            owner: owner(it.owner)?,
            holder: HolderId::parse(&it.holder)?,
            revision: Revision::new(it.revision),
            order: OrderId::parse(it.order_id)?,
        })
    }
}

impl MergePolicy {
    /// From a message's field; there is no default, because every policy but one drops or adds something.
    pub fn parse(policy: i32) -> Result<Self, Invalid> {
        match v1::CartMergePolicy::try_from(policy) {
            Ok(v1::CartMergePolicy::Sum) => Ok(Self::Sum),
            Ok(v1::CartMergePolicy::Max) => Ok(Self::Max),
            Ok(v1::CartMergePolicy::KeepTarget) => Ok(Self::KeepTarget),
            Ok(v1::CartMergePolicy::KeepSource) => Ok(Self::KeepSource),
            Ok(v1::CartMergePolicy::SourceIfTargetEmpty) => Ok(Self::SourceIfTargetEmpty),
            Ok(v1::CartMergePolicy::Unspecified) | Err(_) => Err(Invalid::Malformed {
                field: "policy",
                expected: "SUM, MAX, KEEP_TARGET, KEEP_SOURCE or SOURCE_IF_TARGET_EMPTY",
            }),
        }
    }
}

impl From<MergePolicy> for v1::CartMergePolicy {
    fn from(policy: MergePolicy) -> Self {
        match policy {
            MergePolicy::Sum => Self::Sum,
            MergePolicy::Max => Self::Max,
            MergePolicy::KeepTarget => Self::KeepTarget,
            MergePolicy::KeepSource => Self::KeepSource,
            MergePolicy::SourceIfTargetEmpty => Self::SourceIfTargetEmpty,
        }
    }
}

impl CartAction {
    /// The actions of one update: at least one, at most [`limits::CART_ACTIONS`].
    pub fn parse_all(actions: Vec<v1::CartAction>) -> Result<Vec<Self>, Invalid> {
        const FIELD: &str = "actions";
        match actions.len() {
            0 => Err(Invalid::Empty { field: FIELD }),
            1..=limits::CART_ACTIONS => actions.into_iter().map(Self::try_from).collect(),
            actual => Err(Invalid::TooMany {
                field: FIELD,
                limit: limits::CART_ACTIONS,
                actual,
            }),
        }
    }
}

impl TryFrom<v1::CartAction> for CartAction {
    type Error = Invalid;

    fn try_from(message: v1::CartAction) -> Result<Self, Invalid> {
        let action = message.action.ok_or(Invalid::Empty { field: "action" })?;
        Ok(match action {
            Action::Add(it) => Self::Add {
                sku: Sku::parse(it.sku)?,
                quantity: Quantity::parse(it.quantity)?,
                unit_price: it.unit_price.map(Money::try_from).transpose()?,
                attributes: Attributes::parse(it.attributes)?,
            },
            Action::SetQuantity(it) => Self::SetQuantity {
                line: line(it.line)?,
                quantity: Quantity::parse(it.quantity)?,
            },
            Action::Remove(it) => Self::Remove {
                line: line(it.line)?,
            },
            Action::Move(it) => Self::Move {
                line: line(it.line)?,
                index: it.index,
            },
            Action::Clear(_) => Self::Clear,
            Action::SetNote(note) => Self::SetNote(Note::parse(note)?),
            Action::AddCouponCode(code) => Self::AddCouponCode(CouponCode::parse(code)?),
            Action::RemoveCouponCode(code) => Self::RemoveCouponCode(CouponCode::parse(code)?),
            Action::SetAttributes(it) => {
                Self::SetAttributes(TextMap::parse("attributes", it.entries)?)
            }
            Action::RemoveAttributes(it) => {
                Self::RemoveAttributes(TextMap::parse_names("remove_attributes", it.values)?)
            }
            Action::SetShippingAddress(it) => {
                Self::SetShippingAddress(TextMap::parse("shipping_address", it.entries)?)
            }
            Action::SetBillingAddress(it) => {
                Self::SetBillingAddress(TextMap::parse("billing_address", it.entries)?)
            }
        })
    }
}

impl From<&CartAction> for v1::CartAction {
    fn from(action: &CartAction) -> Self {
        let action = match action {
            CartAction::Add {
                sku,
                quantity,
                unit_price,
                attributes,
            } => Action::Add(v1::AddLineAction {
                sku: sku.as_str().to_owned(),
                quantity: i64::from(quantity.get()),
                unit_price: unit_price.map(v1::Money::from),
                attributes: attributes.as_map().clone(),
            }),
            CartAction::SetQuantity { line, quantity } => {
                Action::SetQuantity(v1::SetLineQuantityAction {
                    line: Some(line.into()),
                    quantity: i64::from(quantity.get()),
                })
            }
            CartAction::Remove { line } => Action::Remove(v1::RemoveLineAction {
                line: Some(line.into()),
            }),
            CartAction::Move { line, index } => Action::Move(v1::MoveLineAction {
                line: Some(line.into()),
                index: *index,
            }),
            CartAction::Clear => Action::Clear(v1::ClearLinesAction {}),
            CartAction::SetNote(note) => Action::SetNote(note.as_str().to_owned()),
            CartAction::AddCouponCode(code) => Action::AddCouponCode(code.as_str().to_owned()),
            CartAction::RemoveCouponCode(code) => {
                Action::RemoveCouponCode(code.as_str().to_owned())
            }
            CartAction::SetAttributes(map) => Action::SetAttributes(string_map(map)),
            CartAction::RemoveAttributes(names) => Action::RemoveAttributes(v1::StringList {
                values: names.clone(),
            }),
            CartAction::SetShippingAddress(map) => Action::SetShippingAddress(string_map(map)),
            CartAction::SetBillingAddress(map) => Action::SetBillingAddress(string_map(map)),
        };
        Self {
            action: Some(action),
        }
    }
}

fn string_map(map: &TextMap) -> v1::StringMap {
    v1::StringMap {
        entries: map.as_map().clone(),
    }
}
