//! Fields as a command gives them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits;
use crate::proto::internal::{PackedField, PackedFields};
use crate::types::{Invalid, check_field_name};

/// A session's named fields, or some of them, within the limits that hold everywhere. A namespace may have lower ones.
///
/// Packed as they are encoded: there are few, and they are encoded, copied and dropped far more often than one is looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(PackedFields);

impl Fields {
    /// Checks names, count and total size.
    pub fn parse(fields: &BTreeMap<String, Bytes>) -> Result<Self, Invalid> {
        let list = fields.iter();
        Self::check(PackedFields::pack(
            list.map(|(name, value)| (name.as_str(), &value[..])),
        ))
    }

    /// The same of packed ones, which must ascend by name.
    pub fn parse_packed(fields: PackedFields) -> Result<Self, Invalid> {
        if !fields.iter().is_sorted_by(|one, next| one.name < next.name) {
            return Err(Invalid::Malformed {
                field: "fields",
                expected: "different names in ascending order",
            });
        }
        Self::check(fields)
    }

    /// Of fields that ascend.
    fn check(fields: PackedFields) -> Result<Self, Invalid> {
        if fields.len() > limits::SESSION_FIELDS {
            return Err(Invalid::TooMany {
                field: "fields",
                limit: limits::SESSION_FIELDS,
                actual: fields.len(),
            });
        }
        for field in fields.iter() {
            check_field_name(field.name)?;
        }
        if fields.size() > limits::SESSION_BYTES {
            return Err(Invalid::TooLong {
                field: "fields",
                limit: limits::SESSION_BYTES,
                actual: fields.size(),
            });
        }
        Ok(Self(fields))
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
            check_field_name(name)?;
        }
        Ok(names)
    }

    /// Those that differ from another's, or that the other has not.
    #[must_use]
    pub fn without_equal(&self, other: &Self) -> Self {
        let equal = |field: &PackedField<'_>| other.get(field.name) == Some(field.value);
        let different: Vec<_> = self.iter().filter(|field| !equal(field)).collect();
        let different = different.iter();
        Self(PackedFields::pack(
            different.map(|field| (field.name, field.value)),
        ))
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name)
    }

    /// One after the other, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = PackedField<'_>> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they are.
    #[must_use]
    pub fn packed(&self) -> &PackedFields {
        &self.0
    }

    /// As a map.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, Bytes> {
        let fields = self.iter();
        fields
            .map(|field| (field.name.to_owned(), Bytes::copy_from_slice(field.value)))
            .collect()
    }
}
