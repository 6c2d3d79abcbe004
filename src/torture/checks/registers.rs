//! Registers: linearizable per key; one order of revisions over all keys; and reads of a lesser consistency that see the state
//! of the revision that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

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
}

/// A read that names revision R saw the last change up to R, and R is as high as was asked for.
#[must_use]
pub fn looks(history: &History, looks: &[Looks]) -> Check {
    let mut check = Check::new("reads at a revision");
    let mut keys: BTreeMap<&str, Changes<'_>> = BTreeMap::new();
    for (key, operations) in history.by_key() {
        let changes = keys.entry(key).or_default();
        for operation in operations {
            changes.acknowledged.extend(revision_of(operation));
            let may = !matches!(operation.outcome, Outcome::NotApplied | Outcome::Refused);
            if let (Call::Put { value, .. }, true) = (&operation.call, may) {
                changes.put.insert(value);
            }
        }
    }
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
        if seen.revision < look.call.at_least {
            violate(format!("{} was asked for", look.call.at_least));
        }
        let Some((value, revision)) = &seen.found else {
            continue;
        };
        if *revision > seen.revision {
            violate(format!("it holds a change of revision {revision}"));
        }
        let Some(changes) = keys.get(key.as_str()) else {
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

    fn look(at_least: u64, revision: u64, found: Option<(&str, u64)>) -> Looks {
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
        assert_valid(&looks(&history, &[look(0, 5, Some(("a", 3)))]));
        assert_valid(&looks(
            &history,
            &[look(7, 7, Some(("b", 7))), look(0, 1, None)],
        ));
        let bad = [
            (look(6, 5, Some(("a", 3))), "6 was asked for"),
            (look(0, 7, Some(("a", 3))), "was acknowledged at 7"),
            (look(0, 5, Some(("b", 7))), "a change of revision 7"),
            (look(0, 5, Some(("c", 4))), "which nobody put"),
        ];
        for (look, says) in bad {
            assert_invalid(&looks(&history, &[look]), says);
        }
    }

    #[test]
    fn nothing_is_not_valid() {
        assert_eq!(order(&[]).judgement, super::super::Judgement::Unknown);
    }
}
