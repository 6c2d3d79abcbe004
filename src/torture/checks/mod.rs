//! What a record proves, property by property: one file for each, without clocks, sockets or processes.
//!
//! # Invariants
//! - A violation is certain: it follows from what clients were told and from the times at which they were, with every call
//!   whose outcome is unknown taken for whatever does least harm.
//! - What could not be decided is `Unknown`, never `Valid`.

pub mod bank;
pub mod carts;
mod graph;
pub mod leases;
pub mod lists;
pub mod lives;
pub mod locks;
pub mod log_time;
pub mod nodes;
pub mod recovery;
pub mod registers;
pub mod sessions;
pub mod watch;

use serde::{Deserialize, Serialize};

use self::log_time::LogTime;
use super::record::Record;

/// Violations that a check shows; the others are counted.
const SHOWN: usize = 20;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The property holds in all that was recorded.
    Valid,
    /// It could not be decided.
    Unknown,
    /// It does not hold.
    Invalid,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When it was seen, if at one moment.
    pub at_us: Option<u64>,
    /// What.
    pub what: String,
    /// What it is about, as calls name it: a key, a session, a request; empty if that is no one thing.
    #[serde(default)]
    pub about: String,
}

/// One property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub judgement: Judgement,
    /// How many facts were held against it.
    pub examined: u64,
    /// The first of what contradicts it.
    pub violations: Vec<Violation>,
    /// What else is to be said.
    pub note: String,
}

impl Check {
    /// One that holds until something is found.
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            judgement: Judgement::Valid,
            examined: 0,
            violations: Vec::new(),
            note: String::new(),
        }
    }

    fn violate(&mut self, at_us: Option<u64>, what: String) {
        self.violate_in("", at_us, what);
    }

    /// The same, about one key, session or request.
    fn violate_in(&mut self, about: &str, at_us: Option<u64>, what: String) {
        self.judgement = Judgement::Invalid;
        if self.violations.len() < SHOWN {
            let about = about.to_owned();
            self.violations.push(Violation { at_us, what, about });
        }
    }

    fn doubt(&mut self, note: &str) {
        self.judgement = self.judgement.max(Judgement::Unknown);
        note.clone_into(&mut self.note);
    }

    /// Nothing was there to be held against the property, although it should have been.
    fn expect_facts(mut self) -> Self {
        if self.examined == 0 {
            self.doubt("there is nothing that it could be judged by");
        }
        self
    }
}

/// Everything that a record is checked for.
#[must_use]
pub fn all(record: &Record) -> Vec<Check> {
    let ran = |name: &str| record.about.workloads.iter().any(|it| it == name);
    let audit = &record.audit;
    let log_time = LogTime::of(&record.probes);
    let mut checks = Vec::new();
    if ran("registers") {
        checks.push(registers::linearizability(&record.history));
        checks.push(registers::order(&record.order));
        checks.push(registers::revisions(&record.history));
        checks.push(registers::looks(
            &record.history,
            &record.order,
            &record.looks,
        ));
    }
    if ran("carts") {
        checks.push(carts::exactly_once(&record.adds, audit));
    }
    if ran("bank") {
        checks.push(bank::total(&record.bankings, audit));
    }
    if ran("lists") {
        checks.push(lists::serialisable(&record.listings, audit));
    }
    if ran("sessions") {
        checks.push(sessions::ended(&record.sessions, audit));
        checks.push(sessions::alive(&record.sessions, audit));
        checks.push(sessions::contents(&record.sessions));
        checks.push(sessions::expiry(&record.sessions, &log_time));
    }
    if ran("leases") {
        checks.push(leases::ended(&record.leases, audit));
        checks.push(leases::alive(&record.leases, audit));
        checks.push(leases::expiry(&record.leases, &log_time));
    }
    if ran("locks") {
        checks.push(locks::exclusive(&record.locks));
    }
    if ran("watch") {
        checks.push(watch::complete(&record.feeds, &record.history, audit));
    }
    checks.push(nodes::terms(&record.samples));
    checks.push(nodes::replicas(audit, record.about.nodes));
    checks.push(nodes::deaths(&record.chronicle));
    if !record.about.is_followed {
        checks.push(nodes::files(audit));
    }
    checks.push(nodes::resources(&record.samples));
    checks.push(recovery::liveness(
        &record.chronicle,
        &record.probes,
        &record.samples,
    ));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each round would be undecided otherwise, and with it every run that has more than one.
    #[test]
    fn files_are_looked_through_after_the_last_round_alone() {
        let checks_files = |is_followed| {
            let mut record = crate::torture::testing::empty_record();
            record.about.is_followed = is_followed;
            let mut checks = all(&record).into_iter();
            checks.any(|check| check.name == nodes::files(&record.audit).name)
        };
        assert!(checks_files(false));
        assert!(!checks_files(true));
    }
}

#[cfg(test)]
mod testing {
    //! What the checkers' tests have in common.

    use super::{Check, Judgement};
    use crate::torture::record::{Audit, NodeAudit};
    use crate::torture::tape::{Entry, Outcome};

    /// A call that was answered.
    pub fn told<C, A>(invoked_us: u64, returned_us: u64, call: C, answer: A) -> Entry<C, A> {
        entry(
            invoked_us,
            Some(returned_us),
            call,
            Outcome::Answered(answer),
        )
    }

    /// A call that was given up.
    pub fn lost<C, A>(invoked_us: u64, returned_us: u64, call: C) -> Entry<C, A> {
        entry(invoked_us, Some(returned_us), call, Outcome::Unknown)
    }

    /// A call that was refused.
    pub fn refused<C, A>(invoked_us: u64, returned_us: u64, call: C) -> Entry<C, A> {
        entry(
            invoked_us,
            Some(returned_us),
            call,
            Outcome::Refused("NO".to_owned()),
        )
    }

    fn entry<C, A>(
        invoked_us: u64,
        returned_us: Option<u64>,
        call: C,
        outcome: Outcome<A>,
    ) -> Entry<C, A> {
        Entry {
            process: 0,
            invoked_us,
            returned_us,
            call,
            outcome,
        }
    }

    /// An audit of one node that holds these keys, each since revision 1.
    pub fn audit_of(keys: impl IntoIterator<Item = (String, String)>) -> Audit {
        let keys = keys.into_iter().map(|(key, value)| (key, (value, 1)));
        Audit {
            nodes: vec![NodeAudit {
                node: 1,
                keys: keys.collect(),
                ..NodeAudit::default()
            }],
            ..Audit::default()
        }
    }

    #[track_caller]
    pub fn assert_valid(check: &Check) {
        assert_eq!(check.judgement, Judgement::Valid, "{check:#?}");
        assert!(check.examined > 0, "{check:#?}");
    }

    /// It does not hold, and this is said of it.
    #[track_caller]
    pub fn assert_invalid(check: &Check, says: &str) {
        assert_eq!(check.judgement, Judgement::Invalid, "{check:#?}");
        let said = check.violations.iter().any(|it| it.what.contains(says));
        assert!(said, "{says}: {check:#?}");
    }
}
