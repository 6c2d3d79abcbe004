//! What is wrong with the settings.

/// A setting that the node cannot start with. The message names the flag and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A flag that is needed is absent.
    #[error("{flag} is missing: {hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// What to give.
        hint: &'static str,
    },
    /// A flag's value has the wrong form.
    #[error("{flag} {value:?} is not valid: {expected}")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What was expected.
        expected: String,
    },
    /// A flag's value is outside its range.
    #[error("{flag} is {actual}, it must be from {min} to {max}")]
    OutOfRange {
        /// The flag.
        flag: &'static str,
        /// What was given, with its unit.
        actual: String,
        /// Smallest value allowed.
        min: String,
        /// Largest value allowed.
        max: String,
    },
    /// Two settings do not fit together.
    #[error("{first} and {second} do not fit together: {relation}")]
    Conflict {
        /// One flag.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The relation that must hold.
        relation: String,
    },
}
