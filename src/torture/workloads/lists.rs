//! Lists that grow by transactions over several keys, each of which appends elements that nobody else has and sees what was there.
//!
//! What such transactions see tells their order nearly whole: a list names everybody who has ever appended to it, in order. After
//! Kingsbury and Alvaro, "Elle: inferring isolation anomalies from experimental observations", VLDB 2020.
//!
//! The store has no operation that appends. So a list is read first, and the transaction compares that it is still what was read: if
//! it succeeds, it has seen just that. A list is left when it has grown to some dozens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Context;
use crate::client::{Client, Compare, Error};
use crate::proto::v1::{TxnResponse, outcome::Response};
use crate::torture::tape::{Entry, Outcome, Tape};

/// Where they are.
pub const PREFIX: &str = "lists/";
/// Lists that are in use at one moment.
const LISTS: u32 = 4;
const CLIENTS: u32 = 4;
/// Transactions until the lists are left.
const TRANSACTIONS: u64 = 120;
const PATIENCE: Duration = Duration::from_millis(1_200);
const PACE_MS: u64 = 16;

/// One list's part in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which list.
    pub key: String,
    /// What it held: what the transaction requires of it. Of a transaction that only reads, the answer says so.
    pub seen: Vec<u64>,
    /// What is appended to it.
    pub adds: Option<u64>,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its parts, each of another list.
    pub parts: Vec<Part>,
}

impl Listing {
    /// It appends to no list.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.parts.iter().all(|part| part.adds.is_none())
    }
}

/// Transactions; one that only reads is answered with what its lists held.
pub type Listings = Entry<Listing, Vec<Vec<u64>>>;

/// The clients' notes.
pub type Lists = Tape<Listing, Vec<Vec<u64>>>;

/// A list as a value.
fn encode(list: &[u64]) -> String {
    let elements: Vec<String> = list.iter().map(u64::to_string).collect();
    elements.join(",")
}

/// The list that a value is; `None` if it is none.
#[must_use]
pub fn decode(value: &str) -> Option<Vec<u64>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    value.split(',').map(|it| it.parse().ok()).collect()
}

/// Starts the clients.
pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Lists>, Error> {
    let tape = Arc::new(Tape::new(context.stopwatch));
    let transactions = Arc::new(AtomicU64::new(0));
    for process in 0..context.count(CLIENTS) {
        let worker = Worker {
            tape: Arc::clone(&tape),
            transactions: Arc::clone(&transactions),
            client: context.client(process, PATIENCE)?,
            process,
            random: context.random("lists", process),
            round: context.round,
            added: 0,
        };
        tasks.spawn(worker.run(context.clone()));
    }
    Ok(tape)
}

struct Worker {
    tape: Arc<Lists>,
    transactions: Arc<AtomicU64>,
    client: Client,
    process: u32,
    random: Rng,
    round: u32,
    added: u64,
}

impl Worker {
    async fn run(mut self, context: Context) {
        while context.pause(&mut self.random, PACE_MS).await {
            let keys = self.draw();
            if self.random.u8(0..3) == 0 {
                self.read(&keys).await;
            } else {
                self.append(&keys).await;
            }
        }
        self.client.close().await;
    }

    /// Two or three lists.
    fn draw(&mut self) -> Vec<String> {
        let row = self.transactions.fetch_add(1, Ordering::Relaxed) / TRANSACTIONS;
        let mut numbers: Vec<u32> = (0..LISTS).collect();
        self.random.shuffle(&mut numbers);
        numbers.truncate(self.random.usize(2..=3));
        let key = |number: u32| format!("{PREFIX}{}/{row:06}/{number}", self.round);
        numbers.into_iter().map(key).collect()
    }

    async fn read(&self, keys: &[String]) {
        let parts = keys.iter().map(|key| Part {
            key: key.clone(),
            seen: Vec::new(),
            adds: None,
        });
        let call = Listing {
            parts: parts.collect(),
        };
        let open = self.tape.begin(self.process, call);
        let outcome = match self.look(keys).await {
            Ok(Some(lists)) => Outcome::Answered(lists),
            // A read has no effect: what is not an answer is nothing.
            Ok(None) | Err(_) => Outcome::NotApplied,
        };
        self.tape.end(open, outcome);
    }

    /// What these hold at one moment; `None` if it makes no sense.
    async fn look(&self, keys: &[String]) -> Result<Option<Vec<Vec<u64>>>, Error> {
        let all = keys.iter().fold(self.client.txn(), |txn, key| {
            txn.then(self.client.keys().get(key))
        });
        let reply = all.send().await?;
        Ok(lists(&reply.value, keys.len()))
    }

    /// A transaction cannot read what is not there, so a list is there and empty before anybody appends to it.
    async fn make(&self, keys: &[String]) {
        for key in keys {
            // Somebody else may have made it; whoever does not get an answer tries again with the next transaction.
            let made = self.client.keys().put(key, "").if_absent();
            drop(made.send().await);
        }
    }

    async fn append(&mut self, keys: &[String]) {
        let seen = match self.look(keys).await {
            Ok(Some(seen)) => seen,
            Err(error) if error.is_not_found() => return self.make(keys).await,
            Ok(None) | Err(_) => return,
        };
        let mut parts = Vec::new();
        for (key, seen) in keys.iter().zip(seen) {
            let adds = parts.is_empty() || self.random.bool();
            self.added += u64::from(adds);
            parts.push(Part {
                key: key.clone(),
                seen,
                adds: adds.then_some(u64::from(self.process) * 1_000_000_000 + self.added),
            });
        }
        let mut txn = self.client.txn();
        for part in &parts {
            txn = txn.compare(Compare::key(&part.key).value_is(encode(&part.seen)));
        }
        for part in &parts {
            if let Some(element) = part.adds {
                let mut list = part.seen.clone();
                list.push(element);
                txn = txn.then(self.client.keys().put(&part.key, encode(&list)));
            }
        }
        let open = self.tape.begin(self.process, Listing { parts });
        let outcome = match txn.send().await {
            Ok(reply) if reply.succeeded => Outcome::Answered(Vec::new()),
            Ok(_) => Outcome::Refused("COMPARE".to_owned()),
            Err(error) => Outcome::failed(&error),
        };
        self.tape.end(open, outcome);
    }
}

fn lists(txn: &TxnResponse, expected: usize) -> Option<Vec<Vec<u64>>> {
    let lists = txn.results.iter().map(|result| match &result.response {
        Some(Response::GetKey(got)) => match &got.item {
            Some(item) => decode(std::str::from_utf8(&item.value).ok()?),
            None => Some(Vec::new()),
        },
        _ => None,
    });
    let lists: Option<Vec<_>> = lists.collect();
    lists.filter(|lists| lists.len() == expected)
}
