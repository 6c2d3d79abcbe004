//! Registers: linearizable per key; one order of revisions over all keys; and reads of a lesser consistency that see the state
//! of the revision that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::Check;
use crate::torture::history::{Call, History, Operation, Outcome};
use crate::torture::linearizability::{self, DEFAULT_BUDGET, Verdict};
use crate::torture::workloads::registers::{Asked, Looks, Order};

/// Every key's calls have a legal order. Reads of the final audit are among them, so that a write which was acknowledged and
/// is on no node any more, or not on each, has none.
#[must_use]
pub fn linearizability(history: &History) -> Check {
    let mut check = Check::new("linearizability");
    check.examined = history.by_key().values().map(|it| it.len() as u64).sum();
    check.note = format!("{} keys", history.by_key().len());
    match linearizability::check(history, DEFAULT_BUDGET) {
        Verdict::Valid => {}
        Verdict::Invalid(found) => check.violate_in(&found.key, None, found.to_string()),
        Verdict::Unknown { key, steps } => {
            check.doubt(&format!("key {key}: no end after {steps} steps"));
        }
    }
    check.expect_facts()
}

/// A call is answered at a revision that none of those exceed which were told before it was sent; a write's is greater.
#[must_use]
pub fn order(entries: &[Order]) -> Check {
    let mut check = Check::new("revision order");
    let answered = entries.iter().filter_map(|entry| {
        let revision = *entry.outcome.answer()?;
        Some((entry.invoked_us, entry.returned_us?, entry.call, revision))
    });
    let mut by_invocation: Vec<_> = answered.collect();
    let mut by_return = by_invocation.clone();
    by_invocation.sort_unstable_by_key(|(invoked, ..)| *invoked);
    by_return.sort_unstable_by_key(|(_, returned, ..)| *returned);
    let mut told = by_return.into_iter().peekable();
    let mut highest = 0;
    for (invoked, returned, asked, revision) in by_invocation {
        while let Some((.., before)) = told.next_if(|(_, returned, ..)| *returned < invoked) {
            highest = highest.max(before);
        }
        check.examined += 1;
        let went_back = match asked {
            Asked::Write => revision <= highest,
            Asked::Read => revision < highest,
        };
        if went_back {
            let what = format!(
                "a {asked:?} that was sent after revision {highest} had been told was answered at {revision}"
            );
            check.violate(Some(returned), what);
        }
    }
    check.expect_facts()
}

fn revision_of(operation: &Operation) -> Option<(u64, Option<&str>)> {
    match (&operation.call, &operation.outcome) {
        (Call::Put { value, .. }, Outcome::Written { revision }) => {
            Some(((*revision)?, Some(value)))
        }
        (_, Outcome::Deleted { revision }) => Some(((*revision)?, None)),
        _ => None,
    }
}

/// No two changes have one revision, and what is read at a revision is what was written there.
#[must_use]
pub fn revisions(history: &History) -> Check {
    let mut check = Check::new("revisions are unique");
    let mut changes: BTreeMap<u64, (&str, Option<&str>)> = BTreeMap::new();
    let all = || {
        let by_key = history.by_key().iter();
        by_key.flat_map(|(key, operations)| operations.iter().map(move |it| (key.as_str(), it)))
    };
    for (key, operation) in all() {
        if let Some((revision, value)) = revision_of(operation) {
            check.examined += 1;
            if let Some(other) = changes.insert(revision, (key, value)) {
                let what =
                    format!("revision {revision} is that of {key} = {value:?} and of {other:?}");
                check.violate_in(key, None, what);
            }
        }
    }
    for (key, operation) in all() {
        let Outcome::Found {
            value,
            revision: Some(revision),
        } = &operation.outcome
        else {
            continue;
        };
        check.examined += 1;
        let change = changes.get(revision);
        if let Some(change) = change.filter(|change| **change != (key, Some(value))) {
            let what =
                format!("{key} = {value} was read at revision {revision}, that of {change:?}");
            check.violate_in(key, None, what);
        }
    }
    check.expect_facts()
}

/// What is known of one key's changes.
#[derive(Default)]
struct Changes<'a> {
    /// Those that were acknowledged, by revision.
    acknowledged: BTreeMap<u64, Option<&'a str>>,
    /// Values that were put, or may have been.
    put: BTreeSet<&'a str>,
    /// Somebody has tried to delete it, and was not told what became of it.
    may_be_deleted: bool,
}

impl<'a> Changes<'a> {
    fn of(operations: &'a [Operation]) -> Self {
        let mut changes = Self::default();
        for operation in operations {
            changes.acknowledged.extend(revision_of(operation));
            if matches!(operation.outcome, Outcome::NotApplied | Outcome::Refused) {
                continue;
            }
            match &operation.call {
                Call::Put { value, .. } => _ = changes.put.insert(value),
                Call::Delete { .. } => {
                    changes.may_be_deleted |= operation.outcome == Outcome::Unknown;
                }
                Call::Get => {}
            }
        }
        changes
    }

