//! Trolley under the benchmark's loop, through its own client library.

use bytes::Bytes;
use clap::ValueEnum;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Target;
use crate::client::{CartOwner, Client, Error};
use crate::torture::peers;

/// Records that are made at the same time before a run.
const PREPARE_AT_ONCE: usize = 256;
/// Distinct SKUs of a cart, so that adds sum up instead of filling it.
const SKUS: u64 = 8;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Updates one field of a session.
    SessionWrite,
    /// Gets a session, linearizable.
    SessionRead,
    /// Adds one piece to a cart: read, modify, write.
    CartAdd,
    /// Puts a key.
    KvPut,
    /// Gets a key, linearizable.
    KvGet,
}

/// A Trolley cluster under load.
pub struct Trolley {
    /// Shared by the workers in turn.
    clients: Vec<Client>,
    operation: Operation,
    value: Bytes,
    keys: u64,
    /// Of the sessions that were made for the run.
    tokens: Vec<String>,
}

impl Trolley {
    /// Makes the records that the operation needs: `keys` sessions or keys.
    pub async fn prepare(
        clients: Vec<Client>,
        operation: Operation,
        value_bytes: usize,
        keys: u64,
    ) -> Result<Self, Error> {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        let mut target = Self {
            clients,
            operation,
            value,
            keys,
            tokens: Vec::new(),
        };
        match operation {
            Operation::SessionWrite | Operation::SessionRead => target.create_sessions().await?,
            Operation::KvGet => target.put_keys().await?,
            Operation::CartAdd | Operation::KvPut => {}
        }
        Ok(target)
    }

    fn client(&self, worker: usize) -> &Client {
        &self.clients[worker % self.clients.len()]
    }

    async fn create_sessions(&mut self) -> Result<(), Error> {
        let client = self.client(0);
        let sessions = stream::iter(0..self.keys).map(|_| async {
            let session = client
                .sessions()
                .create()
                .field("data", self.value.clone())
                .send()
                .await?;
            Ok::<_, Error>(session.value.token)
        });
        self.tokens = sessions
            .buffer_unordered(PREPARE_AT_ONCE)
            .try_collect()
            .await?;
        Ok(())
    }

    async fn put_keys(&self) -> Result<(), Error> {
        let client = self.client(0);
        let puts = stream::iter(0..self.keys).map(|key| async move {
            client
                .keys()
                .put(peers::key(0, key, self.keys), self.value.clone())
                .send()
                .await
                .map(drop)
        });
        puts.buffer_unordered(PREPARE_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    fn token(&self, worker: usize, step: u64) -> &str {
        let at = (worker as u64).wrapping_mul(0x9E37_79B9).wrapping_add(step) % self.keys.max(1);
        &self.tokens[usize::try_from(at).expect("it is less than the number of tokens")]
    }

    async fn attempt(&self, worker: usize, step: u64) -> Result<(), Error> {
        let client = self.client(worker);
        match self.operation {
            Operation::SessionWrite => {
                let update = client.sessions().update(self.token(worker, step));
                update
                    .set("data", self.value.clone())
                    .send()
                    .await
                    .map(drop)
            }
            Operation::SessionRead => client
                .sessions()
                .get(self.token(worker, step))
                .send()
                .await
                .map(drop),
            Operation::CartAdd => {
                let owner = CartOwner::User(peers::key(worker, step / SKUS, self.keys));
                client
                    .carts()
                    .add(&owner, format!("sku-{}", step % SKUS), 1)
                    .send()
                    .await
                    .map(drop)
            }
            Operation::KvPut => {
                let put = client
                    .keys()
                    .put(peers::key(worker, step, self.keys), self.value.clone());
                put.send().await.map(drop)
            }
            Operation::KvGet => client
                .keys()
                .get(peers::key(worker, step, self.keys))
                .send()
                .await
                .map(drop),
        }
    }
}

impl Target for Trolley {
    async fn operate(&self, worker: usize, step: u64) -> Result<(), String> {
        self.attempt(worker, step)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Creates `count` sessions of one field with `value_bytes` bytes: what `scripts/bench.sh` fills memory with.
pub async fn fill_sessions(client: &Client, count: u64, value_bytes: usize) -> Result<(), Error> {
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let created = stream::iter(0..count).map(|_| async {
        client
            .sessions()
            .create()
            .field("data", value.clone())
            .send()
            .await
            .map(drop)
    });
    created
        .buffer_unordered(PREPARE_AT_ONCE)
        .try_collect::<()>()
        .await
}
