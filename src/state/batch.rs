//! The overlay: what a batch of entries changes, before it is committed.
//!
//! Records that a batch touches are decoded once, changed in place, and encoded and hashed once: where their event lies, or
//! when the batch finishes. So a client's reply window, which every one of its entries changes, is hashed once per batch.
//! Nothing keeps the encoding: the store makes it again when it writes the record, which it does once for many changes.
//!
//! Invariants:
//! 1. How entries are cut into batches changes no byte, digest or reply.
//! 2. The digest is owed for dirty records only; [`Batch::settle`] pays, at the end and before it is compared.
//! 3. The order of the hash map reaches no result: writes are in the order in which records were first met.
//! 4. What it hands to the store holds no memory of the commands': what an operation puts into a record is a copy.
//! 5. Between [`Batch::begin`] and [`Batch::keep`] or [`Batch::roll_back`] nothing is swept and nothing settles, and every
//!    change has one revision. Rolled back, the batch gives the bytes, digests and replies of one where none of it
//!    was tried.
//!
//! Outside transactions there is no undo: an operation checks everything before it changes anything, and after a
//! fault the batch is dropped whole.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::command::Command;
use super::deadlines::{Entry, Index};
use super::journal::Journal;
use super::keys::{Key, KeyRange};
use super::record::{self, Content};
use super::replies::Answered;
use super::roster::{Member, Roster};
use super::store::{Change, Changes, Record, Stored};
use super::{Fault, Store, SweepHorizon, digest, replies};
use crate::proto::internal as pb;
use crate::types::{LogTime, Namespace, Revision, StateVersion, TokenHash, UserId};

/// Beside what the command brought, an event holds when, and what the record had before: about so many bytes.
const EVENT_FRAMING: usize = 32;

/// Names a record that the batch has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotId(usize);

/// What the digest knows of a slot.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// The record is as the store has it.
    Clean,
    /// The record changed since it was last counted.
    Dirty,
    /// The same, and an event has encoded it: nothing has changed it since.
    Encoded(Seal),
    /// The record changed and is counted.
    Settled(Seal),
}

/// What is kept of an encoding; of nothing for a record that is not there.
#[derive(Debug, Clone, Copy, Default)]
struct Seal {
    /// What the digest has to count.
    hash: u128,
    /// Bytes of the value.
    bytes: usize,
}

