//! The log database's keys and stored records.
//!
//! Every key is `shard(2) | kind(1) | index(8)`, big-endian, so that a shard's entries lie together and in order:
//!
//! | table | kind | shard | index | value |
//! |---|---|---|---|---|
//! | meta | 1 group | `NODE` | 0 | [`pb::StoredNumber`]: counts the commit groups of this node |
//! | meta | 2 identity | `NODE` | 0 | [`pb::StoredIdentity`] |
//! | meta | 3 generation | shard | 0 | [`pb::StoredNumber`]: which state directory is the current one |
//! | meta | 4 head | shard | 0 | [`pb::LogHead`]: vote, purge point, last entry |
//! | meta | 5 committed | shard | 0 | [`pb::LogId`]: a hint that may be old |
//! | meta | 7 log time | `NODE` | 0 | [`pb::StoredLogTime`]: a hint that may be old |
//! | entries | 6 entry | shard | log index | [`pb::Entry`] |
//!
//! Every value ends with the XXH3-64 of key and message, so that a record that was damaged, or stands under
//! another's key, is noticed whatever RocksDB's own checksums say.
//!
//! Invariant: retired kinds stay reserved. Deliberately absent: the state database's keys, see `state::keys`.

use std::fmt;

use bytes::{BufMut as _, Bytes};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::proto::internal as pb;
use crate::types::ShardId;

/// Length of an encoded key.
pub(super) const KEY_BYTES: usize = 11;
/// Length of the checksum at the end of a value.
pub(super) const CHECKSUM_BYTES: usize = 8;
/// The place of what belongs to no shard.
const NODE: u16 = u16::MAX;

/// The column families: entries apart, so that flushed files of them never overlap and are moved down the
/// levels, and at last deleted, without being rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Small records that are overwritten.
    Meta,
    /// Log entries.
    Entries,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The number of the last commit group.
    Group,
    /// Whom the directory belongs to.
    Identity,
    /// The current generation of a shard's state.
    Generation(ShardId),
    /// Vote, purge point and last entry of a shard.
    Head(ShardId),
    /// How far a shard was committed.
    Committed(ShardId),
    /// Log time, as the node last knew it.
    LogTime,
    /// A log entry.
    Entry(ShardId, u64),
}

impl Key {
    /// Which column family holds it.
    pub(super) fn table(self) -> Table {
        match self {
            Self::Entry(..) => Table::Entries,
            _ => Table::Meta,
        }
    }

    /// The stored form.
    pub(super) fn encode(self) -> [u8; KEY_BYTES] {
        let (kind, shard, index) = match self {
            Self::Group => (1, NODE, 0),
            Self::Identity => (2, NODE, 0),
            Self::Generation(shard) => (3, shard.get(), 0),
            Self::Head(shard) => (4, shard.get(), 0),
            Self::Committed(shard) => (5, shard.get(), 0),
            Self::LogTime => (7, NODE, 0),
            Self::Entry(shard, index) => (6, shard.get(), index),
        };
        let mut key = [0; KEY_BYTES];
        key[..2].copy_from_slice(&shard.to_be_bytes());
        key[2] = kind;
        key[3..].copy_from_slice(&u64::to_be_bytes(index));
        key
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => write!(f, "the group counter"),
            Self::Identity => write!(f, "the identity"),
            Self::Generation(shard) => write!(f, "the generation of shard {}", shard.get()),
            Self::Head(shard) => write!(f, "the log head of shard {}", shard.get()),
            Self::Committed(shard) => write!(f, "the committed hint of shard {}", shard.get()),
            Self::LogTime => write!(f, "the log time"),
            Self::Entry(shard, index) => write!(f, "log entry {index} of shard {}", shard.get()),
        }
    }
}

/// A key and its value in one buffer, sealed by their checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    table: Table,
    bytes: Vec<u8>,
}

