//! What a record comes to: one word, and all that stands behind it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checks::carts::{self, Durability};
use super::checks::recovery::{self, Recovery};
use super::checks::{self, Check, Judgement, Violation};
use super::faults::{Episode, Proof};
use super::history::{self, Event};
use super::record::Record;
use super::tape::{Entry, Outcome};

/// How calls ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub invoked: u64,
    /// With an answer.
    pub answered: u64,
    /// With a refusal.
    pub refused: u64,
    /// Certainly not applied.
    pub not_applied: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// What became of one kind of faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// How often it was carried out and seen to take effect.
    pub proven: u64,
    /// How often nothing was seen of it.
    pub unproven: u64,
    /// How often it was not tried.
    pub skipped: u64,
    /// How many others it overlapped with, in all.
    pub overlaps: u64,
    /// What was seen, or why it was skipped, the last time.
    pub last: String,
}

/// All that is to be said of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub verdict: Judgement,
    /// Why it is not `valid`, in a line each.
    pub reasons: Vec<String>,
    /// Repeats the run's plan.
    pub seed: u64,
    /// Of this program.
    pub version: String,
    /// As it was asked for.
    pub profile: String,
    /// How many there were.
    pub nodes: u64,
    /// From the first call to the end of the audit.
    pub elapsed_ms: u64,
    /// All calls together.
    pub total: Counts,
    /// Calls, by workload.
    pub operations: BTreeMap<String, Counts>,
    /// Faults, by kind.
    pub faults: BTreeMap<String, Coverage>,
    /// Moments at which two faults overlapped.
    pub overlaps: u64,
    /// From a change to the next acknowledged write.
    pub recovery: Recovery,
    /// Acknowledged writes, where each can be told from every other one, and how many were lost.
    #[serde(default)]
    pub durability: Durability,
    /// Properties.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Judges a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let checks = checks::all(record);
        let operations = operations(record);
        let faults = coverage(record);
        let overlaps = faults.values().map(|it| it.overlaps).sum::<u64>() / 2;
        let (mut verdict, mut reasons) = sum_up(&checks);
        for why in doubts(&faults, record.about.round) {
            verdict = verdict.max(Judgement::Unknown);
            reasons.push(why);
        }
        if record.about.was_interrupted {
            verdict = verdict.max(Judgement::Unknown);
            reasons.push("it was interrupted".to_owned());
        }
        let mut total = Counts::default();
        for counts in operations.values() {
            total.invoked += counts.invoked;
            total.answered += counts.answered;
            total.refused += counts.refused;
            total.not_applied += counts.not_applied;
            total.unknown += counts.unknown;
        }
        Self {
            verdict,
            reasons,
            seed: record.about.seed,
            version: record.about.version.clone(),
            profile: record.about.profile.clone(),
            nodes: record.about.nodes,
            elapsed_ms: record.about.elapsed_ms,
            total,
            operations,
            faults,
            overlaps,
            recovery: recovery::measure(&record.chronicle, &record.probes),
            durability: carts::durability(&record.adds, &record.audit),
            checks,
        }
    }

    /// All violations that are shown, each with the property that it breaks.
    pub fn violations(&self) -> impl Iterator<Item = (&str, &Violation)> {
        let checks = self.checks.iter();
        checks.flat_map(|check| check.violations.iter().map(|it| (check.name.as_str(), it)))
    }
}

fn sum_up(checks: &[Check]) -> (Judgement, Vec<String>) {
    let mut verdict = Judgement::Valid;
    let mut reasons = Vec::new();
    for check in checks {
        verdict = verdict.max(check.judgement);
        match check.judgement {
            Judgement::Valid => {}
            Judgement::Unknown => reasons.push(format!("{}: {}", check.name, check.note)),
            Judgement::Invalid => {
                let first = check.violations.first().map_or("", |it| it.what.as_str());
                let first = first.lines().next().unwrap_or_default();
                reasons.push(format!("{}: {first}", check.name));
            }
        }
    }
    (verdict, reasons)
}

