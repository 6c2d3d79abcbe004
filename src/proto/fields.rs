//! Fields of a session in one piece of memory, packed as a record has them encoded.
//!
//! Every update of a session makes a new record out of the old one, on every node. As a list of names and values, fields
//! are an allocation for each name, one for the list, and one that the values share, and each of them is out of the caches
//! when the next update comes: fetching them costs more than all that is done with them. Packed they are one allocation,
//! and what an update leaves alone is copied as it is.
//!
//! Invariant: [`PackedFields`] holds whole, canonical entries only, in memory of its own: it keeps no message alive.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message as _};

use super::internal::SessionField;
use super::wire::{framed, key, put_bytes, put_varint};

/// Of the fields in the messages that hold them packed: `SessionRecord.fields` and `SessionUpdate.set`.
pub(super) const FIELDS_TAG: u32 = 2;

/// Field numbers of `SessionField`.
mod tag {
    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

/// Fields of a session, ascending by name, as their record has them encoded. Cloning shares them.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct PackedFields {
    /// One after the other, each with tag and length.
    entries: Bytes,
    count: usize,
    /// Bytes of all names and values together.
    size: usize,
}

/// One field, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct PackedField<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// The whole entry, with its tag and length.
    entry: &'a [u8],
}

impl PackedFields {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that they take in their record.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all names and values together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = PackedField<'_>> {
        let mut rest = &self.entries[..];
        std::iter::from_fn(move || PackedField::split_off(&mut rest))
    }

    /// Names and values, of which each keeps the memory of all.
    pub fn shared(&self) -> impl Iterator<Item = (&str, Bytes)> {
        self.iter()
            .map(|field| (field.name, self.entries.slice_ref(field.value)))
    }

    /// Packs names and values, which ascend by name.
    #[must_use]
    pub fn pack<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Self {
        let mut room = Room::default();
        let pieces = fields.map(|(name, value)| Piece::New(name, value));
        pieces.clone().for_each(|piece| room.add(piece));
        room.filled(|entries| pieces.for_each(|piece| piece.put(entries)))
    }

    /// With some fields set and others removed; a name in both is set. Both ascend by name.
    #[must_use]
    pub fn changed(&self, set: &Self, remove: &[String]) -> Self {
        let (mut room, mut stays) = (Room::default(), false);
        self.merge(set, remove, |field, is_old| {
            room.add(Piece::Whole(field));
            stays |= is_old;
        });
        if !stays {
            return set.clone();
        }
        room.filled(|entries| {
            self.merge(set, remove, |field, _| Piece::Whole(field).put(entries));
        })
    }

    /// Visits what the fields become, and tells of each whether it was there before.
    fn merge<'a>(
        &'a self,
        set: &'a Self,
        remove: &[String],
        mut visit: impl FnMut(PackedField<'a>, bool),
    ) {
        let mut set = set.iter().peekable();
        for field in self.iter() {
            while let Some(new) = set.next_if(|new| new.name < field.name) {
                visit(new, false);
            }
            if let Some(new) = set.next_if(|new| new.name == field.name) {
                visit(new, false);
            } else if !remove.iter().any(|name| name == field.name) {
                visit(field, true);
            }
        }
        for new in set {
            visit(new, false);
        }
    }

    /// The value of a field. There are few, so they are walked over.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.iter().filter(|field| field.name == name);
        found.next().map(|field| field.value)
    }

    /// The first of their bytes.
    #[must_use]
    pub fn entries_head(&self) -> u64 {
        self.entries.first().copied().map_or(0, u64::from)
    }

    /// The entries, as their message has them.
    pub(super) fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// Decodes one more entry, behind its key.
    pub(super) fn merge_entry(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut body = Bytes::new();
        encoding::bytes::merge(wire_type, &mut body, buf, ctx)?;
        if let Some((name, value)) = plain(&body) {
            self.push(name, value);
            return Ok(());
        }
        let field = SessionField::decode(body)?;
        self.push(&field.name, &field.value);
        Ok(())
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        let piece = Piece::New(name, value);
        let entries = std::mem::take(&mut self.entries);
        let mut entries = entries
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        entries.reserve(piece.entry_len());
        piece.put(&mut entries);
        self.entries = entries.freeze();
        self.count = self.count.saturating_add(1);
        self.size = self.size.saturating_add(piece.size());
    }
}