impl Seal {
    fn of(key: &Key, key_bytes: &[u8], value: &[u8]) -> Self {
        let hash = if key.in_digest() {
            digest::hash(key_bytes, value)
        } else {
            0
        };
        Self {
            hash,
            bytes: value.len(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    key: Arc<Key>,
    record: Option<Record>,
    /// What the running digest holds for it; 0 for nothing.
    counted: u128,
    /// The store has a record there.
    stored: bool,
    standing: Standing,
    /// The journal knows that it changed since the last revision.
    touched: bool,
}

/// The changes of the entries being applied, over a store.
#[derive(Debug)]
pub struct Batch<'a, S> {
    store: &'a S,
    ids: HashMap<Arc<Key>, SlotId, RandomState>,
    slots: Vec<Slot>,
    index: Index,
    roster: Roster,
    pub(super) journal: Journal,
    revision: Revision,
    now: LogTime,
    digest: u128,
    checkpoint: Option<pb::DigestCheckpoint>,
    version: StateVersion,
    /// Of the entry being applied.
    pub(super) answered: Answered,
    /// Set while a transaction runs. Boxed, so that the others carry one word for it.
    undo: Option<Box<Undo>>,
}

/// What takes a transaction back. Index and roster keep their own.
#[derive(Debug)]
struct Undo {
    revision: Revision,
    digest: u128,
    /// Of each slot that was changed: what it held before the first change. Records are shared, not copied.
    slots: BTreeMap<usize, (Option<Record>, Standing)>,
    /// How many records the journal knew of.
    touched: usize,
}

impl<'a, S: Store> Batch<'a, S> {
    /// An empty batch over what is committed. `sweep` is what the last batch over this store finished with.
    #[must_use]
    pub fn new(store: &'a S, sweep: SweepHorizon) -> Self {
        let header = store.header();
        Self {
            store,
            ids: HashMap::default(),
            slots: Vec::new(),
            index: Index::new(sweep),
            roster: Roster::default(),
            journal: Journal::new(&header),
            revision: Revision::new(header.revision),
            now: LogTime::from_millis(header.log_time),
            digest: digest::from_bytes(&header.digest)
                .expect("a store's header was decoded by record::decode_header"),
            checkpoint: header.checkpoint,
            version: StateVersion::new(header.version),
            answered: Answered::default(),
            undo: None,
        }
    }

    /// Makes room for what so many commands touch, and for what is told of them: about as many bytes as they were encoded in.
    pub fn reserve(&mut self, commands: usize, bytes: usize) {
        // Most touch one record, and what they touch beside it they have in common.
        self.ids.reserve(commands);
        self.slots.reserve(commands);
        self.journal
            .reserve(bytes.saturating_add(commands.saturating_mul(EVENT_FRAMING)));
    }

    /// Begins a transaction: what is changed from here on is kept or rolled back as a whole. There is no
    /// transaction within another.
    pub(super) fn begin(&mut self) {
        self.index.begin();
        self.roster.begin();
        self.undo = Some(Box::new(Undo {
            revision: self.revision,
            digest: self.digest,
            slots: BTreeMap::new(),
            touched: self.journal.touched(),
        }));
    }

    /// Ends a transaction and keeps what it did.
    pub(super) fn keep(&mut self) {
        self.index.keep();
        self.roster.keep();
        self.undo = None;
    }

    /// Ends a transaction and takes back what it did. What it has loaded stays loaded.
    pub(super) fn roll_back(&mut self) {
        self.index.roll_back();
        self.roster.roll_back();
        let Some(undo) = self.undo.take() else {
            return;
        };
        self.revision = undo.revision;
        self.digest = undo.digest;
        for (at, (record, standing)) in undo.slots {
            let slot = self
                .slots
                .get_mut(at)
                .expect("it was changed, so it is there");
            slot.record = record;
            slot.standing = standing;
        }
        for id in self.journal.forget_touched(undo.touched) {
            self.untouch(id);
        }
    }

    /// What the store has to write, in one atomic step, and what the next batch starts with.
    #[must_use]
    pub fn finish(mut self) -> (Changes, SweepHorizon) {
        self.settle();
        let horizon = self.index.horizon();
        let history = self.journal.history();
        let events = self.journal.into_changes();
        // The slots are then the only holders of their keys.
        drop(self.ids);
        let mut writes = Vec::with_capacity(self.slots.len());
        writes.extend(self.slots.into_iter().filter_map(Slot::into_change));
        let entries = self.index.into_changes();
        for (key_bytes, inserted) in entries.chain(self.roster.into_changes()) {
            writes.push(index_change(&key_bytes, inserted));
        }
        let header = pb::StateHeader {
            revision: self.revision.get(),
            log_time: self.now.as_millis(),
            digest: digest::to_bytes(self.digest),
            checkpoint: self.checkpoint,
            history,
            version: self.version.to_stored(),
        };
        let changes = Changes {
            writes,
            events,
            header,
        };
        (changes, horizon)
    }

    /// Log time of the entry being applied.
    pub(super) fn now(&self) -> LogTime {
        self.now
    }

    /// The revision after everything applied so far.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Counts a change and returns the revision that it makes. All changes of a transaction make one.
    pub(super) fn next_revision(&mut self) -> Revision {
        let last = self
            .undo
            .as_ref()
            .map_or(self.revision, |undo| undo.revision);
        self.revision = last.next();
        self.revision
    }

    /// By which rules commands are applied.
    pub(super) fn version(&self) -> StateVersion {
        self.version
    }

    /// The newest by which they could be.
    pub(super) fn newest_version(&self) -> StateVersion {
        self.store.newest_version()
    }

    pub(super) fn set_version(&mut self, version: StateVersion) {
        self.version = version;
    }

    /// The newest checkpoint of the digest.
    pub(super) fn checkpoint(&self) -> Option<&pb::DigestCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// Notes the digest under the next number.
    pub(super) fn note_checkpoint(&mut self) {
        self.settle();
        let last = self
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.number);
        self.checkpoint = Some(pb::DigestCheckpoint {
            number: last.saturating_add(1),
            digest: digest::to_bytes(self.digest),
        });
    }

    /// Loads the records that some commands are about, together: see [`Store::get_many`].
    pub(super) fn load_subjects(&mut self, commands: &[Command]) -> Result<(), Fault> {
        let subjects = commands.iter().filter_map(Command::subject);
        let keys: Vec<_> = subjects.filter(|key| !self.ids.contains_key(key)).collect();
        let found = self.store.get_many(&keys)?;
        for (key, stored) in keys.into_iter().zip(found) {
            if !self.ids.contains_key(&key) {
                self.add(key, stored);
            }
        }
        Ok(())
    }

    /// Finds a record, there or not.
    pub(super) fn load(&mut self, key: &Key) -> Result<SlotId, Fault> {
        if let Some(id) = self.ids.get(key) {
            return Ok(*id);
        }
        let stored = self.store.get(key)?;
        Ok(self.add(key.clone(), stored))
    }

    fn add(&mut self, key: Key, stored: Option<Stored>) -> SlotId {
        let id = SlotId(self.slots.len());
        let key = Arc::new(key);
        self.slots.push(Slot {
            key: Arc::clone(&key),
            stored: stored.is_some(),
            counted: stored.as_ref().map_or(0, |stored| stored.hash),
            record: stored.map(|stored| stored.record),
            standing: Standing::Clean,
            touched: false,
        });
        self.ids.insert(key, id);
        id
    }

    /// What the record says, if it is there.
    pub(super) fn read<C: Content>(&self, id: SlotId) -> Option<&C> {
        let record = self
            .slots
            .get(id.0)
            .expect("ids name slots")
            .record
            .as_ref()?;
        Some(C::of(record).expect("a key decides its record's kind"))
    }

    /// The same, to change. Undone only by a transaction, so everything was checked before.
    pub(super) fn change<C: Content>(&mut self, id: SlotId) -> Option<&mut C> {
        self.touch(id);
        self.change_unseen(id)
    }

    /// The same, for what no caller can read: it makes no event.
    pub(super) fn change_unseen<C: Content>(&mut self, id: SlotId) -> Option<&mut C> {
        let slot = self.slot_mut(id);
        let record = slot.record.as_mut()?;
        slot.standing = Standing::Dirty;
        let content = C::of_mut(record).expect("a key decides its record's kind");
        Some(Arc::make_mut(content))
    }

    /// Puts a record in place of what is there.
    pub(super) fn put<C: Content>(&mut self, id: SlotId, content: C) {
        self.touch(id);
        let slot = self.slot_mut(id);
        slot.record = Some(content.into_record());
        slot.standing = Standing::Dirty;
    }

    /// Deletes the record, if it is there.
    pub(super) fn delete(&mut self, id: SlotId) {
        self.touch(id);
        let slot = self.slot_mut(id);
        if let Some(record) = slot.record.take() {
            slot.standing = Standing::Dirty;
            self.journal.note_end(id, &record);
        }
    }

    /// Lets the journal know that a record is about to change.
    fn touch(&mut self, id: SlotId) {
        let slot = self.slots.get_mut(id.0).expect("ids name slots");
        if !slot.touched && slot.key.has_events() && !self.journal.is_muted() {
            slot.touched = true;
            self.journal.touch(id, slot.record.as_ref());
        }
    }

    /// A record is about to end by other means than [`Batch::delete`].
    pub(super) fn note_end(&mut self, id: SlotId) {
        self.touch(id);
        let slot = self.slots.get(id.0).expect("ids name slots");
        if let Some(record) = &slot.record {
            self.journal.note_end(id, record);
        }
    }

    /// Changes that were told of before, or that no caller can read.
    pub(super) fn unseen<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let muted = self.journal.mute(true);
        let done = change(self);
        self.journal.mute(muted);
        done
    }

