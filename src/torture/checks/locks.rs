//! Locks: one holds one at a time, and whatever a lock protects is written by none but its holder.
//!
//! Three things follow from what holders were told:
//! 1. Fencing tokens grow: whoever acquires a lock after somebody else had it has a greater one.
//! 2. Of two holders neither was certain to hold the lock while the other one was.
//! 3. A write under a token came before the next token. Both are revisions, so that no clock has a say in this; and a holder that was
//!    certain to hold the lock all the time was not refused.

use std::collections::BTreeMap;

use super::Check;
use crate::torture::tape::Entry;
use crate::torture::workloads::locks::{Answer, Calls, Request};

/// What is known of one holder of a lock.
#[derive(Debug, Default)]
struct Hold {
    /// When it was acquired: sent and acknowledged.
    acquired: Option<(u64, u64)>,
    /// The last time at which it was certain to be held.
    certain_until: u64,
    /// Revisions of what it wrote.
    writes: Vec<u64>,
    /// When it was refused to write.
    fenced_off: Vec<u64>,
}

/// The holders of each lock, by token.
fn holds(calls: &[Calls]) -> (BTreeMap<&str, BTreeMap<u64, Hold>>, Vec<&Calls>) {
    let mut locks: BTreeMap<&str, BTreeMap<u64, Hold>> = BTreeMap::new();
    let mut twice = Vec::new();
    for call in calls {
        let holders = locks.entry(call.call.lock()).or_default();
        let (Some(answer), Some(returned)) = (call.outcome.answer(), call.returned_us) else {
            continue;
        };
        match (&call.call, answer) {
            (Request::Acquire { .. }, Answer::Acquired(token)) => {
                let acquired = &mut holders.entry(*token).or_default().acquired;
                if acquired.is_some() {
                    twice.push(call);
                }
                *acquired = Some((call.invoked_us, returned));
            }
            // It was held at some moment of the call, and so it was when that began.
            (Request::Hold { token, .. }, Answer::Held(true)) => {
                let hold = holders.entry(*token).or_default();
                hold.certain_until = hold.certain_until.max(call.invoked_us);
            }
            (Request::Write { token, .. }, Answer::Written(revision)) => {
                holders.entry(*token).or_default().writes.push(*revision);
            }
            (Request::Write { token, .. }, Answer::FencedOff) => {
                holders.entry(*token).or_default().fenced_off.push(returned);
            }
            _ => {}
        }
    }
    (locks, twice)
}

/// See the module's description.
#[must_use]
pub fn exclusive(calls: &[Calls]) -> Check {
    let mut check = Check::new("locks are held by one");
    let (locks, twice) = holds(calls);
    for call in twice {
        let Entry { invoked_us, .. } = call;
        let lock = call.call.lock();
        let what = format!("{lock} was acquired at {invoked_us} µs under another holder's token");
        check.violate_in(lock, Some(*invoked_us), what);
    }
    for (lock, holders) in locks {
        tokens(&mut check, lock, &holders);
        certainty(&mut check, lock, &holders);
        fences(&mut check, lock, &holders);
    }
    check.expect_facts()
}

/// In the order of tokens nobody acquired the lock before an earlier one was sent for.
fn tokens(check: &mut Check, lock: &str, holders: &BTreeMap<u64, Hold>) {
    let acquired = holders.iter().rev();
    let acquired = acquired.filter_map(|(token, hold)| Some((*token, hold.acquired?)));
    // Of those with greater tokens, the one that was acknowledged first.
    let mut first: Option<(u64, u64)> = None;
    for (token, (invoked, returned)) in acquired {
        check.examined += 1;
        if let Some((greater, done)) = first.filter(|(_, done)| *done < invoked) {
            let what = format!(
                "{lock} was acquired at {invoked} µs with token {token}, after {greater} at {done} µs"
            );
            check.violate_in(lock, Some(returned), what);
        }
        if first.is_none_or(|(_, done)| returned < done) {
            first = Some((token, returned));
        }
    }
}

fn certainty(check: &mut Check, lock: &str, holders: &BTreeMap<u64, Hold>) {
    let mut spans: Vec<(u64, u64, u64)> = holders
        .iter()
        .filter_map(|(token, hold)| Some((hold.acquired?.1, hold.certain_until, *token)))
        .filter(|(from, until, _)| from <= until)
        .collect();
    spans.sort_unstable();
    let mut last: Option<(u64, u64)> = None;
    for (from, until, token) in spans {
        check.examined += 1;
        if let Some((_, other)) = last.filter(|(until, _)| *until >= from) {
            let what = format!("{lock} was held by {other} and {token} at {from} µs");
            check.violate_in(lock, Some(from), what);
        }
        if last.is_none_or(|(latest, _)| latest < until) {
            last = Some((until, token));
        }
    }
}

