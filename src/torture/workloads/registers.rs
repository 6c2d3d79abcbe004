//! Keys that are read, written, compared and deleted by several clients each.
//!
//! What linearizable calls were told goes into a [`Recorder`]; at what revisions calls were answered, and what reads of a lesser
//! consistency saw, goes onto tapes beside it. A key is left after some hundred operations: checking one grows faster than
//! its history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Context;
use crate::client::{self, Client, Compare, Consistency, Error, Reply};
use crate::proto::v1;
use crate::torture::history::{Call, Condition, Outcome, Recorder};
use crate::torture::tape::{self, Entry, Tape};
use crate::types::Revision;

/// Where all of its keys are.
pub const PREFIX: &str = "registers/";
/// Keys in use at one moment.
const SLOTS: u32 = 12;
const CLIENTS_PER_SLOT: u32 = 3;
/// Operations that a key sees.
const OPERATIONS_PER_KEY: u64 = 240;
/// Less than an election takes, so that some calls are given up, and more than a busy machine needs.
const PATIENCE: Duration = Duration::from_millis(1_200);
/// Longest pause between two calls of a client.
const PACE_MS: u64 = 12;

/// What was asked, as far as revisions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// A change.
    Write,
    /// A linearizable read.
    Read,
}

/// A read of a lesser consistency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The key.
    pub key: String,
    /// The revision that the answer must have reached; `None` for whatever the node has.
    pub at_least: Option<u64>,
}

/// What such a read saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The revision of the state that it saw. Where there was no such key that is not told: the one that it must have reached.
    pub revision: u64,
    /// The key's value and revision, if it was there.
    pub found: Option<(String, u64)>,
}

/// Calls, and the revisions of their answers.
pub type Order = Entry<Asked, u64>;
/// Reads of a lesser consistency.
pub type Looks = Entry<Look, Seen>;

/// The clients' notes.
#[derive(Debug)]
pub struct Registers {
    /// Linearizable calls.
    pub recorder: Recorder,
    /// Their revisions.
    pub order: Tape<Asked, u64>,
    /// Other reads.
    pub looks: Tape<Look, Seen>,
    operations: Vec<AtomicU64>,
    round: u32,
}

impl Registers {
    /// Starts the clients.
    pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Self>, Error> {
        let registers = Arc::new(Self {
            recorder: Recorder::since(context.stopwatch.started()),
            order: Tape::new(context.stopwatch),
            looks: Tape::new(context.stopwatch),
            round: context.round,
            operations: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        });
        for process in 0..SLOTS * context.count(CLIENTS_PER_SLOT) {
            let worker = Worker {
                registers: Arc::clone(&registers),
                client: context.client(process, PATIENCE)?,
                process,
                slot: process % SLOTS,
                random: context.random("registers", process),
                turn: 0,
            };
            tasks.spawn(worker.run(context.clone()));
        }
        Ok(registers)
    }

    /// The key that a slot is at.
    fn key(&self, slot: u32) -> String {
        let operations = &self.operations[usize::try_from(slot).unwrap_or(0)];
        let number = operations.fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_KEY;
        format!("{PREFIX}{}/{slot}/{number:06}", self.round)
    }
}

struct Worker {
    registers: Arc<Registers>,
    client: Client,
    process: u32,
    slot: u32,
    random: Rng,
    turn: u64,
}

impl Worker {
    async fn run(mut self, context: Context) {
        // What it saw last of a key, to make conditions that often hold.
        let mut seen: (String, Option<(String, u64)>) = (String::new(), None);
        while context.pause(&mut self.random, PACE_MS).await {
            let key = self.registers.key(self.slot);
            if seen.0 != key {
                seen = (key.clone(), None);
            }
            if self.random.u8(0..5) == 0 {
                self.look(&key).await;
                continue;
            }
            let call = self.draw(seen.1.as_ref());
            let ticket = self
                .registers
                .recorder
                .invoke(self.process, &key, call.clone());
            let asked = match call {
                Call::Get => Asked::Read,
                _ => Asked::Write,
            };
            let open = self.registers.order.begin(self.process, asked);
            let (outcome, revision) = perform(&self.client, &key, &call).await;
            let revision = revision.map_or(tape::Outcome::Unknown, tape::Outcome::Answered);
            self.registers.order.end(open, revision);
            seen.1 = last_seen(&call, &outcome).or(seen.1);
            self.registers.recorder.complete(ticket, outcome);
        }
        self.client.close().await;
    }

    fn draw(&mut self, seen: Option<&(String, u64)>) -> Call {
        self.turn += 1;
        let condition = match (self.random.u8(0..7), seen) {
            (0, _) => Condition::IfAbsent,
            (1 | 2, Some((_, revision))) => Condition::IfRevision(*revision),
            (3, Some((value, _))) => Condition::IfValue(value.clone()),
            _ => Condition::Always,
        };
        match self.random.u8(0..10) {
            0..=4 => Call::Get,
            5 => Call::Delete {
                condition: match condition {
                    Condition::IfRevision(revision) => Condition::IfRevision(revision),
                    _ => Condition::Always,
                },
            },
            _ => Call::Put {
                value: format!("{}-{}", self.process, self.turn),
                condition,
            },
        }
    }