/// What entries will take: measured first, so that the memory is as large as what it holds.
#[derive(Default)]
struct Room {
    length: usize,
    count: usize,
    size: usize,
}

impl Room {
    fn add(&mut self, piece: Piece<'_>) {
        self.length = self.length.saturating_add(piece.entry_len());
        self.count = self.count.saturating_add(1);
        self.size = self.size.saturating_add(piece.size());
    }

    fn filled(self, fill: impl FnOnce(&mut Vec<u8>)) -> PackedFields {
        let mut entries = Vec::with_capacity(self.length);
        fill(&mut entries);
        PackedFields {
            entries: entries.into(),
            count: self.count,
            size: self.size,
        }
    }
}

/// An entry of what fields become.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Whole(PackedField<'a>),
    New(&'a str, &'a [u8]),
}

impl Piece<'_> {
    fn size(self) -> usize {
        match self {
            Self::Whole(field) => field.name.len().saturating_add(field.value.len()),
            Self::New(name, value) => name.len().saturating_add(value.len()),
        }
    }

    fn entry_len(self) -> usize {
        match self {
            Self::Whole(field) => field.entry.len(),
            Self::New(name, value) => framed(body_len(name, value)),
        }
    }

    fn put(self, out: &mut impl BufMut) {
        match self {
            Self::Whole(field) => out.put_slice(field.entry),
            Self::New(name, value) => {
                put_varint(key(FIELDS_TAG, WireType::LengthDelimited), out);
                put_varint(body_len(name, value) as u64, out);
                if !name.is_empty() {
                    put_bytes(tag::NAME, name.as_bytes(), out);
                }
                if !value.is_empty() {
                    put_bytes(tag::VALUE, value, out);
                }
            }
        }
    }
}

/// What a field's entry has behind its length.
fn body_len(name: &str, value: &[u8]) -> usize {
    let part = |length: usize| if length == 0 { 0 } else { framed(length) };
    part(name.len()).saturating_add(part(value.len()))
}

impl<'a> PackedField<'a> {
    /// The first of entries. What is packed here was packed by [`Piece::put`].
    fn split_off(rest: &mut &'a [u8]) -> Option<Self> {
        const WHOLE: &str = "only whole entries are packed";
        if rest.is_empty() {
            return None;
        }
        let whole = *rest;
        take_varint(rest).expect(WHOLE);
        let mut body = take_bytes(rest).expect(WHOLE);
        let entry = whole
            .get(..whole.len().saturating_sub(rest.len()))
            .expect(WHOLE);
        let (mut name, mut value) = (&body[..0], &body[..0]);
        while !body.is_empty() {
            let tag = take_varint(&mut body).expect(WHOLE);
            let part = take_bytes(&mut body).expect(WHOLE);
            if tag == key(tag::NAME, WireType::LengthDelimited) {
                name = part;
            } else {
                value = part;
            }
        }
        Some(Self {
            name: std::str::from_utf8(name).expect("a name was a string when it was packed"),
            value,
            entry,
        })
    }
}

impl FromIterator<SessionField> for PackedFields {
    fn from_iter<I: IntoIterator<Item = SessionField>>(fields: I) -> Self {
        let mut packed = Self::default();
        for field in fields {
            packed.push(&field.name, &field.value);
        }
        packed
    }
}

impl fmt::Debug for PackedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.shared().map(|(name, value)| SessionField {
            name: name.to_owned(),
            value,
        });
        f.debug_list().entries(fields).finish()
    }
}

