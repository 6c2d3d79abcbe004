//! Leases and keys that live for a time: what has ended stays ended, and what has not is there for as long as it was promised.
//!
//! A lease and its keys have one writer, so what concerns them is in sequence, and reads are beside it. A key's life is that of the lease
//! that it was put with last. A put of which nobody knows may come at any time, behind a delete too: its key is not judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::lives::{self, Life, Look, span};
use super::log_time::LogTime;
use crate::torture::record::{Audit, NodeAudit};
use crate::torture::tape::Outcome;
use crate::torture::workloads::leases::{Calls, PREFIX, Request};

const NO_LEASE: &str = "LEASE_NOT_FOUND";
const NO_KEY: &str = "KEY_NOT_FOUND";

/// Of leases and of keys, which share no name.
type Lives<'a> = BTreeMap<&'a str, Life>;

fn of_leases(calls: &[Calls]) -> Lives<'_> {
    let mut leases = Lives::new();
    for call in calls {
        match &call.call {
            Request::Grant { lease, ttl_ms } => {
                let life = leases.entry(lease).or_default();
                life.born = span(call);
                life.ttl_ms = *ttl_ms;
                life.refreshes.extend(span(call));
            }
            Request::KeepAlive { lease } => {
                let life = leases.entry(lease).or_default();
                life.refreshes.extend(span(call));
                life.change(call, NO_LEASE);
            }
            Request::Revoke { lease } => {
                let life = leases.entry(lease).or_default();
                life.ends.extend(span(call));
                life.looks.extend(Look::refused(call, NO_LEASE));
            }
            Request::Put { lease, .. } => {
                leases.entry(lease).or_default().change(call, NO_LEASE);
            }
            Request::Look { lease } => {
                let life = leases.entry(lease).or_default();
                life.looks.extend(look(call));
            }
            Request::PutFor { .. } | Request::Delete { .. } | Request::Read { .. } => {}
        }
    }
    leases
}

fn look(call: &Calls) -> Option<Look> {
    Some(Look {
        invoked: call.invoked_us,
        returned: call.returned_us?,
        is_there: *call.outcome.answer()?,
    })
}

fn of_keys<'a>(calls: &'a [Calls], leases: &Lives<'_>) -> Lives<'a> {
    let mut keys = Lives::new();
    let mut leases_of = BTreeMap::new();
    let mut unsure = BTreeSet::new();
    for call in calls {
        match &call.call {
            Request::Put { key, .. } | Request::PutFor { key, .. }
                if call.outcome == Outcome::Unknown =>
            {
                unsure.insert(key.as_str());
            }
            Request::Put { key, lease } => {
                if let Some(span) = span(call) {
                    keys.entry(key).or_default().born = Some(span);
                    leases_of.insert(key.as_str(), lease.as_str());
                }
            }
            Request::PutFor { key, ttl_ms } => {
                let life = keys.entry(key).or_default();
                life.born = life.born.or(span(call));
                life.ttl_ms = *ttl_ms;
                life.refreshes.extend(span(call));
            }
            Request::Delete { key } => {
                let life = keys.entry(key).or_default();
                life.ends.extend(span(call));
                life.looks.extend(Look::refused(call, NO_KEY));
            }
            Request::Read { key } => {
                let life = keys.entry(key).or_default();
                life.looks.extend(look(call));
            }
            _ => {}
        }
    }
    for (key, lease) in leases_of {
        let (Some(life), Some(lease)) = (keys.get_mut(key), leases.get(lease)) else {
            continue;
        };
        life.ttl_ms = lease.ttl_ms;
        life.refreshes.clone_from(&lease.refreshes);
        life.ends.extend_from_slice(&lease.ends);
    }
    keys.retain(|key, _| !unsure.contains(key));
    keys
}

fn of_all(calls: &[Calls]) -> Lives<'_> {
    let mut all = of_leases(calls);
    let mut keys = of_keys(calls, &all);
    all.append(&mut keys);
    all
}

fn named<'a>(lives: &'a Lives<'_>) -> impl Iterator<Item = (&'a str, &'a Life)> {
    lives.iter().map(|(label, life)| (*label, life))
}

fn held(node: &NodeAudit, label: &str) -> Option<bool> {
    label
        .starts_with(PREFIX)
        .then(|| node.keys.contains_key(label))
}

