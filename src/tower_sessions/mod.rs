//! Sessions of web programs that use `tower-sessions`: a [`SessionStore`] over the client. Cargo feature `tower-sessions`.
//!
//! ```no_run
//! use tower_sessions_core::session::Session;
//! use trolley::client::{Client, ClientConfig};
//! use trolley::tower_sessions::TrolleyStore;
//!
//! # fn layer() -> Result<(), trolley::client::Error> {
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7401", "127.0.0.1:7402"])?)?;
//! let store = TrolleyStore::new(client);
//! // With the crate `tower-sessions`: SessionManagerLayer::new(store).
//! # let _ = Session::new(None, std::sync::Arc::new(store), None);
//! # Ok(())
//! # }
//! ```
//!
//! # How a record is stored
//!
//! A cookie holds an id of 128 random bits, drawn by the web program. The session's token is derived from it
//! ([`TrolleyStore::token`]): every process finds the session by the cookie alone, and whoever is given the token, say as the
//! owner of a cart, or sees it in another program, cannot make the cookie from it.
//!
//! Each entry of a record is a field of its own, as JSON under its own name, so that programs in other languages can read and
//! write single ones. The expiry is one more field; what ends the session is its deadline in log time, which every save
//! moves. No clock of a web server decides: its own is read once, to tell how long from now the expiry is.
//!
//! # What a save does
//!
//! `tower-sessions` gives a record back whole, and two requests of one browser run at the same time. So the store remembers
//! what a request had loaded, and sends what the request has changed since, field by field: what others changed meanwhile
//! stays. The trait has no place for that memory, see `bases`; where it fails, the whole record replaces what is there,
//! as in other stores.
//!
//! # Invariants
//! 1. What was deleted stays deleted: no later create or save brings an id back. A save that comes too late is no failure of its
//!    request, and changes nothing.
//! 2. A field that no save has named is left as it is: other programs' fields that are not JSON among them, which no record shows.
//! 3. Everything is retried as the client retries: each call counts once, through the death of a leader too.
//!
//! Deliberately absent: sweeping, which the cluster does by itself, and a cache of sessions, because a logout must be seen
//! everywhere at once.

mod bases;
mod entries;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, ExpiredDeletion, Result, SessionStore};

use self::bases::Bases;
use self::entries::{Change, Data};
use crate::client::{self, CartOwner, Client};
use crate::clock::Clock;
use crate::limits;
use crate::proto::v1;

/// Ids that are tried for a new session. One collision is a sign of broken randomness, or of a test.
const DRAWS: usize = 8;
/// How often a save looks again because the session came or went between two of its steps.
const LOOKS: usize = 4;
/// No other use of SHA-256 derives the same token from the same bytes.
const DOMAIN: &[u8] = b"trolley.tower-sessions.token\0";

/// Sessions of a Trolley cluster, as `tower-sessions` wants them. Clones share their memory.
#[derive(Debug, Clone)]
pub struct TrolleyStore {
    client: Client,
    bases: Bases,
}

