//! Every stored key, in one place.
//!
//! ```text
//! key             tag  then
//! Header          00   -
//! RaftApplied     01   -                                   value written raw by storage
//! RaftMembership  02   -                                   value written raw by storage
//! Session         10   namespace 00 | token hash (32)
//! SessionCart     11   namespace 00 | token hash (32)
//! UserCart        12   namespace 00 | user id, escaped | 00 00
//! Order           18   namespace 00 | order id, escaped | 00 00
//! Kv              20   namespace 00 | key, escaped | 00 00
//! Lease           21   namespace 00 | lease id (8, big-endian)
//! Client          30   client id (16)
//! Request         31   namespace 00 | request hash (16)
//! Deadline        40   time (8, big-endian) | the target's whole key
//! ```
//!
//! *Escaped* means that a zero byte of the text is written as `00 FF`. A namespace holds no zero bytes, so one
//! zero byte ends it. For example the key `a` of the namespace `default`:
//!
//! ```text
//! 20  64 65 66 61 75 6C 74  00  61  00 00
//! tag d  e  f  a  u  l  t   end a   end
//! ```
//!
//! Invariants:
//! 1. Equal keys have equal bytes, and bytes decode to the key that they came from.
//! 2. Bytes are ordered as tag, then each part in turn; text is ordered by its UTF-8 bytes.
//! 3. No key's bytes are the beginning of another's, so key and value may be hashed one after the other, and a
//!    target may stand at the end of a deadline without its length.
//! 4. A tag's meaning never changes. A retired tag stays in this table as reserved.
//!
//! A client id is drawn at random, so it needs no namespace; a request id is chosen by a caller, so it has one.

use bytes::Bytes;

use super::Fault;
use super::command::RequestHash;
use crate::types::{
    self, ClientId, KeyPrefix, LeaseId, LogTime, Namespace, OrderId, TokenHash, UserId,
};

const HEADER: u8 = 0x00;
const RAFT_APPLIED: u8 = 0x01;
const RAFT_MEMBERSHIP: u8 = 0x02;
const SESSION: u8 = 0x10;
const SESSION_CART: u8 = 0x11;
const USER_CART: u8 = 0x12;
const ORDER: u8 = 0x18;
const KV: u8 = 0x20;
const LEASE: u8 = 0x21;
const CLIENT: u8 = 0x30;
const REQUEST: u8 = 0x31;
const DEADLINE: u8 = 0x40;

