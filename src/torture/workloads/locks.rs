//! Locks that several clients want: taken, held for a while, released or left to run out, and what they protect, written under the
//! fencing token.
//!
//! A lock is the client library's recipe, as users have it. Each holder notes when it was certain to hold the lock
//! ([`crate::client::Lock::is_held`]), and writes what the lock protects by a transaction that compares the token.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Context;
use crate::client::{Client, Compare, Error, Lock};
use crate::proto::v1::{self, Relation};
use crate::torture::tape::{Entry, Outcome, Tape};

/// Where all of its keys are.
pub const PREFIX: &str = "locks/";
const LOCKS: u32 = 3;
const CLIENTS: u32 = 6;
const PATIENCE: Duration = Duration::from_millis(1_200);
/// Shorter than what many faults take, so that holders lose their locks, and longer than an election.
const TTL: Duration = Duration::from_millis(1_500);
/// How long one waits for a lock.
const WAIT: Duration = Duration::from_millis(500);
const PACE_MS: u64 = 30;
/// Longest pause between two writes of a holder.
const HOLD_MS: u64 = 120;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Somebody wants the lock.
    Acquire {
        /// Which.
        lock: String,
    },
    /// Its holder asks whether it certainly holds it.
    Hold {
        /// Which.
        lock: String,
        /// The holder's.
        token: u64,
    },
    /// Its holder writes what it protects.
    Write {
        /// Which.
        lock: String,
        /// The holder's.
        token: u64,
    },
    /// Its holder lets the next one in.
    Release {
        /// Which.
        lock: String,
        /// The holder's.
        token: u64,
    },
}

impl Request {
    /// The lock.
    #[must_use]
    pub fn lock(&self) -> &str {
        match self {
            Self::Acquire { lock }
            | Self::Hold { lock, .. }
            | Self::Write { lock, .. }
            | Self::Release { lock, .. } => lock,
        }
    }
}

/// What a request was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It has the lock, under this token.
    Acquired(u64),
    /// Whether it was certain to hold it.
    Held(bool),
    /// It was written at this revision.
    Written(u64),
    /// It was not written: the lock's key is not the token's any more.
    FencedOff,
    /// The next one may come.
    Released,
}

/// Calls.
pub type Calls = Entry<Request, Answer>;
/// Their notes.
pub type Locks = Tape<Request, Answer>;

/// Starts the clients.
pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Locks>, Error> {
    let tape = Arc::new(Tape::new(context.stopwatch));
    for process in 0..context.count(CLIENTS) {
        let contender = Contender {
            tape: Arc::clone(&tape),
            client: context.client(process, PATIENCE)?,
            process,
            random: context.random("locks", process),
            context: context.clone(),
        };
        tasks.spawn(contender.run());
    }
    Ok(tape)
}

struct Contender {
    tape: Arc<Locks>,
    client: Client,
    process: u32,
    random: Rng,
    context: Context,
}

impl Contender {
    async fn run(mut self) {
        while self.context.pause(&mut self.random, PACE_MS).await {
            let number = self.random.u32(0..LOCKS);
            let name = format!("{PREFIX}{}/{number}", self.context.round);
            if let Some(lock) = self.acquire(&name).await {
                self.hold(&lock).await;
                // Whoever does not release it has died, as far as the others can see.
                if self.random.u8(0..4) > 0 {
                    self.release(lock).await;
                }
            }
        }
        self.client.close().await;
    }

    async fn acquire(&self, name: &str) -> Option<Lock> {
        let call = Request::Acquire {
            lock: name.to_owned(),
        };
        let open = self.tape.begin(self.process, call);
        let acquire = self.client.keys().lock(name).ttl(TTL).wait(WAIT);
        let acquired = acquire.holder(self.process.to_string()).acquire().await;
        let token = |lock: &Lock| Answer::Acquired(lock.token().get());
        match acquired {
            Ok(lock) => {
                self.tape.end(open, Outcome::Answered(token(&lock)));
                Some(lock)
            }
            Err(error) => {
                self.tape.end(open, Outcome::failed(&error));
                None
            }
        }
    }

    async fn hold(&mut self, lock: &Lock) {
        for _ in 0..self.random.u8(1..5) {
            self.ask(lock);
            let is_written = self.write(lock).await;
            self.ask(lock);
            if !is_written || !self.context.pause(&mut self.random, HOLD_MS).await {
                return;
            }
        }
    }

    /// Notes whether it holds the lock for certain.
    fn ask(&self, lock: &Lock) {
        let call = Request::Hold {
            lock: lock.name().to_owned(),
            token: lock.token().get(),
        };
        let open = self.tape.begin(self.process, call);
        let held = Answer::Held(lock.is_held());
        self.tape.end(open, Outcome::Answered(held));
    }

    /// Writes what the lock protects. Whether it may go on.
    async fn write(&self, lock: &Lock) -> bool {
        let token = lock.token();
        let call = Request::Write {
            lock: lock.name().to_owned(),
            token: token.get(),
        };
        let open = self.tape.begin(self.process, call);
        let fence = Compare::key(lock.name()).create_revision(Relation::Equal, token);
        let protected = format!("{}/protected", lock.name());
        let put = self.client.keys().put(protected, token.to_string());
        let written = self.client.txn().compare(fence).then(put).send().await;
        let outcome = Outcome::of(written, |txn| written_at(&txn.value));
        let is_fenced_off = outcome.answer() == Some(&Answer::FencedOff);
        self.tape.end(open, outcome);
        !is_fenced_off
    }

    async fn release(&self, lock: Lock) {
        let call = Request::Release {
            lock: lock.name().to_owned(),
            token: lock.token().get(),
        };
        let open = self.tape.begin(self.process, call);
        let released = lock.release().await;
        let outcome = Outcome::of(released, |()| Answer::Released);
        self.tape.end(open, outcome);
    }
}

fn written_at(txn: &v1::TxnResponse) -> Answer {
    let put = txn.results.first().and_then(|it| match &it.response {
        Some(v1::outcome::Response::PutKey(put)) if txn.succeeded => Some(put.mod_revision),
        _ => None,
    });
    put.map_or(Answer::FencedOff, Answer::Written)
}
