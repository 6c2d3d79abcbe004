//! Strings and byte strings with a length.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use smol_str::SmolStr;

use super::Invalid;
use crate::limits;

/// Checks a length in bytes.
pub(super) fn check_len(field: &'static str, len: usize, limit: usize) -> Result<(), Invalid> {
    if len > limit {
        return Err(Invalid::TooLong {
            field,
            limit,
            actual: len,
        });
    }
    Ok(())
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::Empty { field });
    }
    check_len(field, text.len(), limit)
}

/// Checks how many texts are given by name, and how large they are together.
pub(super) fn check_texts(
    field: &'static str,
    name_field: &'static str,
    texts: &BTreeMap<String, String>,
    most: usize,
    most_bytes: usize,
) -> Result<(), Invalid> {
    if texts.len() > most {
        return Err(Invalid::TooMany {
            field,
            limit: most,
            actual: texts.len(),
        });
    }
    if texts.keys().any(String::is_empty) {
        return Err(Invalid::Empty { field: name_field });
    }
    let sizes = texts.iter().map(|(name, value)| name.len() + value.len());
    check_len(field, sizes.sum(), most_bytes)
}

/// Checks the name of a session's field.
pub fn check_field_name(name: &str) -> Result<(), Invalid> {
    check_text("field name", name, limits::FIELD_NAME_BYTES)
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks that it is neither empty nor too long.
            pub fn parse(text: impl Into<SmolStr>) -> Result<Self, Invalid> {
                let text = text.into();
                check_text($field, &text, $limit)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, owned.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text!(
    /// A user, as the application names it.
    UserId,
    "user_id",
    limits::USER_ID_BYTES
);
text!(
    /// A key of the key space.
    Key,
    "key",
    limits::KEY_BYTES
);
text!(
    /// A caller's name for one mutating request.
    RequestId,
    "request_id",
    limits::REQUEST_ID_BYTES
);

text!(
    /// A coupon code, as the shop prints it.
    CouponCode,
    "coupon_code",
    limits::COUPON_CODE_BYTES
);
text!(
    /// An order, as the shop numbers it.
    OrderId,
    "order_id",
    limits::ORDER_ID_BYTES
);

/// Separates tenants: nothing in one namespace sees another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(SmolStr);

impl Namespace {
    /// What an empty name stands for.
    pub const DEFAULT: &'static str = "default";

    /// Letters, digits, `-`, `_` and `.`; empty is [`Namespace::DEFAULT`].
    pub fn parse(text: impl Into<SmolStr>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() {
            return Ok(Self::default());
        }
        check_len("namespace", text.len(), limits::NAMESPACE_BYTES)?;
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(Invalid::Malformed {
                field: "namespace",
                expected: "letters, digits, '-', '_' and '.'",
            });
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(SmolStr::new_static(Self::DEFAULT))
    }
}

/// The beginning of keys; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Checks the length.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check_len("prefix", text.len(), limits::KEY_BYTES)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key's value; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value(Bytes);

impl Value {
    /// Checks the length.
    pub fn parse(bytes: Bytes) -> Result<Self, Invalid> {
        check_len("value", bytes.len(), limits::VALUE_BYTES)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}