    /// The put, acknowledged at this revision or before, that nobody can have undone.
    fn is_there_since(&self, revision: u64) -> Option<(u64, &'a str)> {
        let (at, value) = self.acknowledged.range(..=revision).next_back()?;
        let mut later = self.acknowledged.range((Excluded(*at), Unbounded));
        let is_deleted = self.may_be_deleted || later.any(|(_, value)| value.is_none());
        (*value).filter(|_| !is_deleted).map(|value| (*at, value))
    }
}

/// What a client had been told at a time: its highest revision.
struct Told(BTreeMap<u32, Vec<(u64, u64)>>);

impl Told {
    fn of(order: &[Order]) -> Self {
        let mut told: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for entry in order {
            let answer = entry.returned_us.zip(entry.outcome.answer().copied());
            told.entry(entry.process).or_default().extend(answer);
        }
        for answers in told.values_mut() {
            answers.sort_unstable();
            let mut highest = 0;
            for (_, revision) in answers {
                highest = highest.max(*revision);
                *revision = highest;
            }
        }
        Self(told)
    }

    fn before(&self, process: u32, at_us: u64) -> u64 {
        let answers = self.0.get(&process).map_or(&[][..], Vec::as_slice);
        let before = answers.partition_point(|(returned, _)| *returned < at_us);
        before.checked_sub(1).map_or(0, |last| answers[last].1)
    }
}