/// A run whose faults did not happen says nothing of them.
fn doubts(faults: &BTreeMap<String, Coverage>, round: u32) -> Vec<String> {
    let mut doubts = Vec::new();
    if !faults.is_empty() && faults.values().all(|it| it.proven == 0) {
        doubts.push("no fault took effect".to_owned());
    }
    for (kind, coverage) in faults.iter().filter(|(_, it)| it.proven == 0) {
        if coverage.unproven > 0 {
            doubts.push(format!(
                "{kind}: took no effect that was seen: {}",
                coverage.last
            ));
        } else if coverage.skipped == 0 && round <= 1 {
            // The first round is the longest: the last one may be too short for all.
            doubts.push(format!(
                "{kind}: its turn did not come; it takes a longer --duration"
            ));
        }
    }
    doubts
}

fn coverage(record: &Record) -> BTreeMap<String, Coverage> {
    let mut coverage: BTreeMap<String, Coverage> = BTreeMap::new();
    for kind in &record.about.faults {
        coverage.entry(kind.clone()).or_default();
    }
    for (kind, why) in &record.about.skipped {
        let of_kind = coverage.entry(kind.clone()).or_default();
        of_kind.skipped += 1;
        of_kind.last.clone_from(why);
    }
    let episodes = &record.chronicle.episodes;
    for (index, episode) in episodes.iter().enumerate() {
        let of_kind = coverage.entry(episode.kind.name()).or_default();
        let seen = match &episode.proof {
            Proof::Proven(seen) => {
                of_kind.proven += 1;
                let others = episodes.iter().enumerate();
                let others = others.filter(|(other, _)| *other != index);
                let overlapping = others.filter(|(_, other)| overlap(episode, other));
                of_kind.overlaps += overlapping.count() as u64;
                seen
            }
            Proof::Unproven(seen) => {
                of_kind.unproven += 1;
                seen
            }
            Proof::Skipped(why) => {
                of_kind.skipped += 1;
                why
            }
        };
        of_kind.last.clone_from(seen);
    }
    coverage
}

/// Both took effect, and for a while both held.
fn overlap(a: &Episode, b: &Episode) -> bool {
    let is_proven = |it: &Episode| matches!(it.proof, Proof::Proven(_));
    is_proven(a) && is_proven(b) && a.begun_us < b.ended_us && b.begun_us < a.ended_us
}

fn operations(record: &Record) -> BTreeMap<String, Counts> {
    let mut operations = BTreeMap::new();
    let mut add = |name: &str, counts: Counts| {
        if counts.invoked > 0 {
            operations.insert(name.to_owned(), counts);
        }
    };
    add("registers", of_history(record));
    add("other reads of registers", of_tape(&record.looks));
    add("carts", of_tape(&record.adds));
    add("bank", of_tape(&record.bankings));
    add("lists", of_tape(&record.listings));
    add("sessions", of_tape(&record.sessions));
    add("leases", of_tape(&record.leases));
    add("locks", of_tape(&record.locks));
    add("probes", of_tape(&record.probes));
    let events: usize = record.feeds.iter().map(|feed| feed.events.len()).sum();
    let events = events as u64;
    add(
        "watch events",
        Counts {
            invoked: events,
            answered: events,
            ..Counts::default()
        },
    );
    operations
}

fn of_tape<C, A>(entries: &[Entry<C, A>]) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        counts.invoked += 1;
        *match entry.outcome {
            Outcome::Answered(_) => &mut counts.answered,
            Outcome::Refused(_) => &mut counts.refused,
            Outcome::NotApplied => &mut counts.not_applied,
            Outcome::Unknown => &mut counts.unknown,
        } += 1;
    }
    counts
}

