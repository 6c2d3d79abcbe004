//! Which faults, when: what a seed makes of a list of kinds.
//!
//! A plan is a row of phases with quiet between them. In each phase at least two faults overlap. Kinds are dealt like cards,
//! so that each one has its turn before any has its second.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::Kind;

/// Faults of a phase at least, if there are kinds that may meet.
const LEAST_KINDS: usize = 2;
/// A phase's second fault begins this long after the first, and the third after the second.
const APART_MS: std::ops::Range<u64> = 200..900;
/// How long a fault lasts, beyond the beginning of the last one of its phase.
const OVERLAP_MS: std::ops::Range<u64> = 1_500..2_800;
/// The same of one that leaves no node up.
const TOTAL_MS: std::ops::Range<u64> = 200..500;
/// How long the nodes are left alone between two phases, once they serve again.
pub const QUIET: Duration = Duration::from_millis(700);
/// What a phase takes in all, as a rule: recovery included.
pub const PHASE: Duration = Duration::from_secs(6);

/// One fault of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// When, from the beginning of the phase.
    pub begin: Duration,
    /// When it ends.
    pub end: Duration,
    /// Whatever else has to be chosen for it.
    pub dice: u64,
}

/// Faults that overlap.
pub type Phase = Vec<Planned>;

/// Phases for about so long, of these kinds: a phase or two more if there is time for all kinds, and some have not had their turn.
#[must_use]
pub fn plan(seed: u64, kinds: &[Kind], duration: Duration) -> Vec<Phase> {
    let mut random = Rng::with_seed(seed);
    let mut deck = Deck {
        kinds: kinds.to_vec(),
        cards: Vec::new(),
    };
    let count = (duration.as_millis() / PHASE.as_millis()).max(1);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let has_time = count * LEAST_KINDS >= kinds.len();
    let mut due: BTreeSet<Kind> = kinds.iter().copied().collect();
    let mut phases = Vec::new();
    while phases.len() < count || has_time && !due.is_empty() {
        let Some(phase) = deck.phase(&mut random) else {
            break;
        };
        for planned in &phase {
            due.remove(&planned.kind);
        }
        phases.push(phase);
    }
    phases
}

struct Deck {
    kinds: Vec<Kind>,
    cards: Vec<Kind>,
}

impl Deck {
    fn phase(&mut self, random: &mut Rng) -> Option<Phase> {
        let mut kinds = vec![self.draw(random, |_| true)?];
        let more = if random.u8(0..3) == 0 { 2 } else { 1 };
        for _ in 0..more {
            let next = self.draw(random, |kind| fits(&kinds, kind));
            kinds.extend(next);
        }
        Some(schedule(kinds, random))
    }

    /// The next card that will do; the others stay where they are.
    fn draw(&mut self, random: &mut Rng, will_do: impl Fn(Kind) -> bool) -> Option<Kind> {
        for _ in 0..2 {
            if let Some(found) = self.cards.iter().rposition(|kind| will_do(*kind)) {
                return Some(self.cards.remove(found));
            }
            let mut fresh = self.kinds.clone();
            random.shuffle(&mut fresh);
            self.cards.splice(0..0, fresh);
        }
        None
    }
}

/// Whether a kind may join the others of a phase.
fn fits(others: &[Kind], kind: Kind) -> bool {
    let all = || others.iter().chain([&kind]);
    let is_new = !others.contains(&kind);
    let lasts = all().any(|kind| !kind.is_momentary());
    let demands = all().any(|kind| kind.needs_majority());
    let gentle = all().all(|kind| kind.is_gentle() || kind.needs_majority());
    // What damages disks does it one node at a time: two damaged of three are two lost.
    let disks = all().filter(|kind| is_on_disk(**kind)).count();
    let wants_one = all().filter(|kind| kind.needs_majority()).count() <= 1;
    // While no node is up there is nobody to ask.
    let totals = all().filter(|kind| kind.is_total()).count();
    let asks = all().any(|kind| kind.is_momentary());
    is_new
        && lasts
        && (!demands || gentle)
        && wants_one
        && disks <= 1
        && totals + usize::from(asks) <= 1
}

fn is_on_disk(kind: Kind) -> bool {
    kind.needs_disks()
        || matches!(
            kind,
            Kind::Damage
                | Kind::FailedSync
                | Kind::SlowSync
                | Kind::RollingRestart
                | Kind::Membership
        )
}

fn schedule(mut kinds: Vec<Kind>, random: &mut Rng) -> Phase {
    // What happens at one moment happens while the others last, and whom everybody is down for comes last.
    kinds.sort_by_key(|kind| (kind.is_momentary(), kind.is_total()));
    let mut begin = Duration::ZERO;
    let mut phase: Phase = kinds
        .into_iter()
        .map(|kind| {
            let planned = Planned {
                kind,
                begin,
                end: begin,
                dice: random.u64(..),
            };
            begin += Duration::from_millis(random.u64(APART_MS));
            planned
        })
        .collect();
    let last = phase.last().map_or(Duration::ZERO, |planned| planned.begin);
    for planned in &mut phase {
        // Nodes that come back all at once meet what still holds.
        let lasts = if planned.kind.is_total() {
            TOTAL_MS
        } else {
            OVERLAP_MS
        };
        planned.end = last + Duration::from_millis(random.u64(lasts));
    }
    phase
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_gives_the_same_plan_and_another_one_another() {
        assert_eq!(plan(7, &Kind::ALL, LONG), plan(7, &Kind::ALL, LONG));
        assert_ne!(plan(7, &Kind::ALL, LONG), plan(8, &Kind::ALL, LONG));
    }

    #[test]
    fn every_phase_overlaps_and_every_kind_has_its_turn() {
        // Just long enough, and longer than that.
        let shortest = PHASE * u32::try_from(Kind::ALL.len().div_ceil(LEAST_KINDS)).unwrap_or(1);
        for (seed, duration) in (0..200).flat_map(|seed| [(seed, shortest), (seed, LONG)]) {
            let phases = plan(seed, &Kind::ALL, duration);
            let planned = phases.len() as u128;
            assert!(
                planned <= duration.as_millis() / PHASE.as_millis() + 6,
                "{planned}"
            );
            let mut seen = BTreeSet::new();
            for phase in &phases {
                assert!(phase.len() >= 2, "{phase:?}");
                let last = phase.iter().map(|planned| planned.begin).max();
                assert!(phase.iter().all(|planned| Some(planned.end) > last));
                assert!(phase.iter().any(|planned| !planned.kind.is_momentary()));
                seen.extend(phase.iter().map(|planned| planned.kind));
            }
            assert_eq!(seen.len(), Kind::ALL.len(), "seed {seed}");
        }
    }

    #[test]
    fn what_asks_the_cluster_meets_nothing_that_stops_it() {
        for phase in plan(3, &Kind::ALL, LONG * 10) {
            if phase.iter().any(|planned| planned.kind.needs_majority()) {
                let others = phase.iter().map(|planned| planned.kind);
                assert!(
                    others
                        .clone()
                        .all(|kind| kind.is_gentle() || kind.needs_majority())
                );
            }
        }
    }

    #[test]
    fn one_kind_alone_has_nothing_to_overlap_with_and_is_carried_out_all_the_same() {
        let phases = plan(1, &[Kind::KillLeader], Duration::from_secs(20));
        assert_eq!(phases.len(), 3);
        assert!(phases.iter().all(|phase| phase.len() == 1));
        assert!(plan(1, &[], LONG).is_empty());
    }
}
