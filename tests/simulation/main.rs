//! A deterministic simulation: several real nodes on one thread, with disks, a network and clocks that are made up.
//!
//! # What is real
//! openraft, the state machine and its commands, the encoding of log entries, and what a node does with writes, reads,
//! read rounds, ticks, log time and leadership. What is simulated: the disk ([`disk`]), what lies between nodes
//! ([`network`]), time, and the order of everything. What is left out: `RocksDB`, gRPC, watches, full disks, births and
//! membership changes; `tests/cluster` and `trolley-torture` have those.
//!
//! # Why it is the same each time
//! Each node has a runtime of one thread whose time is paused, and goes from timer to timer; nodes run one after another
//! for a few simulated milliseconds each. Random numbers come from the seed, openraft's included. `select!` in the node
//! is biased, and nothing that runs here looks at a wall clock, at a thread, or at the order of a hash table.
//!
//! `turmoil` would be this loop over simulated sockets. Without it whole messages can be delayed, lost and doubled, which a
//! socket's stream does not allow, gRPC need not run, and nodes can be paused.
//!
//! # Seeds
//! The tests run a few. `TROLLEY_SIMULATION_SEEDS=1..5000` runs those instead (`7` runs one, and tells every event),
//! `TROLLEY_SIMULATION_BUG` with a bug of [`bugs`].

#![allow(
    clippy::print_stdout,
    reason = "seeds and traces are for people"
)]

mod asks;
mod bugs;
mod clients;
mod disk;
mod ledger;
mod log;
mod machine;
mod network;
mod node;
mod plan;
mod run;
mod trace;
mod world;

use std::collections::BTreeMap;

use run::{Config, Report};

const FAULTS_MS: u64 = 10_000;
/// Every planted bug is found within so many seeds.
const BUG_SEEDS: u64 = 100;

fn config(seed: u64) -> Config {
    Config {
        seed,
        bug: None,
        faults_ms: FAULTS_MS,
        is_told: false,
    }
}

/// The same seed is the same run, to the byte.
#[test]
fn a_seed_repeats_itself() {
    let first = run::run(config(1));
    let second = run::run(config(1));
    println!("{first}");
    assert_eq!(first, second);
    assert_eq!(first.violation, None);
    let other = run::run(config(2));
    assert_ne!(first.hash, other.hash, "another seed is another run");
}

/// A simulation that finds nothing proves nothing: it must find each of these.
#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    for (name, bug) in bugs::ALL {
        let began = std::time::Instant::now();
        let found = (1..=BUG_SEEDS).find_map(|seed| {
            let report = run::run(Config {
                bug: Some(bug),
                ..config(seed)
            });
            Some((seed, report.violation?))
        });
        match found {
            Some((seed, violation)) => println!(
                "| `{name}` | {} | {seed} | {:.1} s |  {}",
                violation.check,
                began.elapsed().as_secs_f32(),
                violation.detail
            ),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found in {BUG_SEEDS} seeds: {missed:?}");
}

#[test]
fn seeds() {
    let seeds = std::env::var("TROLLEY_SIMULATION_SEEDS").unwrap_or_else(|_| "1..20".to_owned());
    let bug = std::env::var("TROLLEY_SIMULATION_BUG").ok().filter(|name| !name.is_empty());
    let bug = bug.map(|name| bugs::named(&name).expect("a bug of `bugs`"));
    let (from, to) = match seeds.split_once("..") {
        Some((from, to)) => (from, to),
        None => (seeds.as_str(), seeds.as_str()),
    };
    let parse = |text: &str| text.parse::<u64>().expect("seeds: a number, or two with `..`");
    let (from, to) = (parse(from), parse(to));
    let mut failed: Vec<Report> = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let began = std::time::Instant::now();
    for seed in from..=to {
        let report = run::run(Config {
            bug,
            is_told: from == to,
            ..config(seed)
        });
        println!("{report}");
        for (what, count) in &report.counts {
            *counts.entry(what).or_default() += count;
        }
        if report.violation.is_some() {
            failed.push(report);
        }
    }
    println!("{counts:?}");
    println!("{} seeds in {:?}", to - from + 1, began.elapsed());
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}
