//! Money that moves between accounts in transactions, and is read in transactions: there is never more nor less of it.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Context;
use crate::client::{Client, Error};
use crate::proto::v1::{TxnResponse, outcome::Response};
use crate::torture::tape::{Entry, Outcome, Tape};

/// How many accounts there are.
pub const ACCOUNTS: u32 = 6;
/// What each holds at first.
pub const INITIAL: i64 = 100;
/// Where they are.
pub const PREFIX: &str = "bank/";
const CLIENTS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(1_200);
const PACE_MS: u64 = 20;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banking {
    /// From one account to another one, unless it holds too little.
    Transfer {
        /// The one that pays.
        from: u32,
        /// The one that is paid.
        to: u32,
        /// How much.
        amount: i64,
    },
    /// All accounts at once.
    Read,
}

/// Calls; a read is answered with all balances, a transfer with the new ones of both accounts.
pub type Bankings = Entry<Banking, Vec<i64>>;

/// An account's key.
#[must_use]
pub fn account(number: u32) -> String {
    format!("{PREFIX}{number}")
}

/// Opens the accounts, or gives each what it has at first. Nobody does harm yet.
pub async fn open(client: &Client) -> Result<(), Error> {
    for number in 0..ACCOUNTS {
        let keys = client.keys();
        let held = match keys.get(account(number)).send().await {
            Ok(reply) => reply.value.counter.unwrap_or(0),
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        let opening = keys.increment(account(number), INITIAL - held);
        opening.send().await?;
    }
    Ok(())
}

/// Starts the clients.
pub fn start(
    context: &Context,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Tape<Banking, Vec<i64>>>, Error> {
    let tape = Arc::new(Tape::new(context.stopwatch));
    for process in 0..context.count(CLIENTS) {
        let client = context.client(process, PATIENCE)?;
        let random = context.random("bank", process);
        tasks.spawn(run(
            context.clone(),
            client,
            process,
            random,
            Arc::clone(&tape),
        ));
    }
    Ok(tape)
}

async fn run(
    context: Context,
    client: Client,
    process: u32,
    mut random: Rng,
    tape: Arc<Tape<Banking, Vec<i64>>>,
) {
    while context.pause(&mut random, PACE_MS).await {
        let call = draw(&mut random);
        let open = tape.begin(process, call.clone());
        let keys = client.keys();
        let txn = match &call {
            Banking::Transfer { from, to, amount } => client
                .txn()
                .then(keys.increment(account(*from), -amount).min(0))
                .then(keys.increment(account(*to), *amount)),
            Banking::Read => {
                (0..ACCOUNTS).fold(client.txn(), |txn, it| txn.then(keys.get(account(it))))
            }
        };
        let outcome = Outcome::of(txn.send().await, |reply| balances(&reply.value));
        tape.end(open, outcome);
    }
    client.close().await;
}

fn draw(random: &mut Rng) -> Banking {
    if random.u8(0..3) == 0 {
        return Banking::Read;
    }
    let from = random.u32(0..ACCOUNTS);
    let to = (from + random.u32(1..ACCOUNTS)) % ACCOUNTS;
    Banking::Transfer {
        from,
        to,
        amount: random.i64(1..=20),
    }
}

fn balances(txn: &TxnResponse) -> Vec<i64> {
    let results = txn.results.iter();
    results
        .filter_map(|result| match result.response.as_ref()? {
            Response::IncrementKey(added) => Some(added.value),
            Response::GetKey(got) => got.item.as_ref()?.counter,
            _ => None,
        })
        .collect()
}
