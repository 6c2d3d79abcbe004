//! Every stored key, in one place.
//!
//! ```text
//! key             tag  then
//! Header          00   -
//! RaftApplied     01   -                                   value written raw by storage
//! RaftMembership  02   -                                   value written raw by storage
//! Settings        03   namespace 00
//! Session         10   namespace 00 | token hash (32)
//! SessionCart     11   namespace 00 | token hash (32)
//! UserCart        12   namespace 00 | user id, escaped | 00 00
//! User            13   namespace 00 | user id, escaped | 00 00
//! UserSession     14   namespace 00 | user id, escaped | 00 00 | birth (8, big-endian) | token hash (32)
//! Order           18   namespace 00 | order id, escaped | 00 00
//! Kv              20   namespace 00 | key, escaped | 00 00
//! Lease           21   namespace 00 | lease id (8, big-endian)
//! Client          30   client id (16)
//! Request         31   namespace 00 | request hash (16)
//! RequestGroup    32   deadline (8, big-endian) | the first request's namespace 00 | its hash (16)
//! Deadline        40   time (8, big-endian) | the target's whole key
//! Events          50   last revision (8, big-endian)
//! EventMarks      51   -
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

use std::ops::Range;

use bytes::Bytes;

use super::Fault;
use super::command::RequestHash;
use crate::types::{
    self, ClientId, KeyPrefix, LeaseId, LogTime, Namespace, OrderId, Revision, TokenHash, UserId,
};

const HEADER: u8 = 0x00;
const RAFT_APPLIED: u8 = 0x01;
const RAFT_MEMBERSHIP: u8 = 0x02;
const SETTINGS: u8 = 0x03;
const SESSION: u8 = 0x10;
const SESSION_CART: u8 = 0x11;
const USER_CART: u8 = 0x12;
const USER: u8 = 0x13;
const USER_SESSION: u8 = 0x14;
const ORDER: u8 = 0x18;
const KV: u8 = 0x20;
const LEASE: u8 = 0x21;
const CLIENT: u8 = 0x30;
const REQUEST: u8 = 0x31;
const REQUEST_GROUP: u8 = 0x32;
const DEADLINE: u8 = 0x40;
const EVENTS: u8 = 0x50;
const EVENT_MARKS: u8 = 0x51;

/// The kinds of which commands and reads scan a part. All others are looked up, and scanned only with everything else.
const SCANNED: [u8; 3] = [USER_SESSION, KV, DEADLINE];

/// Ends a namespace.
const NAMESPACE_END: u8 = 0x00;
/// Stands for a zero byte within a text, after the zero byte itself.
const ESCAPED: u8 = 0xFF;
/// Ends a text, after a zero byte.
const TEXT_END: u8 = 0x00;
/// Bytes of a point in time.
const TIME_BYTES: usize = 8;
/// Bytes of a session's place among its user's.
const BIRTH_BYTES: usize = 8;
/// Bytes of a revision.
const REVISION_BYTES: usize = 8;

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Revision, log time, digest and checkpoint: one [`crate::proto::internal::StateHeader`].
    Header,
    /// Where the log was applied up to. Storage owns its value.
    RaftApplied,
    /// The membership that was applied last. Storage owns its value.
    RaftMembership,
    /// What was set for a namespace.
    Settings(Namespace),
    /// A session.
    Session(Namespace, TokenHash),
    /// The cart that a session owns.
    SessionCart(Namespace, TokenHash),
    /// The cart that a user owns.
    UserCart(Namespace, UserId),
    /// What the sessions of a user have in common.
    User(Namespace, UserId),
    /// The index of a user's sessions: in the order of their birth, the bytes of which token's hash.
    UserSession(Namespace, UserId, u64, TokenHash),
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
    /// The requests that one entry answered, named by the end of their replies and the first of them.
    RequestGroup(LogTime, Namespace, RequestHash),
    /// The index of deadlines: when, and the bytes of which key.
    Deadline(LogTime, Bytes),
    /// What some revisions did, of which this is the last.
    Events(Revision),
    /// Where the history of events may be cut.
    EventMarks,
}

impl Key {
    /// Whether commands and reads scan ranges of an encoded key's kind, and not only all records one after the other.
    #[must_use]
    pub fn is_scanned(encoded: &[u8]) -> bool {
        encoded.first().is_some_and(|tag| SCANNED.contains(tag))
    }

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

