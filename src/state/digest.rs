//! The digest: a sum that two replicas can compare.
//!
//! It is the wrapping sum of [`hash`] over every stored record but the header and what storage keeps beside it,
//! see `Key::in_digest`. A sum does not depend on order, so that a put or a delete updates it in O(1) with
//! the old record's hash, and two stores with the same records have the same digest however they got there.
//!
//! It finds accidents: damage, and replicas that applied differently. It is no defence against somebody who can
//! choose bytes on a node's disk.

use std::ops::ControlFlow;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::keys::{Key, KeyRange};
use super::{Fault, Store};

/// What one record adds: XXH3-128 of its encoded value, seeded with XXH3-64 of its encoded key. The seed stands
/// for the key, so that neither has to be copied behind the other.
#[must_use]
pub fn hash(key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(value, xxh3_64(key))
}

/// The stored form: 16 bytes, little-endian.
#[must_use]
pub fn to_bytes(digest: u128) -> Bytes {
    Bytes::copy_from_slice(&digest.to_le_bytes())
}

/// Back from the stored form. A header that was never written has no bytes: the digest of nothing.
pub fn from_bytes(bytes: &[u8]) -> Result<u128, Fault> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let bytes = bytes
        .try_into()
        .map_err(|_| Fault::corrupt("a digest", format!("{} bytes instead of 16", bytes.len())))?;
    Ok(u128::from_le_bytes(bytes))
}

/// The digest of a store, computed anew from every record: what the header should say.
pub fn recompute(store: &impl Store) -> Result<u128, Fault> {
    let mut sum = 0u128;
    store.scan(&KeyRange::records(), &mut |key, value| {
        if Key::decode(key)?.in_digest() {
            sum = sum.wrapping_add(hash(key, value));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sum)
}
