//! Keys that live as long as a lease, or for a time of their own: put, kept alive, moved to another lease, revoked, deleted, left to
//! themselves, while others read them.
//!
//! A lease and its keys have one writer and are read by all; so what a read may see follows from what that writer was told.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::board::Board;
use super::{Context, LINGER_MS, LONG_TTL_MS, SHORT_TTL_MS};
use crate::client::{Client, Error};
use crate::torture::tape::{Entry, Outcome, Tape};

/// Where all of its keys are.
pub const PREFIX: &str = "leases/";
const CLIENTS: u32 = 3;
const READERS: u32 = 2;
const PATIENCE: Duration = Duration::from_millis(1_200);
const PACE_MS: u64 = 16;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A new lease.
    Grant {
        /// Its label.
        lease: String,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// A lease is given its whole time again.
    KeepAlive {
        /// The label.
        lease: String,
    },
    /// A lease and its keys are ended.
    Revoke {
        /// The label.
        lease: String,
    },
    /// A key that lives as long as a lease; one of another lease is that one's no more.
    Put {
        /// Which.
        key: String,
        /// The label.
        lease: String,
    },
    /// A key that lives for a time of its own, from now on.
    PutFor {
        /// Which.
        key: String,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// A key is ended.
    Delete {
        /// Which.
        key: String,
    },
    /// A linearizable read of a key.
    Read {
        /// Which.
        key: String,
    },
    /// The same of a lease.
    Look {
        /// The label.
        lease: String,
    },
}

impl Request {
    /// The lease and the key that it is about.
    #[must_use]
    pub fn names(&self) -> [Option<&str>; 2] {
        match self {
            Self::Grant { lease, .. }
            | Self::KeepAlive { lease }
            | Self::Revoke { lease }
            | Self::Look { lease } => [Some(lease), None],
            Self::Put { key, lease } => [Some(lease), Some(key)],
            Self::PutFor { key, .. } | Self::Delete { key } | Self::Read { key } => {
                [None, Some(key)]
            }
        }
    }
}

/// Calls. Answers to reads say whether it was there, all others are `true`.
pub type Calls = Entry<Request, bool>;
/// Their notes.
pub type Leases = Tape<Request, bool>;

/// A lease that was granted.
struct Lease {
    label: String,
    id: u64,
}

/// Starts the clients.
pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Leases>, Error> {
    let tape = Arc::new(Tape::new(context.stopwatch));
    let board = Arc::new(Board::default());
    for process in 0..context.count(CLIENTS) {
        let keeper = Keeper {
            reader: Reader {
                tape: Arc::clone(&tape),
                client: context.client(process, PATIENCE)?,
                process,
            },
            board: Arc::clone(&board),
            random: context.random("leases", process),
            context: context.clone(),
            made: 0,
        };
        tasks.spawn(keeper.run());
    }
    for number in 0..context.count(READERS) {
        let reader = Reader {
            tape: Arc::clone(&tape),
            client: context.client(number, PATIENCE)?,
            process: 100 + number,
        };
        let random = context.random("lease readers", number);
        tasks.spawn(reader.read_on(context.clone(), Arc::clone(&board), random));
    }
    Ok(tape)
}

/// A client with its notes.
struct Reader {
    tape: Arc<Leases>,
    client: Client,
    process: u32,
}

impl Reader {
    async fn read_on(self, context: Context, board: Arc<Board<String>>, mut random: Rng) {
        while context.pause(&mut random, PACE_MS).await {
            if let Some(key) = board.draw(&mut random) {
                self.read(&key).await;
            }
        }
        self.client.close().await;
    }

    async fn read(&self, key: &str) {
        let key = key.to_owned();
        let open = self
            .tape
            .begin(self.process, Request::Read { key: key.clone() });
        let got = self.client.keys().get(&key).send().await;
        self.tape.end(open, sight(got));
    }

    /// Sends a write; its value if it was acknowledged.
    async fn tell<T>(
        &self,
        request: Request,
        sent: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let open = self.tape.begin(self.process, request);
        let mut told = None;
        let outcome = Outcome::of(sent.await, |value| {
            told = Some(value);
            true
        });
        self.tape.end(open, outcome);
        told
    }
}

/// What a read was told. It has no effect: what is not an answer is nothing.
fn sight<T>(got: Result<T, Error>) -> Outcome<bool> {
    match got {
        Ok(_) => Outcome::Answered(true),
        Err(error) if error.is_not_found() => Outcome::Answered(false),
        Err(_) => Outcome::NotApplied,
    }
}

/// Writes leases and keys of its own, one story after the other.
struct Keeper {
    reader: Reader,
    board: Arc<Board<String>>,
    context: Context,
    random: Rng,
    made: u64,
}

impl Keeper {
    async fn run(mut self) {
        while self.context.pause(&mut self.random, PACE_MS).await {
            let ttl_ms = if self.random.u8(0..3) == 0 {
                SHORT_TTL_MS
            } else {
                LONG_TTL_MS
            };
            if self.random.u8(0..3) == 0 {
                self.key_with_a_ttl(ttl_ms).await;
            } else {
                self.keys_of_a_lease(ttl_ms).await;
            }
        }
        self.reader.client.close().await;
    }

    /// What has one writer has a name that nobody else gives.
    fn next(&mut self, prefix: &str) -> String {
        self.made += 1;
        let (round, process) = (self.context.round, self.reader.process);
        format!("{prefix}{round}/{process}/{}", self.made)
    }

    fn show(&self, key: &str, ttl_ms: u64) {
        self.board.show(&key.to_owned(), ttl_ms == LONG_TTL_MS);
    }

    /// Waits before the next turn of a life. `false` once it should stop.
    async fn linger(&mut self, ttl_ms: u64) -> bool {
        let pace = if ttl_ms == LONG_TTL_MS {
            PACE_MS
        } else {
            LINGER_MS
        };
        self.context.pause(&mut self.random, pace).await
    }

    async fn key_with_a_ttl(&mut self, ttl_ms: u64) {
        let key = self.next(PREFIX);
        for _ in 0..self.random.u8(1..5) {
            let call = Request::PutFor {
                key: key.clone(),
                ttl_ms,
            };
            let put = self.reader.client.keys().put(&key, key.clone());
            let put = put.ttl(Duration::from_millis(ttl_ms)).send();
            if self.reader.tell(call, put).await.is_none() {
                return;
            }
            self.show(&key, ttl_ms);
            self.reader.read(&key).await;
            if !self.linger(ttl_ms).await {
                return;
            }
        }
        if ttl_ms == LONG_TTL_MS && self.random.bool() {
            self.delete(&key).await;
        }
    }

    async fn keys_of_a_lease(&mut self, ttl_ms: u64) {
        let Some(lease) = self.grant(ttl_ms).await else {
            return;
        };
        let count = self.random.u8(1..=3);
        let keys: Vec<String> = (0..count).map(|_| self.next(PREFIX)).collect();
        // Some are another lease's first, which then ends without them.
        let mut first = None;
        if self.random.u8(0..3) == 0 {
            first = self.put_elsewhere(&keys).await;
            if first.is_none() {
                return;
            }
        }
        for key in &keys {
            if !self.put(key, &lease).await {
                return;
            }
        }
        if let Some(first) = first.filter(|_| self.random.bool()) {
            self.revoke(&first).await;
        }
        for key in &keys {
            self.show(key, ttl_ms);
            self.reader.read(key).await;
        }
        for _ in 0..self.random.u8(0..4) {
            if !self.linger(ttl_ms).await {
                return;
            }
            self.keep_alive(&lease).await;
            self.look(&lease).await;
            for key in &keys {
                self.reader.read(key).await;
            }
        }
        // Of those that are left some end when their time is over, and others outlive the run.
        if ttl_ms == LONG_TTL_MS {
            match self.random.u8(0..5) {
                0 => {}
                1 => self.delete(&keys[0]).await,
                _ => self.revoke(&lease).await,
            }
        }
        self.look(&lease).await;
        for key in &keys {
            self.reader.read(key).await;
        }
    }

    /// Puts them with a lease that is not to keep them: that one, if all of them were.
    async fn put_elsewhere(&mut self, keys: &[String]) -> Option<Lease> {
        let first = self.grant(SHORT_TTL_MS).await?;
        for key in keys {
            if !self.put(key, &first).await {
                return None;
            }
        }
        Some(first)
    }

    async fn grant(&mut self, ttl_ms: u64) -> Option<Lease> {
        let label = self.next("lease-");
        let call = Request::Grant {
            lease: label.clone(),
            ttl_ms,
        };
        let grant = self
            .reader
            .client
            .leases()
            .grant(Duration::from_millis(ttl_ms));
        let granted = self.reader.tell(call, grant.send()).await?;
        Some(Lease {
            label,
            id: granted.value.lease_id,
        })
    }

    async fn put(&self, key: &str, lease: &Lease) -> bool {
        let call = Request::Put {
            key: key.to_owned(),
            lease: lease.label.clone(),
        };
        let put = self.reader.client.keys().put(key, key.to_owned());
        let put = put.lease(lease.id).send();
        self.reader.tell(call, put).await.is_some()
    }

    async fn keep_alive(&self, lease: &Lease) {
        let call = Request::KeepAlive {
            lease: lease.label.clone(),
        };
        let renewal = self.reader.client.leases().keep_alive(lease.id).send();
        self.reader.tell(call, renewal).await;
    }

    async fn revoke(&self, lease: &Lease) {
        let call = Request::Revoke {
            lease: lease.label.clone(),
        };
        let revocation = self.reader.client.leases().revoke(lease.id).send();
        self.reader.tell(call, revocation).await;
        // A late one must not bring it back.
        self.keep_alive(lease).await;
    }

    async fn delete(&self, key: &str) {
        let call = Request::Delete {
            key: key.to_owned(),
        };
        let deletion = self.reader.client.keys().delete(key).send();
        self.reader.tell(call, deletion).await;
        self.reader.read(key).await;
    }

    async fn look(&self, lease: &Lease) {
        let call = Request::Look {
            lease: lease.label.clone(),
        };
        let open = self.reader.tape.begin(self.reader.process, call);
        let got = self.reader.client.leases().get(lease.id).send().await;
        self.reader.tape.end(open, sight(got));
    }
}
