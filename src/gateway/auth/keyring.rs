//! The keys that are known now, and when they are read again.
//!
//! They are read when they have become old, and when a token names a key that is not known, which is how issuers
//! introduce new ones. The second costs a read, and anybody can send such a token: so there is a least time between two.
//! Whatever fails leaves the known keys as they are: an issuer that is down for an hour locks nobody out.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::keys::KeySet;
use super::source::{ReadError, Source};
use crate::config::JwtAlgorithm;

/// A longest wait for keys that a token made necessary, beside the read itself: many may wait for one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keys and their source.
pub struct Keyring {
    source: Source,
    max_age: Duration,
    min_age: Duration,
    known: RwLock<Known>,
    /// Whoever has it reads; when it was last tried.
    reading: Mutex<Option<Instant>>,
}

/// What is known.
#[derive(Clone, Default)]
pub struct Known {
    /// `None` before they were read for the first time.
    pub keys: Option<Arc<KeySet>>,
    /// Counts the reads.
    pub generation: u64,
}

impl Known {
    fn has(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> bool {
        let keys = self.keys.as_ref();
        keys.is_some_and(|keys| keys.candidates(id, algorithm).next().is_some())
    }
}

impl Keyring {
    pub fn new(source: Source, max_age: Duration, min_age: Duration) -> Self {
        Self {
            source,
            max_age,
            min_age,
            known: RwLock::default(),
            reading: Mutex::default(),
        }
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// Keys among which one of this name should be.
    pub async fn known_with(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> Known {
        let known = self.known();
        if id.is_none() || known.has(id, algorithm) {
            return known;
        }
        let newer = self.read_after(known.generation);
        // Whoever does not get them in time is refused, as if there were none.
        tokio::time::timeout(PATIENCE, newer).await.ok();
        self.known()
    }

    /// Reads them, unless somebody has since that generation, or too little time has passed.
    async fn read_after(&self, generation: u64) {
        let mut last = self.reading.lock().await;
        let is_late = last.is_none_or(|last| last.elapsed() >= self.min_age);
        if self.known().generation == generation && is_late {
            *last = Some(Instant::now());
            if let Err(error) = self.read().await {
                tracing::warn!(%error, "an unknown key was asked for and none was found; known ones stay valid");
            }
        }
    }

    /// Reads them now.
    pub async fn read(&self) -> Result<(), ReadError> {
        let keys = self.source.read().await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.keys = Some(Arc::new(keys));
        known.generation += 1;
        Ok(())
    }

    /// Reads them whenever they have become old; every minimal age until there are any.
    pub async fn keep_young(&self) {
        loop {
            let is_empty = self.known().keys.is_none();
            let pause = if is_empty { self.min_age } else { self.max_age };
            tokio::time::sleep(pause).await;
            let mut last = self.reading.lock().await;
            *last = Some(Instant::now());
            match self.read().await {
                Ok(()) if is_empty => tracing::info!("keys were read: tokens can be checked"),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "keys were not read; known ones stay valid"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyPlace;

    const FIRST: &str = "Lm5m9n0n_zM9RuxaCnxCMuNcMgUGrdBYe7ZCb3wRzK0";

    fn set(ids: &[&str]) -> String {
        let keys = ids
            .iter()
            .map(|id| serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": FIRST, "kid": id}));
        serde_json::json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    fn keyring(path: &std::path::Path, min_age: Duration) -> Keyring {
        let source = Source::new(KeyPlace::File(path.to_owned())).expect("a file needs nothing");
        Keyring::new(source, Duration::from_secs(300), min_age)
    }

    async fn has(keyring: &Keyring, id: &str) -> bool {
        let known = keyring.known_with(Some(id), JwtAlgorithm::EdDsa).await;
        known.has(Some(id), JwtAlgorithm::EdDsa)
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_in_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&["a"])).expect("it can be written");
        let keyring = keyring(&file, Duration::from_secs(3600));
        keyring.read().await.expect("it is a set");
        assert!(has(&keyring, "a").await);
        assert!(!has(&keyring, "b").await, "it is not there");
        std::fs::write(&file, set(&["b"])).expect("it can be written");
        assert!(!has(&keyring, "b").await, "it was looked for just now");
        assert!(has(&keyring, "a").await);
        *keyring.reading.lock().await = None;
        assert!(has(&keyring, "b").await, "it was introduced");
        assert!(!has(&keyring, "a").await, "it was withdrawn");
        assert_eq!(keyring.known().generation, 3);
    }

    #[tokio::test]
    async fn keys_that_cannot_be_read_leave_the_known_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&["a"])).expect("it can be written");
        let keyring = keyring(&file, Duration::ZERO);
        keyring.read().await.expect("it is a set");
        std::fs::remove_file(&file).expect("it is there");
        assert!(keyring.read().await.is_err());
        assert!(!has(&keyring, "b").await);
        assert!(has(&keyring, "a").await);
    }
}
