//! Sessions: what has ended stays ended, what has not stays, with what was written last, for as long as it was promised.
//!
//! A session has one writer, so its own calls are in sequence, and those of readers are beside them.

use std::collections::BTreeMap;

use super::Check;
use super::lives::{self, Life, Look, Span, span};
use super::log_time::LogTime;
use crate::torture::record::{Audit, NodeAudit};
use crate::torture::workloads::LONG_TTL_MS;
use crate::torture::workloads::sessions::{Calls, Request};

/// A touch is stored if the last one is older than this part of the TTL; the deadline that it stores is as much later.
const TOUCH_PART: u64 = 10;
/// The reason of a refusal that tells as much as a read.
const NOT_FOUND: &str = "SESSION_NOT_FOUND";

/// What is known of one session.
#[derive(Debug, Default)]
struct Story<'a> {
    life: Life,
    user: &'a str,
    /// A rotation gave it what this one held.
    heir_of: Option<&'a str>,
    updates: Vec<(Span, u64)>,
    reads: Vec<Read>,
}

/// The session was found, and held a count.
#[derive(Debug, Clone, Copy)]
struct Read {
    invoked: u64,
    returned: u64,
    count: u64,
}

type Stories<'a> = BTreeMap<&'a str, Story<'a>>;

impl Story<'_> {
    fn bear(&mut self, call: &Calls, ttl_ms: u64) {
        self.life.born = span(call);
        self.life.refreshes.extend(span(call));
        self.life.ttl_ms = ttl_ms;
        self.life.grace_ms = ttl_ms / TOUCH_PART;
    }
}

fn stories(calls: &[Calls]) -> Stories<'_> {
    let mut stories = Stories::new();
    // Births first: whose session a rotation goes on with, and which there are to be revoked.
    for call in calls {
        match &call.call {
            Request::Create {
                session,
                user,
                idle_ttl_ms,
            } => {
                let story = stories.entry(session).or_default();
                story.bear(call, *idle_ttl_ms);
                story.user = user;
            }
            Request::Rotate { session, into } => {
                let (user, ttl_ms) = stories
                    .get(session.as_str())
                    .map_or(("", LONG_TTL_MS), |old| (old.user, old.life.ttl_ms));
                let story = stories.entry(into).or_default();
                story.bear(call, ttl_ms);
                story.user = user;
                story.heir_of = Some(session);
            }
            _ => {}
        }
    }
    for call in calls {
        live(&mut stories, call);
    }
    stories
}

fn live<'a>(stories: &mut Stories<'a>, call: &'a Calls) {
    match &call.call {
        Request::Create { .. } => {}
        Request::Read { session } => {
            let told = call.outcome.answer().zip(call.returned_us);
            let Some((found, returned)) = told else {
                return;
            };
            let story = stories.entry(session).or_default();
            let invoked = call.invoked_us;
            story.life.looks.push(Look {
                invoked,
                returned,
                is_there: found.is_some(),
            });
            story.reads.extend(found.map(|count| Read {
                invoked,
                returned,
                count,
            }));
        }
        Request::Update { session, count } => {
            let story = stories.entry(session).or_default();
            story.updates.extend(span(call).map(|span| (span, *count)));
            story.life.refreshes.extend(span(call));
            story.life.change(call, NOT_FOUND);
        }
        Request::Touch { session } => {
            let story = stories.entry(session).or_default();
            story.life.refreshes.extend(span(call));
            story.life.change(call, NOT_FOUND);
        }
        Request::Rotate { session, .. } | Request::Destroy { session } => {
            let story = stories.entry(session).or_default();
            story.life.ends.extend(span(call));
            story.life.looks.extend(Look::refused(call, NOT_FOUND));
        }
        Request::RevokeAll { user } => {
            // Those that it may have met. Whoever is born behind it is not concerned.
            let Some(span) = span(call) else { return };
            for story in stories.values_mut().filter(|story| story.user == user) {
                let Some(born) = story.life.born else {
                    continue;
                };
                let until = span.done.unwrap_or(u64::MAX);
                if born.invoked <= until {
                    // Born at the same time, it may have met it or not.
                    let is_before = born.done.is_some_and(|done| done < span.invoked);
                    story.life.ends.push(Span {
                        invoked: span.invoked,
                        done: span.done.filter(|_| is_before),
                    });
                }
            }
        }
    }
}