/// After an acknowledged revocation nobody finds the lease or a key of it, and after a delete nobody the key, on no node; and such a lease
/// takes no key, and is not kept alive.
#[must_use]
pub fn ended(calls: &[Calls], audit: &Audit) -> Check {
    lives::ended("revoked stays gone", named(&of_all(calls)), audit, held)
}

/// A lease that nothing may have ended and whose time is not over is there, and so are its keys; and so is a key with a time of its own.
#[must_use]
pub fn alive(calls: &[Calls], audit: &Audit) -> Check {
    lives::alive("leases keep their keys", named(&of_all(calls)), audit, held)
}

/// What is not kept alive is gone soon after its time.
#[must_use]
pub fn expiry(calls: &[Calls], log_time: &LogTime) -> Check {
    lives::expiry("leases run out", named(&of_all(calls)), log_time)
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::super::testing::{assert_invalid, assert_valid, audit_of, lost, told};
    use super::*;
    use crate::torture::tape::Entry;
    use crate::torture::workloads::LONG_TTL_MS;

    const KEY: &str = "leases/a";

    fn grant(lease: &str, ttl_ms: u64) -> Request {
        Request::Grant {
            lease: lease.to_owned(),
            ttl_ms,
        }
    }

    fn put(lease: &str) -> Request {
        Request::Put {
            key: KEY.to_owned(),
            lease: lease.to_owned(),
        }
    }

    fn put_for(ttl_ms: u64) -> Request {
        Request::PutFor {
            key: KEY.to_owned(),
            ttl_ms,
        }
    }

    fn keep_alive() -> Request {
        Request::KeepAlive {
            lease: "l".to_owned(),
        }
    }

    fn revoke(lease: &str) -> Request {
        Request::Revoke {
            lease: lease.to_owned(),
        }
    }

    fn delete() -> Request {
        Request::Delete {
            key: KEY.to_owned(),
        }
    }

    fn read() -> Request {
        Request::Read {
            key: KEY.to_owned(),
        }
    }

    fn look() -> Request {
        Request::Look {
            lease: "l".to_owned(),
        }
    }

    fn refused(at_us: u64, call: Request, reason: &str) -> Calls {
        Entry {
            process: 0,
            invoked_us: at_us,
            returned_us: Some(at_us + 1),
            call,
            outcome: Outcome::Refused(reason.to_owned()),
        }
    }

    fn nobody() -> Audit {
        Audit::default()
    }

    fn with_it() -> Audit {
        audit_of([(KEY.to_owned(), String::new())])
    }

    /// A lease of an hour and a key of it, and what comes then.
    fn kept(then: &[Calls]) -> Vec<Calls> {
        let mut calls = vec![
            told(0, 1, grant("l", LONG_TTL_MS), true),
            told(2, 3, put("l"), true),
        ];
        calls.extend_from_slice(then);
        calls
    }

    #[test]
    fn a_lease_that_was_revoked_and_its_keys_are_gone() {
        let good = kept(&[
            told(5, 6, revoke("l"), true),
            told(6, 8, read(), true),
            told(7, 8, read(), false),
            told(7, 8, look(), false),
            refused(9, keep_alive(), NO_LEASE),
        ]);
        assert_valid(&ended(&good, &audit_of([])));
        assert_valid(&alive(&good, &audit_of([])));
        assert_invalid(&ended(&good, &with_it()), "is on node 1");
        let bad = [
            (read(), "leases/a ended by 6 µs and was read at 7"),
            (look(), "l ended by 6 µs and was read at 7"),
            (keep_alive(), "l ended by 6 µs and was changed at 7"),
            (put("l"), "l ended by 6 µs and was changed at 7"),
        ];
        for (call, says) in bad {
            let calls = kept(&[told(5, 6, revoke("l"), true), told(7, 8, call, true)]);
            assert_invalid(&ended(&calls, &nobody()), says);
        }
        // Who was told nothing knows nothing.
        let open = kept(&[
            lost(5, 6, revoke("l")),
            told(7, 8, read(), true),
            told(9, 9, read(), false),
        ]);
        assert_ne!(ended(&open, &nobody()).judgement, Judgement::Invalid);
        assert_valid(&alive(&open, &nobody()));
    }

    #[test]
    fn a_key_that_was_deleted_is_gone_and_its_lease_is_not() {
        let good = kept(&[
            told(5, 6, delete(), true),
            told(7, 8, read(), false),
            told(7, 8, look(), true),
        ]);
        assert_valid(&ended(&good, &audit_of([])));
        assert_valid(&alive(&good, &audit_of([])));
        let bad = kept(&[told(5, 6, delete(), true), told(7, 8, read(), true)]);
        assert_invalid(&ended(&bad, &nobody()), "was read at 7");
        let bad = kept(&[told(5, 6, delete(), true), told(7, 8, look(), false)]);
        assert_invalid(&alive(&bad, &nobody()), "l was not found");
    }

    #[test]
    fn a_lease_that_nothing_ended_keeps_its_keys() {
        let bad = [
            (told(5, 6, read(), false), "leases/a was not found"),
            (told(5, 6, look(), false), "l was not found"),
            (refused(5, keep_alive(), NO_LEASE), "l was not found"),
            (refused(5, put("l"), NO_LEASE), "l was not found"),
            (refused(5, revoke("l"), NO_LEASE), "l was not found"),
            (refused(5, delete(), NO_KEY), "leases/a was not found"),
        ];
        for (call, says) in bad {
            assert_invalid(&alive(&kept(&[call]), &with_it()), says);
        }
        let good = kept(&[told(5, 6, read(), true)]);
        assert_valid(&alive(&good, &with_it()));
        assert_invalid(&alive(&good, &audit_of([])), "leases/a is not on node 1");
        // It was never acknowledged.
        let open = [
            told(0, 1, grant("l", LONG_TTL_MS), true),
            lost(2, 3, put("l")),
            told(5, 6, read(), false),
            told(5, 6, look(), true),
        ];
        assert_valid(&alive(&open, &audit_of([])));
    }

    #[test]
    fn a_key_is_the_lease_s_that_it_was_put_with_last() {
        let moved = |then: Calls| {
            vec![
                told(0, 1, grant("k", LONG_TTL_MS), true),
                told(0, 1, grant("l", LONG_TTL_MS), true),
                told(2, 3, put("k"), true),
                told(4, 5, put("l"), true),
                then,
                told(8, 9, read(), false),
            ]
        };
        let by_the_first = moved(told(6, 7, revoke("k"), true));
        assert_invalid(
            &alive(&by_the_first, &nobody()),
            "leases/a was not found at 8",
        );
        assert_valid(&alive(&moved(told(6, 7, revoke("l"), true)), &nobody()));
    }

    #[test]
    fn what_nobody_knows_of_is_not_judged() {
        let calls = [
            told(0, 1, put_for(LONG_TTL_MS), true),
            lost(2, 3, put_for(LONG_TTL_MS)),
            told(4, 5, delete(), true),
            told(6, 7, read(), true),
        ];
        assert_eq!(ended(&calls, &with_it()).judgement, Judgement::Unknown);
    }

    #[test]
    fn what_is_kept_alive_lives_from_then_on_and_no_longer() {
        let ms = |ms: u64| ms * 1000;
        let leased = [
            told(0, 1, grant("l", 1_000), true),
            told(2, 3, put("l"), true),
            told(ms(900), ms(901), keep_alive(), true),
        ];
        let timed = [
            told(0, 1, put_for(1_000), true),
            told(ms(900), ms(901), put_for(1_000), true),
        ];
        let writes = (0..400).map(|tenth| told(tenth * 10_000, tenth * 10_000 + 9_999, tenth, ()));
        let log_time = LogTime::of(&writes.collect::<Vec<_>>());
        for calls in [&leased[..], &timed[..]] {
            let with = |at, is_there| {
                let read = told(ms(at), ms(at) + 1, read(), is_there);
                [calls.to_vec(), vec![read]].concat()
            };
            assert_invalid(
                &alive(&with(1_500, false), &nobody()),
                "was not found at 1500000",
            );
            assert_valid(&alive(&with(1_900, false), &nobody()));
            assert_valid(&expiry(&with(2_800, true), &log_time));
            assert_invalid(&expiry(&with(3_000, true), &log_time), "after its end");
        }
    }
}