/// Ends a namespace.
const NAMESPACE_END: u8 = 0x00;
/// Stands for a zero byte within a text, after the zero byte itself.
const ESCAPED: u8 = 0xFF;
/// Ends a text, after a zero byte.
const TEXT_END: u8 = 0x00;
/// Bytes of a point in time.
const TIME_BYTES: usize = 8;

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Revision, log time, digest and checkpoint: one [`crate::proto::internal::StateHeader`].
    Header,
    /// Where the log was applied up to. Storage owns its value.
    RaftApplied,
    /// The membership that was applied last. Storage owns its value.
    RaftMembership,
    /// A session.
    Session(Namespace, TokenHash),
    /// The cart that a session owns.
    SessionCart(Namespace, TokenHash),
    /// The cart that a user owns.
    UserCart(Namespace, UserId),
    /// A completed order.
    Order(Namespace, OrderId),
    /// A key of the key space.
    Kv(Namespace, types::Key),
    /// What keeps keys alive.
    Lease(Namespace, LeaseId),
    /// The replies that a client has not confirmed.
    Client(ClientId),
    /// The reply to a plain request id.
    Request(Namespace, RequestHash),
    /// The index of deadlines: when, and the bytes of which key.
    Deadline(LogTime, Bytes),
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        self.write(&mut out);
        out.into()
    }

    /// The bytes of `Deadline(time, target)`, without a copy of the target's own.
    #[must_use]
    pub fn encode_deadline(time: LogTime, target: &Key) -> Bytes {
        let capacity = target
            .size_hint()
            .saturating_add(1)
            .saturating_add(TIME_BYTES);
        let mut out = Vec::with_capacity(capacity);
        out.push(DEADLINE);
        out.extend_from_slice(&time.as_millis().to_be_bytes());
        target.write(&mut out);
        out.into()
    }

    /// Back from bytes. Bytes that no key encodes to are damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        Self::read(bytes).ok_or_else(|| {
            let tag = bytes.first().copied().unwrap_or_default();
            Fault::corrupt(
                "a stored key",
                format!("{} bytes with tag {tag:#04x}", bytes.len()),
            )
        })
    }

    /// Whether the record counts in the digest. The header holds the digest, and what storage keeps beside it
    /// differs from node to node.
    #[must_use]
    pub fn in_digest(&self) -> bool {
        !matches!(
            self,
            Self::Header | Self::RaftApplied | Self::RaftMembership
        )
    }

    /// Exact unless a text holds zero bytes.
    fn size_hint(&self) -> usize {
        let parts = match self {
            Self::Header | Self::RaftApplied | Self::RaftMembership => 0,
            Self::Session(namespace, _) | Self::SessionCart(namespace, _) => {
                namespace.as_str().len().saturating_add(33)
            }
            Self::UserCart(namespace, user) => namespace
                .as_str()
                .len()
                .saturating_add(user.as_str().len())
                .saturating_add(3),
            Self::Order(namespace, order) => namespace
                .as_str()
                .len()
                .saturating_add(order.as_str().len())
                .saturating_add(3),
            Self::Kv(namespace, key) => namespace
                .as_str()
                .len()
                .saturating_add(key.as_str().len())
                .saturating_add(3),
            Self::Lease(namespace, _) => namespace.as_str().len().saturating_add(9),
            Self::Client(_) => 16,
            Self::Request(namespace, _) => namespace.as_str().len().saturating_add(17),
            Self::Deadline(_, target) => target.len().saturating_add(TIME_BYTES),
        };
        parts.saturating_add(1)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Header => out.push(HEADER),
            Self::RaftApplied => out.push(RAFT_APPLIED),
            Self::RaftMembership => out.push(RAFT_MEMBERSHIP),
            Self::Session(namespace, token) => {
                write_namespace(out, SESSION, namespace);
                out.extend_from_slice(token.as_bytes());
            }
            Self::SessionCart(namespace, token) => {
                write_namespace(out, SESSION_CART, namespace);
                out.extend_from_slice(token.as_bytes());
            }
            Self::UserCart(namespace, user) => {
                write_namespace(out, USER_CART, namespace);
                write_text(out, user.as_str());
            }
            Self::Order(namespace, order) => {
                write_namespace(out, ORDER, namespace);
                write_text(out, order.as_str());
            }
            Self::Kv(namespace, key) => {
                write_namespace(out, KV, namespace);
                write_text(out, key.as_str());
            }
            Self::Lease(namespace, lease) => {
                write_namespace(out, LEASE, namespace);
                out.extend_from_slice(&lease.get().to_be_bytes());
            }
            Self::Client(client) => {
                out.push(CLIENT);
                out.extend_from_slice(client.as_bytes());
            }
            Self::Request(namespace, hash) => {
                write_namespace(out, REQUEST, namespace);
                out.extend_from_slice(hash.as_bytes());
            }
            Self::Deadline(time, target) => {
                out.push(DEADLINE);
                out.extend_from_slice(&time.as_millis().to_be_bytes());
                out.extend_from_slice(target);
            }
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let key = match *tag {
            HEADER if rest.is_empty() => Self::Header,
            RAFT_APPLIED if rest.is_empty() => Self::RaftApplied,
            RAFT_MEMBERSHIP if rest.is_empty() => Self::RaftMembership,
            SESSION => {
                let (namespace, hash) = read_namespace(rest)?;
                Self::Session(namespace, TokenHash::parse(hash).ok()?)
            }
            SESSION_CART => {
                let (namespace, hash) = read_namespace(rest)?;
                Self::SessionCart(namespace, TokenHash::parse(hash).ok()?)
            }
            USER_CART => {
                let (namespace, text) = read_namespace(rest)?;
                Self::UserCart(namespace, UserId::parse(read_text(text)?).ok()?)
            }
            ORDER => {
                let (namespace, text) = read_namespace(rest)?;
                Self::Order(namespace, OrderId::parse(read_text(text)?).ok()?)
            }
            KV => {
                let (namespace, text) = read_namespace(rest)?;
                Self::Kv(namespace, types::Key::parse(read_text(text)?).ok()?)
            }
            LEASE => {
                let (namespace, id) = read_namespace(rest)?;
                let id = u64::from_be_bytes(id.try_into().ok()?);
                Self::Lease(namespace, LeaseId::optional(id)?)
            }
            CLIENT => Self::Client(ClientId::parse(rest).ok()?),
            REQUEST => {
                let (namespace, hash) = read_namespace(rest)?;
                Self::Request(namespace, RequestHash::new(hash.try_into().ok()?))
            }
            DEADLINE => {
                let (time, target) = rest.split_first_chunk::<TIME_BYTES>()?;
                // A deadline of a deadline, or of what has none, was never written.
                if matches!(
                    target.first(),
                    None | Some(&(HEADER | RAFT_APPLIED | RAFT_MEMBERSHIP | DEADLINE))
                ) {
                    return None;
                }
                let time = LogTime::from_millis(u64::from_be_bytes(*time));
                Self::Deadline(time, Bytes::copy_from_slice(target))
            }
            _ => return None,
        };
        Some(key)
    }
}

