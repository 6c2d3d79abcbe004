//! The index of users' sessions as a batch sees it: the store's entries with the batch's own changes over them.
//!
//! Invariants:
//! 1. An entry stands exactly as long as the session's record names its user and its birth: both change together, in
//!    one batch, so that the index cannot leak.
//! 2. A user's entries are ordered by birth, oldest first, and no two have the same.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::keys::{Key, KeyRange};
use super::{Fault, Store};
use crate::types::TokenHash;

/// What the batch did to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    /// Only the batch has it.
    New,
    /// Only the store has it.
    Removed,
}

/// A session of a user, by its birth.
pub(super) type Member = (u64, TokenHash);

/// The changes of a batch, by the entries' keys.
#[derive(Debug, Default)]
pub(super) struct Roster {
    edits: BTreeMap<Bytes, Edit>,
    /// Set while a transaction runs: of each change, in order, the entry's key and what stood there before.
    undo: Option<Vec<(Bytes, Option<Edit>)>>,
}

impl Roster {
    /// Begins to note what [`Roster::roll_back`] takes back.
    pub fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Keeps what was done since [`Roster::begin`].
    pub fn keep(&mut self) {
        self.undo = None;
    }

    /// Makes the roster what it was at [`Roster::begin`].
    pub fn roll_back(&mut self) {
        for (key, before) in self.undo.take().into_iter().flatten().rev() {
            match before {
                Some(edit) => drop(self.edits.insert(key, edit)),
                None => drop(self.edits.remove(&key)),
            }
        }
    }

    fn note(&mut self, key: &Bytes) {
        if let Some(undo) = &mut self.undo {
            undo.push((key.clone(), self.edits.get(key).copied()));
        }
    }

    /// Adds an entry, which is not there.
    pub fn insert(&mut self, key: Bytes) {
        self.note(&key);
        if self.edits.remove(&key) != Some(Edit::Removed) {
            self.edits.insert(key, Edit::New);
        }
    }

    /// Removes an entry, which is there.
    pub fn remove(&mut self, key: Bytes) {
        self.note(&key);
        if self.edits.remove(&key) != Some(Edit::New) {
            self.edits.insert(key, Edit::Removed);
        }
    }

    /// The first entries of a range, oldest first.
    pub fn scan(
        &self,
        store: &impl Store,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Member>, Fault> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        store.scan(range, &mut |key, _| {
            if self.edits.get(key) != Some(&Edit::Removed) {
                found.push(member(key)?);
            }
            Ok(if found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        let bounds = (
            Bound::Included(range.start.as_slice()),
            Bound::Excluded(range.end.as_slice()),
        );
        let edits = self.edits.range::<[u8], _>(bounds);
        let new = edits.filter(|(_, edit)| **edit == Edit::New);
        for (key, _) in new.take(limit) {
            found.push(member(key)?);
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }

    /// What the store has to write: each changed entry's key, and whether it is there now.
    pub fn into_changes(self) -> impl Iterator<Item = (Bytes, bool)> {
        let edits = self.edits.into_iter();
        edits.map(|(key, edit)| (key, edit == Edit::New))
    }
}

/// Whom an entry stands for.
pub(super) fn member(key: &[u8]) -> Result<Member, Fault> {
    match Key::decode(key)? {
        Key::UserSession(_, _, birth, token) => Ok((birth, token)),
        _ => Err(Fault::corrupt(
            "the index of a user's sessions",
            "another key stands in it",
        )),
    }
}
