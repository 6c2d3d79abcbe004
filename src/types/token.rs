//! Session tokens. The token itself is a secret: it has no `Debug`, no `Display`, and is stored nowhere.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Invalid;
use crate::limits;

const FORMAT: u8 = 1;
const RANDOM_BYTES: usize = 32;
/// Format byte, slot, random bytes.
const DRAWN_BYTES: usize = 1 + 2 + RANDOM_BYTES;

/// A session's bearer token, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(Vec<u8>);

impl SessionToken {
    /// A token from the system's CSPRNG: format byte, slot (2 bytes, big-endian), 32 random bytes.
    pub fn draw(slot: u16) -> Result<Self, getrandom::Error> {
        let mut bytes = vec![0; DRAWN_BYTES];
        getrandom::fill(&mut bytes[3..])?;
        bytes[0] = FORMAT;
        bytes[1..3].copy_from_slice(&slot.to_be_bytes());
        Ok(Self(bytes))
    }

    /// From a request that brings a token into the world. Whoever looks a session up asks [`TokenHash::of_text`], which
    /// tells a malformed token from an absent one no more than the store does.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const MALFORMED: Invalid = Invalid::Malformed {
            field: "token",
            expected: "base64url of 16 to 128 bytes",
        };
        if text.len() > limits::TOKEN_TEXT_BYTES {
            return Err(MALFORMED);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MALFORMED)?;
        if !(limits::TOKEN_MIN_BYTES..=limits::TOKEN_MAX_BYTES).contains(&bytes.len()) {
            return Err(MALFORMED);
        }
        Ok(Self(bytes))
    }

    /// From decoded bytes that were sealed by this store.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret, as a cookie holds it.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// The secret, decoded.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What is stored in its place.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(&self.0).into())
    }
}

/// SHA-256 of a token: enough to find the session, useless to log in with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of no token that anybody knows: no session has it.
    pub const OF_NONE: Self = Self([0; 32]);

    /// What to look a session up by. A text that is no token names no session, like a token that was never drawn.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        SessionToken::parse(text).map_or(Self::OF_NONE, |token| token.hash())
    }

    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a stored or sent message: exactly 32 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into().map_err(|_| Invalid::Malformed {
            field: "token_hash",
            expected: "32 bytes",
        })?;
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        let start = u32::from_be_bytes([first, second, third, fourth]);
        write!(f, "TokenHash({start:08x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_token_parses_back() {
        let token = SessionToken::draw(7).expect("the system has randomness");
        let again = SessionToken::parse(&token.expose()).expect("own tokens are well formed");
        assert!(again == token);
        assert_eq!(again.hash(), token.hash());
        assert_eq!(TokenHash::of_text(&token.expose()), token.hash());
    }

    #[test]
    fn short_long_and_foreign_texts_are_refused() {
        for text in ["", "abc", "not base64!!!!!!!!!!!!!!!!!!", &"A".repeat(1000)] {
            assert!(SessionToken::parse(text).is_err(), "{text}");
            assert_eq!(TokenHash::of_text(text), TokenHash::OF_NONE, "{text}");
        }
    }
}