impl Record {
    /// Seals a message under its key.
    pub(super) fn seal(key: Key, message: &impl Message) -> Self {
        let length = KEY_BYTES + message.encoded_len() + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.put_slice(&key.encode());
        message
            .encode(&mut bytes)
            .expect("a vector takes any length");
        let checksum = xxh3_64(&bytes);
        bytes.put_u64(checksum);
        Self {
            table: key.table(),
            bytes,
        }
    }

    /// Which column family it goes to.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// The encoded key.
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..KEY_BYTES]
    }

    /// Message and checksum.
    pub(super) fn value(&self) -> &[u8] {
        &self.bytes[KEY_BYTES..]
    }

    /// Of key and value.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What is wrong with a stored value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// It ends before its checksum.
    #[error("it is only {0} bytes long")]
    Short(usize),
    /// Its checksum differs.
    #[error("its checksum does not match")]
    Checksum,
    /// Its bytes match their checksum and mean nothing: a newer version wrote them.
    #[error("it does not decode ({0})")]
    Undecodable(String),
}

/// Checks a stored value against its checksum and decodes it. The message shares one copy of the bytes.
pub(super) fn unseal<M: Message + Default>(key: Key, value: &[u8]) -> Result<M, Damage> {
    let Some(length) = value.len().checked_sub(CHECKSUM_BYTES) else {
        return Err(Damage::Short(value.len()));
    };
    let (message, checksum) = value.split_at(length);
    let mut bytes = Vec::with_capacity(KEY_BYTES + length);
    bytes.put_slice(&key.encode());
    bytes.put_slice(message);
    if xxh3_64(&bytes).to_be_bytes() != checksum {
        return Err(Damage::Checksum);
    }
    let message = Bytes::from(bytes).slice(KEY_BYTES..);
    M::decode(message).map_err(|e| Damage::Undecodable(e.to_string()))
}

/// A counter as it is stored.
pub(super) fn number(number: u64) -> pb::StoredNumber {
    pb::StoredNumber { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::ZERO;

    #[test]
    fn entries_lie_in_the_order_of_their_indexes() {
        let keys = [0, 1, 255, 256, u64::MAX].map(|index| Key::Entry(SHARD, index).encode());
        assert!(keys.is_sorted());
    }

    #[test]
    fn every_key_has_its_own_place() {
        let keys = [
            Key::Group,
            Key::Identity,
            Key::Generation(SHARD),
            Key::Head(SHARD),
            Key::Committed(SHARD),
            Key::LogTime,
            Key::Entry(SHARD, 0),
        ];
        let mut places: Vec<_> = keys.iter().map(|key| key.encode()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), keys.len());
    }

    /// Yesterday's disk opens tomorrow: these bytes are a stored format.
    #[test]
    fn the_stored_form_of_an_entry_is_fixed() {
        let entry = pb::Entry {
            log_id: Some(pb::LogId {
                term: 3,
                node_id: 2,
                index: 7,
            }),
            payload: Some(pb::entry::Payload::Blank(pb::Blank {})),
        };
        let record = Record::seal(Key::Entry(SHARD, 7), &entry);
        assert_eq!(record.key(), [0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
        let message = [0x0a, 6, 8, 3, 16, 2, 24, 7, 0x12, 0];
        assert_eq!(record.value()[..message.len()], message);
        assert_eq!(
            record.value()[message.len()..],
            xxh3_64(&[record.key(), &message[..]].concat()).to_be_bytes()
        );
    }

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let key = Key::Head(SHARD);
        let record = Record::seal(key, &number(77));
        let back: pb::StoredNumber = unseal(key, record.value()).expect("undamaged");
        assert_eq!(back, number(77));
        for bit in 0..record.value().len() * 8 {
            let mut value = record.value().to_vec();
            value[bit / 8] ^= 1 << (bit % 8);
            assert!(
                unseal::<pb::StoredNumber>(key, &value).is_err(),
                "bit {bit}"
            );
        }
        assert!(unseal::<pb::StoredNumber>(Key::Group, record.value()).is_err());
        assert!(unseal::<pb::StoredNumber>(key, &[]).is_err());
    }
}