fn of_history(record: &Record) -> Counts {
    let mut counts = Counts::default();
    for event in record.history.events() {
        match event {
            Event::Invoke { .. } => counts.invoked += 1,
            Event::Return { outcome, .. } => match outcome {
                history::Outcome::Refused => counts.refused += 1,
                history::Outcome::NotApplied => counts.not_applied += 1,
                history::Outcome::Unknown => {}
                _ => counts.answered += 1,
            },
        }
    }
    let told = counts.refused + counts.not_applied + counts.answered;
    counts.unknown = counts.invoked - told;
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::faults::Kind;

    fn episode(kind: Kind, begun_us: u64, ended_us: u64, proof: Proof) -> Episode {
        Episode {
            kind,
            nodes: vec![1],
            leader: 1,
            begun_us,
            ended_us,
            proof,
        }
    }

    fn record(episodes: Vec<Episode>) -> Record {
        let mut record = super::super::testing::empty_record();
        record.about.faults = episodes.iter().map(|it| it.kind.name()).collect();
        record.chronicle.episodes = episodes;
        record
    }

    fn seen() -> Proof {
        Proof::Proven("seen".to_owned())
    }

    #[test]
    fn only_faults_that_took_effect_overlap() {
        let verdict = Verdict::of(&record(vec![
            episode(Kind::KillLeader, 0, 10, seen()),
            episode(Kind::Latency, 5, 20, seen()),
            episode(Kind::Bridge, 6, 20, Proof::Unproven("nothing".to_owned())),
            episode(Kind::Stall, 10, 20, seen()),
        ]));
        assert_eq!(verdict.overlaps, 2);
        assert_eq!(verdict.faults["kill-leader"].overlaps, 1);
        assert_eq!(verdict.faults["bridge"].unproven, 1);
        assert_eq!(verdict.verdict, Judgement::Unknown);
        let said = verdict.reasons.iter().any(|why| why.starts_with("bridge"));
        assert!(said, "{:?}", verdict.reasons);
    }

    #[test]
    fn what_is_skipped_says_so_and_does_not_pass() {
        let mut record = record(vec![]);
        record.about.faults.push("power-cut".to_owned());
        let why = "no loop devices".to_owned();
        record.about.skipped.insert("power-cut".to_owned(), why);
        let verdict = Verdict::of(&record);
        assert_eq!(verdict.faults["power-cut"].skipped, 1);
        assert_eq!(verdict.faults["power-cut"].proven, 0);
        assert_eq!(verdict.faults["power-cut"].last, "no loop devices");
        assert_eq!(verdict.verdict, Judgement::Unknown);
        assert!(verdict.reasons.contains(&"no fault took effect".to_owned()));
        // Beside others, it is said and no more.
        record.about.faults.push("latency".to_owned());
        record.chronicle.episodes = vec![episode(Kind::Latency, 0, 10, seen())];
        assert_eq!(doubts(&coverage(&record), 1), Vec::<String>::new());
    }

    #[test]
    fn a_kind_whose_turn_did_not_come_leaves_the_run_undecided() {
        let mut record = record(vec![episode(Kind::Latency, 0, 10, seen())]);
        record.about.faults.push("kill-all".to_owned());
        let reasons = |record: &Record| doubts(&coverage(record), record.about.round);
        let [why] = &reasons(&record)[..] else {
            panic!("{:?}", reasons(&record));
        };
        assert!(why.starts_with("kill-all: its turn"), "{why}");
        assert!(Verdict::of(&record).reasons.contains(why));
        // It had it in a round before.
        record.about.round = 2;
        assert_eq!(reasons(&record), Vec::<String>::new());
    }

    #[test]
    fn what_was_interrupted_is_unknown_and_what_it_found_counts() {
        let mut record = record(vec![]);
        record.about.was_interrupted = true;
        let verdict = Verdict::of(&record);
        assert_eq!(verdict.verdict, Judgement::Unknown);
        assert!(verdict.reasons.contains(&"it was interrupted".to_owned()));
        record.audit.files.push("node-1.log: a panic".to_owned());
        assert_eq!(Verdict::of(&record).verdict, Judgement::Invalid);
    }

    #[test]
    fn one_violation_makes_all_of_it_invalid() {
        let mut record = record(vec![]);
        record.audit.files.push("node-1.log: a panic".to_owned());
        let verdict = Verdict::of(&record);
        assert_eq!(verdict.verdict, Judgement::Invalid);
        assert_eq!(verdict.violations().count(), 1);
    }
}
