//! The deadline index as a batch sees it: the store's entries with the batch's own changes over them.
//!
//! Invariants:
//! 1. Each record that has a deadline has exactly one index entry, at or before that deadline, of its own or with its group
//!    ([`super::replies`]). A record whose deadline moves on keeps its entry, and the sweep moves it when it meets it:
//!    touching a session costs no index write.
//! 2. [`SweepHorizon`] is at or before every entry. It saves scans and never changes a result.
//! 3. Within a batch the store's index is read once, ascending; what lies behind was removed or is known. It is read
//!    between transactions only, so that undoing one never has to give back what was read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys::{Key, KeyRange};
use super::{Fault, Store};
use crate::limits;
use crate::types::LogTime;

/// A lower bound of the earliest deadline that the index may hold. Its owner keeps it from batch to batch, and
/// starts with the default, which knows nothing, whenever it opens or replaces a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepHorizon(LogTime);

impl SweepHorizon {
    /// The bound of an index without entries.
    fn never() -> LogTime {
        LogTime::from_millis(u64::MAX)
    }

    /// Nothing is due before this time, so that a `Tick` is needed only once it is near. `None`: there are no
    /// deadlines. The start of time when nothing is known, which one `Tick` changes.
    #[must_use]
    pub fn next_deadline(self) -> Option<LogTime> {
        (self.0 != Self::never()).then_some(self.0)
    }

    pub(super) fn may_be_due(self, now: LogTime) -> bool {
        self.0 <= now
    }
}

/// How an entry of the overlay relates to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Only the batch has it.
    New,
    /// The store has it; the batch removed it and put it back.
    Restored,
}

/// An index entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The entry's own key.
    pub key: Bytes,
    /// When it is due.
    pub time: LogTime,
    /// The encoded key of the record that it stands for.
    pub target: Bytes,
}

impl Entry {
    /// From an encoded [`Key::Deadline`].
    fn parse(key: Bytes) -> Result<Self, Fault> {
        match Key::decode(&key)? {
            Key::Deadline(time, target) => Ok(Self { key, time, target }),
            _ => Err(Fault::corrupt(
                "the deadline index",
                "another key stands in it",
            )),
        }
    }
}

/// The index with the batch's changes.
#[derive(Debug)]
pub(super) struct Index {
    horizon: SweepHorizon,
    live: BTreeMap<Bytes, Origin>,
    removed: BTreeSet<Bytes>,
    /// Entries of the store that were read but not yet reached, ascending.
    ahead: VecDeque<Bytes>,
    /// What of the store's index was not read; `None` before the first read.
    unread: Option<KeyRange>,
    /// Set while a transaction runs.
    undo: Option<IndexUndo>,
}

/// What takes a transaction's changes of the index back.
#[derive(Debug)]
struct IndexUndo {
    horizon: SweepHorizon,
    /// Of each change, in order: the entry's key, and what stood there before.
    before: Vec<(Bytes, Standing)>,
}

/// Where an entry's key stands in the overlay.
#[derive(Debug)]
struct Standing {
    live: Option<Origin>,
    removed: bool,
}

impl Index {
    pub fn new(horizon: SweepHorizon) -> Self {
        Self {
            horizon,
            live: BTreeMap::new(),
            removed: BTreeSet::new(),
            ahead: VecDeque::new(),
            unread: None,
            undo: None,
        }
    }

    /// Begins to note what [`Index::roll_back`] takes back.
    pub fn begin(&mut self) {
        self.undo = Some(IndexUndo {
            horizon: self.horizon,
            before: Vec::new(),
        });
    }

    /// Keeps what was done since [`Index::begin`].
    pub fn keep(&mut self) {
        self.undo = None;
    }

    /// Makes the index what it was at [`Index::begin`].
    pub fn roll_back(&mut self) {
        let Some(undo) = self.undo.take() else {
            return;
        };
        self.horizon = undo.horizon;
        for (key, Standing { live, removed }) in undo.before.into_iter().rev() {
            match live {
                Some(origin) => drop(self.live.insert(key.clone(), origin)),
                None => drop(self.live.remove(&key)),
            }
            if removed {
                self.removed.insert(key);
            } else {
                self.removed.remove(&key);
            }
        }
    }