    /// The bytes of `UserSession(namespace, user, birth, token)`, without a copy of the names.
    #[must_use]
    pub fn encode_user_session(
        namespace: &Namespace,
        user: &UserId,
        birth: u64,
        token: &TokenHash,
    ) -> Bytes {
        let mut out = Vec::with_capacity(named_len(namespace, user.as_str()).saturating_add(41));
        write_user_session(&mut out, namespace, user, birth, token);
        out.into()
    }

    /// Whether the record counts in the digest. The header holds the digest, what storage keeps beside it differs
    /// from node to node, and events only repeat what records say that count: to take one out of the sum when it
    /// is forgotten, it would have to be read again.
    #[must_use]
    pub fn in_digest(&self) -> bool {
        !matches!(
            self,
            Self::Header
                | Self::RaftApplied
                | Self::RaftMembership
                | Self::Events(_)
                | Self::EventMarks
        )
    }

    /// Whether the record's changes are events.
    #[must_use]
    pub fn has_events(&self) -> bool {
        matches!(
            self,
            Self::Session(..) | Self::SessionCart(..) | Self::UserCart(..) | Self::Kv(..)
        )
    }

    /// The bytes of `Events(revision)`.
    #[must_use]
    pub fn encode_events(revision: Revision) -> [u8; 1 + REVISION_BYTES] {
        let mut out = [EVENTS; 1 + REVISION_BYTES];
        if let Some(number) = out.last_chunk_mut() {
            *number = revision.get().to_be_bytes();
        }
        out
    }

    /// Exact unless a text holds zero bytes.
    fn size_hint(&self) -> usize {
        let parts = match self {
            Self::Header | Self::RaftApplied | Self::RaftMembership | Self::EventMarks => 0,
            Self::Session(namespace, _) | Self::SessionCart(namespace, _) => {
                namespace.as_str().len().saturating_add(33)
            }
            Self::Settings(namespace) => namespace.as_str().len().saturating_add(1),
            Self::UserCart(namespace, user) | Self::User(namespace, user) => {
                named_len(namespace, user.as_str())
            }
            Self::UserSession(namespace, user, ..) => {
                named_len(namespace, user.as_str()).saturating_add(40)
            }
            Self::Order(namespace, order) => named_len(namespace, order.as_str()),
            Self::Kv(namespace, key) => named_len(namespace, key.as_str()),
            Self::Lease(namespace, _) => namespace.as_str().len().saturating_add(9),
            Self::Client(_) => 16,
            Self::Request(namespace, _) => namespace.as_str().len().saturating_add(17),
            Self::RequestGroup(_, namespace, _) => namespace.as_str().len().saturating_add(25),
            Self::Deadline(_, target) => target.len().saturating_add(TIME_BYTES),
            Self::Events(_) => REVISION_BYTES,
        };
        parts.saturating_add(1)
    }

