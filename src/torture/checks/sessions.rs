//! Sessions: what has ended stays ended, what has not stays, with what was written last, for as long as it was promised.
//!
//! A session has one writer, so its own calls are in sequence, and those of readers are beside them.

use std::collections::BTreeMap;

use super::Check;
use super::log_time::LogTime;
use crate::torture::record::Audit;
use crate::torture::tape::Entry;
use crate::torture::workloads::sessions::{Calls, LONG_TTL_MS, Request};

/// A session that has outlived its deadline by log time may be read this much longer: with a leader, clocks change hands.
const LATE_MS: u64 = 1_000;
/// A touch is stored if the last one is older than this part of the TTL.
const TOUCH_PART: u64 = 10;

/// A stretch of time in which a call took effect, if it did.
#[derive(Debug, Clone, Copy)]
struct Span {
    invoked: u64,
    /// When it was known to have; `None` if it is not known whether it has.
    done: Option<u64>,
}

/// What is known of one session.
#[derive(Debug, Default)]
struct Life<'a> {
    born: Option<Span>,
    ttl_ms: u64,
    user: &'a str,
    /// A rotation gave it what this one held.
    heir_of: Option<&'a str>,
    /// What may have ended it.
    ends: Vec<Span>,
    /// What may have moved its deadline; its birth is the first.
    refreshes: Vec<Span>,
    updates: Vec<(Span, u64)>,
    reads: Vec<Read>,
    /// Changes that were acknowledged: when they were sent.
    changes: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    invoked: u64,
    returned: u64,
    /// The count, if it was found.
    found: Option<u64>,
}

fn span<C, A>(entry: &Entry<C, A>) -> Option<Span> {
    entry.outcome.may_have_happened().then(|| Span {
        invoked: entry.invoked_us,
        done: entry.outcome.answer().and(entry.returned_us),
    })
}

fn lives(calls: &[Calls]) -> BTreeMap<&str, Life<'_>> {
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    // Births first: whose session a rotation goes on with, and which there are to be revoked.
    for call in calls {
        match &call.call {
            Request::Create {
                session,
                user,
                idle_ttl_ms,
            } => {
                let life = lives.entry(session).or_default();
                life.born = span(call);
                life.refreshes.extend(span(call));
                life.ttl_ms = *idle_ttl_ms;
                life.user = user;
            }
            Request::Rotate { session, into } => {
                let (user, ttl_ms) = lives
                    .get(session.as_str())
                    .map_or(("", LONG_TTL_MS), |old| (old.user, old.ttl_ms));
                let life = lives.entry(into).or_default();
                life.born = span(call);
                life.refreshes.extend(span(call));
                life.ttl_ms = ttl_ms;
                life.user = user;
                life.heir_of = Some(session);
            }
            _ => {}
        }
    }
    for call in calls {
        live(&mut lives, call);
    }
    lives
}

fn live<'a>(lives: &mut BTreeMap<&'a str, Life<'a>>, call: &'a Calls) {
    match &call.call {
        Request::Create { .. } => {}
        Request::Read { session } => {
            let read = call.outcome.answer().zip(call.returned_us);
            let read = read.map(|(found, returned)| Read {
                invoked: call.invoked_us,
                returned,
                found: *found,
            });
            lives.entry(session).or_default().reads.extend(read);
        }
        Request::Update { session, count } => {
            let life = lives.entry(session).or_default();
            if let Some(span) = span(call) {
                life.updates.push((span, *count));
                life.refreshes.push(span);
                life.changes.extend(span.done.map(|_| span.invoked));
            }
        }
        Request::Touch { session } => {
            let life = lives.entry(session).or_default();
            if let Some(span) = span(call) {
                life.refreshes.push(span);
                life.changes.extend(span.done.map(|_| span.invoked));
            }
        }
        Request::Rotate { session, .. } | Request::Destroy { session } => {
            lives.entry(session).or_default().ends.extend(span(call));
        }
        Request::RevokeAll { user } => {
            // Those that it may have met. Whoever is born behind it is not concerned.
            let Some(span) = span(call) else { return };
            for life in lives.values_mut().filter(|life| life.user == user) {
                let Some(born) = life.born else { continue };
                let until = span.done.unwrap_or(u64::MAX);
                if born.invoked <= until {
                    // Born at the same time, it may have met it or not.
                    let is_before = born.done.is_some_and(|done| done < span.invoked);
                    life.ends.push(Span {
                        invoked: span.invoked,
                        done: span.done.filter(|_| is_before),
                    });
                }
            }
        }
    }
}

impl Life<'_> {
    /// When it was first known to have ended.
    fn ended(&self) -> Option<u64> {
        self.ends.iter().filter_map(|end| end.done).min()
    }

    /// The earliest time that its deadline can have been moved to, by what was acknowledged before a read was sent: whatever moved it
    /// moved it forward, and a touch that is not stored finds it at least as far ahead.
    fn lives_until(&self, read: &Read) -> u64 {
        let told = self
            .refreshes
            .iter()
            .filter(|it| it.done.is_some_and(|done| done < read.invoked));
        let last = told.map(|it| it.invoked).max();
        last.unwrap_or(0) + self.ttl_ms * 1000
    }

    /// The latest time that its deadline may have been moved to; `None` if that is not known or does not come while a run lasts.
    fn due(&self) -> Option<u64> {
        if self.ttl_ms >= LONG_TTL_MS || self.refreshes.iter().any(|it| it.done.is_none()) {
            return None;
        }
        let last = self.refreshes.iter().filter_map(|it| it.done).max()?;
        let ttl = self.ttl_ms * 1000;
        Some(last + ttl + ttl / TOUCH_PART)
    }
}

