//! What has a deadline, as far as clients know it: sessions, leases, and the keys that live as long as a lease or for a time of their own.
//!
//! [`ended`]: what has ended, as somebody was told, is never met again. [`alive`]: what nothing may have ended, and whose time is not
//! over, is there. [`expiry`]: what has outlived its time is gone soon after. Whose life it is, and which calls bear, prolong and end it,
//! says whoever reads the tapes.

use super::Check;
use super::log_time::LogTime;
use crate::torture::record::{Audit, NodeAudit};
use crate::torture::tape::{Entry, Outcome};
use crate::torture::workloads::LONG_TTL_MS;

/// What has outlived its deadline by log time may be read this much longer: with a leader, clocks change hands.
const LATE_MS: u64 = 1_000;

/// A stretch of time in which a call took effect, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it was sent.
    pub invoked: u64,
    /// When it was known to have; `None` if it is not known whether it has.
    pub done: Option<u64>,
}

/// Of a call that may have taken effect.
#[must_use]
pub fn span<C, A>(entry: &Entry<C, A>) -> Option<Span> {
    entry.outcome.may_have_happened().then(|| Span {
        invoked: entry.invoked_us,
        done: entry.outcome.answer().and(entry.returned_us),
    })
}

/// Somebody was told whether it is there.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// When it was asked.
    pub invoked: u64,
    /// When it was answered.
    pub returned: u64,
    /// Whether it was.
    pub is_there: bool,
}

impl Look {
    /// Of a call that was refused for this reason, which tells as much as a read that finds nothing.
    #[must_use]
    pub fn refused<C, A>(entry: &Entry<C, A>, reason: &str) -> Option<Self> {
        match (&entry.outcome, entry.returned_us) {
            (Outcome::Refused(told), Some(returned)) if told == reason => Some(Self {
                invoked: entry.invoked_us,
                returned,
                is_there: false,
            }),
            _ => None,
        }
    }
}

/// What is known of one of them.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Its birth.
    pub born: Option<Span>,
    /// How long it lives from its birth, and from each refresh.
    pub ttl_ms: u64,
    /// How much later a deadline may be than that.
    pub grace_ms: u64,
    /// What may have ended it.
    pub ends: Vec<Span>,
    /// What may have moved its deadline; its birth is the first.
    pub refreshes: Vec<Span>,
    /// Who looked for it.
    pub looks: Vec<Look>,
    /// Changes that were acknowledged: when they were sent.
    pub changes: Vec<u64>,
}

impl Life {
    /// A change of it was sent; `reason` is why it is refused where there is nothing to be changed.
    pub fn change<C, A>(&mut self, entry: &Entry<C, A>, reason: &str) {
        if entry.outcome.answer().is_some() {
            self.changes.push(entry.invoked_us);
        }
        self.looks.extend(Look::refused(entry, reason));
    }

    /// When it was first known to have ended.
    fn ended(&self) -> Option<u64> {
        self.ends.iter().filter_map(|end| end.done).min()
    }

    /// The earliest time that its deadline can have been moved to, by what was acknowledged before somebody looked: whatever moved it
    /// moved it forward, and a refresh that is not stored finds it at least as far ahead.
    fn lives_until(&self, at: u64) -> u64 {
        let told = self.refreshes.iter();
        let told = told.filter(|it| it.done.is_some_and(|done| done < at));
        let last = told.map(|it| it.invoked).max();
        last.unwrap_or(0) + self.ttl_ms * 1000
    }

    /// The latest time that its deadline may have been moved to; `None` if that is not known or does not come while a run lasts.
    fn due(&self) -> Option<u64> {
        if self.ttl_ms >= LONG_TTL_MS || self.refreshes.iter().any(|it| it.done.is_none()) {
            return None;
        }
        let last = self.refreshes.iter().filter_map(|it| it.done).max()?;
        Some(last + (self.ttl_ms + self.grace_ms) * 1000)
    }
}