fn fences(check: &mut Check, lock: &str, holders: &BTreeMap<u64, Hold>) {
    // Tokens that somebody was told of: a later one is not known to have been given.
    let acquired = holders.iter().filter(|(_, hold)| hold.acquired.is_some());
    let acquired: Vec<u64> = acquired.map(|(token, _)| *token).collect();
    for (token, hold) in holders {
        let next = acquired.partition_point(|other| other <= token);
        let next = acquired.get(next).copied().unwrap_or(u64::MAX);
        for revision in &hold.writes {
            check.examined += 1;
            if *revision > next {
                let what = format!("{lock} was {next}'s when {token} wrote at revision {revision}");
                check.violate_in(lock, None, what);
            }
        }
        let refused = hold.fenced_off.iter();
        if let Some(at_us) = refused.filter(|it| **it < hold.certain_until).min() {
            let what = format!("{token} was refused at {at_us} µs, while it held {lock}");
            check.violate_in(lock, Some(*at_us), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::super::testing::{assert_invalid, assert_valid, lost, told};
    use super::*;

    fn lock() -> String {
        "locks/1".to_owned()
    }

    fn acquire(at: u64, token: u64) -> Calls {
        let call = Request::Acquire { lock: lock() };
        told(at, at + 5, call, Answer::Acquired(token))
    }

    fn hold(at: u64, token: u64) -> Calls {
        let call = Request::Hold {
            lock: lock(),
            token,
        };
        told(at, at + 1, call, Answer::Held(true))
    }

    fn write(at: u64, token: u64, answer: Answer) -> Calls {
        let call = Request::Write {
            lock: lock(),
            token,
        };
        told(at, at + 5, call, answer)
    }

    #[test]
    fn one_after_the_other_is_as_it_should_be() {
        let calls = [
            acquire(0, 10),
            hold(6, 10),
            write(8, 10, Answer::Written(11)),
            hold(14, 10),
            acquire(10, 20),
            hold(30, 20),
            // The first one does not know yet.
            write(20, 10, Answer::FencedOff),
            write(40, 20, Answer::Written(21)),
        ];
        assert_valid(&exclusive(&calls));
    }

    #[test]
    fn two_at_a_time_are_found() {
        let calls = [acquire(0, 10), hold(20, 10), acquire(8, 20), hold(14, 20)];
        assert_invalid(&exclusive(&calls), "was held by 10 and 20 at 13");
        // The second was certain only after the first was.
        let calls = [acquire(0, 10), hold(20, 10), acquire(16, 20), hold(30, 20)];
        assert_valid(&exclusive(&calls));
        // Between two that are apart there was one who held it all along.
        let calls = [
            acquire(0, 10),
            hold(90, 10),
            acquire(8, 20),
            hold(14, 20),
            acquire(40, 30),
            hold(50, 30),
        ];
        assert_invalid(&exclusive(&calls), "was held by 10 and 30 at 45");
    }

    #[test]
    fn tokens_that_do_not_grow_are_found() {
        let calls = [acquire(0, 20), acquire(6, 10)];
        assert_invalid(&exclusive(&calls), "with token 10, after 20");
        // At the same time, either may have been first.
        let calls = [acquire(0, 20), acquire(5, 10)];
        assert_valid(&exclusive(&calls));
        let calls = [acquire(0, 20), acquire(6, 20)];
        assert_invalid(&exclusive(&calls), "under another holder's token");
    }

    #[test]
    fn a_write_behind_the_next_token_is_found() {
        let calls = [
            acquire(0, 10),
            acquire(8, 20),
            write(14, 10, Answer::Written(25)),
        ];
        assert_invalid(&exclusive(&calls), "was 20's when 10 wrote at revision 25");
        let calls = [
            acquire(0, 10),
            lost(8, 12, Request::Acquire { lock: lock() }),
            write(14, 10, Answer::Written(25)),
        ];
        assert_valid(&exclusive(&calls));
    }

    #[test]
    fn a_holder_that_is_refused_is_found() {
        let refusal = write(8, 10, Answer::FencedOff);
        let calls = [acquire(0, 10), refusal.clone(), hold(20, 10)];
        assert_invalid(&exclusive(&calls), "10 was refused at 13");
        let calls = [acquire(0, 10), hold(6, 10), refusal];
        assert_valid(&exclusive(&calls));
    }

    #[test]
    fn nothing_is_no_proof() {
        assert_eq!(exclusive(&[]).judgement, Judgement::Unknown);
    }
}