/// After an acknowledged destroy, rotation or revocation no read returns the session, on no node, and no change succeeds.
#[must_use]
pub fn ended(calls: &[Calls], audit: &Audit) -> Check {
    let mut check = Check::new("logged out stays out");
    for (label, life) in lives(calls) {
        let Some(ended) = life.ended() else { continue };
        check.examined += 1;
        let late = life
            .reads
            .iter()
            .find(|read| read.found.is_some() && read.invoked > ended);
        if let Some(read) = late {
            let what = format!(
                "{label} ended by {ended} µs and was read at {} µs",
                read.invoked
            );
            check.violate_in(label, Some(read.returned), what);
        }
        if let Some(change) = life.changes.iter().find(|change| **change > ended) {
            let what = format!("{label} ended by {ended} µs and was changed at {change} µs");
            check.violate_in(label, Some(*change), what);
        }
        for node in &audit.nodes {
            if node.sessions.get(label) == Some(&true) {
                let what = format!("{label} ended by {ended} µs and is on node {}", node.node);
                check.violate_in(label, Some(audit.at_us), what);
            }
        }
    }
    check.expect_facts()
}

/// A session that nothing may have ended, and whose time is not over, is there.
#[must_use]
pub fn alive(calls: &[Calls], audit: &Audit) -> Check {
    let mut check = Check::new("logged in stays in");
    for (label, life) in lives(calls) {
        let Some(born) = life.born.and_then(|born| born.done) else {
            continue;
        };
        let may_have_ended = |by: u64| life.ends.iter().any(|end| end.invoked <= by);
        for read in life.reads.iter().filter(|read| read.invoked > born) {
            check.examined += 1;
            let is_over = life.lives_until(read) <= read.returned || may_have_ended(read.returned);
            if read.found.is_none() && !is_over {
                let what = format!("{label} was not found at {} µs", read.invoked);
                check.violate_in(label, Some(read.returned), what);
            }
        }
        let must_be = life.ttl_ms == LONG_TTL_MS && life.ends.is_empty();
        for node in audit.nodes.iter().filter(|_| must_be) {
            if node.sessions.get(label) == Some(&false) {
                let what = format!("{label} is not on node {}", node.node);
                check.violate_in(label, Some(audit.at_us), what);
            }
        }
    }
    check.expect_facts()
}

/// All updates of a session, and of those that it has gone on from through rotations. An update that nobody knows of has taken
/// effect before its session was rotated, or never.
fn updates<'a>(lives: &BTreeMap<&'a str, Life<'a>>, life: &Life<'a>) -> Vec<(Span, u64)> {
    let mut updates = life.updates.clone();
    let mut next = life.heir_of;
    while let Some(before) = next.and_then(|label| lives.get(label)) {
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
    let lives = lives(calls);
    for (label, life) in &lives {
        let updates = updates(&lives, life);
        let mut reads: Vec<_> = life
            .reads
            .iter()
            .filter_map(|read| Some((*read, read.found?)))
            .collect();
        reads.sort_unstable_by_key(|(read, _)| read.invoked);
        for (read, count) in &reads {
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
            let is_initial = *count == 0 && least.is_none();
            if !is_initial && !possible.any(|(_, possible)| possible == count) {
                let what = format!("{label} held {count}, when {least:?} had been acknowledged");
                check.violate_in(label, Some(read.returned), what);
            }
        }
    }
    check.expect_facts()
}

/// A session whose time is over is gone soon after, in the time that writes had carried into the log when it was read. Sessions of
/// which nobody knows whether their deadline was moved are left out.
#[must_use]
pub fn expiry(calls: &[Calls], log_time: &LogTime) -> Check {
    let mut check = Check::new("expiry");
    let (mut latest, mut held_up) = (0, 0);
    for (label, life) in lives(calls) {
        let Some(due) = life.due() else {
            continue;
        };
        for read in life.reads.iter().filter(|read| read.invoked > due) {
            check.examined += 1;
            if read.found.is_none() {
                continue;
            }
            let reached = log_time.reached(read.invoked);
            let late = reached.saturating_sub(due);
            latest = latest.max(late);
            held_up = held_up.max(read.invoked - due - late);
            if late > LATE_MS * 1000 {
                let what = format!("{label} was read {} ms after its end", late / 1000);
                check.violate_in(label, Some(read.returned), what);
            }
        }
    }
    check.note = format!(
        "at most {} ms late, and {} ms where log time could not go on; what is early is among those that stay in",
        latest / 1000,
        held_up / 1000
    );
    check.expect_facts()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, lost, refused, told};
    use super::*;
    use crate::torture::record::NodeAudit;

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
