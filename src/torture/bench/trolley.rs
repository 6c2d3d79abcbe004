//! Trolley under the benchmark's loop, through its own client library.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Target;
use crate::client::{CartOwner, Client, Compare, Error, Outcome, PutKey, Rejected};
use crate::proto::v1;
use crate::torture::peers;
use crate::torture::shop::Shop;
use crate::types::Revision;

/// Records that are made at the same time before a run.
const PREPARE_AT_ONCE: usize = 256;
/// Distinct SKUs of a cart.
const SKUS: u64 = 8;
/// Whose sessions store every touch.
const TOUCH_NAMESPACE: &str = "bench-touch-stored";
/// Comparisons of a transaction, and writes.
const TXN_KEYS: u64 = 3;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Updates one field of a session.
    SessionWrite,
    /// Gets a session, linearizable.
    SessionRead,
    /// Touches a session within its touch interval: nothing is stored.
    Touch,
    /// Touches a session whose touch is due: it is stored.
    TouchStored,
    /// Logs a guest in whose cart is merged into the user's; the guest and the cart are made before each, outside the latency.
    Login,
    /// Adds one piece to a cart: read, modify, write.
    CartAdd,
    /// The same as a shop does it: unary calls of `hipstershop.CartService`, at the leader.
    AddItem,
    /// Puts a key.
    KvPut,
    /// Puts a key in a plain unary call: no request id, so that it is not sent again when its answer is lost.
    KvPutOnce,
    /// Gets a key, linearizable.
    KvGet,
    /// Compares three keys' revisions and puts the three.
    Txn,
    /// Ends all sessions of one user, again and again: fill them before.
    RevokeAll,
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
    /// Of the guest that each worker logs in next.
    guests: Mutex<BTreeMap<usize, String>>,
    /// Whose sessions are revoked.
    user: String,
    /// For [`Operation::AddItem`].
    shop: Option<Shop>,
}

impl Trolley {
    /// Makes the records that the operation needs: `keys` sessions or keys.
    pub async fn prepare(
        clients: Vec<Client>,
        operation: Operation,
        value_bytes: usize,
        keys: u64,
        user: &str,
    ) -> Result<Self, Error> {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        let mut target = Self {
            clients,
            operation,
            value,
            keys,
            tokens: Vec::new(),
            guests: Mutex::default(),
            user: user.to_owned(),
            shop: None,
        };
        match operation {
            Operation::SessionWrite | Operation::SessionRead | Operation::Touch => {
                target.create_sessions().await?;
            }
            Operation::TouchStored => {
                target.store_every_touch().await?;
                target.create_sessions().await?;
            }
            Operation::KvGet | Operation::Txn => target.put_keys().await?,
            Operation::AddItem => target.shop = Some(target.open_shop().await?),
            Operation::Login
            | Operation::CartAdd
            | Operation::KvPut
            | Operation::KvPutOnce
            | Operation::RevokeAll => {}
        }
        Ok(target)
    }

    /// Goes to a namespace of its own, whose touch interval is nothing.
    async fn store_every_touch(&mut self) -> Result<(), Error> {
        for client in &mut self.clients {
            *client = client.namespace(TOUCH_NAMESPACE);
        }
        let session = v1::SessionSettings {
            touch_interval_ms: Some(0),
            ..v1::SessionSettings::default()
        };
        let settings = v1::NamespaceSettings {
            session: Some(session),
            cart: None,
        };
        let set = self.client(0).namespaces().set(settings).send().await;
        set.map(drop)
    }

    /// A guest with one piece in the cart.
    async fn make_guest(&self, worker: usize, step: u64) -> Result<(), Error> {
        let client = self.client(worker);
        let guest = client.sessions().create().send().await?.value.token;
        let owner = CartOwner::Session(guest.clone());
        let sku = sku(step);
        client.carts().add(&owner, sku, 1).send().await?;
        self.guests().insert(worker, guest);
        Ok(())
    }

