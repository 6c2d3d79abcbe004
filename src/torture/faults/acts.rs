//! A phase as a row of acts: when each fault begins, acts again, and ends.

use std::time::Duration;

use super::Kind;
use super::plan::Phase;

/// Between two acts of a fault that goes on acting.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// One step of a phase.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Begin(usize),
    Go(usize),
    End(usize),
}

/// The acts of a phase, in their order.
pub(super) fn acts(phase: &Phase) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    for (index, planned) in phase.iter().enumerate() {
        acts.push((planned.begin, Act::Begin(index)));
        acts.push((planned.end, Act::End(index)));
        if matches!(planned.kind, Kind::Stall | Kind::CutConnections) {
            let mut at = planned.begin + Duration::from_millis(1);
            while at < planned.end {
                acts.push((at, Act::Go(index)));
                at += TICK;
            }
        }
    }
    // Stable, so that what begins at one moment does so in the order of the plan.
    acts.sort_by_key(|(at, _)| *at);
    acts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_begins_before_it_ends_and_some_act_in_between() {
        let kinds = [Kind::Stall, Kind::KillLeader];
        for phase in super::super::plan::plan(5, &kinds, Duration::from_secs(60)) {
            let acts = acts(&phase);
            let begins = acts.iter().filter(|(_, act)| matches!(act, Act::Begin(_)));
            let goes = acts.iter().filter(|(_, act)| matches!(act, Act::Go(_)));
            assert_eq!(begins.count(), phase.len());
            assert!(goes.count() >= 4);
            assert!(matches!(acts.first(), Some((_, Act::Begin(_)))));
            assert!(matches!(acts.last(), Some((_, Act::End(_)))));
        }
    }
}
