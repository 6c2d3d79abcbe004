//! The one error of parsing.

/// Input that no type accepts. The message names the field and the limit, never a secret value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field that must not be empty is empty.
    #[error("{field} must not be empty")]
    Empty {
        /// The field as the API calls it.
        field: &'static str,
    },
    /// A field is longer than its limit.
    #[error("{field} is {actual} bytes long, at most {limit} are allowed")]
    TooLong {
        /// The field as the API calls it.
        field: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The length that was given, in bytes.
        actual: usize,
    },
    /// A collection has too many members.
    #[error("{field} has {actual} members, at most {limit} are allowed")]
    TooMany {
        /// The field as the API calls it.
        field: &'static str,
        /// The limit.
        limit: usize,
        /// The count that was given.
        actual: usize,
    },
    /// A number is outside its range.
    #[error("{field} is {actual}, it must be from {min} to {max}")]
    OutOfRange {
        /// The field as the API calls it.
        field: &'static str,
        /// Smallest value allowed.
        min: i64,
        /// Largest value allowed.
        max: i64,
        /// The value that was given.
        actual: i64,
    },
    /// A field has the wrong form.
    #[error("{field} is malformed: {expected}")]
    Malformed {
        /// The field as the API calls it.
        field: &'static str,
        /// What was expected instead.
        expected: &'static str,
    },
    /// Two fields that exclude each other were both given.
    #[error("{first} and {second} exclude each other")]
    Exclusive {
        /// One of the fields.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
}