    fn guests(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, String>> {
        // The map is whole at any time, so a panic elsewhere does not spoil it.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self, worker: usize, step: u64) -> Result<(), Error> {
        let guest = self.guests().remove(&worker).unwrap_or_default();
        let user = self.buyer(worker, step);
        let rotate = self.client(worker).sessions().rotate(&guest).user(user);
        rotate.send().await.map(drop)
    }

    async fn transact(&self, worker: usize, step: u64) -> Result<(), Error> {
        let client = self.client(worker);
        let mut txn = client.txn();
        for nth in 0..TXN_KEYS {
            let key = peers::key(
                worker,
                step.wrapping_mul(TXN_KEYS).wrapping_add(nth),
                self.keys,
            );
            let compare = Compare::key(key.as_str());
            txn = txn.compare(compare.mod_revision(v1::Relation::Greater, Revision::new(0)));
            txn = txn.then(client.keys().put(key, self.value.clone()));
        }
        txn.send().await.map(drop)
    }

    fn put(&self, worker: usize, step: u64) -> PutKey<'_> {
        let key = peers::key(worker, step, self.keys);
        self.client(worker).keys().put(key, self.value.clone())
    }

    fn client(&self, worker: usize) -> &Client {
        &self.clients[worker % self.clients.len()]
    }

    /// Connects to the leader, as many times as there are clients.
    async fn open_shop(&self) -> Result<Shop, Error> {
        let client = self.client(0);
        // Its answer tells who leads.
        client.carts().get(&self.owner(0, 0)).send().await?;
        let leader = client.leader_address().unwrap_or_default();
        let shop = Shop::connect(&leader, self.clients.len());
        shop.map_err(|error| Error::Unavailable {
            outcome: Outcome::NotApplied,
            problem: format!("no way to the leader '{leader}': {error}"),
        })
    }

    /// Every cart has a few lines, so that adds sum up instead of filling it.
    fn owner(&self, worker: usize, step: u64) -> CartOwner {
        CartOwner::User(self.buyer(worker, step))
    }

    fn buyer(&self, worker: usize, step: u64) -> String {
        peers::key(worker, step / SKUS, self.keys)
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
            Operation::Touch | Operation::TouchStored => client
                .sessions()
                .touch(self.token(worker, step))
                .send()
                .await
                .map(drop),
            Operation::Login => self.log_in(worker, step).await,
            Operation::CartAdd => {
                let owner = self.owner(worker, step);
                let add = client.carts().add(&owner, sku(step), 1);
                add.send().await.map(drop)
            }
            Operation::AddItem => {
                let shop = self
                    .shop
                    .as_ref()
                    .expect("it was opened for this operation");
                let added = shop.add_item(worker, self.buyer(worker, step), sku(step));
                added.await.map_err(|status| Rejected::from(status).into())
            }
            Operation::KvPut => self.put(worker, step).send().await.map(drop),
            Operation::KvPutOnce => {
                let put = self.put(worker, step).at_most_once();
                put.send().await.map(drop)
            }
            Operation::KvGet => client
                .keys()
                .get(peers::key(worker, step, self.keys))
                .send()
                .await
                .map(drop),
            Operation::Txn => self.transact(worker, step).await,
            Operation::RevokeAll => {
                let revoke = client.sessions().revoke_all(self.user.as_str());
                revoke.send().await.map(drop)
            }
        }
    }
}

fn sku(step: u64) -> String {
    format!("sku-{}", step % SKUS)
}

impl Target for Trolley {
    async fn prepare(&self, worker: usize, step: u64) -> Result<bool, String> {
        if self.operation != Operation::Login {
            return Ok(false);
        }
        let made = self.make_guest(worker, step).await;
        made.map(|()| true).map_err(|error| error.to_string())
    }

    async fn operate(&self, worker: usize, step: u64) -> Result<(), String> {
        self.attempt(worker, step)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Sessions to create beside a measurement: `scripts/bench.sh` fills memory with them, and lets them expire or be revoked.
#[derive(Debug, Clone)]
pub struct Fill<'a> {
    /// How many.
    pub count: u64,
    /// Size of the one field that each has.
    pub value_bytes: usize,
    /// The namespace's if there is none.
    pub idle_ttl: Option<Duration>,
    /// Whose; guests' if it is empty.
    pub user: &'a str,
}

/// Creates sessions.
pub async fn fill_sessions(client: &Client, fill: &Fill<'_>) -> Result<(), Error> {
    let value = Bytes::from(vec![b'v'; fill.value_bytes]);
    let created = stream::iter(0..fill.count).map(|_| {
        let mut create = client.sessions().create().field("data", value.clone());
        if let Some(ttl) = fill.idle_ttl {
            create = create.idle_ttl(ttl);
        }
        if !fill.user.is_empty() {
            create = create.user(fill.user);
        }
        async { create.send().await.map(drop) }
    });
    created
        .buffer_unordered(PREPARE_AT_ONCE)
        .try_collect::<()>()
        .await
}