    /// Appends the key's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Header => out.push(HEADER),
            Self::RaftApplied => out.push(RAFT_APPLIED),
            Self::RaftMembership => out.push(RAFT_MEMBERSHIP),
            Self::Settings(namespace) => write_namespace(out, SETTINGS, namespace),
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
            Self::User(namespace, user) => {
                write_namespace(out, USER, namespace);
                write_text(out, user.as_str());
            }
            Self::UserSession(namespace, user, birth, token) => {
                write_user_session(out, namespace, user, *birth, token);
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
            Self::RequestGroup(deadline, namespace, first) => {
                out.push(REQUEST_GROUP);
                out.extend_from_slice(&deadline.as_millis().to_be_bytes());
                write_name(out, namespace);
                out.extend_from_slice(first.as_bytes());
            }
            Self::Deadline(time, target) => {
                out.push(DEADLINE);
                out.extend_from_slice(&time.as_millis().to_be_bytes());
                out.extend_from_slice(target);
            }
            Self::Events(revision) => out.extend_from_slice(&Self::encode_events(*revision)),
            Self::EventMarks => out.push(EVENT_MARKS),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let key = match *tag {
            HEADER if rest.is_empty() => Self::Header,
            RAFT_APPLIED if rest.is_empty() => Self::RaftApplied,
            RAFT_MEMBERSHIP if rest.is_empty() => Self::RaftMembership,
            SETTINGS => {
                let (namespace, rest) = read_namespace(rest)?;
                rest.is_empty().then_some(Self::Settings(namespace))?
            }
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
            USER => {
                let (namespace, text) = read_namespace(rest)?;
                Self::User(namespace, UserId::parse(read_text(text)?).ok()?)
            }
            USER_SESSION => {
                let (namespace, rest) = read_namespace(rest)?;
                let (text, rest) = read_text_before(rest)?;
                let (birth, hash) = rest.split_first_chunk::<BIRTH_BYTES>()?;
                let user = UserId::parse(text).ok()?;
                let hash = TokenHash::parse(hash).ok()?;
                Self::UserSession(namespace, user, u64::from_be_bytes(*birth), hash)
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
            REQUEST_GROUP => {
                let (deadline, rest) = rest.split_first_chunk::<TIME_BYTES>()?;
                let (namespace, first) = read_namespace(rest)?;
                let deadline = LogTime::from_millis(u64::from_be_bytes(*deadline));
                Self::RequestGroup(
                    deadline,
                    namespace,
                    RequestHash::new(first.try_into().ok()?),
                )
            }
            DEADLINE => {
                let (time, target) = rest.split_first_chunk::<TIME_BYTES>()?;
                // A deadline of a deadline, or of what has none, was never written.
                if matches!(
                    target.first(),
                    None | Some(
                        &(HEADER
                            | RAFT_APPLIED
                            | RAFT_MEMBERSHIP
                            | SETTINGS
                            | USER_SESSION
                            | DEADLINE
                            | EVENTS
                            | EVENT_MARKS)
                    )
                ) {
                    return None;
                }
                let time = LogTime::from_millis(u64::from_be_bytes(*time));
                Self::Deadline(time, Bytes::copy_from_slice(target))
            }
            EVENTS => Self::Events(Revision::new(u64::from_be_bytes(rest.try_into().ok()?))),
            EVENT_MARKS if rest.is_empty() => Self::EventMarks,
            _ => return None,
        };
        Some(key)
    }
}

/// Bytes of a namespace and a text behind it, with what ends them.
fn named_len(namespace: &Namespace, text: &str) -> usize {
    let both = namespace.as_str().len().saturating_add(text.len());
    both.saturating_add(3)
}

fn write_user_session(
    out: &mut Vec<u8>,
    namespace: &Namespace,
    user: &UserId,
    birth: u64,
    token: &TokenHash,
) {
    write_namespace(out, USER_SESSION, namespace);
    write_text(out, user.as_str());
    out.extend_from_slice(&birth.to_be_bytes());
    out.extend_from_slice(token.as_bytes());
}

fn write_namespace(out: &mut Vec<u8>, tag: u8, namespace: &Namespace) {
    out.push(tag);
    write_name(out, namespace);
}

fn write_name(out: &mut Vec<u8>, namespace: &Namespace) {
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
    let (text, rest) = read_text_before(bytes)?;
    rest.is_empty().then_some(text)
}

/// The text that `bytes` begin with, and what stands behind it.
fn read_text_before(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|b| *b == 0)?;
        let (piece, marked) = rest.split_at(zero);
        text.extend_from_slice(piece);
        match marked {
            [0, TEXT_END, after @ ..] => return Some((String::from_utf8(text).ok()?, after)),
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
    /// A range that holds every key that counts in the digest; see [`Key::in_digest`] for what else it holds.
    #[must_use]
    pub fn records() -> Self {
        Self {
            start: vec![SETTINGS],
            end: vec![0xFF],
        }
    }

    /// The replies that are kept, without the groups that end them.
    #[must_use]
    pub fn replies() -> Self {
        Self {
            start: vec![CLIENT],
            end: vec![REQUEST.saturating_add(1)],
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

    /// The index entries of a user's sessions whose births are in a range.
    #[must_use]
    pub fn user_sessions(namespace: &Namespace, user: &UserId, births: Range<u64>) -> Self {
        let mut start = Vec::with_capacity(named_len(namespace, user.as_str()).saturating_add(9));
        write_namespace(&mut start, USER_SESSION, namespace);
        write_text(&mut start, user.as_str());
        let mut end = start.clone();
        start.extend_from_slice(&births.start.to_be_bytes());
        end.extend_from_slice(&births.end.to_be_bytes());
        Self { start, end }
    }

    /// The events whose last revision is at or after one and before another.
    #[must_use]
    pub fn events(from: Revision, before: Revision) -> Self {
        Self {
            start: Key::encode_events(from).to_vec(),
            end: Key::encode_events(before).to_vec(),
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

    /// Whatever is in the range is scanned: see [`Key::is_scanned`].
    #[must_use]
    pub fn is_scanned(&self) -> bool {
        let after_kind = self.start.first().map(|tag| vec![tag.saturating_add(1)]);
        Key::is_scanned(&self.start) && after_kind.is_some_and(|after| self.end <= after)
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
