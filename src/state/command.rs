//! What a log entry asks the state machine to do, valid by construction.
//!
//! A command is encoded once, at the edge, and travels as bytes through log and wire; each replica decodes
//! it once. Whatever is random or read from a clock was drawn before the proposal.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{self, WireType};
use xxhash_rust::xxh3::Xxh3;

use super::keys::Key;
use super::{
    CartOperation, Fault, KeyOperation, LeaseOperation, NamespaceOperation, SessionOperation, Txn,
    command_wire,
};
use crate::proto::internal as pb;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::wire::{framed, key, put_bytes, put_uint, put_varint, uint_len};
use crate::types::{ClientId, LineId, Namespace, RequestId, Sku, StateVersion, TokenHash, UserId};

/// Field numbers of [`pb::Command`].
mod tag {
    pub(super) const NAMESPACE: u32 = 1;
    pub(super) const REQUEST_HASH: u32 = 2;
    pub(super) const CLIENT: u32 = 3;
    pub(super) const FINGERPRINT: u32 = 4;
}

/// Field numbers of [`pb::ClientSequence`].
mod sequence_tag {
    pub(super) const CLIENT_ID: u32 = 1;
    pub(super) const SEQUENCE: u32 = 2;
    pub(super) const CONFIRMED_BELOW: u32 = 3;
}

/// One replicated command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whose records it touches.
    pub namespace: Namespace,
    /// How its retries are recognised.
    pub identity: Identity,
    /// Of the request as the caller gave it, without anything that the server drew.
    pub fingerprint: u64,
    /// What to do.
    pub operation: Operation,
    /// All of the above, encoded once.
    encoded: Bytes,
}

/// The name under which a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// None: a retry is a new request.
    Anonymous,
    /// A plain request id; only its hash is kept, see [`super::seal`].
    Request(RequestHash),
    /// A place in one client's sequence.
    Client {
        /// The client.
        client: ClientId,
        /// Its number for this operation.
        sequence: u64,
        /// Replies below this sequence may be forgotten.
        confirmed_below: u64,
    },
}

/// The first 16 bytes of a request id's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash([u8; 16]);

impl RequestHash {
    /// Of a request id.
    #[must_use]
    pub fn of(id: &RequestId) -> Self {
        use sha2::Digest as _;
        let full: [u8; 32] = sha2::Sha256::digest(id.as_str().as_bytes()).into();
        let mut half = [0; 16];
        half.copy_from_slice(full.split_at(16).0);
        Self(half)
    }

    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Whose cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartOwner {
    /// A user's.
    User(UserId),
    /// A session's own; it lives as long as the session.
    Session(TokenHash),
}

/// Which line of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineRef {
    /// By its number.
    Id(LineId),
    /// The only line with this SKU.
    Sku(Sku),
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum Operation {
    Session(SessionOperation),
    Namespace(NamespaceOperation),
    Cart(CartOperation),
    Key(KeyOperation),
    Lease(LeaseOperation),
    /// Several operations as one.
    Txn(Box<Txn>),
    /// Moves log time on, sweeps, and now and then compares digests.
    Tick {
        checkpoint: bool,
        expect: Option<pb::DigestCheckpoint>,
    },
    /// See [`super::version`].
    RaiseVersion(StateVersion),
}

/// What a fingerprint takes behind the encoded body.
const FINGERPRINT_BYTES: usize = 9;

impl From<SessionOperation> for Operation {
    fn from(operation: SessionOperation) -> Self {
        Self::Session(operation)
    }
}

impl From<NamespaceOperation> for Operation {
    fn from(operation: NamespaceOperation) -> Self {
        Self::Namespace(operation)
    }
}

impl Command {
    /// A command whose fingerprint is taken from its own encoding: right wherever the server drew nothing.
    #[must_use]
    pub fn new(namespace: Namespace, identity: Identity, operation: impl Into<Operation>) -> Self {
        let operation = operation.into();
        let body = encode_body(&namespace, &identity, &operation);
        // Without an identity nobody will compare it.
        let fingerprint = match identity {
            Identity::Anonymous => 0,
            Identity::Request(_) | Identity::Client { .. } => fingerprint(&body),
        };
        Self::assemble(namespace, identity, fingerprint, operation, body)
    }

    /// A session's birth, whose drawn token must not count as part of the request.
    /// `fingerprint` is taken before the token was drawn.
    #[must_use]
    pub fn with_fingerprint(
        namespace: Namespace,
        identity: Identity,
        fingerprint: u64,
        operation: impl Into<Operation>,
    ) -> Self {
        let operation = operation.into();
        let body = encode_body(&namespace, &identity, &operation);
        Self::assemble(namespace, identity, fingerprint, operation, body)
    }

