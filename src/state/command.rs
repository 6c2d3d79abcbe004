//! What a log entry asks the state machine to do, valid by construction.
//!
//! A command is encoded once, at the edge, and travels as bytes through log and wire; each replica decodes
//! it once. Whatever is random or read from a clock was drawn before the proposal.

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use super::{CartOperation, Fault, KeyOperation, LeaseOperation, Txn, command_wire};
use crate::proto::internal as pb;
use crate::types::{
    ClientId, Fields, LineId, Namespace, RequestId, Revision, Sku, TokenHash, Ttl, UserId,
};

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
    SessionCreate {
        token: TokenHash,
        /// The token under a key that only the request id gives; empty when the caller brought its own.
        sealed_token: Bytes,
        user: Option<UserId>,
        fields: Fields,
        idle_ttl: Ttl,
        absolute_ttl: Ttl,
    },
    SessionUpdate {
        token: TokenHash,
        set: Fields,
        remove: Vec<String>,
        if_revision: Option<Revision>,
    },
    SessionTouch {
        token: TokenHash,
    },
    SessionDestroy {
        token: TokenHash,
    },
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
}

/// Room for identity and fingerprint behind the encoded body.
const HEADER_BYTES: usize = 64;

impl Command {
    /// A command whose fingerprint is taken from its own encoding: right wherever the server drew nothing.
    #[must_use]
    pub fn new(namespace: Namespace, identity: Identity, operation: Operation) -> Self {
        let body = encode_body(&namespace, &operation);
        // Without an identity nobody will compare it.
        let fingerprint = match identity {
            Identity::Anonymous => 0,
            Identity::Request(_) | Identity::Client { .. } => fingerprint(&body),
        };
        Self::assemble(namespace, identity, fingerprint, operation, body)
    }

    /// A session's creation, whose drawn token must not count as part of the request.
    /// `fingerprint` is taken before the token was drawn.
    #[must_use]
    pub fn with_fingerprint(
        namespace: Namespace,
        identity: Identity,
        fingerprint: u64,
        operation: Operation,
    ) -> Self {
        let body = encode_body(&namespace, &operation);
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
        let header = pb::Command {
            request_hash: match &identity {
                Identity::Request(hash) => Bytes::copy_from_slice(hash.as_bytes()),
                Identity::Anonymous | Identity::Client { .. } => Bytes::new(),
            },
            client: client_sequence(&identity),
            fingerprint,
            ..pb::Command::default()
        };
        header
            .encode(&mut body)
            .expect("a vector grows as far as it must");
        Self {
            namespace,
            identity,
            fingerprint,
            operation,
            encoded: body.into(),
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

fn encode_body(namespace: &Namespace, operation: &Operation) -> Vec<u8> {
    let body = pb::Command {
        namespace: namespace.as_str().to_owned(),
        operation: Some(operation.into()),
        ..pb::Command::default()
    };
    let mut bytes = Vec::with_capacity(body.encoded_len().saturating_add(HEADER_BYTES));
    body.encode(&mut bytes)
        .expect("a vector grows as far as it must");
    bytes
}

fn client_sequence(identity: &Identity) -> Option<pb::ClientSequence> {
    let Identity::Client {
        client,
        sequence,
        confirmed_below,
    } = identity
    else {
        return None;
    };
    Some(pb::ClientSequence {
        client_id: Bytes::copy_from_slice(client.as_bytes()),
        sequence: *sequence,
        confirmed_below: *confirmed_below,
    })
}

/// XXH3-64, the fingerprint of request bodies.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(bytes);
    hasher.digest()
}
