//! Entity tags: at which revision a record is, in quotes.
//!
//! A cart that is frozen opens again when its lease ends, and no revision says so: its tag names the end of the lease as well,
//! `"7.1700000000000"`, so that nobody who saw it frozen is told for ever that nothing has changed. A write's condition goes by
//! the revision alone, which is what the store compares.

use std::fmt;

use crate::proto::v1;
use crate::types::Revision;

/// What an answer says of the record that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Of the record's last change.
    pub revision: Revision,
    /// Of a frozen cart: when its lease ends, in Unix milliseconds.
    frozen_until_ms: Option<u64>,
}

impl Tag {
    /// Of a cart as it is at the moment.
    pub fn of_cart(cart: &v1::Cart) -> Self {
        Self {
            revision: Revision::new(cart.mod_revision),
            frozen_until_ms: cart.freeze.as_ref().map(|freeze| freeze.deadline_ms),
        }
    }

    /// As an earlier answer had it.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
        let (revision, until) = match inner.split_once('.') {
            Some((revision, until)) => (revision, Some(until)),
            None => (inner, None),
        };
        Some(Self {
            revision: Revision::new(number(revision)?),
            frozen_until_ms: match until {
                Some(until) => Some(number(until)?),
                None => None,
            },
        })
    }
}

fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

impl From<Revision> for Tag {
    /// Of whatever is changed by requests alone.
    fn from(revision: Revision) -> Self {
        Self {
            revision,
            frozen_until_ms: None,
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.get();
        match self.frozen_until_ms {
            Some(until) => write!(f, "\"{revision}.{until}\""),
            None => write!(f, "\"{revision}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cart(freeze: Option<u64>) -> v1::Cart {
        v1::Cart {
            mod_revision: 7,
            freeze: freeze.map(|deadline_ms| v1::CartFreeze {
                deadline_ms,
                ..v1::CartFreeze::default()
            }),
            ..v1::Cart::default()
        }
    }

    #[test]
    fn a_frozen_cart_has_another_tag_for_each_lease() {
        let tags = [None, Some(1_700_000_000_000), Some(1_700_000_000_001)];
        let tags = tags.map(|freeze| Tag::of_cart(&cart(freeze)));
        let texts = tags.map(|tag| tag.to_string());
        assert_eq!(
            texts,
            ["\"7\"", "\"7.1700000000000\"", "\"7.1700000000001\""]
        );
        for (tag, text) in tags.iter().zip(&texts) {
            assert_eq!(Tag::parse(text), Some(*tag));
            assert_eq!(tag.revision, Revision::new(7));
        }
    }

    #[test]
    fn what_no_answer_had_is_no_tag() {
        for text in [
            "7",
            "\"\"",
            "\"x\"",
            "\"-7\"",
            "\"+7\"",
            "\"7.\"",
            "\".7\"",
            "\"7.x\"",
            "\"7.8.9\"",
        ] {
            assert_eq!(Tag::parse(text), None, "{text}");
        }
    }
}