    /// Appends what is not part of the body. Protobuf merges the fields of concatenated encodings, so that the body,
    /// which the fingerprint is taken from, is encoded once.
    fn assemble(
        namespace: Namespace,
        identity: Identity,
        fingerprint: u64,
        operation: Operation,
        mut body: Vec<u8>,
    ) -> Self {
        match &identity {
            Identity::Anonymous => {}
            Identity::Request(hash) => put_bytes(tag::REQUEST_HASH, hash.as_bytes(), &mut body),
            Identity::Client {
                client,
                sequence,
                confirmed_below,
            } => put_sequence(client, *sequence, *confirmed_below, &mut body),
        }
        if fingerprint != 0 {
            encoding::fixed64::encode(tag::FINGERPRINT, &fingerprint, &mut body);
        }
        Self {
            namespace,
            identity,
            fingerprint,
            operation,
            encoded: body.into(),
        }
    }

    /// The record that it is about, if it is about one that is likely to be there.
    pub(super) fn subject(&self) -> Option<Key> {
        let namespace = || self.namespace.clone();
        match &self.operation {
            Operation::Session(operation) => operation
                .subject()
                .map(|token| Key::Session(namespace(), *token)),
            Operation::Cart(operation) => match operation.subject() {
                CartOwner::User(user) => Some(Key::UserCart(namespace(), user.clone())),
                CartOwner::Session(token) => Some(Key::SessionCart(namespace(), *token)),
            },
            Operation::Key(operation) => Some(Key::Kv(namespace(), operation.subject().clone())),
            Operation::Namespace(_)
            | Operation::Lease(_)
            | Operation::Txn(_)
            | Operation::Tick { .. }
            | Operation::RaiseVersion(_) => None,
        }
    }

    /// The bytes that log and wire carry; they were made with the command.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The same, shared.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Back from bytes of the log or of a peer. Whatever does not decode was damaged, or written by a newer
    /// version: a fault, never skipped.
    pub fn decode(bytes: Bytes) -> Result<Self, Fault> {
        let message = pb::Command::decode(bytes.clone())
            .map_err(|e| Fault::corrupt("log command", e.to_string()))?;
        let parts = command_wire::parse(message)
            .map_err(|e| Fault::corrupt("log command", e.to_string()))?;
        let (namespace, identity, fingerprint, operation) = parts;
        Ok(Self {
            namespace,
            identity,
            fingerprint,
            operation,
            encoded: bytes,
        })
    }
}

/// As a [`pb::Command`] of these two would be, which needs a copy of the name.
fn encode_body(namespace: &Namespace, identity: &Identity, operation: &Operation) -> Vec<u8> {
    let operation = Wire::from(operation);
    let name = namespace.as_str().as_bytes();
    let parts = [
        framed(name.len()),
        operation.encoded_len(),
        header_len(identity),
    ];
    let length = parts.into_iter().fold(0, usize::saturating_add);
    let mut bytes = Vec::with_capacity(length);
    put_bytes(tag::NAMESPACE, name, &mut bytes);
    operation.encode(&mut bytes);
    bytes
}

/// What identity and fingerprint take behind the body: exactly, because bytes with room left are shared by another allocation.
fn header_len(identity: &Identity) -> usize {
    match identity {
        Identity::Anonymous => 0,
        Identity::Request(hash) => framed(hash.as_bytes().len()).saturating_add(FINGERPRINT_BYTES),
        Identity::Client {
            client,
            sequence,
            confirmed_below,
        } => framed(sequence_len(client, *sequence, *confirmed_below))
            .saturating_add(FINGERPRINT_BYTES),
    }
}

fn sequence_len(client: &ClientId, sequence: u64, confirmed_below: u64) -> usize {
    framed(client.as_bytes().len())
        .saturating_add(uint_len(sequence))
        .saturating_add(uint_len(confirmed_below))
}

/// A place in a client's sequence, as a [`pb::ClientSequence`].
fn put_sequence(client: &ClientId, sequence: u64, confirmed_below: u64, out: &mut Vec<u8>) {
    put_varint(key(tag::CLIENT, WireType::LengthDelimited), out);
    put_varint(sequence_len(client, sequence, confirmed_below) as u64, out);
    put_bytes(sequence_tag::CLIENT_ID, client.as_bytes(), out);
    put_uint(sequence_tag::SEQUENCE, sequence, out);
    put_uint(sequence_tag::CONFIRMED_BELOW, confirmed_below, out);
}

/// XXH3-64, the fingerprint of request bodies.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(bytes);
    hasher.digest()
}
