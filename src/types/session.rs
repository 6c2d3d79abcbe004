//! What a session is called and described by, beside its token.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::name::check_texts;
use super::{Invalid, LogTime};
use crate::limits;

/// Names one of a user's sessions to the user: where it stands among the user's sessions, and when it was born. It is
/// not made from the token, so it tells nothing of it. No two sessions have the same, but for those that one transaction creates: of
/// a user's only session, which ends in it, the next one in it has the place again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionHandle {
    birth: u64,
    created_at: LogTime,
}

const HANDLE_BYTES: usize = 16;

impl SessionHandle {
    /// What to look a session up by. A text that is no handle names no session, as births are counted from 1.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::new(0, LogTime::default()))
    }

    /// Of a session with this place among its user's, created at this time.
    #[must_use]
    pub fn new(birth: u64, created_at: LogTime) -> Self {
        Self { birth, created_at }
    }

    /// From a request.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const MALFORMED: Invalid = Invalid::Malformed {
            field: "handle",
            expected: "a handle as List shows it",
        };
        if text.len() > HANDLE_BYTES.div_ceil(3) * 4 {
            return Err(MALFORMED);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MALFORMED)?;
        let bytes: [u8; HANDLE_BYTES] = bytes.try_into().map_err(|_| MALFORMED)?;
        let both = u128::from_be_bytes(bytes);
        let half = |shift: u32| u64::try_from(both >> shift & u128::from(u64::MAX));
        let (Ok(birth), Ok(created_at)) = (half(64), half(0)) else {
            return Err(MALFORMED);
        };
        Ok(Self::new(birth, LogTime::from_millis(created_at)))
    }

    /// The place among the user's sessions.
    #[must_use]
    pub fn birth(self) -> u64 {
        self.birth
    }

    /// When the session was created.
    #[must_use]
    pub fn created_at(self) -> LogTime {
        self.created_at
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = u128::from(self.birth) << 64 | u128::from(self.created_at.as_millis());
        f.write_str(&URL_SAFE_NO_PAD.encode(both.to_be_bytes()))
    }
}

/// What is said of the client that a session belongs to: device, address, place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientAttributes(BTreeMap<String, String>);

impl ClientAttributes {
    /// Checks count and total size.
    pub fn parse(attributes: BTreeMap<String, String>) -> Result<Self, Invalid> {
        check_texts(
            "client",
            "client attribute name",
            &attributes,
            limits::CLIENT_ATTRIBUTES,
            limits::CLIENT_ATTRIBUTE_BYTES,
        )?;
        Ok(Self(attributes))
    }

    /// The map.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The map, owned.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_parses_back() {
        for (birth, at) in [(0, 0), (1, 2), (u64::MAX, 7), (7, u64::MAX)] {
            let handle = SessionHandle::new(birth, LogTime::from_millis(at));
            let text = handle.to_string();
            assert_eq!(SessionHandle::parse(&text), Ok(handle));
            assert_eq!(SessionHandle::of_text(&text), handle);
            assert_eq!(text.len(), 22);
        }
    }

    #[test]
    fn foreign_texts_are_no_handles() {
        for text in [
            "",
            "abc",
            "not base64!!!!!!!!!!!!",
            &"A".repeat(23),
            &"A".repeat(1000),
        ] {
            assert!(SessionHandle::parse(text).is_err(), "{text}");
            assert_eq!(SessionHandle::of_text(text).birth(), 0, "{text}");
        }
    }

    #[test]
    fn client_attributes_are_few_and_small() {
        let parse = |count: usize, name: &str, value: &str| {
            let named = (0..count).map(|nth| (format!("{name}{nth}"), value.to_owned()));
            ClientAttributes::parse(named.collect())
        };
        assert!(parse(limits::CLIENT_ATTRIBUTES, "a", "b").is_ok());
        assert!(parse(limits::CLIENT_ATTRIBUTES + 1, "a", "b").is_err());
        assert!(parse(1, "a", &"b".repeat(limits::CLIENT_ATTRIBUTE_BYTES)).is_err());
        let unnamed = BTreeMap::from([(String::new(), "b".to_owned())]);
        assert!(ClientAttributes::parse(unnamed).is_err());
    }
}
