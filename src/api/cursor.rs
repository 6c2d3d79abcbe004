//! Where a listing goes on: an opaque text that only the listing that made it accepts.
//!
//! The bytes are `format (1) | checksum (8) | listing (8) | last item`, in base64url without padding. The checksum
//! is XXH3-64 of everything behind it; `listing` is XXH3-64 of namespace and prefix, or of namespace and user, so that a
//! cursor cannot be carried into another listing. The last item is a key, or a session's birth. Nothing here is secret:
//! a forged cursor reads only what its caller may list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Error;
use crate::limits;
use crate::types::{Key, KeyPrefix, Namespace, UserId};

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const LISTING_BYTES: usize = 8;

/// The cursor behind `last`, the last key of a page.
#[must_use]
pub fn encode(namespace: &Namespace, prefix: &KeyPrefix, last: &str) -> String {
    seal(listing(namespace, prefix), last.as_bytes())
}

/// The cursor behind a user's session, the last one of a page, by its birth.
#[must_use]
pub fn encode_session(namespace: &Namespace, user: &UserId, birth: u64) -> String {
    seal(sessions_of(namespace, user), &birth.to_be_bytes())
}

fn seal(listing: [u8; LISTING_BYTES], last: &[u8]) -> String {
    let mut body = listing.to_vec();
    body.extend_from_slice(last);
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&xxh3_64(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The last key of the previous page.
pub fn decode(namespace: &Namespace, prefix: &KeyPrefix, cursor: &str) -> Result<Key, Error> {
    let bytes = open(cursor, listing(namespace, prefix))?;
    let key = String::from_utf8(bytes).map_err(|_| Error::BadCursor)?;
    if !key.starts_with(prefix.as_str()) {
        return Err(Error::BadCursor);
    }
    Key::parse(key).map_err(|_| Error::BadCursor)
}

/// The birth of the last session of the previous page.
pub fn decode_session(namespace: &Namespace, user: &UserId, cursor: &str) -> Result<u64, Error> {
    let bytes = open(cursor, sessions_of(namespace, user))?;
    let birth = bytes.try_into().map_err(|_| Error::BadCursor)?;
    Ok(u64::from_be_bytes(birth))
}

/// What stands behind the listing's name in a cursor of that listing.
fn open(cursor: &str, listing: [u8; LISTING_BYTES]) -> Result<Vec<u8>, Error> {
    let longest = 1 + CHECKSUM_BYTES + LISTING_BYTES + limits::KEY_BYTES;
    if cursor.len() > longest.div_ceil(3) * 4 {
        return Err(Error::BadCursor);
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(cursor)
        .map_err(|_| Error::BadCursor)?;
    let last = last_item(&bytes, listing).ok_or(Error::BadCursor)?;
    Ok(last.to_vec())
}

fn last_item(bytes: &[u8], listing: [u8; LISTING_BYTES]) -> Option<&[u8]> {
    let (format, bytes) = bytes.split_first()?;
    let (checksum, body) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if *format != FORMAT || checksum != xxh3_64(body).to_be_bytes() {
        return None;
    }
    body.strip_prefix(&listing)
}

fn sessions_of(namespace: &Namespace, user: &UserId) -> [u8; LISTING_BYTES] {
    let mut hasher = Xxh3::new();
    // A listing of keys begins with its namespace, which holds no zero byte.
    hasher.update(&[0]);
    hasher.update(namespace.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(user.as_str().as_bytes());
    hasher.digest().to_be_bytes()
}

fn listing(namespace: &Namespace, prefix: &KeyPrefix) -> [u8; LISTING_BYTES] {
    let mut hasher = Xxh3::new();
    hasher.update(namespace.as_str().as_bytes());
    // No namespace contains a zero byte, so that no two pairs read the same.
    hasher.update(&[0]);
    hasher.update(prefix.as_str().as_bytes());
    hasher.digest().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> KeyPrefix {
        KeyPrefix::parse(text).expect("short enough")
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_key(stem in ".{0,20}", rest in ".{1,40}") {
            let (namespace, prefix) = (Namespace::default(), prefix(&stem));
            let last = format!("{stem}{rest}");
            let cursor = encode(&namespace, &prefix, &last);
            let key = decode(&namespace, &prefix, &cursor).expect("own cursors are accepted");
            prop_assert_eq!(key.as_str(), last);
        }

        #[test]
        fn a_changed_cursor_is_refused(at in 0usize..200, with in "[A-Za-z0-9_-]") {
            let namespace = Namespace::default();
            let cursor = encode(&namespace, &prefix("a"), "abc");
            let at = at % cursor.len();
            let mut changed = cursor.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != cursor);
            prop_assert!(decode(&namespace, &prefix("a"), &changed).is_err());
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = decode(&Namespace::default(), &prefix(""), &text);
        }
    }

    #[test]
    fn a_cursor_of_another_listing_is_refused() {
        let namespace = Namespace::default();
        let other = Namespace::parse("other").expect("valid");
        let cursor = encode(&namespace, &prefix("a"), "abc");
        assert!(decode(&namespace, &prefix("ab"), &cursor).is_err());
        assert!(decode(&other, &prefix("a"), &cursor).is_err());
    }

    #[test]
    fn an_oversized_cursor_is_refused() {
        let cursor = "A".repeat(1 << 20);
        assert!(decode(&Namespace::default(), &prefix(""), &cursor).is_err());
    }
}
