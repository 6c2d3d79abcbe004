//! What a cart holds beside its lines, and who freezes it.

use std::collections::BTreeMap;
use std::fmt;

use super::Invalid;
use super::name::{check_len, check_texts};
use crate::limits;

/// A cart's note; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note(String);

impl Note {
    /// Checks the length.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check_len("note", text.len(), limits::CART_NOTE_BYTES)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A cart's own attributes, or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextMap(BTreeMap<String, String>);

impl TextMap {
    /// Checks names, count and total size.
    pub fn parse(field: &'static str, map: BTreeMap<String, String>) -> Result<Self, Invalid> {
        let (most, most_bytes) = (limits::CART_ATTRIBUTES, limits::CART_ATTRIBUTE_BYTES);
        check_texts(field, "attribute name", &map, most, most_bytes)?;
        Ok(Self(map))
    }

    /// Names of attributes to remove: as many and as long as attributes may be.
    pub fn parse_names(field: &'static str, names: Vec<String>) -> Result<Vec<String>, Invalid> {
        if names.len() > limits::CART_ATTRIBUTES {
            return Err(Invalid::TooMany {
                field,
                limit: limits::CART_ATTRIBUTES,
                actual: names.len(),
            });
        }
        for name in &names {
            if name.is_empty() {
                return Err(Invalid::Empty {
                    field: "attribute name",
                });
            }
            check_len("attribute name", name.len(), limits::CART_ATTRIBUTE_BYTES)?;
        }
        Ok(names)
    }

    /// Bytes of all names and values together.
    #[must_use]
    pub fn size(map: &BTreeMap<String, String>) -> usize {
        map.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// The map.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Whoever freezes a cart: a checkout, as it names itself. It stands inline, so that a refusal that names the holder is
/// as cheap to copy as any other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HolderId {
    length: u8,
    /// Zero behind the text.
    bytes: [u8; limits::HOLDER_ID_BYTES],
}

impl HolderId {
    /// Neither empty nor too long.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const FIELD: &str = "holder";
        if text.is_empty() {
            return Err(Invalid::Empty { field: FIELD });
        }
        check_len(FIELD, text.len(), limits::HOLDER_ID_BYTES)?;
        let mut bytes = [0; limits::HOLDER_ID_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self {
            length: u8::try_from(text.len()).expect("the limit fits a byte"),
            bytes,
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = &self.bytes[..usize::from(self.length)];
        std::str::from_utf8(text).expect("it was made from a text")
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HolderId").field(&self.as_str()).finish()
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_the_text_that_it_was_made_from() {
        let longest = "é".repeat(limits::HOLDER_ID_BYTES / 2);
        for text in ["x", "checkout-7", &longest] {
            assert_eq!(HolderId::parse(text).expect("short").as_str(), text);
        }
        assert!(HolderId::parse("").is_err());
        assert!(HolderId::parse(&"x".repeat(limits::HOLDER_ID_BYTES + 1)).is_err());
        let (a, ab) = (HolderId::parse("a"), HolderId::parse("ab"));
        assert_ne!(a.expect("short"), ab.expect("short"));
    }

    #[test]
    fn maps_have_limits() {
        let map = |count: usize, value: &str| {
            let entries = (0..count).map(|n| (format!("n{n}"), value.to_owned()));
            TextMap::parse("attributes", entries.collect())
        };
        assert!(map(limits::CART_ATTRIBUTES, "").is_ok());
        assert!(map(limits::CART_ATTRIBUTES + 1, "").is_err());
        assert!(map(1, &"x".repeat(limits::CART_ATTRIBUTE_BYTES - 2)).is_ok());
        assert!(map(1, &"x".repeat(limits::CART_ATTRIBUTE_BYTES - 1)).is_err());
        let unnamed = BTreeMap::from([(String::new(), "x".to_owned())]);
        assert!(TextMap::parse("attributes", unnamed).is_err());
        assert!(TextMap::parse_names("remove", vec![String::new()]).is_err());
        assert!(TextMap::parse_names("remove", vec!["x".to_owned(); 33]).is_err());
        assert!(Note::parse("x".repeat(limits::CART_NOTE_BYTES + 1)).is_err());
        assert!(Note::parse("").is_ok());
    }
}
