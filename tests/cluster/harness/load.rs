//! Clients that add pieces to a cart, and an account of every piece.
//!
//! An add is a delta: one that is lost leaves the line short, one that is applied twice makes it long. So after
//! any fault, what was acknowledged and what the cart holds must be the same numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trolley::client::{CartOwner, Client};

use super::eventually;

/// Lines that the adds are spread over.
const LINES: u64 = 8;

/// Acknowledged pieces by SKU.
type Account = BTreeMap<String, u64>;

/// Adding clients at work.
pub struct Load {
    client: Client,
    owner: CartOwner,
    acknowledged: Arc<AtomicU64>,
    tasks: JoinSet<Account>,
    stop: CancellationToken,
}

impl Load {
    /// Tasks that share `client`, each adding one piece after another to `user`'s cart. Any failed call fails the
    /// test: the client has all the time that an election needs.
    pub fn start(client: &Client, user: &str, tasks: u64) -> Self {
        let mut load = Self {
            client: client.clone(),
            owner: CartOwner::User(user.to_owned()),
            acknowledged: Arc::default(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        for task in 0..tasks {
            let adding = add(
                load.client.clone(),
                load.owner.clone(),
                task,
                Arc::clone(&load.acknowledged),
                load.stop.clone(),
            );
            load.tasks.spawn(adding);
        }
        load
    }

    /// How many adds have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more adds have been acknowledged from now on.
    pub async fn wait_for(&self, more: u64) {
        let enough = self.acknowledged() + more;
        eventually("acknowledged adds", async || self.acknowledged() >= enough).await;
    }

    /// Stops the clients and checks every line of the cart against what they were told. Gives the total.
    pub async fn stop_and_check(mut self) -> u64 {
        self.stop.cancel();
        let mut expected = Account::new();
        while let Some(account) = self.tasks.join_next().await {
            for (sku, pieces) in account.expect("no add failed") {
                *expected.entry(sku).or_default() += pieces;
            }
        }
        let cart = self.client.carts().get(&self.owner).send().await;
        let cart = cart.expect("the cart can be read");
        let lines = cart.value.lines.iter();
        let held: Account = lines
            .map(|line| (line.sku.clone(), u64::from(line.quantity)))
            .collect();
        assert_eq!(
            held, expected,
            "the cart (left) is not what was acknowledged (right)"
        );
        expected.values().sum()
    }
}

async fn add(
    client: Client,
    owner: CartOwner,
    task: u64,
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Account {
    let mut account = Account::new();
    let mut turn = task;
    while !stop.is_cancelled() {
        let sku = format!("sku-{}", turn % LINES);
        let added = client.carts().add(&owner, &sku, 1).send().await;
        added.expect("an add outlives any election");
        *account.entry(sku).or_default() += 1;
        acknowledged.fetch_add(1, Ordering::Relaxed);
        turn += 1;
    }
    account
}
