//! Commands to messages of the log and back. Every message is parsed into types again, so that a damaged or foreign
//! one is found here and nowhere later.

use bytes::Bytes;

use super::command::{CartOwner, Identity, LineRef, Operation, RequestHash};
use super::digest;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::internal::stored_owner::Owner;
use crate::proto::v1::cart_line_ref::Line;
use crate::proto::{internal as pb, v1};
use crate::types::{
    ClientId, Invalid, LineId, Namespace, Sku, StateVersion, TokenHash, Ttl, UserId,
};

impl From<&Operation> for Wire {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Session(operation) => operation.into(),
            Operation::Namespace(operation) => operation.into(),
            Operation::Cart(operation) => operation.into(),
            Operation::Key(operation) => operation.into(),
            Operation::Lease(operation) => operation.into(),
            Operation::Txn(txn) => Self::Txn((&**txn).into()),
            Operation::Tick { checkpoint, expect } => Wire::Tick(pb::Tick {
                checkpoint: *checkpoint,
                expect: expect.clone(),
            }),
            Operation::RaiseVersion(version) => Wire::RaiseVersion(pb::RaiseVersion {
                version: version.get(),
            }),
        }
    }
}

pub(super) fn hash_bytes(token: &TokenHash) -> Bytes {
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
            Wire::CartAdd(it) => it.try_into().map(Self::Cart),
            Wire::CartSetQuantity(it) => it.try_into().map(Self::Cart),
            Wire::CartRemove(it) => it.try_into().map(Self::Cart),
            Wire::CartClear(it) => it.try_into().map(Self::Cart),
            Wire::CartUpdate(it) => it.try_into().map(Self::Cart),
            Wire::CartMerge(it) => it.try_into().map(Self::Cart),
            Wire::CartFreeze(it) => it.try_into().map(Self::Cart),
            Wire::CartRelease(it) => it.try_into().map(Self::Cart),
            Wire::OrderComplete(it) => it.try_into().map(Self::Cart),
            Wire::KeyPut(it) => Ok(Self::Key(it.try_into()?)),
            Wire::KeyDelete(it) => Ok(Self::Key(it.try_into()?)),
            Wire::KeyIncrement(it) => Ok(Self::Key(it.try_into()?)),
            Wire::LeaseGrant(it) => Ok(Self::Lease(it.try_into()?)),
            Wire::LeaseKeepAlive(it) => Ok(Self::Lease(it.try_into()?)),
            Wire::LeaseRevoke(it) => Ok(Self::Lease(it.try_into()?)),
            Wire::Txn(it) => Ok(Self::Txn(Box::new(it.try_into()?))),
            Wire::Tick(it) => tick(it),
            Wire::RaiseVersion(it) => Ok(Self::RaiseVersion(StateVersion::new(it.version))),
        }
    }
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

pub(super) fn owner(owner: Option<pb::StoredOwner>) -> Result<CartOwner, Invalid> {
    match owner.and_then(|owner| owner.owner) {
        Some(Owner::UserId(user)) => Ok(CartOwner::User(UserId::parse(user)?)),
        Some(Owner::TokenHash(hash)) => Ok(CartOwner::Session(TokenHash::parse(&hash)?)),
        None => Err(Invalid::Empty { field: "owner" }),
    }
}

pub(super) fn line(line: Option<v1::CartLineRef>) -> Result<LineRef, Invalid> {
    match line.and_then(|line| line.line) {
        Some(Line::LineId(id)) => Ok(LineRef::Id(LineId::new(id))),
        Some(Line::Sku(sku)) => Ok(LineRef::Sku(Sku::parse(sku)?)),
        None => Err(Invalid::Empty { field: "line" }),
    }
}

/// A TTL as the log holds it: 0 stands for none.
pub(super) fn ttl(field: &'static str, millis: u64) -> Result<Option<Ttl>, Invalid> {
    Ttl::parse(field, i64::try_from(millis).unwrap_or(i64::MAX))
}

pub(super) fn given_ttl(field: &'static str, millis: u64) -> Result<Ttl, Invalid> {
    ttl(field, millis)?.ok_or(Invalid::Empty { field })
}
