//! The unconfirmed replies of one client, as they lie in memory.
//!
//! A window changes with every batch in which its client wrote, and holds hundreds of replies. So they lie in one
//! buffer, encoded as they are stored: to copy, encode or drop a window is to copy or drop two vectors, however
//! many replies there are.
//!
//! Invariants:
//! 1. `replies` is the encoding of `entries`, in their order, each as one `replies` field of [`pb::ClientWindow`].
//! 2. Entries ascend by sequence.
//! 3. [`ClientWindow::encode_to`] gives what `pb::ClientWindow` would: one form in memory, one on disk.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{self, WireType};

use super::Fault;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::wire::{put_uint, uint_len};
use crate::types::LogTime;

/// Field numbers of [`pb::ClientWindow`] and [`pb::StoredReply`].
mod tag {
    pub(super) const CONFIRMED_BELOW: u32 = 1;
    pub(super) const REPLIES: u32 = 2;
    pub(super) const DEADLINE: u32 = 3;
    pub(super) const INDEXED_DEADLINE: u32 = 4;

    pub(super) const SEQUENCE: u32 = 1;
    pub(super) const FINGERPRINT: u32 = 2;
    pub(super) const REPLY: u32 = 3;
}

/// The record under [`super::Key::Client`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientWindow {
    /// Every sequence below it is confirmed: its reply is forgotten for good.
    pub confirmed_below: u64,
    /// Log time in Unix milliseconds until which the window is kept.
    pub deadline: u64,
    /// Where the deadline index holds it; at or before `deadline`.
    pub indexed_deadline: u64,
    entries: Vec<Entry>,
    replies: Vec<u8>,
}

/// Where a reply is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    sequence: u64,
    fingerprint: u64,
    /// Bytes of its field.
    length: usize,
}

/// A reply that the window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered<'a> {
    /// Of the request that it answers.
    pub(super) fingerprint: u64,
    field: &'a [u8],
}

