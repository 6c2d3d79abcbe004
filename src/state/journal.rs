//! How events come into being: every change of a session, a cart or a key makes one, whichever operation made it.
//!
//! [`Batch`] notes which records an entry touches. When a revision is complete, [`Batch::close_revision`] looks at
//! each of them once and writes down what became of it, so that several changes by one command are one event, and a
//! record that came and went within one is none. What was touched without a new revision, or was put back by a command
//! that was refused, leaves no trace.
//!
//! ```text
//! revision -> log time | (key, record or why it is gone)…
//! ```
//!
//! The history is bounded in events, bytes and age, see [`limits::EVENT_HISTORY`]. It is forgotten from its old end, up
//! to a *mark*. Marks are made as it grows; each holds the totals before it, so what is behind a mark is a subtraction.
//!
//! Invariants:
//! 1. Each revision from the oldest one that is kept to the newest is written down exactly once, maybe without events.
//! 2. The history is a function of the entries alone, like everything in this module's parent.
//! 3. At most two marks more than [`limits::EVENT_HISTORY_PARTS`] for each of the three bounds exist.
//!
//! Deliberately absent: the state before a change, the digest, see [`Key::in_digest`], and how a store packs events, see
//! [`super::history`].

use bytes::Bytes;
use prost::encoding::{self, WireType};

use super::batch::{Batch, SlotId};
use super::events::Gone;
use super::history::{Builder, Chunk};
use super::keys::Key;
use super::store::Record;
use super::{Fault, Store, record, session};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::wire::{self, framed};
use crate::types::{LogTime, Revision, TokenHash};

/// What a record's key adds to the bytes of its event's own.
const KEY_BYTES: u64 = 9;

/// A record that was touched since the last revision.
#[derive(Debug)]
struct Touched {
    id: SlotId,
    /// It was there before.
    existed: bool,
    /// It is a user whose sessions ended all at once.
    revocation: Option<Bytes>,
    /// Why it is gone, if it is.
    gone: Gone,
    /// Whose session it was.
    user_id: String,
}

/// What a batch knows of events.
#[derive(Debug)]
pub(super) struct Journal {
    /// In the order of the first touch.
    touched: Vec<Touched>,
    /// Why records end now.
    ending: Gone,
    /// What happens now is not told.
    muted: bool,
    /// The last revision whose events are written down.
    closed: Revision,
    written: Builder,
    /// Room for an encoded key.
    key: Vec<u8>,
    history: pb::EventHistory,
    /// The newest mark; `None` until it was looked at.
    mark: Option<pb::EventMark>,
}

impl Journal {
    pub fn new(header: &pb::StateHeader) -> Self {
        let history = header.history.unwrap_or_default();
        Self {
            touched: Vec::new(),
            ending: Gone::Deleted,
            muted: false,
            closed: Revision::new(header.revision),
            written: Builder::default(),
            key: Vec::new(),
            history,
            mark: None,
        }
    }

    /// Makes room for what commands of so many bytes will have told.
    pub fn reserve(&mut self, bytes: usize) {
        self.written.reserve(bytes);
    }

    /// Whether nothing is told now.
    pub fn is_muted(&self) -> bool {
        self.muted
    }

    /// Whether nothing is told from now on; says what it was.
    pub fn mute(&mut self, muted: bool) -> bool {
        std::mem::replace(&mut self.muted, muted)
    }

    /// A record is about to change for the first time since the last revision.
    pub fn touch(&mut self, id: SlotId, record: Option<&Record>) {
        self.touched.push(Touched {
            id,
            existed: record.is_some_and(is_there),
            revocation: None,
            gone: self.ending,
            user_id: String::new(),
        });
    }

    /// How many records were touched since the last revision.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// The records that were touched after so many others were not changed after all.
    pub fn forget_touched(&mut self, kept: usize) -> Vec<SlotId> {
        let undone = self.touched.drain(kept..);
        undone.map(|touched| touched.id).collect()
    }

    /// A touched record is deleted.
    pub fn note_end(&mut self, id: SlotId, record: &Record) {
        let touched = self.touched.iter_mut().rfind(|touched| touched.id == id);
        let Some(touched) = touched else {
            return;
        };
        touched.gone = self.ending;
        if let Record::Session(session) = record
            && !session.user_id.is_empty()
        {
            touched.user_id.clone_from(&session.user_id);
        }
    }

    /// What the header says of the history; `None` before the first event, as it was before there were any.
    pub fn history(&self) -> Option<pb::EventHistory> {
        (self.history.oldest != 0).then_some(self.history)
    }

    /// What the store has to write.
    pub fn into_changes(self) -> Option<Chunk> {
        self.written.finish()
    }

    /// A revision was written down.
    fn close(&mut self, revision: Revision, events: usize, bytes: usize) {
        let grown = |total: u64, by: usize| {
            total.saturating_add(u64::try_from(by).expect("a length fits into 64 bits"))
        };
        self.history.events = grown(self.history.events, events);
        self.history.bytes = grown(self.history.bytes.saturating_add(KEY_BYTES), bytes);
        self.closed = revision;
    }

