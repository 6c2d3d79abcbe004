//! A stored session, in a shape of its own: [`SessionRecord`], whose fields are one piece of memory.
//!
//! Every update of a session makes a new record out of the old one, on every node. As a list of names and values, its
//! fields are an allocation for each name, one for the list, and one that the values share, and each of them is out of
//! the caches when the next update comes: fetching them costs more than all that is done with them. Packed as they are
//! encoded, they are one allocation, and what an update leaves alone is copied as it is.
//!
//! Invariants:
//! 1. On the wire and on disk it is the `SessionRecord` of `record.proto`, byte for byte what the generated code would write.
//! 2. [`PackedFields`] holds whole, canonical entries only, in memory of its own or of its record's encoding: it keeps no
//!    message alive.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use super::internal::SessionField;
use super::wire::{framed, key, put_bytes, put_uint, put_varint};

/// Field numbers of `SessionRecord` and `SessionField`.
mod tag {
    pub(super) const USER_ID: u32 = 1;
    pub(super) const FIELDS: u32 = 2;
    pub(super) const CREATE_REVISION: u32 = 3;
    pub(super) const MOD_REVISION: u32 = 4;
    pub(super) const CREATED_AT: u32 = 5;
    pub(super) const LAST_SEEN: u32 = 6;
    pub(super) const IDLE_TTL: u32 = 7;
    pub(super) const ABSOLUTE_DEADLINE: u32 = 8;
    pub(super) const INDEXED_DEADLINE: u32 = 9;
    pub(super) const HAS_CART: u32 = 10;
    pub(super) const TOMBSTONE_UNTIL: u32 = 11;
    pub(super) const BIRTH: u32 = 12;
    pub(super) const TOUCH_INTERVAL: u32 = 13;
    pub(super) const CLIENT: u32 = 14;

    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

/// A stored session. What its fields say is in `record.proto`.
#[derive(Clone, Default, PartialEq)]
pub struct SessionRecord {
    /// Empty for a guest.
    pub user_id: String,
    /// Ascending by name.
    pub fields: PackedFields,
    /// The revision that it was made at.
    pub create_revision: u64,
    /// The revision of the last write, touches apart.
    pub mod_revision: u64,
    /// Log time.
    pub created_at: u64,
    /// Log time of the last write or stored touch.
    pub last_seen: u64,
    /// Milliseconds.
    pub idle_ttl: u64,
    /// Log time.
    pub absolute_deadline: u64,
    /// Where the deadline index holds it.
    pub indexed_deadline: u64,
    /// The session's own cart has a record.
    pub has_cart: bool,
    /// Not 0: the session was ended, and this stands in its place until then.
    pub tombstone_until: u64,
    /// Its place among its user's sessions.
    pub birth: u64,
    /// Milliseconds.
    pub touch_interval: u64,
    /// What is known of the device.
    pub client: BTreeMap<String, String>,
}

impl SessionRecord {
    /// Its fields become a piece of its encoding, so that who keeps both keeps them once.
    pub(crate) fn lie_in(&mut self, encoded: &Bytes) {
        let begin = match self.user_id.len() {
            0 => 0,
            length => framed(length),
        };
        let end = begin.saturating_add(self.fields.entries.len());
        debug_assert_eq!(encoded.get(begin..end), Some(&self.fields.entries[..]));
        self.fields.entries = encoded.slice(begin..end);
    }

    /// The numbers, in the order of their tags.
    fn numbers(&self) -> [(u32, u64); 11] {
        [
            (tag::CREATE_REVISION, self.create_revision),
            (tag::MOD_REVISION, self.mod_revision),
            (tag::CREATED_AT, self.created_at),
            (tag::LAST_SEEN, self.last_seen),
            (tag::IDLE_TTL, self.idle_ttl),
            (tag::ABSOLUTE_DEADLINE, self.absolute_deadline),
            (tag::INDEXED_DEADLINE, self.indexed_deadline),
            (tag::HAS_CART, u64::from(self.has_cart)),
            (tag::TOMBSTONE_UNTIL, self.tombstone_until),
            (tag::BIRTH, self.birth),
            (tag::TOUCH_INTERVAL, self.touch_interval),
        ]
    }
}

// As the generated code would show it.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("user_id", &self.user_id)
            .field("fields", &self.fields)
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .field("created_at", &self.created_at)
            .field("last_seen", &self.last_seen)
            .field("idle_ttl", &self.idle_ttl)
            .field("absolute_deadline", &self.absolute_deadline)
            .field("indexed_deadline", &self.indexed_deadline)
            .field("has_cart", &self.has_cart)
            .field("tombstone_until", &self.tombstone_until)
            .field("birth", &self.birth)
            .field("touch_interval", &self.touch_interval)
            .field("client", &self.client)
            .finish()
    }
}

