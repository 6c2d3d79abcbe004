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

/// A session's named fields, or some of them, ascending by name.
///
/// A list and not a map: there are few, and they are encoded, copied and dropped far more often than one is looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Bytes)>);

impl Fields {
    /// Checks names, count and total size.
    pub fn parse(fields: BTreeMap<String, Bytes>) -> Result<Self, Invalid> {
        Self::check(fields.into_iter().collect())
    }

    /// The same of a list, which must ascend by name.
    pub fn parse_list(fields: Vec<(String, Bytes)>) -> Result<Self, Invalid> {
        if !fields.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(Invalid::Malformed {
                field: "fields",
                expected: "different names in ascending order",
            });
        }
        Self::check(fields)
    }

    /// Of a list that ascends.
    fn check(fields: Vec<(String, Bytes)>) -> Result<Self, Invalid> {
        if fields.len() > limits::SESSION_FIELDS {
            return Err(Invalid::TooMany {
                field: "fields",
                limit: limits::SESSION_FIELDS,
                actual: fields.len(),
            });
        }
        let mut bytes = 0;
        for (name, value) in &fields {
            check_text("field name", name, limits::FIELD_NAME_BYTES)?;
            bytes += name.len() + value.len();
        }
        check_len("fields", bytes, limits::SESSION_BYTES)?;
        Ok(Self(fields))
    }

    /// Bytes of all names and values together.
    #[must_use]
    pub fn size(fields: &BTreeMap<String, Bytes>) -> usize {
        fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// Takes out of both what they have in common.
    pub fn drop_equal(one: &mut Fields, other: &mut Fields) {
        one.0.retain(|(name, value)| {
            let is_equal = other.get(name) == Some(value);
            if is_equal {
                other.0.retain(|(theirs, _)| theirs != name);
            }
            !is_equal
        });
    }

    /// Names of fields to remove: as many and as long as fields may be.
    pub fn parse_names(names: Vec<String>) -> Result<Vec<String>, Invalid> {
        if names.len() > limits::SESSION_FIELDS {
            return Err(Invalid::TooMany {
                field: "remove",
                limit: limits::SESSION_FIELDS,
                actual: names.len(),
            });
        }
        for name in &names {
            check_text("field name", name, limits::FIELD_NAME_BYTES)?;
        }
        Ok(names)
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        let at = self.0.binary_search_by(|(own, _)| own.as_str().cmp(name));
        at.ok()
            .and_then(|at| self.0.get(at))
            .map(|(_, value)| value)
    }

    /// Names and values, ascending by name.
    #[must_use]
    pub fn as_list(&self) -> &[(String, Bytes)] {
        &self.0
    }

    /// As a map.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, Bytes> {
        self.0.into_iter().collect()
    }
}
