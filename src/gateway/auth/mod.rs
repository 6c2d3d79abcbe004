//! Who calls, and what they may do: JSON web tokens.
//!
//! # Invariants
//! 1. A key has one algorithm, and a token is checked with keys of the algorithm that it names and that is allowed. Keys of
//!    others are not even kept, and nothing that could be public is taken for a secret.
//! 2. Every refusal sounds the same to the caller; [`Refusal`] is for metrics.
//! 3. A [`Caller`] exists only for a token that was good at that moment.
//! 4. No token is kept or logged: what is remembered is its hash.
//!
//! Deliberately absent: tokens of its own. Whoever issues them is somebody else.

mod keyring;
mod keys;
mod scope;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

pub use self::keyring::Keyring;
pub use self::scope::{Scope, Scopes};
pub use self::source::ReadError;
pub use self::verify::{Refusal, Verifier};

use self::source::Source;
use crate::config::Tokens;
use crate::types::{Namespace, UserId};

/// Whoever holds a good token.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// Whose records the token is about.
    pub namespace: Namespace,
    /// The user.
    pub user: UserId,
    /// What the user may do.
    pub scopes: Scopes,
    /// When the token expires, in seconds since 1970.
    pub expires: f64,
}

/// The keys of these tokens. What cannot be read is an error if it must be mended; otherwise nobody is let in until it can.
pub async fn keyring(tokens: &Tokens) -> Result<Arc<Keyring>, ReadError> {
    let source = Source::new(tokens.keys.clone(), &tokens.algorithms)?;
    let keyring = Keyring::new(source, tokens.max_age, tokens.min_age);
    match keyring.read().await {
        Err(error) if error.is_permanent() => return Err(error),
        Err(error) => tracing::warn!(%error, "no token can be checked until keys were read"),
        Ok(()) => {}
    }
    Ok(Arc::new(keyring))
}