fn of_all<'a>(stories: &'a Stories<'_>) -> impl Iterator<Item = (&'a str, &'a Life)> {
    stories.iter().map(|(label, story)| (*label, &story.life))
}

fn held(node: &NodeAudit, label: &str) -> Option<bool> {
    node.sessions.get(label).copied()
}

/// After an acknowledged destroy, rotation or revocation no read returns the session, on no node, and no change succeeds.
#[must_use]
pub fn ended(calls: &[Calls], audit: &Audit) -> Check {
    let stories = stories(calls);
    lives::ended("logged out stays out", of_all(&stories), audit, held)
}

/// A session that nothing may have ended, and whose time is not over, is there.
#[must_use]
pub fn alive(calls: &[Calls], audit: &Audit) -> Check {
    let stories = stories(calls);
    lives::alive("logged in stays in", of_all(&stories), audit, held)
}

/// A session whose time is over is gone soon after, in the time that writes had carried into the log when it was read.
#[must_use]
pub fn expiry(calls: &[Calls], log_time: &LogTime) -> Check {
    lives::expiry("expiry", of_all(&stories(calls)), log_time)
}

/// All updates of a session, and of those that it has gone on from through rotations. An update that nobody knows of has taken
/// effect before its session was rotated, or never.
fn updates<'a>(stories: &Stories<'a>, story: &Story<'a>) -> Vec<(Span, u64)> {
    let mut updates = story.updates.clone();
    let mut next = story.heir_of;
    while let Some(before) = next.and_then(|label| stories.get(label)) {
        updates.extend_from_slice(&before.updates);
        next = before.heir_of;
    }
    updates
}