/// Whether a node has what is called so; `None` if it was not asked for that.
pub type Held = fn(&NodeAudit, &str) -> Option<bool>;

/// The nodes that were asked for it in the end, and have it or not.
fn nodes_that_say(
    is_there: bool,
    label: &str,
    audit: &Audit,
    held: Held,
) -> impl Iterator<Item = u64> {
    let nodes = audit.nodes.iter();
    let nodes = nodes.filter(move |node| held(node, label) == Some(is_there));
    nodes.map(|node| node.node)
}

/// After an acknowledged end nobody finds it, on no node, and no change of it succeeds.
pub fn ended<'a>(
    name: &str,
    lives: impl IntoIterator<Item = (&'a str, &'a Life)>,
    audit: &Audit,
    held: Held,
) -> Check {
    let mut check = Check::new(name);
    for (label, life) in lives {
        let Some(ended) = life.ended() else { continue };
        check.examined += 1;
        let mut looks = life.looks.iter();
        if let Some(look) = looks.find(|look| look.is_there && look.invoked > ended) {
            let what = format!(
                "{label} ended by {ended} µs and was read at {} µs",
                look.invoked
            );
            check.violate_in(label, Some(look.returned), what);
        }
        if let Some(change) = life.changes.iter().find(|change| **change > ended) {
            let what = format!("{label} ended by {ended} µs and was changed at {change} µs");
            check.violate_in(label, Some(*change), what);
        }
        for node in nodes_that_say(true, label, audit, held) {
            let what = format!("{label} ended by {ended} µs and is on node {node}");
            check.violate_in(label, Some(audit.at_us), what);
        }
    }
    check.expect_facts()
}

/// What nothing may have ended, and whose time is not over, is there.
pub fn alive<'a>(
    name: &str,
    lives: impl IntoIterator<Item = (&'a str, &'a Life)>,
    audit: &Audit,
    held: Held,
) -> Check {
    let mut check = Check::new(name);
    for (label, life) in lives {
        let Some(born) = life.born.and_then(|born| born.done) else {
            continue;
        };
        let may_have_ended = |by: u64| life.ends.iter().any(|end| end.invoked <= by);
        for look in life.looks.iter().filter(|look| look.invoked > born) {
            check.examined += 1;
            let is_over =
                life.lives_until(look.invoked) <= look.returned || may_have_ended(look.returned);
            if !look.is_there && !is_over {
                let what = format!("{label} was not found at {} µs", look.invoked);
                check.violate_in(label, Some(look.returned), what);
            }
        }
        if life.ttl_ms < LONG_TTL_MS || !life.ends.is_empty() {
            continue;
        }
        for node in nodes_that_say(false, label, audit, held) {
            let what = format!("{label} is not on node {node}");
            check.violate_in(label, Some(audit.at_us), what);
        }
    }
    check.expect_facts()
}

/// What has outlived its time is gone soon after, in the time that writes had carried into the log when somebody looked. Those of which
/// nobody knows whether their deadline was moved are left out.
pub fn expiry<'a>(
    name: &str,
    lives: impl IntoIterator<Item = (&'a str, &'a Life)>,
    log_time: &LogTime,
) -> Check {
    let mut check = Check::new(name);
    let (mut latest, mut held_up) = (0, 0);
    for (label, life) in lives {
        let Some(due) = life.due() else {
            continue;
        };
        for look in life.looks.iter().filter(|look| look.invoked > due) {
            check.examined += 1;
            if !look.is_there {
                continue;
            }
            let reached = log_time.reached(look.invoked);
            let late = reached.saturating_sub(due);
            latest = latest.max(late);
            held_up = held_up.max(look.invoked - due - late);
            if late > LATE_MS * 1000 {
                let what = format!("{label} was read {} ms after its end", late / 1000);
                check.violate_in(label, Some(look.returned), what);
            }
        }
    }
    check.note = format!(
        "at most {} ms late, and {} ms where log time could not go on; what is early is among those that must be there",
        latest / 1000,
        held_up / 1000
    );
    check.expect_facts()
}
