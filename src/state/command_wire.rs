//! Commands to messages of the log and back. Every message is parsed into types again, so that a damaged or foreign
//! one is found here and nowhere later.

use bytes::Bytes;

use super::command::{CartOwner, Identity, LineRef, Operation, PutCondition, RequestHash};
use super::digest;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::internal::stored_owner::Owner;
use crate::proto::v1::cart_line_ref::Line;
use crate::proto::{internal as pb, v1};
use crate::types::{
    Attributes, ClientId, Invalid, Key, LineId, Money, Namespace, Quantity, Revision, Sku,
    TokenHash, Ttl, UserId, Value,
};

impl From<&Operation> for Wire {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Session(operation) => operation.into(),
            Operation::Namespace(operation) => operation.into(),
            Operation::CartAdd { .. }
            | Operation::CartSetQuantity { .. }
            | Operation::CartRemove { .. }
            | Operation::CartClear { .. } => cart_to_wire(operation),
            Operation::KeyPut {
                key,
                value,
                ttl,
                condition,
            } => Wire::KeyPut(pb::KeyPutCommand {
                key: key.as_str().to_owned(),
                value: value.as_bytes().clone(),
                ttl: ttl.map_or(0, Ttl::as_millis),
                if_revision: match condition {
                    PutCondition::IfRevision(revision) => Some(revision.get()),
                    PutCondition::Always | PutCondition::IfAbsent => None,
                },
                if_absent: *condition == PutCondition::IfAbsent,
            }),
            Operation::KeyDelete { key, if_revision } => Wire::KeyDelete(pb::KeyDeleteCommand {
                key: key.as_str().to_owned(),
                if_revision: if_revision.map(Revision::get),
            }),
            Operation::Tick { checkpoint, expect } => Wire::Tick(pb::Tick {
                checkpoint: *checkpoint,
                expect: expect.clone(),
            }),
        }
    }
}

fn cart_to_wire(operation: &Operation) -> Wire {
    match operation {
        Operation::CartAdd {
            owner,
            sku,
            quantity,
            unit_price,
            attributes,
            if_revision,
        } => Wire::CartAdd(pb::CartAdd {
            owner: Some(owner.into()),
            sku: sku.as_str().to_owned(),
            quantity: quantity.get(),
            unit_price: unit_price.map(|price| v1::Money {
                minor_units: price.minor_units(),
                currency: price.currency().as_str().to_owned(),
            }),
            attributes: attributes.as_map().clone(),
            if_revision: if_revision.map(Revision::get),
        }),
        Operation::CartSetQuantity {
            owner,
            line,
            quantity,
            if_revision,
        } => Wire::CartSetQuantity(pb::CartSetQuantity {
            owner: Some(owner.into()),
            line: Some(line.into()),
            quantity: quantity.get(),
            if_revision: if_revision.map(Revision::get),
        }),
        Operation::CartRemove {
            owner,
            line,
            if_revision,
        } => Wire::CartRemove(pb::CartRemove {
            owner: Some(owner.into()),
            line: Some(line.into()),
            if_revision: if_revision.map(Revision::get),
        }),
        Operation::CartClear { owner, if_revision } => Wire::CartClear(pb::CartClear {
            owner: Some(owner.into()),
            if_revision: if_revision.map(Revision::get),
        }),
        _ => unreachable!("only cart operations are sent here"),
    }
}

fn hash_bytes(token: &TokenHash) -> Bytes {
    Bytes::copy_from_slice(token.as_bytes())
}

impl From<&CartOwner> for pb::StoredOwner {
    fn from(owner: &CartOwner) -> Self {
        let owner = match owner {
            CartOwner::User(user) => Owner::UserId(user.as_str().to_owned()),
            CartOwner::Session(token) => Owner::TokenHash(hash_bytes(token)),
        };
        Self { owner: Some(owner) }
    }
}

impl From<&LineRef> for v1::CartLineRef {
    fn from(line: &LineRef) -> Self {
        let line = match line {
            LineRef::Id(id) => Line::LineId(id.get()),
            LineRef::Sku(sku) => Line::Sku(sku.as_str().to_owned()),
        };
        Self { line: Some(line) }
    }
}

/// A command's parts: namespace, identity, fingerprint, operation.
type Parts = (Namespace, Identity, u64, Operation);

pub(super) fn parse(message: pb::Command) -> Result<Parts, Invalid> {
    let operation = message
        .operation
        .ok_or(Invalid::Empty { field: "operation" })?;
    Ok((
        Namespace::parse(message.namespace)?,
        identity(&message.request_hash, message.client.as_ref())?,
        message.fingerprint,
        operation.try_into()?,
    ))
}

fn identity(request: &Bytes, client: Option<&pb::ClientSequence>) -> Result<Identity, Invalid> {
    match (request.is_empty(), client) {
        (true, None) => Ok(Identity::Anonymous),
        (true, Some(client)) => Ok(Identity::Client {
            client: ClientId::parse(&client.client_id)?,
            sequence: client.sequence,
            confirmed_below: client.confirmed_below,
        }),
        (false, None) => {
            let hash = request
                .as_ref()
                .try_into()
                .map_err(|_| Invalid::Malformed {
                    field: "request_hash",
                    expected: "16 bytes",
                })?;
            Ok(Identity::Request(RequestHash::new(hash)))
        }
        (false, Some(_)) => Err(Invalid::Exclusive {
            first: "request_hash",
            second: "client",
        }),
    }
}