fn write_namespace(out: &mut Vec<u8>, tag: u8, namespace: &Namespace) {
    out.push(tag);
    out.extend_from_slice(namespace.as_str().as_bytes());
    out.push(NAMESPACE_END);
}

fn read_namespace(bytes: &[u8]) -> Option<(Namespace, &[u8])> {
    let end = bytes.iter().position(|b| *b == NAMESPACE_END)?;
    let (text, rest) = bytes.split_at(end);
    // An empty name would parse as the default namespace, which is always written out.
    if text.is_empty() {
        return None;
    }
    let namespace = Namespace::parse(std::str::from_utf8(text).ok()?).ok()?;
    Some((namespace, rest.split_first()?.1))
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for (nth, piece) in text.as_bytes().split(|b| *b == 0).enumerate() {
        if nth > 0 {
            out.extend_from_slice(&[0, ESCAPED]);
        }
        out.extend_from_slice(piece);
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_escaped(out, text);
    out.extend_from_slice(&[0, TEXT_END]);
}

/// The text that fills all of `bytes`.
fn read_text(bytes: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|b| *b == 0)?;
        let (piece, marked) = rest.split_at(zero);
        text.extend_from_slice(piece);
        match marked {
            [0, TEXT_END] => return String::from_utf8(text).ok(),
            [0, ESCAPED, after @ ..] => {
                text.push(0);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// A half-open range of encoded keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that is in the range.
    pub start: Vec<u8>,
    /// The first key after it.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// Every key that counts in the digest.
    #[must_use]
    pub fn records() -> Self {
        Self {
            start: vec![SESSION],
            end: vec![0xFF],
        }
    }

    /// The deadline index, from a time on.
    #[must_use]
    pub fn deadlines_from(time: LogTime) -> Self {
        let mut start = vec![DEADLINE];
        start.extend_from_slice(&time.as_millis().to_be_bytes());
        Self {
            start,
            end: vec![DEADLINE.saturating_add(1)],
        }
    }

    /// The keys of a namespace that begin with `prefix`, or those of them after `after`.
    #[must_use]
    pub fn kv(namespace: &Namespace, prefix: &KeyPrefix, after: Option<&types::Key>) -> Self {
        let mut start = Vec::new();
        write_namespace(&mut start, KV, namespace);
        write_escaped(&mut start, prefix.as_str());
        let end = successor(&start);
        if let Some(after) = after {
            let mut resumed = Vec::new();
            write_namespace(&mut resumed, KV, namespace);
            write_text(&mut resumed, after.as_str());
            start = start.max(just_after(resumed));
        }
        Self { start, end }
    }

    /// The rest of this range after a key.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        Self {
            start: just_after(key.to_vec()),
            end: self.end.clone(),
        }
    }

    /// Nothing is in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// The smallest byte string greater than `bytes`.
fn just_after(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(0);
    bytes
}

/// The smallest byte string greater than all that begin with `bytes`; a tag below `FF` makes sure that it exists.
fn successor(bytes: &[u8]) -> Vec<u8> {
    let mut end = bytes.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}