impl ClientWindow {
    /// A window without replies, indexed at its deadline.
    pub(super) fn empty(confirmed_below: u64, deadline: LogTime) -> Self {
        Self {
            confirmed_below,
            deadline: deadline.as_millis(),
            indexed_deadline: deadline.as_millis(),
            entries: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// The window from its stored value.
    pub(super) fn decode(value: Bytes) -> Result<Self, prost::DecodeError> {
        let stored = pb::ClientWindow::decode(value)?;
        let mut window = Self {
            confirmed_below: stored.confirmed_below,
            deadline: stored.deadline,
            indexed_deadline: stored.indexed_deadline,
            entries: Vec::with_capacity(stored.replies.len()),
            replies: Vec::new(),
        };
        for reply in &stored.replies {
            let begin = window.replies.len();
            encoding::message::encode(tag::REPLIES, reply, &mut window.replies);
            window.entries.push(Entry {
                sequence: reply.sequence,
                fingerprint: reply.fingerprint,
                length: window.replies.len().saturating_sub(begin),
            });
        }
        Ok(window)
    }

    /// Appends the value to store.
    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        put_uint(tag::CONFIRMED_BELOW, self.confirmed_below, out);
        out.extend_from_slice(&self.replies);
        put_uint(tag::DEADLINE, self.deadline, out);
        put_uint(tag::INDEXED_DEADLINE, self.indexed_deadline, out);
    }

    /// The length of that.
    pub(super) fn encoded_len(&self) -> usize {
        let numbers = [self.confirmed_below, self.deadline, self.indexed_deadline];
        let numbers = numbers.into_iter().map(uint_len);
        numbers.fold(self.replies.len(), usize::saturating_add)
    }

    /// How many replies it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sequences that it holds replies for, ascending.
    #[cfg(test)]
    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.sequence)
    }

    /// Whether what it holds unconfirmed is as much as a client may have, in replies or in bytes.
    pub(super) fn is_full(&self) -> bool {
        let is_below = self.entries.len() < limits::CLIENT_WINDOW
            && self.replies.len() < limits::CLIENT_WINDOW_BYTES;
        // Nearly always, and then it does not matter how much of it is confirmed.
        if is_below {
            return false;
        }
        let confirmed = self.confirmed();
        let replies = self.entries.len().saturating_sub(confirmed);
        let bytes = self.replies.len().saturating_sub(self.offset(confirmed));
        replies >= limits::CLIENT_WINDOW || bytes >= limits::CLIENT_WINDOW_BYTES
    }

    /// How many replies, at the front, are confirmed.
    pub(super) fn confirmed(&self) -> usize {
        self.place(self.confirmed_below)
    }

    /// Forgets the replies that are confirmed.
    pub(super) fn forget_confirmed(&mut self) {
        let confirmed = self.confirmed();
        self.replies.drain(..self.offset(confirmed));
        self.entries.drain(..confirmed);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.replies.clear();
        self.confirmed_below = 0;
    }

    /// The reply to a sequence.
    pub(super) fn find(&self, sequence: u64) -> Option<Remembered<'_>> {
        let place = self.place(sequence);
        let entry = self.entries.get(place)?;
        if entry.sequence != sequence {
            return None;
        }
        let begin = self.offset(place);
        let field = self
            .replies
            .get(begin..begin.saturating_add(entry.length))
            .expect("entries and their bytes agree");
        Some(Remembered {
            fingerprint: entry.fingerprint,
            field,
        })
    }

    /// Stores a reply that is not there yet. Sequences arrive nearly in order, so that its place is at or near the
    /// end.
    pub(super) fn remember(&mut self, sequence: u64, fingerprint: u64, reply: &pb::Reply) {
        let place = self.place(sequence);
        let end = self.replies.len();
        write_field(sequence, fingerprint, reply, &mut self.replies);
        let length = self.replies.len().saturating_sub(end);
        if place < self.entries.len() {
            let begin = self.offset(place);
            self.replies
                .get_mut(begin..)
                .expect("entries and their bytes agree")
                .rotate_right(length);
        }
        let entry = Entry {
            sequence,
            fingerprint,
            length,
        };
        self.entries.insert(place, entry);
    }

    /// Where a sequence is, or would be.
    fn place(&self, sequence: u64) -> usize {
        // The last one is asked for most: a new sequence follows all others.
        match self.entries.last() {
            Some(last) if last.sequence < sequence => self.entries.len(),
            _ => self
                .entries
                .partition_point(|entry| entry.sequence < sequence),
        }
    }

    /// Where the bytes of the entry at a place begin.
    fn offset(&self, place: usize) -> usize {
        self.entries
            .iter()
            .take(place)
            .map(|entry| entry.length)
            .sum()
    }
}

impl Remembered<'_> {
    /// The reply.
    pub(super) fn reply(&self) -> Result<pb::Reply, Fault> {
        let damage = |e: prost::DecodeError| Fault::corrupt("a stored reply", e.to_string());
        let mut field = self.field;
        encoding::decode_key(&mut field).map_err(damage)?;
        let stored = pb::StoredReply::decode_length_delimited(field).map_err(damage)?;
        pb::Reply::decode(stored.reply).map_err(damage)
    }
}

/// A [`pb::StoredReply`] as a field of the window, without a detour over a buffer of the reply's own.
fn write_field(sequence: u64, fingerprint: u64, reply: &pb::Reply, out: &mut Vec<u8>) {
    let mut length = encoding::message::encoded_len(tag::REPLY, reply);
    if sequence != 0 {
        length = length.saturating_add(encoding::uint64::encoded_len(tag::SEQUENCE, &sequence));
    }
    if fingerprint != 0 {
        let fixed = encoding::fixed64::encoded_len(tag::FINGERPRINT, &fingerprint);
        length = length.saturating_add(fixed);
    }
    encoding::encode_key(tag::REPLIES, WireType::LengthDelimited, out);
    encoding::encode_varint(u64::try_from(length).unwrap_or(u64::MAX), out);
    put_uint(tag::SEQUENCE, sequence, out);
    if fingerprint != 0 {
        encoding::fixed64::encode(tag::FINGERPRINT, &fingerprint, out);
    }
    encoding::message::encode(tag::REPLY, reply, out);
}