impl Message for SessionRecord {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if !self.user_id.is_empty() {
            put_bytes(tag::USER_ID, self.user_id.as_bytes(), out);
        }
        out.put_slice(&self.fields.entries);
        for (tag, number) in self.numbers() {
            put_uint(tag, number, out);
        }
        encoding::btree_map::encode(
            encoding::string::encode,
            encoding::string::encoded_len,
            encoding::string::encode,
            encoding::string::encoded_len,
            tag::CLIENT,
            &self.client,
            out,
        );
    }

    fn encoded_len(&self) -> usize {
        let user_id = match self.user_id.len() {
            0 => 0,
            length => framed(length),
        };
        let numbers = self.numbers();
        let numbers = numbers.iter().filter(|(_, number)| *number != 0);
        let numbers: usize = numbers
            .map(|(_, number)| encoding::encoded_len_varint(*number).saturating_add(1))
            .sum();
        let client = encoding::btree_map::encoded_len(
            encoding::string::encoded_len,
            encoding::string::encoded_len,
            tag::CLIENT,
            &self.client,
        );
        [self.fields.entries.len(), numbers, client]
            .into_iter()
            .fold(user_id, usize::saturating_add)
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let number = match tag {
            tag::USER_ID => return encoding::string::merge(wire_type, &mut self.user_id, buf, ctx),
            tag::FIELDS => {
                let mut field = SessionField::default();
                encoding::message::merge(wire_type, &mut field, buf, ctx)?;
                self.fields.push(&field.name, &field.value);
                return Ok(());
            }
            tag::HAS_CART => return encoding::bool::merge(wire_type, &mut self.has_cart, buf, ctx),
            tag::CLIENT => {
                return encoding::btree_map::merge(
                    encoding::string::merge,
                    encoding::string::merge,
                    &mut self.client,
                    buf,
                    ctx,
                );
            }
            tag::CREATE_REVISION => &mut self.create_revision,
            tag::MOD_REVISION => &mut self.mod_revision,
            tag::CREATED_AT => &mut self.created_at,
            tag::LAST_SEEN => &mut self.last_seen,
            tag::IDLE_TTL => &mut self.idle_ttl,
            tag::ABSOLUTE_DEADLINE => &mut self.absolute_deadline,
            tag::INDEXED_DEADLINE => &mut self.indexed_deadline,
            tag::TOMBSTONE_UNTIL => &mut self.tombstone_until,
            tag::BIRTH => &mut self.birth,
            tag::TOUCH_INTERVAL => &mut self.touch_interval,
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        encoding::uint64::merge(wire_type, number, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Fields of a session, as their record has them encoded. Cloning shares them.
#[derive(Clone, Default, PartialEq)]
pub struct PackedFields {
    /// Entries of `SessionRecord.fields`, one after the other.
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

    /// With some fields set and others removed; a name in both is set. `set` ascends by name, as these do.
    #[must_use]
    pub fn changed(&self, set: &[(String, Bytes)], remove: &[String]) -> Self {
        // Once to measure and once to write: so the memory is as large as what it holds.
        let (mut length, mut count, mut size) = (0_usize, 0_usize, 0_usize);
        self.merge(set, remove, |piece| {
            length = length.saturating_add(piece.entry_len());
            count = count.saturating_add(1);
            size = size.saturating_add(piece.size());
        });
        let mut entries = Vec::with_capacity(length);
        self.merge(set, remove, |piece| piece.put(&mut entries));
        Self {
            entries: entries.into(),
            count,
            size,
        }
    }

    fn merge<'a>(
        &'a self,
        set: &'a [(String, Bytes)],
        remove: &[String],
        mut visit: impl FnMut(Piece<'a>),
    ) {
        let mut set = set.iter().peekable();
        for field in self.iter() {
            while let Some((name, value)) = set.next_if(|(name, _)| name.as_str() < field.name) {
                visit(Piece::New(name, value));
            }
            if let Some((name, value)) = set.next_if(|(name, _)| name == field.name) {
                visit(Piece::New(name, value));
            } else if !remove.iter().any(|name| name == field.name) {
                visit(Piece::Old(field));
            }
        }
        for (name, value) in set {
            visit(Piece::New(name, value));
        }
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

/// An entry of what fields become.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Old(PackedField<'a>),
    New(&'a str, &'a [u8]),
}

impl Piece<'_> {
    fn size(self) -> usize {
        match self {
            Self::Old(field) => field.name.len().saturating_add(field.value.len()),
            Self::New(name, value) => name.len().saturating_add(value.len()),
        }
    }

    fn entry_len(self) -> usize {
        match self {
            Self::Old(field) => field.entry.len(),
            Self::New(name, value) => framed(body_len(name, value)),
        }
    }

    fn put(self, out: &mut impl BufMut) {
        match self {
            Self::Old(field) => out.put_slice(field.entry),
            Self::New(name, value) => {
                put_varint(key(tag::FIELDS, WireType::LengthDelimited), out);
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
    use proptest::prelude::*;

    use super::*;

    /// As `record.proto` has it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(string, tag = "1")]
        user_id: String,
        #[prost(message, repeated, tag = "2")]
        fields: Vec<SessionField>,
        #[prost(uint64, tag = "3")]
        create_revision: u64,
        #[prost(uint64, tag = "4")]
        mod_revision: u64,
        #[prost(uint64, tag = "5")]
        created_at: u64,
        #[prost(uint64, tag = "6")]
        last_seen: u64,
        #[prost(uint64, tag = "7")]
        idle_ttl: u64,
        #[prost(uint64, tag = "8")]
        absolute_deadline: u64,
        #[prost(uint64, tag = "9")]
        indexed_deadline: u64,
        #[prost(bool, tag = "10")]
        has_cart: bool,
        #[prost(uint64, tag = "11")]
        tombstone_until: u64,
        #[prost(uint64, tag = "12")]
        birth: u64,
        #[prost(uint64, tag = "13")]
        touch_interval: u64,
        #[prost(btree_map = "string, string", tag = "14")]
        client: BTreeMap<String, String>,
    }

    type Model = BTreeMap<String, Bytes>;

    fn fields() -> impl Strategy<Value = Model> {
        let value = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop::collection::btree_map("[a-dé]{0,2}", value, 0..6)
    }

    fn list(fields: &Model) -> Vec<SessionField> {
        let fields = fields.clone().into_iter();
        fields
            .map(|(name, value)| SessionField { name, value })
            .collect()
    }

    fn generated() -> impl Strategy<Value = Generated> {
        let client = prop::collection::btree_map(".{0,8}", ".{0,8}", 0..3);
        let numbers = any::<[Option<u64>; 10]>();
        (".{0,8}", fields(), client, numbers, any::<bool>()).prop_map(
            |(user_id, fields, client, numbers, has_cart)| {
                let mut numbers = numbers.into_iter();
                let mut number = || numbers.next().flatten().unwrap_or_default();
                Generated {
                    user_id,
                    fields: list(&fields),
                    create_revision: number(),
                    mod_revision: number(),
                    created_at: number(),
                    last_seen: number(),
                    idle_ttl: number(),
                    absolute_deadline: number(),
                    indexed_deadline: number(),
                    has_cart,
                    tombstone_until: number(),
                    birth: number(),
                    touch_interval: number(),
                    client,
                }
            },
        )
    }

    fn unpacked(fields: &PackedFields) -> Model {
        let fields = fields.shared();
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    proptest! {
        #[test]
        fn it_is_the_message_of_its_proto(wanted in generated()) {
            let encoded = wanted.encode_to_vec();
            let session = SessionRecord::decode(&encoded[..]).expect("its own encoding");
            prop_assert_eq!(session.encode_to_vec(), &encoded[..]);
            prop_assert_eq!(session.encoded_len(), encoded.len());
            prop_assert_eq!(format!("{session:?}"), format!("{wanted:?}").replacen("Generated", "SessionRecord", 1));
            let mut cleared = session;
            cleared.clear();
            prop_assert_eq!(cleared, SessionRecord::default());
        }

        #[test]
        fn a_change_leaves_what_a_map_would_have(
            before in fields(),
            set in fields(),
            remove in prop::collection::vec("[a-dé]{0,2}", 0..3),
        ) {
            let packed: PackedFields = list(&before).into_iter().collect();
            let set: Vec<_> = set.into_iter().collect();
            let changed = packed.changed(&set, &remove);
            let mut wanted = before;
            wanted.retain(|name, _| !remove.contains(name));
            wanted.extend(set);
            prop_assert_eq!(unpacked(&changed), wanted.clone());
            prop_assert_eq!(&changed, &list(&wanted).into_iter().collect());
            prop_assert_eq!(changed.len(), wanted.len());
            let size = wanted.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            prop_assert_eq!(changed.size(), size);
            prop_assert_eq!(changed.is_empty(), wanted.is_empty());
        }

        #[test]
        fn bytes_that_are_no_session_are_refused_or_make_one(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(session) = SessionRecord::decode(&bytes[..]) {
                prop_assert_eq!(session.fields.iter().count(), session.fields.len());
                let again = SessionRecord::decode(&session.encode_to_vec()[..]).expect("its own encoding");
                prop_assert_eq!(again, session);
            }
        }
    }
}