    /// A mark before a revision that is about to be written.
    fn new_mark(&self, revision: Revision, now: LogTime) -> pb::EventMark {
        pb::EventMark {
            revision: revision.get(),
            log_time: now.as_millis(),
            events: self.history.events,
            bytes: self.history.bytes,
        }
    }

    /// One part of any of the three bounds lies behind the newest mark.
    fn is_mark_due(&self, mark: &pb::EventMark, now: LogTime) -> bool {
        let part = |whole: u64| whole.wrapping_div(limits::EVENT_HISTORY_PARTS);
        let since = |now: u64, then: u64| now.saturating_sub(then);
        since(self.history.events, mark.events) >= part(limits::EVENT_HISTORY)
            || since(self.history.bytes, mark.bytes) >= part(limits::EVENT_HISTORY_BYTES)
            || since(now.as_millis(), mark.log_time) >= part(limits::EVENT_HISTORY_MS)
    }

    /// What lies between the first of two marks and the second is beyond a bound.
    fn is_beyond(&self, first: &pb::EventMark, second: &pb::EventMark, now: LogTime) -> bool {
        let kept = |total: u64, before: u64| total.saturating_sub(before);
        kept(self.history.events, first.events) > limits::EVENT_HISTORY
            || kept(self.history.bytes, first.bytes) > limits::EVENT_HISTORY_BYTES
            || second.log_time.saturating_add(limits::EVENT_HISTORY_MS) <= now.as_millis()
    }
}

/// What a revision did: a [`pb::RevisionEvents`] that is encoded in its place, so that no record is copied twice.
struct Told<'a> {
    out: &'a mut Vec<u8>,
    /// The last key; cleared for the next.
    key: &'a mut Vec<u8>,
    events: usize,
}

/// Field numbers of [`pb::RevisionEvents`] and [`pb::StoredEvent`].
mod tag {
    pub(super) const LOG_TIME: u32 = 1;
    pub(super) const EVENTS: u32 = 2;

    pub(super) const KEY: u32 = 1;
    pub(super) const RECORD: u32 = 2;
    pub(super) const CREATED: u32 = 6;
}

impl<'a> Told<'a> {
    fn at(log_time: u64, out: &'a mut Vec<u8>, key: &'a mut Vec<u8>) -> Self {
        wire::put_uint(tag::LOG_TIME, log_time, out);
        Self {
            out,
            key,
            events: 0,
        }
    }

    /// A record is there. Returns key and value as they were encoded.
    fn put(&mut self, key: &Key, record: &Record, created: bool) -> (&[u8], &[u8]) {
        /// What the lengths and tags may take.
        const FRAMING: usize = 32;
        self.key.clear();
        key.write(self.key);
        let value_length = record::encoded_len(record);
        let out = &mut *self.out;
        let mut length = framed(self.key.len()).saturating_add(framed(value_length));
        if created {
            length = length.saturating_add(encoding::bool::encoded_len(tag::CREATED, &created));
        }
        out.reserve(length.saturating_add(FRAMING));
        encoding::encode_key(tag::EVENTS, WireType::LengthDelimited, out);
        wire::put_varint(length as u64, out);
        wire::put_bytes(tag::KEY, &*self.key, out);
        wire::put_varint(wire::key(tag::RECORD, WireType::LengthDelimited), out);
        wire::put_varint(value_length as u64, out);
        let begin = out.len();
        record::encode_to(record, out);
        let end = out.len();
        debug_assert_eq!(end.saturating_sub(begin), value_length);
        if created {
            encoding::bool::encode(tag::CREATED, &created, out);
        }
        self.events = self.events.saturating_add(1);
        let value = out.get(begin..end).unwrap_or_default();
        (&*self.key, value)
    }

    /// A record is gone.
    fn put_end(&mut self, event: &pb::StoredEvent) {
        encoding::message::encode(tag::EVENTS, event, self.out);
        self.events = self.events.saturating_add(1);
    }
}

/// A tombstone is a record, but nothing that anybody could be told of.
fn is_there(record: &Record) -> bool {
    !matches!(record, Record::Session(session) if session::is_tombstone(session))
}

/// The revision that a record came into being at.
fn birth(record: &Record) -> u64 {
    match record {
        Record::Session(session) => session.create_revision,
        Record::Cart(cart) => cart.create_revision,
        Record::Kv(kv) => kv.create_revision,
        _ => 0,
    }
}

