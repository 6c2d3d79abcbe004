//! The keys that are known now, and when they are read again.
//!
//! They are read when they have become old, and when a token names a key that is not known, which is how issuers
//! introduce new ones. The second costs a read, and anybody can send such a token: so there is a least time between two.
//! One task reads, whoever asks for it: nobody who gives up waiting ends a read, and an issuer may be slower than callers
//! are patient. Whatever fails leaves the known keys as they are: an issuer that is down for an hour locks nobody out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::keys::KeySet;
use super::source::{ReadError, Source};
use crate::config::JwtAlgorithm;

/// A longest wait for keys that a token made necessary. The read goes on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keys and their source.
pub struct Keyring {
    source: Source,
    max_age: Duration,
    min_age: Duration,
    /// Whoever waits for a read sees here that it has ended.
    known: watch::Sender<Known>,
    reading: Mutex<Reading>,
    /// A read is wanted before the keys are old.
    wanted: Notify,
}

/// What is known.
#[derive(Clone, Default)]
pub struct Known {
    /// `None` before they were read for the first time.
    pub keys: Option<Arc<KeySet>>,
    /// Counts the reads that brought keys.
    pub generation: u64,
    /// Counts all that have ended.
    reads: u64,
}

/// When they were read.
#[derive(Default)]
struct Reading {
    /// When the last read began, or was asked for.
    last: Option<Instant>,
    /// It has not ended.
    is_under_way: bool,
}

