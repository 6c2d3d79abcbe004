//! A store in memory, for tests and models. It keeps encoded bytes and decodes at each read, as a database does.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use prost::Message as _;

use super::events::{self, Page};
use super::history::{self, Chunk};
use super::keys::{Key, KeyRange};
use super::store::{Changes, Store, Stored};
use super::{Fault, record};
use crate::proto::internal as pb;
use crate::types::Revision;

/// Committed records in memory, the header among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    records: BTreeMap<Bytes, Bytes>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Commits what a batch changed.
    pub fn commit(&mut self, changes: Changes) {
        for change in changes.writes {
            let key_bytes = change.key.encode();
            match change.value {
                Some(stored) => {
                    let value = record::encode(&stored.record);
                    self.records.insert(key_bytes, value)
                }
                None => self.records.remove(&key_bytes),
            };
        }
        // One revision to a chunk, so that equal histories are equal bytes.
        let chunk = changes.events.as_ref().map(Chunk::revisions);
        let revisions = chunk.map(|it| it.expect("the batch has just encoded it"));
        for (revision, told) in revisions.into_iter().flatten() {
            for (last, chunk) in history::pack(&[history::alone(revision, &told)], usize::MAX) {
                let key = Bytes::copy_from_slice(&Key::encode_events(last));
                self.records.insert(key, chunk);
            }
        }
        let forgotten = KeyRange::events(Revision::default(), events::oldest(&changes.header));
        let bounds = (
            Bound::Included(forgotten.start.as_slice()),
            Bound::Excluded(forgotten.end.as_slice()),
        );
        let range = self.records.range::<[u8], _>(bounds);
        for key in range.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.records.remove(&key);
        }
        let header = changes.header.encode_to_vec();
        self.records.insert(Key::Header.encode(), header.into());
    }

    /// Events from a revision on, about `budget` bytes of them.
    pub fn events(&self, from: Revision, budget: usize) -> Result<Page, Fault> {
        events::read(&self.header(), from, |range, visit| {
            let mut bytes = 0usize;
            self.scan(range, &mut |key, value| {
                history::unpack(key, Bytes::copy_from_slice(value), from, visit)?;
                bytes = bytes.saturating_add(value.len());
                Ok(if bytes < budget {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })
        })
    }

    /// Loses a record, as a damaged disk does.
    #[cfg(test)]
    pub fn remove(&mut self, key: &Key) {
        self.records.remove(&key.encode());
    }

    /// The store as it was before there were events.
    #[cfg(test)]
    pub fn forget_events(&mut self) {
        self.records
            .retain(|key, _| !matches!(Key::decode(key), Ok(Key::Events(_) | Key::EventMarks)));
        let header = pb::StateHeader {
            history: None,
            ..self.header()
        };
        let header = header.encode_to_vec();
        self.records.insert(Key::Header.encode(), header.into());
    }

    /// Every key and value, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.records.iter()
    }

    /// All bytes: each key and value behind its length (4 bytes, big-endian).
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for bytes in self.records.iter().flat_map(|(key, value)| [key, value]) {
            let len = u32::try_from(bytes.len()).expect("limits keep records far below 4 GiB");
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Back from [`MemoryStore::snapshot`].
    pub fn restore(snapshot: &[u8]) -> Result<Self, Fault> {
        let mut store = Self::new();
        let mut rest = snapshot;
        while !rest.is_empty() {
            let key = take(&mut rest)?;
            let value = take(&mut rest)?;
            match Key::decode(&key)? {
                Key::Header => drop(record::decode_header(value.clone())?),
                Key::Events(_) => {
                    let from = Revision::default();
                    history::unpack(&key, value.clone(), from, &mut |_, _| Ok(()))?;
                }
                key => drop(record::decode(&key, value.clone())?),
            }
            store.records.insert(key, value);
        }
        Ok(store)
    }
}

fn take(rest: &mut &[u8]) -> Result<Bytes, Fault> {
    let cut = || Fault::corrupt("a snapshot", "it ends early");
    let (len, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| cut())?;
    let (bytes, after) = after.split_at_checked(len).ok_or_else(cut)?;
    *rest = after;
    Ok(Bytes::copy_from_slice(bytes))
}

impl Store for MemoryStore {
    fn header(&self) -> pb::StateHeader {
        let header = self.records.get(&Key::Header.encode()).cloned();
        header.map_or_else(pb::StateHeader::default, |value| {
            record::decode_header(value).expect("commit encoded it and restore decoded it")
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        let value = self.records.get(&key.encode()).cloned();
        value.map(|value| record::decode(key, value)).transpose()
    }

    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        if range.is_empty() {
            return Ok(());
        }
        let bounds = (
            Bound::Included(range.start.as_slice()),
            Bound::Excluded(range.end.as_slice()),
        );
        for (key, value) in self.records.range::<[u8], _>(bounds) {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