impl TryFrom<Wire> for Operation {
    type Error = Invalid;

    fn try_from(wire: Wire) -> Result<Self, Invalid> {
        match wire {
            Wire::SessionCreate(it) => it.try_into().map(Self::Session),
            Wire::SessionUpdate(it) => it.try_into().map(Self::Session),
            Wire::SessionSave(it) => it.try_into().map(Self::Session),
            Wire::SessionTouch(it) => it.try_into().map(Self::Session),
            Wire::SessionRotate(it) => it.try_into().map(Self::Session),
            Wire::SessionDestroy(it) => it.try_into().map(Self::Session),
            Wire::SessionEnd(it) => it.try_into().map(Self::Session),
            Wire::SessionRevokeAll(it) => it.try_into().map(Self::Session),
            Wire::NamespaceSet(it) => it.try_into().map(Self::Namespace),
            Wire::CartAdd(it) => cart_add(it),
            Wire::CartSetQuantity(it) => Ok(Self::CartSetQuantity {
                owner: owner(it.owner)?,
                line: line(it.line)?,
                quantity: Quantity::parse(i64::from(it.quantity))?,
                if_revision: it.if_revision.map(Revision::new),
            }),
            Wire::CartRemove(it) => Ok(Self::CartRemove {
                owner: owner(it.owner)?,
                line: line(it.line)?,
                if_revision: it.if_revision.map(Revision::new),
            }),
            Wire::CartClear(it) => Ok(Self::CartClear {
                owner: owner(it.owner)?,
                if_revision: it.if_revision.map(Revision::new),
            }),
            Wire::KeyPut(it) => Ok(Self::KeyPut {
                condition: condition(it.if_revision, it.if_absent)?,
                key: Key::parse(it.key)?,
                value: Value::parse(it.value)?,
                ttl: ttl("ttl", it.ttl)?,
            }),
            Wire::KeyDelete(it) => Ok(Self::KeyDelete {
                key: Key::parse(it.key)?,
                if_revision: it.if_revision.map(Revision::new),
            }),
            Wire::Tick(it) => tick(it),
        }
    }
}

fn cart_add(it: pb::CartAdd) -> Result<Operation, Invalid> {
    let price = it
        .unit_price
        .map(|price| Money::parse(price.minor_units, &price.currency));
    Ok(Operation::CartAdd {
        owner: owner(it.owner)?,
        sku: Sku::parse(it.sku)?,
        quantity: Quantity::parse(i64::from(it.quantity))?,
        unit_price: price.transpose()?,
        attributes: Attributes::parse(it.attributes)?,
        if_revision: it.if_revision.map(Revision::new),
    })
}

fn tick(it: pb::Tick) -> Result<Operation, Invalid> {
    let malformed = |expect: &pb::DigestCheckpoint| digest::from_bytes(&expect.digest).is_err();
    if it.expect.as_ref().is_some_and(malformed) {
        return Err(Invalid::Malformed {
            field: "digest",
            expected: "16 bytes",
        });
    }
    Ok(Operation::Tick {
        checkpoint: it.checkpoint,
        expect: it.expect,
    })
}

fn owner(owner: Option<pb::StoredOwner>) -> Result<CartOwner, Invalid> {
    match owner.and_then(|owner| owner.owner) {
        Some(Owner::UserId(user)) => Ok(CartOwner::User(UserId::parse(user)?)),
        Some(Owner::TokenHash(hash)) => Ok(CartOwner::Session(TokenHash::parse(&hash)?)),
        None => Err(Invalid::Empty { field: "owner" }),
    }
}

fn line(line: Option<v1::CartLineRef>) -> Result<LineRef, Invalid> {
    match line.and_then(|line| line.line) {
        Some(Line::LineId(id)) => Ok(LineRef::Id(LineId::new(id))),
        Some(Line::Sku(sku)) => Ok(LineRef::Sku(Sku::parse(sku)?)),
        None => Err(Invalid::Empty { field: "line" }),
    }
}

fn condition(if_revision: Option<u64>, if_absent: bool) -> Result<PutCondition, Invalid> {
    match (if_revision, if_absent) {
        (None, false) => Ok(PutCondition::Always),
        (Some(revision), false) => Ok(PutCondition::IfRevision(Revision::new(revision))),
        (None, true) => Ok(PutCondition::IfAbsent),
        (Some(_), true) => Err(Invalid::Exclusive {
            first: "if_revision",
            second: "if_absent",
        }),
    }
}

/// A TTL as the log holds it: 0 stands for none.
fn ttl(field: &'static str, millis: u64) -> Result<Option<Ttl>, Invalid> {
    Ttl::parse(field, i64::try_from(millis).unwrap_or(i64::MAX))
}
