//! How many parts a request has, counted before it is sent.
//!
//! A node refuses a message of more parts than [`limits::MESSAGE_PARTS`] and one for every
//! [`limits::MESSAGE_BYTES_PER_PART`] of its bytes, and a frame is one message: what is in it beside is refused as well, and the
//! stream with it. So a request that no node would take alone is refused here, and a frame ends before it has too many.
//!
//! What counts is the *excess*: the parts of a request that its own bytes do not allow for. Bytes and parts of a frame are those of
//! its operations, so that it may hold as many operations as have an excess of [`limits::MESSAGE_PARTS`] together.
//!
//! Invariant: a request has no more parts than are counted. Only two have many; all others are counted alike, without a look at
//! them, as so few that a frame of them never has too many.

use super::error::Rejected;
use crate::limits;
use crate::proto::v1::cart_action::Action;
use crate::proto::v1::operation::Request;
use crate::proto::v1::{CartAction, Operation};

/// What every request is counted as, beside its actions or operations: an operation, the request in it, and what that holds.
const FEW: usize = 8;
/// A comparison, and the owner of a cart in it.
const COMPARISON: usize = 2;
/// Of an action: itself, what is to be done, and the line or the price in that.
const ACTION: usize = 3;
/// Bytes of the smallest action that has so many.
const ACTION_BYTES: usize = 8;

const _: () = {
    assert!(limits::FRAME_OPERATIONS * FEW <= limits::MESSAGE_PARTS);
    // The most of a valid request: a transaction of nothing but updates of carts.
    let excess = ACTION - ACTION_BYTES / limits::MESSAGE_BYTES_PER_PART;
    let operations = 2 * limits::TXN_OPERATIONS * (FEW + limits::CART_ACTIONS * excess);
    assert!(FEW + limits::TXN_COMPARES * COMPARISON + operations <= limits::MESSAGE_PARTS);
};

/// Parts of a request, as an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts(usize);

impl Parts {
    pub fn of(request: &Request) -> Self {
        Self(count(request))
    }

    /// Those that this many bytes do not allow for. An error if no node would take them.
    pub fn excess(self, bytes: usize) -> Result<u32, Rejected> {
        let allowed = bytes / limits::MESSAGE_BYTES_PER_PART;
        let excess = self.0.saturating_sub(allowed);
        if excess > limits::MESSAGE_PARTS {
            return Err(Rejected::too_many(self.0, allowed + limits::MESSAGE_PARTS));
        }
        Ok(u32::try_from(excess).expect("it is below the bound"))
    }
}

fn count(request: &Request) -> usize {
    match request {
        Request::UpdateCart(update) => FEW + update.actions.iter().map(of_action).sum::<usize>(),
        Request::Txn(txn) => {
            let operations = txn.then.iter().chain(&txn.otherwise);
            let operations: usize = operations.map(of_operation).sum();
            FEW + txn.compare.len() * COMPARISON + operations
        }
        _ => FEW,
    }
}

fn of_operation(operation: &Operation) -> usize {
    operation.request.as_ref().map_or(FEW, count)
}

fn of_action(action: &CartAction) -> usize {
    match action.action {
        Some(Action::Add(_) | Action::SetQuantity(_) | Action::Remove(_) | Action::Move(_)) => {
            ACTION
        }
        Some(
            Action::Clear(_)
            | Action::SetAttributes(_)
            | Action::RemoveAttributes(_)
            | Action::SetShippingAddress(_)
            | Action::SetBillingAddress(_),
        ) => 2,
        Some(Action::SetNote(_) | Action::AddCouponCode(_) | Action::RemoveCouponCode(_))
        | None => 1,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::{
        DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
    };

    use super::*;
    use crate::proto::{DESCRIPTORS, parts_of, v1};

    /// Enough to reach the actions of an update in a transaction.
    const DEPTH: usize = 7;

    /// A message with every field that is a message, each of them as full; of alternatives the last that is one.
    fn full(shape: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(shape.clone());
        for field in shape.fields().filter(|field| !field.is_map()) {
            fill(&mut message, &field, depth);
        }
        message
    }

    fn fill(message: &mut DynamicMessage, field: &FieldDescriptor, depth: usize) {
        let (Kind::Message(shape), Some(depth)) = (field.kind(), depth.checked_sub(1)) else {
            return;
        };
        let part = Value::Message(full(&shape, depth));
        let value = if field.is_list() {
            Value::List(vec![part])
        } else {
            part
        };
        message.set_field(field, value);
    }

    /// Each message with this one of its alternatives.
    fn with_each(shape: &MessageDescriptor, depth: usize) -> Vec<DynamicMessage> {
        let alternatives = shape.oneofs().find(|oneof| !oneof.is_synthetic());
        let alternatives = alternatives.expect("it has some");
        let each = alternatives.fields().map(|field| {
            let mut message = DynamicMessage::new(shape.clone());
            match field.kind() {
                Kind::Message(_) => fill(&mut message, &field, depth),
                _ => message.set_field(&field, Value::String("x".to_owned())),
            }
            message
        });
        each.collect()
    }

    fn shape(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("they were built with the program");
        pool.get_message_by_name(name).expect("it is ours")
    }

    #[test]
    fn no_request_has_more_parts_than_are_counted() {
        for operation in with_each(&shape("trolley.v1.Operation"), DEPTH) {
            let operation = operation.encode_to_vec();
            let frame = v1::ExchangeRequest {
                operations: vec![Operation::decode(&operation[..]).expect("it is one")],
                ..Default::default()
            };
            let request = frame.operations[0].request.as_ref();
            let counted = Parts::of(request.expect("it was chosen"));
            let parts = parts_of::<v1::ExchangeRequest>(&frame.encode_to_vec());
            assert!(parts <= counted.0, "{parts} of {counted:?}: {request:?}");
        }
    }

    #[test]
    fn actions_are_counted_as_what_they_are() {
        for action in with_each(&shape("trolley.v1.CartAction"), DEPTH) {
            let action = CartAction::decode(&action.encode_to_vec()[..]).expect("it is one");
            let counted = of_action(&action);
            let update = v1::UpdateCartRequest {
                actions: vec![action],
                ..Default::default()
            };
            let parts = parts_of::<v1::UpdateCartRequest>(&update.encode_to_vec());
            assert_eq!(parts, counted, "{update:?}");
        }
    }

    /// The smallest actions there are, as many as there may be, everywhere.
    #[test]
    fn the_largest_valid_request_may_be_sent() {
        let line = v1::CartLineRef {
            line: Some(v1::cart_line_ref::Line::LineId(1)),
        };
        let remove = v1::RemoveLineAction { line: Some(line) };
        for action in [
            Action::Remove(remove),
            Action::Clear(v1::ClearLinesAction {}),
        ] {
            let action = CartAction {
                action: Some(action),
            };
            let update = v1::UpdateCartRequest {
                actions: vec![action; limits::CART_ACTIONS],
                ..Default::default()
            };
            let update = Operation {
                sequence: 0,
                request: Some(Request::UpdateCart(update)),
            };
            let txn = Request::Txn(v1::TxnRequest {
                then: vec![update.clone(); limits::TXN_OPERATIONS],
                otherwise: vec![update; limits::TXN_OPERATIONS],
                ..Default::default()
            });
            let bytes = super::super::frame::encode_request(txn.clone()).len();
            Parts::of(&txn).excess(bytes).expect("it is valid");
        }
    }
}