impl<S: Store> Batch<'_, S> {
    /// All sessions of a user end now, but for one.
    pub(super) fn note_revocation(&mut self, user: SlotId, kept: Option<&TokenHash>) {
        let kept = kept.map(|token| Bytes::copy_from_slice(token.as_bytes()));
        self.journal.touched.push(Touched {
            id: user,
            existed: true,
            revocation: Some(kept.unwrap_or_default()),
            gone: Gone::Revoked,
            user_id: String::new(),
        });
    }

    /// From now on, until the revision is closed, records end for this reason.
    pub(super) fn ending(&mut self, why: Gone) {
        self.journal.ending = why;
    }

    /// Writes down what was touched since the last revision, if there is a new one.
    pub(super) fn close_revision(&mut self) -> Result<(), Fault> {
        // Their room is kept for the next revision's.
        let mut touched = std::mem::take(&mut self.journal.touched);
        let closed = self.close_touched(&mut touched);
        touched.clear();
        self.journal.touched = touched;
        closed
    }

    fn close_touched(&mut self, touched: &mut Vec<Touched>) -> Result<(), Fault> {
        self.journal.ending = Gone::Deleted;
        for touched in &*touched {
            self.untouch(touched.id);
        }
        let revision = self.revision();
        if revision == self.journal.closed {
            return Ok(());
        }
        self.mark()?;
        let log_time = self.now().as_millis();
        let mut written = std::mem::take(&mut self.journal.written);
        let mut key = std::mem::take(&mut self.journal.key);
        // A command that counts several changes is told of under the last number.
        while self.journal.closed.next() < revision {
            let skipped = self.journal.closed.next();
            let bytes = written.push(skipped, |out| {
                Told::at(log_time, out, &mut key);
            });
            self.journal.close(skipped, 0, bytes);
        }
        let mut events = 0;
        let bytes = written.push(revision, |out| {
            let mut told = Told::at(log_time, out, &mut key);
            for touched in touched.drain(..) {
                self.tell(touched, &mut told);
            }
            events = told.events;
        });
        self.journal.close(revision, events, bytes);
        self.journal.written = written;
        self.journal.key = key;
        Ok(())
    }

    /// Writes down what became of a record.
    fn tell(&mut self, touched: Touched, told: &mut Told<'_>) {
        let revision = self.revision().get();
        let record = self.record(touched.id).filter(|record| is_there(record));
        let is_there = record.is_some() && touched.revocation.is_none();
        let created = !touched.existed || record.is_some_and(|record| birth(record) == revision);
        if !is_there && !touched.existed {
            return;
        }
        if is_there {
            self.encode_event(touched.id, move |key, record| {
                told.put(key, record, created)
            });
        } else {
            told.put_end(&pb::StoredEvent {
                key: self.key(touched.id).encode(),
                gone: touched.gone.to_stored(),
                user_id: touched.user_id,
                kept: touched.revocation.unwrap_or_default(),
                ..pb::StoredEvent::default()
            });
        }
    }

    /// Makes a mark if one is due, and forgets what is then beyond the bounds.
    fn mark(&mut self) -> Result<(), Fault> {
        let now = self.now();
        if let Some(mark) = &self.journal.mark
            && !self.journal.is_mark_due(mark, now)
        {
            return Ok(());
        }
        let id = self.load(&Key::EventMarks)?;
        let marks = self.read::<pb::EventMarks>(id);
        let last = marks.and_then(|marks| marks.marks.last().copied());
        self.journal.mark = last;
        if last.is_some_and(|mark| !self.journal.is_mark_due(&mark, now)) {
            return Ok(());
        }
        let first = self.journal.closed.next();
        let mark = self.journal.new_mark(first, now);
        self.journal.mark = Some(mark);
        let marks = self.read::<pb::EventMarks>(id).cloned();
        let mut marks = marks.unwrap_or_default().marks;
        marks.push(mark);
        let beyond = marks
            .windows(2)
            .take_while(|pair| match pair {
                [first, second] => self.journal.is_beyond(first, second, now),
                _ => false,
            })
            .count();
        marks.drain(..beyond);
        let oldest = marks.first().map_or(mark.revision, |mark| mark.revision);
        self.journal.history.oldest = oldest;
        self.put(id, pb::EventMarks { marks });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::types::{self, Namespace};

    #[test]
    fn what_is_told_is_encoded_as_its_message_would_be() {
        let name = types::Key::parse("k").expect("short");
        let key = Key::Kv(Namespace::default(), name);
        let kv = pb::KvRecord {
            value: vec![7; 300].into(),
            mod_revision: 5,
            ..pb::KvRecord::default()
        };
        let record = Record::Kv(kv.into());
        let event = |created, gone| pb::StoredEvent {
            key: key.encode(),
            record: if gone == 0 {
                record::encode(&record)
            } else {
                Bytes::new()
            },
            gone,
            created,
            ..pb::StoredEvent::default()
        };
        for log_time in [0, 1000, u64::MAX] {
            let (mut encoded, mut room) = (Vec::new(), Vec::new());
            let mut told = Told::at(log_time, &mut encoded, &mut room);
            for created in [true, false] {
                let (key_bytes, value) = told.put(&key, &record, created);
                assert_eq!(key_bytes, key.encode());
                assert_eq!(value, record::encode(&record));
                if created {
                    told.put_end(&event(false, 2));
                }
            }
            let expected = pb::RevisionEvents {
                log_time,
                events: vec![event(true, 0), event(false, 2), event(false, 0)],
            };
            assert_eq!(told.events, 3);
            assert_eq!(encoded, expected.encode_to_vec());
        }
    }
}
