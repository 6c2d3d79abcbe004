//! Browsers that were logged in before: each keeps a mark, a secret, and the store knows whose account it was made for.
//!
//! A mark lets nobody in: it only has its browser's attempts counted apart. It is good for one account, or whoever has an account
//! of their own could guess at others' with it; a browser keeps the mark of whoever logged in last. It outlives the session,
//! because it is needed when there is none, and ends when nobody has logged in with it for long.

use std::time::Duration;

use super::{Address, derive};
use crate::client::{Client, PutKey};
use crate::limits;

/// The browser that a form came from.
pub enum Device {
    /// It has logged in to this account before, and shows this mark.
    Known(String),
    /// Nobody has, or it shows none.
    Unknown,
}

impl Device {
    /// The mark to keep from now on: a new one unless the browser has one. A mark that it merely shows may be anybody's.
    pub fn mark(self, new: String) -> String {
        match self {
            Self::Known(mark) => mark,
            Self::Unknown => new,
        }
    }
}

/// An account's name for a mark. The mark cannot be read out of it.
pub fn name(address: &Address, mark: &str) -> String {
    format!("{}/{}", address.as_str(), derive("device", &[mark]))
}

/// Where it is kept.
pub fn key(name: &str) -> String {
    format!("devices/{name}")
}

/// Keeps it, for as long again.
pub fn keep<'a>(client: &'a Client, address: &Address, mark: &str) -> PutKey<'a> {
    let key = key(&name(address, mark));
    let ttl = Duration::from_millis(limits::DEVICE_TTL_MS);
    client.keys().put(key, "").ttl(ttl)
}
