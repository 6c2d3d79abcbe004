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

/// Field numbers of [`pb::EventChunk`].
mod tag {
    pub(super) const FIRST: u32 = 1;
    pub(super) const REVISIONS: u32 = 2;
}

/// Room for a chunk that has a second revision: it will have many, and should not grow for each doubling.
const CHUNK_CAPACITY: usize = 64 << 10;
/// Bytes of the length of what most revisions did.
const LENGTH_BYTES: usize = 2;

/// What consecutive revisions did. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    first: Revision,
    last: Revision,
    /// A [`pb::EventChunk`].
    encoded: Bytes,
    /// Where its `revisions` begin: chunks are joined by joining these.
    head: usize,
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
    head: usize,
}

impl Builder {
    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.encoded.reserve(bytes);
    }

    /// Appends what the next revision did: `tell` appends an encoded [`pb::RevisionEvents`]. Returns its bytes.
    pub fn push(&mut self, revision: Revision, tell: impl FnOnce(&mut Vec<u8>)) -> usize {
        let first = match self.range {
            Some((first, _)) => {
                self.encoded
                    .reserve(CHUNK_CAPACITY.saturating_sub(self.encoded.len()));
                first
            }
            None => self.begin(revision),
        };
        self.range = Some((first, revision));
        let out = &mut self.encoded;
        encoding::encode_key(tag::REVISIONS, WireType::LengthDelimited, out);
        let begin = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        let told = out.len();
        tell(out);
        let bytes = out.len().saturating_sub(told);
        let (length, length_bytes) = varint(bytes);
        let length = length.iter().take(length_bytes).copied();
        // Nothing moves when the length takes the room that it was given.
        out.splice(begin..told, length);
        bytes
    }

    fn begin(&mut self, first: Revision) -> Revision {
        encoding::uint64::encode(tag::FIRST, &first.get(), &mut self.encoded);
        self.head = self.encoded.len();
        first
    }

    /// The chunk, unless it is empty.
    pub fn finish(mut self) -> Option<Chunk> {
        let (first, last) = self.range?;
        // Chunks wait in memory by the thousand.
        if self.encoded.capacity() > self.encoded.len().saturating_mul(2) {
            self.encoded.shrink_to_fit();
        }
        Some(Chunk {
            first,
            last,
            encoded: self.encoded.into(),
            head: self.head,
        })
    }
}

/// A number in protobuf's form, and how many bytes that takes.
fn varint(number: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut rest = bytes.as_mut_slice();
    encoding::encode_varint(number as u64, &mut rest);
    let left = rest.len();
    (bytes, bytes.len().saturating_sub(left))
}

/// A chunk of one revision.
#[must_use]
pub fn alone(revision: Revision, told: &[u8]) -> Chunk {
    let mut builder = Builder::default();
    builder.push(revision, |out| out.extend_from_slice(told));
    builder.finish().expect("it has a revision")
}

/// Joins chunks that follow each other into ones of at least so many bytes, but for the last: keys and values to store. A
/// chunk that is large enough is not copied.
#[must_use]
pub fn pack<'a>(
    chunks: impl IntoIterator<Item = &'a Chunk>,
    chunk_bytes: usize,
) -> Vec<(Revision, Bytes)> {
    let (mut packed, mut growing, mut last) = (Vec::new(), Vec::new(), Revision::default());
    for chunk in chunks {
        last = chunk.last;
        if growing.is_empty() {
            if chunk.bytes() >= chunk_bytes {
                packed.push((last, chunk.encoded.clone()));
                continue;
            }
            growing.extend_from_slice(&chunk.encoded);
        } else {
            growing.extend_from_slice(chunk.encoded.get(chunk.head..).unwrap_or_default());
        }
        if growing.len() >= chunk_bytes {
            packed.push((last, std::mem::take(&mut growing).into()));
        }
    }
    if !growing.is_empty() {
        packed.push((last, growing.into()));
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
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..60),
            cuts in prop::collection::vec(1..9usize, 1..9),
            chunk_bytes in 0..1000usize,
            from in 1..1100u64,
        ) {
            let told: Vec<_> = (first..).map(Revision::new).zip(values.iter().cloned()).collect();
            let (mut chunks, mut rest) = (Vec::new(), &told[..]);
            for cut in cuts.iter().cycle() {
                let (some, after) = rest.split_at((*cut).min(rest.len()));
                let mut builder = Builder::default();
                for (revision, value) in some {
                    prop_assert_eq!(builder.push(*revision, |out| out.extend_from_slice(value)), value.len());
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