/// A read sees every update that was acknowledged before it, none that came later, and never less than an earlier read; and a session
/// that was rotated holds what it held before.
#[must_use]
pub fn contents(calls: &[Calls]) -> Check {
    let mut check = Check::new("sessions hold what was written last");
    let stories = stories(calls);
    for (label, story) in &stories {
        let updates = updates(&stories, story);
        for read in &story.reads {
            check.examined += 1;
            let told = updates
                .iter()
                .filter(|(span, _)| span.done.is_some_and(|it| it < read.invoked));
            let least = told.map(|(span, count)| (span.invoked, *count)).max();
            let sent = updates
                .iter()
                .filter(|(span, _)| span.invoked <= read.returned);
            let mut possible = sent.filter(|(span, _)| {
                // Not one that a later acknowledged one has overwritten. Of what was given up nobody knows when it comes.
                span.done.is_none() || least.is_none_or(|(invoked, _)| span.invoked >= invoked)
            });
            let is_initial = read.count == 0 && least.is_none();
            if !is_initial && !possible.any(|(_, count)| *count == read.count) {
                let what = format!(
                    "{label} held {}, when {least:?} had been acknowledged",
                    read.count
                );
                check.violate_in(label, Some(read.returned), what);
            }
        }
    }
    check.expect_facts()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, lost, refused, told};
    use super::*;

    fn create(idle_ttl_ms: u64) -> Request {
        Request::Create {
            session: "s".to_owned(),
            user: "ada".to_owned(),
            idle_ttl_ms,
        }
    }

    fn read() -> Request {
        Request::Read {
            session: "s".to_owned(),
        }
    }

    fn update(count: u64) -> Request {
        Request::Update {
            session: "s".to_owned(),
            count,
        }
    }

    fn destroy() -> Request {
        Request::Destroy {
            session: "s".to_owned(),
        }
    }

    fn revoke() -> Request {
        Request::RevokeAll {
            user: "ada".to_owned(),
        }
    }

    fn on_node(is_there: bool) -> Audit {
        Audit {
            nodes: vec![NodeAudit {
                node: 2,
                sessions: [("s".to_owned(), is_there)].into(),
                ..NodeAudit::default()
            }],
            ..Audit::default()
        }
    }

    fn nobody() -> Audit {
        Audit::default()
    }

    #[test]
    fn a_session_that_was_ended_is_not_read_again() {
        let birth = || told(0, 1, create(LONG_TTL_MS), None);
        for end in [destroy(), revoke()] {
            let good = [
                birth(),
                told(5, 6, end.clone(), None),
                told(6, 8, read(), Some(0)),
                told(7, 8, read(), None),
            ];
            assert_valid(&ended(&good, &on_node(false)));
            assert_invalid(&ended(&good, &on_node(true)), "is on node 2");
            let bad = [
                birth(),
                told(5, 6, end.clone(), None),
                told(7, 8, read(), Some(0)),
            ];
            assert_invalid(&ended(&bad, &nobody()), "was read at 7");
            let bad = [
                birth(),
                told(5, 6, end.clone(), None),
                told(7, 8, update(1), None),
            ];
            assert_invalid(&ended(&bad, &nobody()), "was changed at 7");
            // Who was told nothing knows nothing.
            let open = [
                birth(),
                lost(5, 6, end),
                told(7, 8, read(), Some(0)),
                told(9, 9, read(), None),
            ];
            assert_ne!(
                ended(&open, &nobody()).judgement,
                super::super::Judgement::Invalid
            );
            assert_valid(&alive(&open, &nobody()));
        }
    }

    #[test]
    fn a_rotation_ends_the_old_token_and_begins_the_new_one() {
        let rotate = Request::Rotate {
            session: "s".to_owned(),
            into: "t".to_owned(),
        };
        let new = Request::Read {
            session: "t".to_owned(),
        };
        let mut calls = vec![
            told(0, 1, create(LONG_TTL_MS), None),
            told(2, 3, rotate, None),
            told(4, 5, new.clone(), Some(0)),
        ];
        assert_valid(&ended(&calls, &nobody()));
        assert_valid(&alive(&calls, &nobody()));
        calls.push(told(6, 7, read(), Some(0)));
        assert_invalid(&ended(&calls, &nobody()), "was read at 6");
        calls.push(told(8, 9, new, None));
        assert_invalid(&alive(&calls, &nobody()), "t was not found");
    }

    #[test]
    fn what_a_session_held_is_in_the_one_that_it_was_rotated_to() {
        let rotate = |session: &str, into: &str| Request::Rotate {
            session: session.to_owned(),
            into: into.to_owned(),
        };
        let reading = |session: &str, held| {
            let session = session.to_owned();
            told(20, 21, Request::Read { session }, Some(held))
        };
        let told_all = [
            told(0, 1, create(LONG_TTL_MS), None),
            told(2, 3, update(3), None),
            told(4, 5, rotate("s", "t"), None),
            told(6, 7, rotate("t", "u"), None),
        ];
        let with = |read| [told_all.to_vec(), vec![read]].concat();
        assert_valid(&contents(&with(reading("u", 3))));
        for lost in [0, 9] {
            assert_invalid(&contents(&with(reading("u", lost))), "u held");
        }
        let mut open = told_all.clone();
        open[1] = lost(2, 3, update(3));
        for held in [0, 3] {
            let calls = [open.to_vec(), vec![reading("u", held)]].concat();
            assert_valid(&contents(&calls));
        }
    }

    #[test]
    fn a_session_that_was_touched_lives_from_then_on() {
        let touch = || Request::Touch {
            session: "s".to_owned(),
        };
        let ms = |ms: u64| ms * 1000;
        let gone_at = |at| told(ms(at), ms(at) + 1, read(), None);
        let birth = || told(0, 1, create(1_000), None);
        for refresh in [touch(), update(1)] {
            let calls = |at| {
                [
                    birth(),
                    told(ms(900), ms(901), refresh.clone(), None),
                    gone_at(at),
                ]
            };
            assert_invalid(&alive(&calls(1_500), &nobody()), "was not found at 1500000");
            assert_valid(&alive(&calls(1_900), &nobody()));
            // Nobody knows whether it was.
            let open = [birth(), lost(ms(900), ms(901), refresh), gone_at(1_500)];
            assert_valid(&alive(&open, &nobody()));
        }
    }

    #[test]
    fn whoever_is_born_during_a_revocation_may_have_met_it_or_not() {
        let calls = [
            told(0, 10, create(LONG_TTL_MS), None),
            told(5, 6, revoke(), None),
            told(11, 12, read(), Some(0)),
        ];
        assert_ne!(
            ended(&calls, &nobody()).judgement,
            super::super::Judgement::Invalid
        );
        let calls = [
            told(0, 10, create(LONG_TTL_MS), None),
            told(5, 6, revoke(), None),
            told(11, 12, read(), None),
        ];
        assert_valid(&alive(&calls, &nobody()));
        let later = [
            told(7, 10, create(LONG_TTL_MS), None),
            told(5, 6, revoke(), None),
            told(11, 12, read(), None),
        ];
        assert_invalid(&alive(&later, &nobody()), "was not found");
    }

    #[test]
    fn a_session_that_nothing_ended_is_found_until_its_time_is_over() {
        let ttl = 1_000;
        let birth = || told(100, 200, create(ttl), None);
        let gone = |at| [birth(), told(at, at + 10, read(), None)];
        assert_invalid(&alive(&gone(300), &nobody()), "was not found at 300");
        assert_valid(&alive(&gone(1_000_100), &nobody()));
        assert_invalid(&alive(&gone(1_000_080), &nobody()), "was not found");
        let long = [
            told(0, 1, create(LONG_TTL_MS), None),
            told(2, 3, read(), Some(0)),
        ];
        assert_invalid(&alive(&long, &on_node(false)), "is not on node 2");
        // It was never acknowledged.
        let open = [lost(0, 1, create(ttl)), told(2, 3, read(), None)];
        assert_ne!(
            alive(&open, &nobody()).judgement,
            super::super::Judgement::Invalid
        );
    }

    #[test]
    fn reads_see_what_was_acknowledged_and_nothing_that_was_overwritten() {
        let birth = || told(0, 1, create(LONG_TTL_MS), None);
        let good = [
            birth(),
            told(2, 3, update(1), None),
            lost(4, 5, update(2)),
            told(6, 7, read(), Some(2)),
            told(6, 7, read(), Some(1)),
            told(8, 9, update(3), None),
            told(10, 11, read(), Some(3)),
        ];
        assert_valid(&contents(&good));
        let lost_update = [
            birth(),
            told(2, 3, update(1), None),
            told(4, 5, read(), Some(0)),
        ];
        assert_invalid(&contents(&lost_update), "held 0");
        let old = [
            birth(),
            told(2, 3, update(1), None),
            told(4, 5, update(2), None),
            told(6, 7, read(), Some(1)),
        ];
        assert_invalid(&contents(&old), "held 1");
        let refused_update = [
            birth(),
            refused(2, 3, update(1)),
            told(4, 5, read(), Some(1)),
        ];
        assert_invalid(&contents(&refused_update), "held 1");
    }

    #[test]
    fn a_session_is_gone_soon_after_its_deadline() {
        let ttl = 1_000;
        let at = |ms: u64| {
            let us = ms * 1000;
            [
                told(0, 1_000, create(ttl), None),
                told(us, us + 10, read(), Some(0)),
            ]
        };
        // Writes go on all the time, and are acknowledged after ten milliseconds.
        let writes = (0..400).map(|tenth| told(tenth * 10_000, tenth * 10_000 + 9_999, tenth, ()));
        let writes: Vec<_> = writes.collect();
        let log_time = LogTime::of(&writes);
        let judge = |at_ms| expiry(&at(at_ms), &log_time);
        assert_valid(&judge(2_050));
        assert_invalid(&judge(2_200), "after its end");
        // Nothing is known to be late before a write has shown it.
        let none_since = LogTime::of(&writes[..110]);
        assert_valid(&expiry(&at(3_900), &none_since));
        // What was read before its time was over proves nothing.
        assert_eq!(judge(1_050).judgement, super::super::Judgement::Unknown);
    }
}
