//! A stored session and its update, in shapes of their own: [`SessionRecord`] and [`SessionUpdate`], whose fields are packed, see
//! [`super::fields`].
//!
//! Invariant: on the wire and on disk they are the messages of `record.proto` and `command.proto`, byte for byte what the
//! generated code would write.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use super::fields::{FIELDS_TAG, PackedFields};
use super::wire::{framed, put_bytes, put_uint, uint_len};

/// Field numbers of `SessionRecord`, but for [`FIELDS_TAG`].
mod tag {
    pub(super) const USER_ID: u32 = 1;
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
}

/// Field numbers of `SessionUpdate`, but for [`FIELDS_TAG`].
mod update_tag {
    pub(super) const TOKEN_HASH: u32 = 1;
    pub(super) const REMOVE: u32 = 3;
    pub(super) const IF_REVISION: u32 = 4;
    pub(super) const IDLE_TTL: u32 = 5;
    pub(super) const ABSOLUTE_TTL: u32 = 6;
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
        out.put_slice(self.fields.entries());
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
        let numbers = numbers.iter().map(|(_, number)| uint_len(*number)).sum();
        let client = encoding::btree_map::encoded_len(
            encoding::string::encoded_len,
            encoding::string::encoded_len,
            tag::CLIENT,
            &self.client,
        );
        [self.fields.encoded_len(), numbers, client]
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
            FIELDS_TAG => return self.fields.merge_entry(wire_type, buf, ctx),
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

/// A command that changes a session. What its fields say is in `command.proto`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SessionUpdate {
    /// SHA-256 of the token.
    pub token_hash: Bytes,
    /// Ascending by name.
    pub set: PackedFields,
    /// Names of fields.
    pub remove: Vec<String>,
    /// The session's revision, if that matters.
    pub if_revision: Option<u64>,
    /// Milliseconds; 0: as before.
    pub idle_ttl: u64,
    /// Milliseconds; 0: the deadline stays where it is.
    pub absolute_ttl: u64,
}

impl Message for SessionUpdate {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if !self.token_hash.is_empty() {
            put_bytes(update_tag::TOKEN_HASH, &self.token_hash, out);
        }
        out.put_slice(self.set.entries());
        for name in &self.remove {
            put_bytes(update_tag::REMOVE, name.as_bytes(), out);
        }
        if let Some(revision) = &self.if_revision {
            encoding::uint64::encode(update_tag::IF_REVISION, revision, out);
        }
        put_uint(update_tag::IDLE_TTL, self.idle_ttl, out);
        put_uint(update_tag::ABSOLUTE_TTL, self.absolute_ttl, out);
    }

    fn encoded_len(&self) -> usize {
        let token_hash = match self.token_hash.len() {
            0 => 0,
            length => framed(length),
        };
        let if_revision = self.if_revision.map_or(0, |revision| {
            encoding::uint64::encoded_len(update_tag::IF_REVISION, &revision)
        });
        let remove = self.remove.iter().map(|name| framed(name.len()));
        let parts = [
            self.set.encoded_len(),
            if_revision,
            uint_len(self.idle_ttl),
            uint_len(self.absolute_ttl),
        ];
        parts
            .into_iter()
            .chain(remove)
            .fold(token_hash, usize::saturating_add)
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let number = match tag {
            update_tag::TOKEN_HASH => {
                return encoding::bytes::merge(wire_type, &mut self.token_hash, buf, ctx);
            }
            FIELDS_TAG => return self.set.merge_entry(wire_type, buf, ctx),
            update_tag::REMOVE => {
                return encoding::string::merge_repeated(wire_type, &mut self.remove, buf, ctx);
            }
            update_tag::IF_REVISION => self.if_revision.get_or_insert_default(),
            update_tag::IDLE_TTL => &mut self.idle_ttl,
            update_tag::ABSOLUTE_TTL => &mut self.absolute_ttl,
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        encoding::uint64::merge(wire_type, number, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::internal::SessionField;

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

    /// As `command.proto` has it.
    #[derive(Clone, PartialEq, Message)]
    struct GeneratedUpdate {
        #[prost(bytes = "bytes", tag = "1")]
        token_hash: Bytes,
        #[prost(message, repeated, tag = "2")]
        set: Vec<SessionField>,
        #[prost(string, repeated, tag = "3")]
        remove: Vec<String>,
        #[prost(uint64, optional, tag = "4")]
        if_revision: Option<u64>,
        #[prost(uint64, tag = "5")]
        idle_ttl: u64,
        #[prost(uint64, tag = "6")]
        absolute_ttl: u64,
    }

    fn fields() -> impl Strategy<Value = BTreeMap<String, Bytes>> {
        let value = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop::collection::btree_map("[a-dé]{0,2}", value, 0..6)
    }

    fn list(fields: &BTreeMap<String, Bytes>) -> Vec<SessionField> {
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

    fn generated_update() -> impl Strategy<Value = GeneratedUpdate> {
        let token_hash = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let remove = prop::collection::vec(".{0,3}", 0..3);
        let numbers = any::<(Option<u64>, Option<u64>, Option<u64>)>();
        (token_hash, fields(), remove, numbers).prop_map(
            |(token_hash, set, remove, (if_revision, idle_ttl, absolute_ttl))| GeneratedUpdate {
                token_hash,
                set: list(&set),
                remove,
                if_revision,
                idle_ttl: idle_ttl.unwrap_or_default(),
                absolute_ttl: absolute_ttl.unwrap_or_default(),
            },
        )
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
        fn an_update_is_the_message_of_its_proto(wanted in generated_update()) {
            let encoded = wanted.encode_to_vec();
            let update = SessionUpdate::decode(&encoded[..]).expect("its own encoding");
            prop_assert_eq!(update.encode_to_vec(), &encoded[..]);
            prop_assert_eq!(update.encoded_len(), encoded.len());
            prop_assert_eq!(format!("{update:?}"), format!("{wanted:?}").replacen("GeneratedUpdate", "SessionUpdate", 1));
            let mut cleared = update;
            cleared.clear();
            prop_assert_eq!(cleared, SessionUpdate::default());
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
