//! Load generators for the systems that Trolley is measured beside.
//!
//! They are as fast as we could make them without tuning the systems themselves: a comparison against a slow client
//! would flatter us.

pub mod etcd;
pub mod redis;

/// The key of a client's step: every client walks over all keys from a place of its own.
#[must_use]
pub fn key(worker: usize, step: u64, keys: u64) -> String {
    let start = (worker as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("bench-{:08}", start.wrapping_add(step) % keys.max(1))
}
