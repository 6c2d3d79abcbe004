//! Argon2id, away from the threads that serve requests, and never more of it at a time than the machine bears.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;

use super::Password;
use crate::gateway::problem::Problem;
use crate::limits;

/// Of a password.
pub type Salt = [u8; 16];
const HASH_BYTES: usize = 32;

/// What hashing costs. An account keeps what its own hash cost, so that the cost can be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// Of new accounts.
    pub const NOW: Self = Self {
        memory_kib: limits::PASSWORD_HASH_KIB,
        passes: limits::PASSWORD_HASH_PASSES,
    };
}

/// What was made of a password.
#[derive(Debug, Clone, Copy)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// They are the same. How many bytes are says the time it takes to nobody.
    pub fn is(&self, other: Option<&Self>) -> bool {
        let other = other.map_or([!0; HASH_BYTES], |hash| hash.0);
        let differing = self
            .0
            .iter()
            .zip(other)
            .fold(0, |all, (a, b)| all | (a ^ b));
        differing == 0
    }
}

/// Places for hashes under way, and for those that wait.
pub struct Hashing {
    places: Arc<Semaphore>,
    waiting: Semaphore,
    hashed: Counter,
}

impl Hashing {
    /// Counts its work in `hashed`.
    pub fn new(hashed: Counter) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits::PASSWORD_HASHES)),
            waiting: Semaphore::new(limits::PASSWORD_HASHES_WAITING),
            hashed,
        }
    }

    /// Hashes a password.
    pub async fn hash(&self, password: Password, salt: Salt, cost: Cost) -> Result<Hash, Problem> {
        let place = {
            let _waits = self.waiting.try_acquire().map_err(|_| busy())?;
            let place = Arc::clone(&self.places).acquire_owned().await;
            place.expect("the semaphore is never closed")
        };
        self.hashed.inc();
        let work = tokio::task::spawn_blocking(move || {
            // Also if nobody waits for it any more, the place is taken until it is done.
            let _place = place;
            compute(&password, salt, cost)
        });
        match work.await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn compute(password: &Password, salt: Salt, cost: Cost) -> Result<Hash, argon2::Error> {
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(HASH_BYTES))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = [0; HASH_BYTES];
    argon2.hash_password_into(password.expose().as_bytes(), &salt, &mut hash)?;
    Ok(Hash(hash))
}

fn busy() -> Problem {
    let detail = "too many people register and log in here: wait, or use another gateway";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail).retryable()
}

fn failed(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a password could not be hashed");
    let detail = "the gateway failed; its operators find the reason in the log";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "GATEWAY_FAILED", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        passes: 1,
    };

    fn password(text: &str) -> Password {
        Password::parse(text.to_owned()).expect("it is short")
    }

    #[tokio::test]
    async fn a_hash_is_of_one_password_salt_and_cost() {
        let hashing = Hashing::new(Counter::default());
        let of = async |text, salt, cost| {
            let hash = hashing.hash(password(text), salt, cost).await;
            hash.expect("there is room")
        };
        let hash = of("one", [1; 16], CHEAP).await;
        assert!(hash.is(Some(&of("one", [1; 16], CHEAP).await)));
        let dearer = Cost { passes: 2, ..CHEAP };
        for other in [
            of("two", [1; 16], CHEAP).await,
            of("one", [2; 16], CHEAP).await,
            of("one", [1; 16], dearer).await,
        ] {
            assert!(!hash.is(Some(&other)));
        }
        assert!(!hash.is(None));
        assert_eq!(hashing.hashed.get(), 5);
    }

    #[tokio::test]
    async fn who_finds_no_place_to_wait_is_told_so() {
        let hashing = Hashing::new(Counter::default());
        let all = u32::try_from(limits::PASSWORD_HASHES_WAITING).expect("a small number");
        let taken = hashing.waiting.acquire_many(all).await;
        let refused = hashing.hash(password("one"), [1; 16], CHEAP).await;
        assert_eq!(refused.expect_err("no place").reason(), "OVERLOADED");
        drop(taken);
        assert!(hashing.hash(password("one"), [1; 16], CHEAP).await.is_ok());
    }
}