/// A read that names revision R saw the last change up to R, and R is as high as was asked for: which is as high as all that the same
/// client had been told.
#[must_use]
pub fn looks(history: &History, order: &[Order], looks: &[Looks]) -> Check {
    let mut check = Check::new("reads at a revision");
    let keys = history.by_key().iter();
    let keys: BTreeMap<&str, Changes<'_>> = keys
        .map(|(key, operations)| (key.as_str(), Changes::of(operations)))
        .collect();
    let told = Told::of(order);
    for look in looks {
        let Some(seen) = look.outcome.answer() else {
            continue;
        };
        check.examined += 1;
        let key = &look.call.key;
        let mut violate = |what: String| {
            let what = format!("{key} at revision {}: {what}", seen.revision);
            check.violate_in(key, look.returned_us, what);
        };
        if let Some(at_least) = look.call.at_least {
            let told = told.before(look.process, look.invoked_us);
            if at_least < told {
                violate(format!(
                    "{at_least} was asked for by a client that knew of {told}"
                ));
            }
            if seen.revision < at_least {
                violate(format!("{at_least} was asked for"));
            }
        }
        let changes = keys.get(key.as_str());
        let Some((value, revision)) = &seen.found else {
            let there = changes.and_then(|changes| changes.is_there_since(seen.revision));
            if let Some((since, value)) = there {
                violate(format!(
                    "it was not found, and {value} was acknowledged at {since}"
                ));
            }
            continue;
        };
        if *revision > seen.revision {
            violate(format!("it holds a change of revision {revision}"));
        }
        let Some(changes) = changes else {
            continue;
        };
        if !changes.put.contains(value.as_str()) {
            violate(format!("it holds {value}, which nobody put"));
        }
        let behind = (Excluded(*revision), Included(seen.revision.max(*revision)));
        let newer = changes.acknowledged.range(behind);
        if let Some((newer, other)) = newer.last() {
            violate(format!(
                "it holds {value} of revision {revision}, and {other:?} was acknowledged at {newer}"
            ));
        }
    }
    check.expect_facts()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, lost, told};
    use super::*;
    use crate::torture::history::{Condition, Recorder};
    use crate::torture::workloads::registers::{Look, Seen};

    fn put(recorder: &Recorder, value: &str, revision: u64) {
        let call = Call::Put {
            value: value.to_owned(),
            condition: Condition::Always,
        };
        let ticket = recorder.invoke(1, "k", call);
        recorder.complete(
            ticket,
            Outcome::Written {
                revision: Some(revision),
            },
        );
    }

    fn get(recorder: &Recorder, value: &str, revision: u64) {
        let ticket = recorder.invoke(2, "k", Call::Get);
        recorder.complete(
            ticket,
            Outcome::Found {
                value: value.to_owned(),
                revision: Some(revision),
            },
        );
    }

    fn history(recorder: &Recorder) -> History {
        recorder.history().expect("outcomes fit")
    }

    #[test]
    fn a_write_that_is_lost_after_it_was_acknowledged_is_found() {
        let recorder = Recorder::new();
        put(&recorder, "a", 1);
        put(&recorder, "b", 2);
        get(&recorder, "b", 2);
        assert_valid(&linearizability(&history(&recorder)));
        assert_valid(&revisions(&history(&recorder)));
        // One of the nodes has the older value.
        get(&recorder, "a", 1);
        assert_invalid(&linearizability(&history(&recorder)), "not linearizable");
    }

    #[test]
    fn revisions_go_up_with_real_time() {
        let good = [
            told(0, 10, Asked::Write, 5),
            told(5, 20, Asked::Write, 4),
            told(21, 30, Asked::Read, 5),
            told(21, 31, Asked::Write, 6),
            lost(32, 40, Asked::Write),
        ];
        assert_valid(&order(&good));
        let back = [told(0, 10, Asked::Write, 5), told(11, 12, Asked::Read, 4)];
        assert_invalid(&order(&back), "was answered at 4");
        let same = [told(0, 10, Asked::Write, 5), told(11, 12, Asked::Write, 5)];
        assert_invalid(&order(&same), "was answered at 5");
        // Told out of order, and the later one invoked before the earlier one returned.
        let nested = [
            told(0, 100, Asked::Write, 9),
            told(1, 2, Asked::Read, 10),
            told(3, 4, Asked::Read, 8),
        ];
        assert_invalid(&order(&nested), "was answered at 8");
    }

    #[test]
    fn a_revision_belongs_to_one_change() {
        let recorder = Recorder::new();
        put(&recorder, "a", 1);
        put(&recorder, "b", 1);
        assert_invalid(&revisions(&history(&recorder)), "revision 1");
        let recorder = Recorder::new();
        put(&recorder, "a", 1);
        get(&recorder, "z", 1);
        assert_invalid(&revisions(&history(&recorder)), "was read at revision 1");
    }

    fn look(at_least: Option<u64>, revision: u64, found: Option<(&str, u64)>) -> Looks {
        let call = Look {
            key: "k".to_owned(),
            at_least,
        };
        let found = found.map(|(value, revision)| (value.to_owned(), revision));
        told(1, 2, call, Seen { revision, found })
    }

    #[test]
    fn a_read_sees_the_state_of_the_revision_that_it_names() {
        let recorder = Recorder::new();
        put(&recorder, "a", 3);
        put(&recorder, "b", 7);
        let history = history(&recorder);
        let judge = |look| looks(&history, &[], &[look]);
        for good in [
            look(None, 5, Some(("a", 3))),
            look(Some(7), 7, Some(("b", 7))),
            look(None, 0, None),
            look(Some(2), 2, None),
        ] {
            assert_valid(&judge(good));
        }
        let bad = [
            (look(Some(6), 5, Some(("a", 3))), "6 was asked for"),
            (look(None, 7, Some(("a", 3))), "was acknowledged at 7"),
            (look(None, 5, Some(("b", 7))), "a change of revision 7"),
            (look(None, 5, Some(("c", 4))), "which nobody put"),
            (look(Some(3), 3, None), "a was acknowledged at 3"),
            (look(Some(9), 9, None), "b was acknowledged at 7"),
        ];
        for (look, says) in bad {
            assert_invalid(&judge(look), says);
        }
    }

    #[test]
    fn what_may_have_been_deleted_need_not_be_found() {
        let delete = |outcome| {
            let recorder = Recorder::new();
            put(&recorder, "a", 3);
            let condition = Condition::Always;
            let ticket = recorder.invoke(1, "k", Call::Delete { condition });
            recorder.complete(ticket, outcome);
            looks(&history(&recorder), &[], &[look(Some(4), 4, None)])
        };
        assert_valid(&delete(Outcome::Unknown));
        assert_valid(&delete(Outcome::Deleted { revision: Some(9) }));
        assert_invalid(&delete(Outcome::NotApplied), "a was acknowledged at 3");
        assert_invalid(
            &delete(Outcome::Deleted { revision: Some(2) }),
            "a was acknowledged at 3",
        );
    }

    #[test]
    fn a_client_asks_for_all_that_it_was_told() {
        let history = history(&Recorder::new());
        let order = [
            told(0, 0, Asked::Write, 9),
            told(0, 0, Asked::Read, 8),
            told(0, 5, Asked::Write, 12),
        ];
        assert_valid(&looks(&history, &order, &[look(Some(9), 9, None)]));
        let forgetful = looks(&history, &order, &[look(Some(8), 9, None)]);
        assert_invalid(&forgetful, "8 was asked for by a client that knew of 9");
        assert_valid(&looks(&history, &order, &[look(None, 0, None)]));
    }

    #[test]
    fn nothing_is_not_valid() {
        assert_eq!(order(&[]).judgement, super::super::Judgement::Unknown);
    }
}