    /// The journal has written down what was touched.
    pub(super) fn untouch(&mut self, id: SlotId) {
        self.slot_mut(id).touched = false;
    }

    /// What a slot holds.
    pub(super) fn record(&self, id: SlotId) -> Option<&Record> {
        let slot = self.slots.get(id.0).expect("ids name slots");
        slot.record.as_ref()
    }

    /// The record in a slot, if it is there, is encoded by `encode`, which appends key and value to what it is given.
    pub(super) fn encode_event<'o>(
        &mut self,
        id: SlotId,
        encode: impl FnOnce(&Key, &Record) -> (&'o [u8], &'o [u8]),
    ) {
        let slot = self.slot_mut(id);
        let Some(record) = &slot.record else { return };
        let (key_bytes, value) = encode(&slot.key, record);
        if matches!(slot.standing, Standing::Dirty) {
            slot.standing = Standing::Encoded(Seal::of(&slot.key, key_bytes, value));
        }
    }

    /// A slot's key.
    pub(super) fn key(&self, id: SlotId) -> &Key {
        let slot = self.slots.get(id.0).expect("ids name slots");
        &slot.key
    }

    /// Indexes a record at a deadline.
    pub(super) fn index(&mut self, time: LogTime, target: &Key) {
        let key = self.index.insert(time, target);
        self.digest = self.digest.wrapping_add(digest::hash(&key, &[]));
    }

    /// Takes back [`Batch::index`].
    pub(super) fn unindex(&mut self, time: LogTime, target: &Key) {
        self.remove_from_index(Key::encode_deadline(time, target));
    }

    /// Adds a session to the index of its user's.
    pub(super) fn enroll(&mut self, ns: &Namespace, user: &UserId, birth: u64, token: &TokenHash) {
        let key = Key::encode_user_session(ns, user, birth, token);
        self.digest = self.digest.wrapping_add(digest::hash(&key, &[]));
        self.roster.insert(key);
    }

    /// Takes back [`Batch::enroll`].
    pub(super) fn strike(&mut self, ns: &Namespace, user: &UserId, birth: u64, token: &TokenHash) {
        let key = Key::encode_user_session(ns, user, birth, token);
        self.digest = self.digest.wrapping_sub(digest::hash(&key, &[]));
        self.roster.remove(key);
    }

    /// The oldest sessions of a user whose births are in a range.
    pub(super) fn roster(
        &self,
        namespace: &Namespace,
        user: &UserId,
        births: Range<u64>,
        limit: usize,
    ) -> Result<Vec<Member>, Fault> {
        let range = KeyRange::user_sessions(namespace, user, births);
        self.roster.scan(self.store, &range, limit)
    }

    pub(super) fn remove_from_index(&mut self, key: Bytes) {
        self.digest = self.digest.wrapping_sub(digest::hash(&key, &[]));
        self.index.remove(key);
    }

    /// Log time moves on to that of an entry of so many commands. Whether something may be due.
    pub(super) fn move_on(&mut self, stamp: LogTime, commands: usize) -> bool {
        self.now = self.now.advance(stamp);
        self.answered = Answered::by_entry_of(commands);
        self.index.horizon().may_be_due(self.now)
    }

    /// The entry of the deadline index that is due first, whether it is already or not.
    pub(super) fn earliest(&mut self) -> Result<Option<Entry>, Fault> {
        self.index.earliest(self.store, self.now)
    }

    /// The sweep saw that nothing is due before this time; `None` for nothing at all.
    pub(super) fn set_horizon(&mut self, time: Option<LogTime>) {
        self.index.set_horizon(time);
    }

    /// Hashes what changed, once, and brings the digest up to date.
    fn settle(&mut self) {
        let mut scratch = Vec::new();
        for slot in &mut self.slots {
            let seal = match slot.standing {
                Standing::Clean | Standing::Settled(_) => continue,
                Standing::Encoded(seal) => seal,
                Standing::Dirty => slot.seal(&mut scratch),
            };
            self.digest = self
                .digest
                .wrapping_sub(slot.counted)
                .wrapping_add(seal.hash);
            slot.counted = seal.hash;
            slot.standing = Standing::Settled(seal);
        }
    }

    /// A slot that is about to be changed.
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        let slot = self.slots.get_mut(id.0).expect("ids name slots");
        if let Some(undo) = &mut self.undo {
            let before = || (slot.record.clone(), slot.standing);
            undo.slots.entry(id.0).or_insert_with(before);
        }
        slot
    }
}

impl Slot {
    /// Encodes it for its hash.
    fn seal(&mut self, scratch: &mut Vec<u8>) -> Seal {
        let Some(record) = &mut self.record else {
            return Seal::default();
        };
        replies::normalize(record);
        scratch.clear();
        self.key.write(scratch);
        let key_length = scratch.len();
        record::encode_to(record, scratch);
        let (key_bytes, value) = scratch.split_at(key_length);
        Seal::of(&self.key, key_bytes, value)
    }

    /// The write that the settled slot asks for, if any.
    fn into_change(self) -> Option<Change> {
        let Standing::Settled(Seal { hash, bytes }) = self.standing else {
            return None;
        };
        if self.record.is_none() && !self.stored {
            // It came and went within the batch.
            return None;
        }
        Some(Change {
            key: Arc::unwrap_or_clone(self.key),
            value: self.record.map(|record| Stored {
                record,
                hash,
                bytes,
            }),
        })
    }
}

fn index_change(key_bytes: &[u8], inserted: bool) -> Change {
    Change {
        key: Key::decode(key_bytes).expect("the index made its keys itself"),
        value: inserted.then(|| Stored {
            record: Record::Index,
            hash: digest::hash(key_bytes, &[]),
            bytes: 0,
        }),
    }
}