    /// A read that need not be linearizable, on whichever node.
    async fn look(&mut self, key: &str) {
        let (consistency, at_least) = if self.random.bool() {
            let revision = self.client.revision();
            (Consistency::AtLeast(revision), Some(revision.get()))
        } else {
            (Consistency::Stale, None)
        };
        let looks = &self.registers.looks;
        let open = looks.begin(
            self.process,
            Look {
                key: key.to_owned(),
                at_least,
            },
        );
        let read = self.client.keys().get(key).consistency(consistency);
        let outcome = match read.send().await {
            Ok(reply) => tape::Outcome::Answered(Seen {
                revision: reply.revision.get(),
                found: Some((text(&reply.value.value), reply.value.mod_revision)),
            }),
            Err(error) if error.is_not_found() => tape::Outcome::Answered(Seen {
                revision: at_least.unwrap_or(0),
                found: None,
            }),
            Err(error) => tape::Outcome::failed(&error),
        };
        looks.end(open, outcome);
    }
}

/// What the key holds after this, if it is known.
fn last_seen(call: &Call, outcome: &Outcome) -> Option<(String, u64)> {
    match (call, outcome) {
        (_, Outcome::Found { value, revision }) => Some((value.clone(), (*revision)?)),
        (Call::Put { value, .. }, Outcome::Written { revision }) => {
            Some((value.clone(), (*revision)?))
        }
        _ => None,
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Carries a call out: its outcome, and the revision of the answer if there was one.
async fn perform(client: &Client, key: &str, call: &Call) -> (Outcome, Option<u64>) {
    let keys = client.keys();
    match call {
        Call::Get => {
            let got = keys.get(key).send().await;
            answer(call, got, |item| Outcome::Found {
                value: text(&item.value),
                revision: Some(item.mod_revision),
            })
        }
        Call::Put {
            value,
            condition: Condition::IfValue(expected),
        } => {
            let holds = Compare::key(key).value_is(expected.clone());
            let put = keys.put(key, value.clone());
            let txn = client.txn().compare(holds).then(put);
            match txn.send().await {
                // A transaction whose comparison fails changes nothing: its revision orders nothing.
                Ok(reply) if !reply.succeeded => (Outcome::Refused, None),
                done => answer(call, done, |txn| written(&txn)),
            }
        }
        Call::Put { value, condition } => {
            let put = keys.put(key, value.clone());
            let put = match condition {
                Condition::IfAbsent => put.if_absent(),
                Condition::IfRevision(revision) => put.if_revision(Revision::new(*revision)),
                _ => put,
            };
            answer(call, put.send().await, |put| Outcome::Written {
                revision: Some(put.mod_revision),
            })
        }
        Call::Delete { condition } => {
            let delete = keys.delete(key);
            let delete = match condition {
                Condition::IfRevision(revision) => delete.if_revision(Revision::new(*revision)),
                _ => delete,
            };
            let deleted = delete.send().await;
            let revision = deleted.as_ref().ok().map(|reply| reply.revision.get());
            answer(call, deleted, |()| Outcome::Deleted { revision })
        }
    }
}

fn answer<T>(
    call: &Call,
    result: Result<Reply<T>, Error>,
    outcome: impl FnOnce(T) -> Outcome,
) -> (Outcome, Option<u64>) {
    match result {
        Ok(reply) => {
            let revision = reply.revision.get();
            (outcome(reply.value), Some(revision))
        }
        Err(error) => (failed(call, &error), None),
    }
}

/// The revision of the only operation of a transaction.
fn written(txn: &v1::TxnResponse) -> Outcome {
    let revision = txn.results.first().and_then(|it| match &it.response {
        Some(v1::outcome::Response::PutKey(put)) => Some(put.mod_revision),
        _ => None,
    });
    Outcome::Written { revision }
}

/// A refusal by the state machine is an answer like any other; what else went wrong is as certain as it says.
fn failed(call: &Call, error: &Error) -> Outcome {
    let is_put = matches!(call, Call::Put { .. });
    if error.is_not_found() && !is_put {
        Outcome::Absent
    } else if error.is_retryable() || matches!(call, Call::Get) {
        certainty(error)
    } else if error.is_conflict() || error.is_not_found() {
        Outcome::Refused
    } else {
        certainty(error)
    }
}

fn certainty(error: &Error) -> Outcome {
    if error.outcome() == client::Outcome::NotApplied {
        Outcome::NotApplied
    } else {
        Outcome::Unknown
    }
}