impl TrolleyStore {
    /// A store over a client: in its namespace, with its timeout. Sessions are read as the client reads, so leave that
    /// linearizable, or a logout may be seen late.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            bases: Bases::new(),
        }
    }

    /// The token of the session that an id names, for calls of the client about the same session.
    #[must_use]
    pub fn token(id: &Id) -> String {
        let digest = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(id.0.to_le_bytes())
            .finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// The session as the owner of a cart, which goes with it. The session must have been saved.
    #[must_use]
    pub fn cart_owner(id: &Id) -> CartOwner {
        CartOwner::Session(Self::token(id))
    }

    /// Puts a new session under a record's id.
    async fn put_new(&self, record: &Record, lives: Duration) -> std::result::Result<(), NotPut> {
        let mut create = self
            .client
            .sessions()
            .create()
            .token(Self::token(&record.id))
            .idle_ttl(lives)
            .absolute_ttl(lives);
        for (name, value) in entries::encode_all(record).map_err(NotPut::Failed)? {
            create = create.field(name, value);
        }
        match create.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.reason() == Some("SESSION_EXISTS") => Err(NotPut::Taken),
            Err(error) if error.reason() == Some("SESSION_ENDED") => Err(NotPut::Ended),
            Err(error) => Err(NotPut::Failed(failed(&error))),
        }
    }

    /// Sends what a record changes of `base`. Whether there was such a session.
    async fn change(&self, record: &Record, base: &Data, lives: Duration) -> Result<bool> {
        let mut update = self
            .client
            .sessions()
            .update(&Self::token(&record.id))
            .idle_ttl(lives)
            .absolute_ttl(lives);
        for change in entries::changes(base, record)? {
            update = match change {
                Change::Set(name, value) => update.set(name, value),
                Change::Remove(name) => update.remove(name),
            };
        }
        match update.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn read(&self, id: &Id) -> Result<Option<v1::Session>> {
        match self.client.sessions().get(&Self::token(id)).send().await {
            Ok(reply) => Ok(Some(reply.value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Makes the session what the record is, whatever it was before. Whether it may exist at all.
    async fn replace(&self, record: &Record, lives: Duration) -> Result<bool> {
        for _ in 0..LOOKS {
            if let Some(session) = self.read(&record.id).await? {
                let current = entries::decode(record.id, &session).data;
                if self.change(record, &current, lives).await? {
                    return Ok(true);
                }
            }
            match self.put_new(record, lives).await {
                Ok(()) => return Ok(true),
                Err(NotPut::Ended) => return Ok(false),
                Err(NotPut::Failed(error)) => return Err(error),
                // Somebody else saved it first.
                Err(NotPut::Taken) => {}
            }
        }
        let message = "the session came and went each time that it was looked at";
        Err(Error::Backend(message.to_owned()))
    }
}

/// Why no session was put under an id.
enum NotPut {
    /// There is one.
    Taken,
    /// There was one that was ended.
    Ended,
    Failed(Error),
}

#[async_trait::async_trait]
impl SessionStore for TrolleyStore {
    /// An id that is in use, or was until its session was deleted, is exchanged for a new one.
    async fn create(&self, record: &mut Record) -> Result<()> {
        let Some(lives) = lifetime(record.expiry_date) else {
            // It is over already: there is nothing that anybody could load.
            return Ok(());
        };
        for _ in 0..DRAWS {
            match self.put_new(record, lives).await {
                Ok(()) => {
                    self.bases.note(record);
                    return Ok(());
                }
                Err(NotPut::Taken | NotPut::Ended) => record.id = Id::default(),
                Err(NotPut::Failed(error)) => return Err(error),
            }
        }
        let message = format!("each of {DRAWS} ids that were drawn is in use");
        Err(Error::Backend(message))
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let Some(lives) = lifetime(record.expiry_date) else {
            return self.delete(&record.id).await;
        };
        let is_stored = match self.bases.of(record) {
            // What was there and is no more has been deleted or has expired meanwhile.
            Some(base) => self.change(record, &base, lives).await?,
            None => self.replace(record, lives).await?,
        };
        if is_stored {
            self.bases.note(record);
        } else {
            tracing::debug!("a session was saved after its end, and stays ended");
        }
        Ok(())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let Some(session) = self.read(id).await? else {
            return Ok(None);
        };
        let record = entries::decode(*id, &session);
        self.bases.note(&record);
        Ok(Some(record))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        match self
            .client
            .sessions()
            .destroy(&Self::token(id))
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

#[async_trait::async_trait]
impl ExpiredDeletion for TrolleyStore {
    /// Does nothing, for programs that run it anyway: the cluster sweeps by itself.
    async fn delete_expired(&self) -> Result<()> {
        Ok(())
    }
}

/// How long from now a record is to live, at most as long as anything may; `None` if it is over.
fn lifetime(expiry: OffsetDateTime) -> Option<Duration> {
    let now = i128::from(Clock::System.now().as_millis());
    let millis = (expiry.unix_timestamp_nanos() / 1_000_000).saturating_sub(now);
    let millis = u64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis.min(limits::TTL_MAX_MS)))
}

fn failed(error: &client::Error) -> Error {
    Error::Backend(error.to_string())
}

#[cfg(test)]
mod tests;
