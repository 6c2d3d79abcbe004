//! Single pieces that are added to carts, each under a request id that is sent again until somebody answers.
//!
//! An add is a delta: one that is lost leaves the line short, one that is applied twice makes it long. Some are sent by two
//! clients at once.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Context;
use crate::client::{CartOwner, Client, Error};
use crate::torture::tape::{Entry, Outcome, Tape};

/// Carts that are filled.
pub const CARTS: u32 = 4;
const SKUS: u32 = 6;
const CLIENTS: u32 = 4;
/// Less than a new leader takes, so that most attempts that a fault hits end without an answer.
const PATIENCE: Duration = Duration::from_millis(350);
/// Attempts before an add is given up.
const ATTEMPTS: u32 = 30;
const PACE_MS: u64 = 16;

/// One attempt of an add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    /// The request's.
    pub id: String,
    /// The user whose cart it is.
    pub cart: String,
    /// What is added.
    pub sku: String,
}

/// The line after the add, as the first reply has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its pieces.
    pub quantity: u64,
    /// The cart's revision.
    pub revision: u64,
}

/// Attempts.
pub type Adds = Entry<Add, Added>;

/// The user of a cart.
#[must_use]
pub fn owner(cart: u32) -> String {
    format!("torture-cart-{cart}")
}

/// Starts the clients.
pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Tape<Add, Added>>, Error> {
    let tape = Arc::new(Tape::new(context.stopwatch));
    for process in 0..context.count(CLIENTS) {
        let worker = Worker {
            tape: Arc::clone(&tape),
            clients: [
                context.client(process, PATIENCE)?,
                context.client(process + 1, PATIENCE)?,
            ],
            process,
            random: context.random("carts", process),
        };
        tasks.spawn(worker.run(context.clone()));
    }
    Ok(tape)
}

struct Worker {
    tape: Arc<Tape<Add, Added>>,
    clients: [Client; 2],
    process: u32,
    random: Rng,
}

impl Worker {
    async fn run(mut self, context: Context) {
        let mut turn = 0;
        while context.pause(&mut self.random, PACE_MS).await {
            turn += 1;
            let add = Add {
                id: format!(
                    "torture-{:x}-{}-{}-{turn}",
                    context.seed, context.round, self.process
                ),
                cart: owner(self.random.u32(0..CARTS)),
                sku: format!("sku-{}", self.random.u32(0..SKUS)),
            };
            let [first, second] = &self.clients;
            if self.random.u8(0..4) == 0 {
                tokio::join!(
                    self.until_answered(&context, first, &add),
                    self.until_answered(&context, second, &add)
                );
            } else {
                self.until_answered(&context, first, &add).await;
            }
        }
        for client in self.clients {
            client.close().await;
        }
    }

    async fn until_answered(&self, context: &Context, client: &Client, add: &Add) {
        for _ in 0..ATTEMPTS {
            let open = self.tape.begin(self.process, add.clone());
            let owner = CartOwner::User(add.cart.clone());
            let sent = client.carts().add(&owner, &add.sku, 1);
            let outcome = Outcome::of(sent.request_id(&add.id).send().await, |reply| Added {
                quantity: reply
                    .value
                    .line
                    .as_ref()
                    .map_or(0, |line| u64::from(line.quantity)),
                revision: reply.value.mod_revision,
            });
            let is_over = matches!(outcome, Outcome::Answered(_) | Outcome::Refused(_));
            self.tape.end(open, outcome);
            if is_over || context.stop.is_cancelled() {
                return;
            }
        }
    }
}