/// Name and value of an entry that has nothing else and nothing twice; any other is for the generated code.
fn plain(mut body: &[u8]) -> Option<(&str, &[u8])> {
    let name = take_part(&mut body, tag::NAME)?;
    let value = take_part(&mut body, tag::VALUE)?;
    let name = std::str::from_utf8(name).ok()?;
    body.is_empty().then_some((name, value))
}

/// The bytes of the next part, if it has this tag.
fn take_part<'a>(rest: &mut &'a [u8], tag: u32) -> Option<&'a [u8]> {
    (take_varint(rest)? == key(tag, WireType::LengthDelimited)).then_some(())?;
    take_bytes(rest)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    encoding::decode_varint(rest).ok()
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<String, Bytes>;

    fn fields() -> impl Strategy<Value = Model> {
        let value = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop::collection::btree_map("[a-dé]{0,2}", value, 0..6)
    }

    fn packed(fields: &Model) -> PackedFields {
        PackedFields::pack(
            fields
                .iter()
                .map(|(name, value)| (name.as_str(), &value[..])),
        )
    }

    fn unpacked(fields: &PackedFields) -> Model {
        let fields = fields.shared();
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Its entries, decoded one by one.
    fn decoded(mut entries: &[u8]) -> Result<PackedFields, DecodeError> {
        let mut fields = PackedFields::default();
        while !entries.is_empty() {
            let (tag, wire_type) = encoding::decode_key(&mut entries)?;
            assert_eq!(tag, FIELDS_TAG);
            fields.merge_entry(wire_type, &mut entries, DecodeContext::default())?;
        }
        Ok(fields)
    }

    proptest! {
        #[test]
        fn a_change_leaves_what_a_map_would_have(
            before in fields(),
            set in fields(),
            remove in prop::collection::vec("[a-dé]{0,2}", 0..3),
        ) {
            let changed = packed(&before).changed(&packed(&set), &remove);
            let mut wanted = before;
            wanted.retain(|name, _| !remove.contains(name));
            wanted.extend(set);
            prop_assert_eq!(unpacked(&changed), wanted.clone());
            prop_assert_eq!(&changed, &packed(&wanted));
            prop_assert_eq!(decoded(changed.entries()).expect("its own entries"), changed.clone());
            for (name, value) in &wanted {
                prop_assert_eq!(changed.get(name), Some(&value[..]));
            }
            prop_assert_eq!(changed.len(), wanted.len());
            let size = wanted.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            prop_assert_eq!(changed.size(), size);
            prop_assert_eq!(changed.is_empty(), wanted.is_empty());
        }

        #[test]
        fn an_entry_is_decoded_as_the_generated_code_would(body in entry_body()) {
            let mut entry = Vec::new();
            put_bytes(FIELDS_TAG, &body, &mut entry);
            let wanted = SessionField::decode(&body[..]);
            let found = decoded(&entry);
            prop_assert_eq!(found.is_ok(), wanted.is_ok());
            if let (Ok(found), Ok(wanted)) = (found, wanted) {
                prop_assert_eq!(&found, &[wanted].into_iter().collect());
                prop_assert_eq!(decoded(found.entries()).expect("its own entries"), found);
            }
        }
    }

    /// Canonical or not: parts in any order, twice, of other tags and types, or no parts at all.
    fn entry_body() -> impl Strategy<Value = Vec<u8>> {
        let part = (1..4_u32, prop::collection::vec(any::<u8>(), 0..5));
        let text = (1..3_u32, "[a-dé]{0,3}".prop_map(String::into_bytes));
        let parts = prop::collection::vec(prop_oneof![1 => part, 3 => text], 0..4);
        let parts = parts.prop_map(|parts| {
            let mut body = Vec::new();
            for (tag, bytes) in parts {
                put_bytes(tag, &bytes, &mut body);
            }
            body
        });
        prop_oneof![4 => parts, 1 => prop::collection::vec(any::<u8>(), 0..12)]
    }
}