    fn note(&mut self, key: &Bytes) {
        if let Some(undo) = &mut self.undo {
            let standing = Standing {
                live: self.live.get(key).copied(),
                removed: self.removed.contains(key),
            };
            undo.before.push((key.clone(), standing));
        }
    }

    pub fn horizon(&self) -> SweepHorizon {
        self.horizon
    }

    /// The sweep saw that nothing lies before `time`; `None` for nothing at all.
    pub fn set_horizon(&mut self, time: Option<LogTime>) {
        self.horizon = SweepHorizon(time.unwrap_or_else(SweepHorizon::never));
    }

    /// Adds an entry, which is not there, and returns its key.
    pub fn insert(&mut self, time: LogTime, target: &Key) -> Bytes {
        let key = Key::encode_deadline(time, target);
        self.note(&key);
        let origin = if self.removed.remove(&key) {
            Origin::Restored
        } else {
            Origin::New
        };
        self.live.insert(key.clone(), origin);
        self.horizon = SweepHorizon(self.horizon.0.min(time));
        key
    }

    /// Removes an entry, which is there.
    pub fn remove(&mut self, key: Bytes) {
        self.note(&key);
        if self.live.remove(&key) != Some(Origin::New) {
            self.removed.insert(key);
        }
    }

    /// The entry with the earliest deadline. Reads of the store's index only as far as `now`, and one entry more.
    pub fn earliest(&mut self, store: &impl Store, now: LogTime) -> Result<Option<Entry>, Fault> {
        let stored = self.earliest_stored(store, now)?;
        let own = self.live.first_key_value().map(|(key, _)| key);
        let earliest = match (stored, own) {
            (Some(stored), Some(own)) => Some(stored.min(own.clone())),
            (stored, own) => stored.or_else(|| own.cloned()),
        };
        earliest.map(Entry::parse).transpose()
    }

    fn earliest_stored(
        &mut self,
        store: &impl Store,
        now: LogTime,
    ) -> Result<Option<Bytes>, Fault> {
        loop {
            while let Some(key) = self.ahead.front() {
                if !self.removed.contains(key) && !self.live.contains_key(key) {
                    return Ok(Some(key.clone()));
                }
                self.ahead.pop_front();
            }
            let unread = self
                .unread
                .get_or_insert_with(|| KeyRange::deadlines_from(self.horizon.0));
            if unread.is_empty() {
                return Ok(None);
            }
            read_ahead(store, unread, &mut self.ahead, now)?;
        }
    }

    /// What the store has to write: each changed entry's key, and whether it is there now.
    pub fn into_changes(self) -> impl Iterator<Item = (Bytes, bool)> {
        let inserted = self
            .live
            .into_iter()
            .filter(|(_, origin)| *origin == Origin::New);
        inserted
            .map(|(key, _)| (key, true))
            .chain(self.removed.into_iter().map(|key| (key, false)))
    }
}

/// Reads on, up to what one log entry can sweep or the first entry that is not due, and notes what remains.
fn read_ahead(
    store: &impl Store,
    unread: &mut KeyRange,
    ahead: &mut VecDeque<Bytes>,
    now: LogTime,
) -> Result<(), Fault> {
    let not_due = KeyRange::deadlines_from(LogTime::from_millis(now.as_millis().saturating_add(1)));
    let mut more = false;
    store.scan(unread, &mut |key, _| {
        ahead.push_back(Bytes::copy_from_slice(key));
        more = ahead.len() > limits::SWEEP_PER_ENTRY || key >= not_due.start.as_slice();
        Ok(if more {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    match ahead.back() {
        Some(last) if more => *unread = unread.after(last),
        _ => unread.start.clone_from(&unread.end),
    }
    Ok(())
}
