//! The history of events as stores keep it: chunks of revisions that follow each other, encoded once, as they are made.
//!
//! A key for each revision would cost a database more than the events themselves. How revisions are cut into chunks is
//! each store's own business.
//!
//! Invariant: a chunk has every revision from its first to its last.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{self, WireType};

use super::Fault;
use super::keys::Key;
use crate::proto::internal as pb;
use crate::types::Revision;

/// Field number of [`pb::EventChunk`]'s revisions.
const REVISIONS: u32 = 2;

/// What consecutive revisions did. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    first: Revision,
    last: Revision,
    /// The `revisions` of a [`pb::EventChunk`], so that chunks are joined by joining these.
    encoded: Bytes,
}

impl Chunk {
    /// The first revision in it.
    #[must_use]
    pub fn first(&self) -> Revision {
        self.first
    }

    /// The last revision in it.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.last
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Each revision with its encoded [`pb::RevisionEvents`], ascending. They share the chunk's bytes.
    pub fn revisions(&self) -> Result<impl Iterator<Item = (Revision, Bytes)> + use<>, Fault> {
        let chunk = pb::EventChunk::decode(self.encoded.clone()).map_err(damaged)?;
        let revisions = std::iter::successors(Some(self.first), |revision| Some(revision.next()));
        Ok(revisions.zip(chunk.revisions))
    }
}

/// A chunk that grows.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// First and last revision; `None` while it is empty.
    range: Option<(Revision, Revision)>,
    encoded: Vec<u8>,
}

impl Builder {
    /// Appends what the next revision did: an encoded [`pb::RevisionEvents`].
    pub fn push(&mut self, revision: Revision, told: &[u8]) {
        let first = self.range.map_or(revision, |(first, _)| first);
        self.range = Some((first, revision));
        encoding::encode_key(REVISIONS, WireType::LengthDelimited, &mut self.encoded);
        encoding::encode_varint(told.len() as u64, &mut self.encoded);
        self.encoded.extend_from_slice(told);
    }

    /// The chunk, unless it is empty.
    pub fn finish(self) -> Option<Chunk> {
        let (first, last) = self.range?;
        Some(Chunk {
            first,
            last,
            encoded: self.encoded.into(),
        })
    }
}

/// A chunk of one revision.
#[must_use]
pub fn alone(revision: Revision, told: &[u8]) -> Chunk {
    let mut builder = Builder::default();
    builder.push(revision, told);
    builder.finish().expect("it has a revision")
}

/// Joins chunks that follow each other into ones of at least so many bytes, but for the last: keys and values to store.
#[must_use]
pub fn pack<'a>(
    chunks: impl IntoIterator<Item = &'a Chunk>,
    chunk_bytes: usize,
) -> Vec<(Revision, Vec<u8>)> {
    let (mut packed, mut growing, mut last) = (Vec::new(), Vec::new(), Revision::default());
    for chunk in chunks {
        if growing.is_empty() {
            growing = pb::EventChunk {
                first: chunk.first.get(),
                revisions: Vec::new(),
            }
            .encode_to_vec();
        }
        growing.extend_from_slice(&chunk.encoded);
        last = chunk.last;
        if growing.len() >= chunk_bytes {
            packed.push((last, std::mem::take(&mut growing)));
        }
    }
    if !growing.is_empty() {
        packed.push((last, growing));
    }
    packed
}

/// Visits the revisions of a stored chunk, from one on.
pub fn unpack(
    key: &[u8],
    value: Bytes,
    from: Revision,
    visit: &mut dyn FnMut(Revision, Bytes) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let chunk = pb::EventChunk::decode(value).map_err(damaged)?;
    let mut revision = Revision::new(chunk.first);
    let mut last = None;
    for value in chunk.revisions {
        if revision >= from {
            visit(revision, value)?;
        }
        last = Some(revision);
        revision = revision.next();
    }
    match (Key::decode(key)?, last) {
        (Key::Events(named), Some(last)) if named == last => Ok(()),
        _ => Err(damaged("it does not end where its key says")),
    }
}

fn damaged(what: impl std::fmt::Display) -> Fault {
    Fault::corrupt("a chunk of events", what.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_out_from_any_revision_on(
            first in 1..1000u64,
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..60),
            cuts in prop::collection::vec(1..9usize, 1..9),
            chunk_bytes in 0..300usize,
            from in 1..1100u64,
        ) {
            let told: Vec<_> = (first..).map(Revision::new).zip(values.iter().cloned()).collect();
            let (mut chunks, mut rest) = (Vec::new(), &told[..]);
            for cut in cuts.iter().cycle() {
                let (some, after) = rest.split_at((*cut).min(rest.len()));
                let mut builder = Builder::default();
                for (revision, value) in some {
                    builder.push(*revision, value);
                }
                let Some(chunk) = builder.finish() else {
                    break;
                };
                let listed: Vec<_> = chunk.revisions().expect("whole").map(|(r, v)| (r, v.to_vec())).collect();
                prop_assert_eq!(&listed[..], some);
                chunks.push(chunk);
                rest = after;
            }
            let from = Revision::new(from);
            let mut found = Vec::new();
            for (last, value) in pack(&chunks, chunk_bytes) {
                let value = Bytes::from(value);
                let other = Key::encode_events(last.next());
                prop_assert!(unpack(&other, value.clone(), from, &mut |_, _| Ok(())).is_err());
                unpack(&Key::encode_events(last), value, from, &mut |revision, value| {
                    found.push((revision, value.to_vec()));
                    Ok(())
                }).expect("whole");
            }
            let wanted: Vec<_> = told.into_iter().filter(|(revision, _)| *revision >= from).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
