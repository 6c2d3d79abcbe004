//! Histories of reads and writes under combined faults, judged by the linearizability checker.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trolley::client::{self, Client, Error};
use trolley::torture::history::{Call, Condition, History, Outcome, Recorder};
use trolley::torture::linearizability::{DEFAULT_BUDGET, Verdict, check};
use trolley::types::Revision;

use crate::harness::{Cluster, Random, connect};

const KEYS: u64 = 3;
const CLIENTS_PER_KEY: u32 = 8;
const FAULTS: u64 = 8;

/// Each of 24 clients has connections of its own and little patience, so that calls are given up in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_under_kills_and_pauses_are_linearizable() {
    let mut random = Random::seeded();
    let mut cluster = Cluster::start(3, &[]).await;
    let recorder = Arc::new(Recorder::new());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for process in 0..CLIENTS_PER_KEY * u32::try_from(KEYS).expect("it is small") {
        let worker = Worker {
            client: connect(&cluster.endpoints()).timeout(Duration::from_millis(400)),
            recorder: Arc::clone(&recorder),
            process,
            key: format!("key-{}", u64::from(process) % KEYS),
            random: random.fork(),
        };
        tasks.spawn(worker.run(stop.clone()));
    }

    let mut terms = vec![term(&cluster).await];
    for _ in 0..FAULTS {
        fault(&mut cluster, &mut random).await;
        terms.push(term(&cluster).await);
    }
    stop.cancel();
    while let Some(task) = tasks.join_next().await {
        task.expect("a client does not panic");
    }
    cluster.wait_for_agreement().await;

    let history = recorder.history().expect("outcomes fit their calls");
    judge(&cluster, &history, &terms);
}

/// One fault, and its end. A majority is left or comes back within the step.
async fn fault(cluster: &mut Cluster, random: &mut Random) {
    let leader = cluster.wait_for_leader().await;
    let victim = match random.below(3) {
        0 => cluster.others(leader)[0],
        _ => leader,
    };
    if random.below(2) == 0 {
        cluster.node(victim).kill();
        if victim == leader {
            cluster.wait_for_leader_beside(leader).await;
        }
        cluster.node(victim).start();
    } else {
        cluster.node(victim).pause();
        if victim == leader {
            cluster.wait_for_leader_beside(leader).await;
        }
        cluster.node(victim).resume();
    }
    cluster.wait_until_caught_up(victim).await;
}

async fn term(cluster: &Cluster) -> u64 {
    let terms = cluster.status().await.into_iter().map(|node| node.term);
    terms.max().unwrap_or_default()
}

fn judge(cluster: &Cluster, history: &History, terms: &[u64]) {
    let operations: Vec<_> = history.by_key().values().flatten().collect();
    let count =
        |wanted: fn(&Outcome) -> bool| operations.iter().filter(|o| wanted(&o.outcome)).count();
    let unknown = count(|outcome| *outcome == Outcome::Unknown);
    let written = count(|outcome| matches!(outcome, Outcome::Written { .. }));
    let found = count(|outcome| matches!(outcome, Outcome::Found { .. }));
    println!(
        "{} operations: {written} written, {found} found, {unknown} unknown; terms {terms:?}",
        operations.len()
    );
    // A run without faults, or one in which nothing worked, proves nothing.
    assert!(terms.last() > terms.first(), "no leader was ever deposed");
    assert!(written > 200 && found > 200, "too little happened");

    let verdict = check(history, DEFAULT_BUDGET);
    if !verdict.is_valid() {
        let path = cluster.folder().join("history.jsonl");
        let file = File::create(&path).expect("the history can be kept");
        history
            .dump(BufWriter::new(file))
            .expect("the history can be kept");
    }
    match verdict {
        Verdict::Valid => {}
        Verdict::Invalid(counterexample) => panic!("{counterexample}"),
        Verdict::Unknown { key, steps } => panic!("no verdict on {key} after {steps} steps"),
    }
}

/// One sequential client.
struct Worker {
    client: Client,
    recorder: Arc<Recorder>,
    process: u32,
    key: String,
    random: Random,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let mut written = 0;
        // What it saw last, to make conditions that often hold.
        let mut seen = None;
        while !stop.is_cancelled() {
            written += 1;
            let call = self.draw(written, seen);
            let ticket = self.recorder.invoke(self.process, &self.key, call.clone());
            let outcome = self.perform(&call).await;
            seen = revision(&outcome).or(seen);
            self.recorder.complete(ticket, outcome);
        }
        self.client.close().await;
    }

    fn draw(&mut self, turn: u64, seen: Option<u64>) -> Call {
        let condition = match (self.random.below(6), seen) {
            (0, _) => Condition::IfAbsent,
            (1 | 2, Some(revision)) => Condition::IfRevision(revision),
            _ => Condition::Always,
        };
        match self.random.below(10) {
            0..=4 => Call::Get,
            5 => Call::Delete {
                condition: Condition::Always,
            },
            _ => Call::Put {
                value: format!("{}-{turn}", self.process),
                condition,
            },
        }
    }

    async fn perform(&self, call: &Call) -> Outcome {
        let keys = self.client.keys();
        match call {
            Call::Get => match keys.get(&self.key).send().await {
                Ok(reply) => Outcome::Found {
                    value: String::from_utf8_lossy(&reply.value.value).into_owned(),
                    revision: Some(reply.value.mod_revision),
                },
                Err(error) => failed(call, &error),
            },
            Call::Put { value, condition } => {
                let put = keys.put(&self.key, value.clone());
                let put = match condition {
                    Condition::IfAbsent => put.if_absent(),
                    Condition::IfRevision(revision) => put.if_revision(Revision::new(*revision)),
                    _ => put,
                };
                match put.send().await {
                    Ok(reply) => Outcome::Written {
                        revision: Some(reply.value.mod_revision),
                    },
                    Err(error) => failed(call, &error),
                }
            }
            Call::Delete { .. } => match keys.delete(&self.key).send().await {
                Ok(reply) => Outcome::Deleted {
                    revision: Some(reply.revision.get()),
                },
                Err(error) => failed(call, &error),
            },
        }
    }
}

/// A refusal by the state machine is an answer like any other; what else went wrong is as certain as it says.
fn failed(call: &Call, error: &Error) -> Outcome {
    let is_put = matches!(call, Call::Put { .. });
    if error.is_not_found() && !is_put {
        Outcome::Absent
    } else if error.is_conflict() || error.is_not_found() {
        Outcome::Refused
    } else if error.outcome() == client::Outcome::NotApplied {
        Outcome::NotApplied
    } else {
        Outcome::Unknown
    }
}

fn revision(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Found { revision, .. } | Outcome::Written { revision } => *revision,
        _ => None,
    }
}
