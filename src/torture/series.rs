//! Many runs, one seed after the other, and what they come to together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::checks::Judgement;
use super::checks::carts::Durability;
use super::checks::recovery::percentile;
use super::verdict::Verdict;

/// Properties whose facts are operations that were held against an order that is linearizable.
const LINEARIZABLE: [&str; 2] = ["linearizability", "transactions have one order"];

/// What all runs so far come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// How many runs there were; a run of hours counts with each of its rounds.
    pub runs: u64,
    /// Seeds of runs that are valid, as often as they are.
    pub valid: Vec<u64>,
    /// Of those that are not, with the reasons.
    pub invalid: BTreeMap<u64, Vec<String>>,
    /// Of those that decided nothing, with the reasons.
    pub unknown: BTreeMap<u64, Vec<String>>,
    /// Operations that were checked for linearizability.
    pub operations: u64,
    /// All calls.
    pub calls: u64,
    /// Facts that were held against a property, by property.
    pub examined: BTreeMap<String, u64>,
    /// How often a kind of fault took effect.
    pub faults: BTreeMap<String, u64>,
    /// Kinds that cannot be carried out here.
    pub skipped: BTreeSet<String>,
    /// Moments at which two faults overlapped.
    pub overlaps: u64,
    /// Milliseconds that faults went on for, audits included.
    pub elapsed_ms: u64,
    /// Times to recovery, in milliseconds: how many, half of them at most, 99 of 100 at most, all at most.
    pub recovery: (u64, u64, u64, u64),
    /// Acknowledged writes that can be told from each other, and how many were lost: in the runs after which that could be found out.
    #[serde(default)]
    pub durability: Durability,
    /// All of them.
    all_ms: Vec<u64>,
}

impl Series {
    /// Of these.
    #[must_use]
    pub fn of(verdicts: &[Verdict]) -> Self {
        let mut series = Self::default();
        for verdict in verdicts {
            series.add(verdict);
        }
        series
    }

    /// 0: valid, 1: invalid, 2: unknown.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.judgement() {
            Judgement::Valid => 0,
            Judgement::Invalid => 1,
            Judgement::Unknown => 2,
        }
    }

    /// Adds a run.
    pub fn add(&mut self, verdict: &Verdict) {
        let reasons = verdict.reasons.clone();
        self.runs += 1;
        match verdict.verdict {
            Judgement::Valid => self.valid.push(verdict.seed),
            Judgement::Unknown => self
                .unknown
                .entry(verdict.seed)
                .or_default()
                .extend(reasons),
            Judgement::Invalid => self
                .invalid
                .entry(verdict.seed)
                .or_default()
                .extend(reasons),
        }
        for check in &verdict.checks {
            *self.examined.entry(check.name.clone()).or_default() += check.examined;
            if LINEARIZABLE.contains(&check.name.as_str()) {
                self.operations += check.examined;
            }
        }
        for (kind, coverage) in &verdict.faults {
            if coverage.proven > 0 {
                *self.faults.entry(kind.clone()).or_default() += coverage.proven;
            } else if coverage.skipped > 0 {
                self.skipped.insert(kind.clone());
            }
        }
        self.calls += verdict.total.invoked;
        self.overlaps += verdict.overlaps;
        if let Some(lost) = verdict.durability.lost {
            self.durability.acknowledged += verdict.durability.acknowledged;
            *self.durability.lost.get_or_insert(0) += lost;
        }
        self.elapsed_ms += verdict.elapsed_ms;
        self.all_ms.extend(&verdict.recovery.all_ms);
        self.all_ms.sort_unstable();
        let at = |percent| percentile(&self.all_ms, percent);
        self.recovery = (self.all_ms.len() as u64, at(50), at(99), at(100));
    }

    /// The worst of all.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        if !self.invalid.is_empty() {
            Judgement::Invalid
        } else if !self.unknown.is_empty() || self.valid.is_empty() {
            Judgement::Unknown
        } else {
            Judgement::Valid
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(seed: u64, judgement: Judgement, all_ms: &[u64]) -> Verdict {
        let mut verdict = Verdict::of(&crate::torture::testing::empty_record());
        verdict.seed = seed;
        verdict.verdict = judgement;
        verdict.recovery.all_ms = all_ms.to_vec();
        verdict.total.invoked = 10;
        verdict
    }

    #[test]
    fn the_worst_run_counts_and_times_are_those_of_all() {
        let mut series = Series::default();
        assert_eq!(series.judgement(), Judgement::Unknown);
        series.add(&verdict(1, Judgement::Valid, &[5, 1]));
        assert_eq!(series.judgement(), Judgement::Valid);
        series.add(&verdict(2, Judgement::Unknown, &[100]));
        assert_eq!(series.judgement(), Judgement::Unknown);
        series.add(&verdict(3, Judgement::Invalid, &[]));
        assert_eq!(series.judgement(), Judgement::Invalid);
        assert_eq!((series.runs, series.calls), (3, 30));
        assert_eq!(series.recovery, (3, 5, 5, 100));
    }
}
