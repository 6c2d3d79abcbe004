//! A deterministic simulation: several real nodes on one thread, with disks, a network and clocks that are made up.
//!
//! # What is real
//! openraft, the state machine and its commands, the encoding of log entries, and what a node does with writes, reads,
//! read rounds, ticks, log time, leadership, changes of the members and the version of the state's rules. What is simulated:
//! the disk ([`disk`]), what lies between nodes ([`network`]), time, and the order of everything. What is left out: `RocksDB`,
//! gRPC, watches, full disks and births; `tests/cluster` and `trolley-torture` have those.
//!
//! # Why it is the same each time
//! Each node has a runtime of one thread whose time is paused, and goes from timer to timer; nodes run one after another
//! for a few simulated milliseconds each. Random numbers come from the seed, openraft's included. Nothing that runs here
//! looks at a wall clock, at another thread, or at the order of a hash table. Tokio has numbers of its own, which only an
//! unstable build can seed, and compiler flags for one would build `RocksDB` again. They decide two things: which branch of
//! a `select!` is looked at first, so those in the node are biased; and which waiter of a watch channel is woken first, so
//! openraft has a channel of ours, and what readers send within a step is put in order before it is sent.
//!
//! `turmoil` would be this loop over simulated sockets. Without it whole messages can be delayed, lost and doubled, which a
//! socket's stream does not allow, gRPC need not run, and nodes can be paused.
//!
//! # Seeds
//! The tests run as many as fit a gate. `TROLLEY_SIMULATION_SEEDS=1..5000` runs those instead, and `7` runs one and tells every
//! event; `TROLLEY_SIMULATION_BUG` puts in a bug of [`bugs`]. A failing test prints the command that repeats it.

#![allow(clippy::print_stdout, reason = "seeds and traces are for people")]

mod asks;
mod bugs;
mod clients;
mod disk;
mod ledger;
mod log;
mod machine;
mod network;
mod node;
mod operators;
mod panics;
mod plan;
mod roster;
mod run;
mod scenes;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Instant;

use bugs::Bug;
use run::{Config, Report};

/// How long things go wrong in a run, in simulated time.
const FAULTS_MS: u64 = 10_000;
/// What the gate runs.
const SEEDS: RangeInclusive<u64> = 1..=60;
/// What it runs twice.
const REPEATED_SEEDS: RangeInclusive<u64> = 1..=8;
/// Every planted bug is found within so many seeds.
const BUG_SEEDS: RangeInclusive<u64> = 1..=200;
/// Each of these happens in the gate's runs, or they prove less than they seem to.
const COVERAGE: [&str; 27] = [
    "add",
    "crash",
    "crash of all",
    "cut",
    "delete",
    "disk lost",
    "doubled",
    "election",
    "get",
    "look",
    "lost",
    "node added",
    "node removed",
    "pause",
    "purge",
    "put",
    "session",
    "slow sync",
    "slow time",
    "snapshot",
    "snapshot built",
    "snapshot installed",
    "storm",
    "transfer",
    "truncation",
    "upgrade",
    "wrong clock",
];

fn simulate(seed: u64, bug: Option<Bug>, is_told: bool) -> Report {
    let config = Config {
        seed,
        bug,
        faults_ms: FAULTS_MS,
        is_told,
    };
    // A thread of its own, so that a run begins with nothing of the one before.
    let run = std::thread::spawn(move || run::run(config));
    run.join().expect("a run catches its panics")
}

/// The same seed is the same run, to the byte.
#[test]
fn a_seed_repeats_itself() {
    let mut hashes = Vec::new();
    for seed in REPEATED_SEEDS {
        let first = simulate(seed, None, false);
        assert_eq!(first, simulate(seed, None, false), "{}", repeat(seed, None));
        assert!(first.events > 1000, "nothing happened: {first}");
        hashes.push(first.hash);
    }
    let runs = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), runs, "another seed is another run");
}

/// A simulation that finds nothing proves nothing: it must find each of these.
#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    for (name, bug) in bugs::ALL {
        let began = Instant::now();
        let found = BUG_SEEDS.clone().find_map(|seed| {
            let violation = simulate(seed, Some(bug), false).violation?;
            Some((seed, violation))
        });
        match found {
            Some((seed, violation)) => println!(
                "{name}: {violation} (seed {seed}, {:.1} s)",
                began.elapsed().as_secs_f32()
            ),
            None => missed.push(name),
        }
    }
    assert!(
        missed.is_empty(),
        "not found in seeds {BUG_SEEDS:?}: {missed:?}"
    );
}

/// Nothing is found where nothing was planted.
#[test]
fn seeds() {
    let asked = std::env::var("TROLLEY_SIMULATION_SEEDS").ok();
    let seeds = asked.as_deref().map_or(SEEDS, parse_seeds);
    let name = std::env::var("TROLLEY_SIMULATION_BUG").ok();
    let bug = name.map(|name| bugs::named(&name).expect("a bug of `bugs`"));
    let is_told = asked.is_some() && seeds.start() == seeds.end();
    let mut failed = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let began = Instant::now();
    for seed in seeds.clone() {
        let report = simulate(seed, bug, is_told);
        if asked.is_some() || report.violation.is_some() {
            println!("{report}");
        }
        for (what, count) in &report.counts {
            *counts.entry(what).or_default() += count;
        }
        if report.violation.is_some() {
            println!("{}", repeat(seed, bug));
            failed.push(seed);
        }
    }
    println!("seeds {seeds:?} in {:?}: {counts:?}", began.elapsed());
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
    let missing = COVERAGE.iter().filter(|what| !counts.contains_key(*what));
    let missing: Vec<_> = missing.collect();
    assert!(
        asked.is_some() || missing.is_empty(),
        "did not happen: {missing:?}"
    );
}

/// `7`, or `1..5000` with both of them.
fn parse_seeds(text: &str) -> RangeInclusive<u64> {
    let number = |text: &str| text.parse().expect("seeds: a number, or two with `..`");
    match text.split_once("..") {
        Some((first, last)) => number(first)..=number(last),
        None => number(text)..=number(text),
    }
}

/// The command that runs a seed again.
fn repeat(seed: u64, bug: Option<Bug>) -> String {
    let planted = bugs::ALL.into_iter().find(|(_, it)| Some(*it) == bug);
    let planted = planted.map_or(String::new(), |(name, _)| {
        format!("TROLLEY_SIMULATION_BUG={name} ")
    });
    format!(
        "to repeat: {planted}TROLLEY_SIMULATION_SEEDS={seed} cargo test --release --test simulation seeds -- --nocapture"
    )
}