impl Known {
    fn has(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> bool {
        let keys = self.keys.as_ref();
        keys.is_some_and(|keys| keys.candidates(id, algorithm).next().is_some())
    }

    fn end_read(&mut self, keys: Option<Arc<KeySet>>) {
        self.reads += 1;
        if keys.is_some() {
            self.keys = keys;
            self.generation += 1;
        }
    }
}

impl Keyring {
    pub fn new(source: Source, max_age: Duration, min_age: Duration) -> Self {
        Self {
            source,
            max_age,
            min_age,
            known: watch::Sender::default(),
            reading: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Keys among which one of this name should be.
    pub async fn known_with(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> Known {
        let known = self.known();
        if id.is_none() || known.has(id, algorithm) {
            return known;
        }
        // From before it is asked for, so that its end is not missed.
        let mut news = self.known.subscribe();
        if self.ask() {
            let ended = news.wait_for(|now| now.reads > known.reads);
            // Whoever does not get them in time is refused, as if there were none.
            tokio::time::timeout(PATIENCE, ended).await.ok();
        }
        self.known()
    }

    /// Has them read, unless they are being read or were just now. Says whether there is a read to wait for.
    fn ask(&self) -> bool {
        let mut reading = self.lock();
        let is_late = |last: Instant| last.elapsed() >= self.min_age;
        if !reading.is_under_way && reading.last.is_none_or(is_late) {
            reading.begin();
            self.wanted.notify_one();
        }
        reading.is_under_way
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads them now.
    pub async fn read(&self) -> Result<(), ReadError> {
        let read = self.source.read().await;
        self.lock().is_under_way = false;
        let (keys, outcome) = match read {
            Ok(keys) => (Some(Arc::new(keys)), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.known.send_modify(|known| known.end_read(keys));
        outcome
    }

    /// Reads them whenever they have become old, or somebody asks; every minimal age until there are any.
    pub async fn keep_young(&self) {
        loop {
            let is_empty = self.known().keys.is_none();
            let pause = if is_empty { self.min_age } else { self.max_age };
            tokio::select! {
                () = tokio::time::sleep(pause) => self.lock().begin(),
                () = self.wanted.notified() => {}
            }
            match self.read().await {
                Ok(()) if is_empty => tracing::info!("keys were read: tokens can be checked"),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "keys were not read; known ones stay valid"),
            }
        }
    }
}

impl Reading {
    fn begin(&mut self) {
        self.last = Some(Instant::now());
        self.is_under_way = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyPlace;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;

    const FIRST: &str = "Lm5m9n0n_zM9RuxaCnxCMuNcMgUGrdBYe7ZCb3wRzK0";

    fn set(ids: &[&str]) -> String {
        let keys = ids
            .iter()
            .map(|id| serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": FIRST, "kid": id}));
        serde_json::json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    fn keyring(place: KeyPlace, min_age: Duration) -> Keyring {
        let source = Source::new(place, &[JwtAlgorithm::EdDsa]).expect("it needs nothing");
        Keyring::new(source, Duration::from_secs(300), min_age)
    }

    /// A keyring that reads when it is asked to.
    struct Kept {
        keyring: Arc<Keyring>,
        _reading: JoinSet<()>,
    }

    impl Kept {
        fn new(keyring: Keyring) -> Self {
            let keyring = Arc::new(keyring);
            let mut reading = JoinSet::new();
            let kept = Arc::clone(&keyring);
            reading.spawn(async move { kept.keep_young().await });
            Self {
                keyring,
                _reading: reading,
            }
        }

        /// Of a file that was read.
        async fn of_file(path: &std::path::Path, min_age: Duration) -> Self {
            let keyring = keyring(KeyPlace::File(path.to_owned()), min_age);
            keyring.read().await.expect("it is a set");
            Self::new(keyring)
        }

        async fn has(&self, id: &str) -> bool {
            let known = self.keyring.known_with(Some(id), JwtAlgorithm::EdDsa).await;
            known.has(Some(id), JwtAlgorithm::EdDsa)
        }
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_in_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&["a"])).expect("it can be written");
        let kept = Kept::of_file(&file, Duration::from_secs(3600)).await;
        assert!(kept.has("a").await);
        assert!(!kept.has("b").await, "it is not there");
        std::fs::write(&file, set(&["b"])).expect("it can be written");
        assert!(!kept.has("b").await, "it was looked for just now");
        assert!(kept.has("a").await);
        kept.keyring.lock().last = None;
        assert!(kept.has("b").await, "it was introduced");
        assert!(!kept.has("a").await, "it was withdrawn");
        assert_eq!(kept.keyring.known().generation, 3);
    }

    #[tokio::test]
    async fn keys_that_cannot_be_read_leave_the_known_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&["a"])).expect("it can be written");
        let kept = Kept::of_file(&file, Duration::ZERO).await;
        std::fs::remove_file(&file).expect("it is there");
        assert!(kept.keyring.read().await.is_err());
        assert!(!kept.has("b").await);
        assert!(kept.has("a").await);
        let known = kept.keyring.known();
        assert_eq!((known.generation, known.reads), (1, 3));
    }

    /// An issuer that was asked for its keys, and takes its time.
    async fn asked(issuer: &TcpListener) -> TcpStream {
        let (mut stream, _) = issuer.accept().await.expect("somebody asks");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let read = stream.read_buf(&mut request).await;
            assert!(read.expect("all of it comes") > 0);
        }
        stream
    }

    async fn answer(mut stream: TcpStream, keys: &str) {
        let length = keys.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let answer = head + keys;
        let written = stream.write_all(answer.as_bytes()).await;
        written.expect("somebody waits for it");
    }

    /// Nobody waits as long as it takes, and everybody has its keys from then on.
    #[tokio::test]
    async fn an_issuer_slower_than_callers_are_patient_delivers_all_the_same() {
        let issuer = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = issuer.local_addr().expect("it is bound");
        let url = format!("http://{address}/jwks").parse().expect("a URL");
        let kept = Kept::new(keyring(KeyPlace::Url(url), Duration::from_secs(3600)));
        let mut news = kept.keyring.known.subscribe();
        let (found, slow) = tokio::join!(kept.has("a"), asked(&issuer));
        assert!(!found, "nothing was answered yet");
        answer(slow, &set(&["a"])).await;
        let ended = news.wait_for(|known| known.reads == 1);
        let deadline = Duration::from_millis(crate::limits::JWT_KEYS_DEADLINE_MS);
        let ended = tokio::time::timeout(deadline, ended).await;
        ended.expect("the read goes on").expect("it is watched");
        assert!(kept.has("a").await);
    }
}
