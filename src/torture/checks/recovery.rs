//! How long it took until somebody was served again, from probes that do not wait for each other; and that it came to that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Check;
use crate::torture::faults::Proof;
use crate::torture::faults::chronicle::Chronicle;
use crate::torture::record::Sample;
use crate::torture::workloads::probes::Probes;

/// A gap between two acknowledged probes that is no outage, but a busy machine.
const HICCUP_US: u64 = 100_000;
/// How long it may take in the worst case until a cluster that could serve does.
const LONGEST_MS: u64 = 30_000;

/// A time in which no probe was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The acknowledgement before it.
    pub from_us: u64,
    /// The one behind it.
    pub until_us: u64,
}

/// When probes were acknowledged, in order.
fn acknowledged(probes: &[Probes]) -> Vec<u64> {
    let answered = probes
        .iter()
        .filter(|probe| probe.outcome.answer().is_some());
    let mut times: Vec<u64> = answered.filter_map(|probe| probe.returned_us).collect();
    times.sort_unstable();
    times
}

/// All of them, in order.
#[must_use]
pub fn outages(probes: &[Probes]) -> Vec<Outage> {
    let times = acknowledged(probes);
    let gaps = times
        .windows(2)
        .filter(|pair| pair[1] - pair[0] > HICCUP_US);
    gaps.map(|pair| Outage {
        from_us: pair[0],
        until_us: pair[1],
    })
    .collect()
}

/// How much of a stretch of time was outage.
fn idle(outages: &[Outage], from_us: u64, until_us: u64) -> u64 {
    let within = outages.iter().map(|outage| {
        let begin = outage.from_us.max(from_us);
        outage.until_us.min(until_us).saturating_sub(begin)
    });
    within.sum()
}

/// Times to recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// How many there were.
    pub samples: u64,
    /// Milliseconds.
    pub p50_ms: u64,
    /// Milliseconds.
    pub p99_ms: u64,
    /// Milliseconds.
    pub max_ms: u64,
    /// How many took up to so many milliseconds, and longer than the bucket before.
    pub buckets: Vec<(u64, u64)>,
    /// The longest, by what had happened.
    pub longest_by_cause: BTreeMap<String, u64>,
    /// Every one of them, in milliseconds, ascending, so that runs can be added up.
    #[serde(default)]
    pub all_ms: Vec<u64>,
    /// For how long nobody was served around faults that were done to the leader alone, by kind.
    #[serde(default)]
    pub leader_outages: BTreeMap<String, Outages>,
}

/// How long writes stood still around a kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outages {
    /// How many faults.
    pub count: u64,
    /// In milliseconds, of half of them at most.
    pub p50_ms: u64,
    /// Of each at most.
    pub max_ms: u64,
}

/// How long after a fault its consequences may still begin.
const AFTERMATH_US: u64 = 2_000_000;

/// Of each fault that hit the leader, while no other one overlapped, the longest time between two acknowledged probes, from its
/// beginning until a little after its end, or until the next fault.
fn leader_outages(chronicle: &Chronicle, outages: &[Outage]) -> BTreeMap<String, Outages> {
    let mut by_kind: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for episode in &chronicle.episodes {
        let others = || chronicle.episodes.iter().filter(|it| *it != episode);
        let is_alone =
            others().all(|it| it.begun_us >= episode.ended_us || it.ended_us <= episode.begun_us);
        let is_proven = matches!(episode.proof, Proof::Proven(_));
        if episode.nodes != [episode.leader] || !is_alone || !is_proven {
            continue;
        }
        let later = others()
            .map(|it| it.begun_us)
            .filter(|it| *it >= episode.ended_us);
        let until_us = later
            .min()
            .unwrap_or(u64::MAX)
            .min(episode.ended_us + AFTERMATH_US);
        let around = outages
            .iter()
            .filter(|it| it.until_us > episode.begun_us && it.from_us < until_us);
        let longest = around.map(|it| (it.until_us - it.from_us) / 1000).max();
        let of_kind = by_kind.entry(episode.kind.name()).or_default();
        of_kind.push(longest.unwrap_or(0));
    }
    let of = |mut all: Vec<u64>| {
        all.sort_unstable();
        Outages {
            count: all.len() as u64,
            p50_ms: all[(all.len() - 1) / 2],
            max_ms: all[all.len() - 1],
        }
    };
    by_kind
        .into_iter()
        .map(|(kind, all)| (kind, of(all)))
        .collect()
}

const BUCKETS_MS: [u64; 11] = [
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    30_000,
    u64::MAX,
];

/// From each moment at which something changed and the nodes could serve, to the first acknowledgement of a probe that was sent
/// after it; unless something changed again before.
#[must_use]
pub fn measure(chronicle: &Chronicle, probes: &[Probes]) -> Recovery {
    let mut recovery = Recovery::default();
    for (what, _, ms) in samples(chronicle, probes) {
        recovery.all_ms.push(ms);
        let longest = recovery.longest_by_cause.entry(what).or_default();
        *longest = (*longest).max(ms);
    }
    recovery.leader_outages = leader_outages(chronicle, &outages(probes));
    recovery.all_ms.sort_unstable();
    recovery.samples = recovery.all_ms.len() as u64;
    recovery.p50_ms = percentile(&recovery.all_ms, 50);
    recovery.p99_ms = percentile(&recovery.all_ms, 99);
    recovery.max_ms = percentile(&recovery.all_ms, 100);
    if recovery.samples > 0 {
        let mut below = 0;
        for bound in BUCKETS_MS {
            let up_to = recovery.all_ms.partition_point(|ms| *ms <= bound);
            recovery.buckets.push((bound, (up_to - below) as u64));
            below = up_to;
        }
    }
    recovery
}

/// What so many of a hundred took at most; 0 if there are none. `sorted` is ascending.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

/// What had changed, when, and how long it took from then on.
fn samples(chronicle: &Chronicle, probes: &[Probes]) -> Vec<(String, u64, u64)> {
    let mut probes: Vec<_> = probes.iter().collect();
    probes.sort_unstable_by_key(|probe| probe.invoked_us);
    // The first acknowledgement among this probe and all that were sent later.
    let mut first = vec![u64::MAX; probes.len() + 1];
    for (index, probe) in probes.iter().enumerate().rev() {
        let own = probe.outcome.answer().and(probe.returned_us);
        first[index] = own.unwrap_or(u64::MAX).min(first[index + 1]);
    }
    let transitions = &chronicle.transitions;
    let mut samples = Vec::new();
    for (index, transition) in transitions.iter().enumerate() {
        let next = transitions.get(index + 1).map_or(u64::MAX, |it| it.at_us);
        let sent_after = probes.partition_point(|probe| probe.invoked_us < transition.at_us);
        let served = first[sent_after];
        if transition.can_serve && served != u64::MAX && served <= next {
            let ms = (served - transition.at_us) / 1000;
            samples.push((transition.what.clone(), transition.at_us, ms));
        }
    }
    samples
}

/// The observer looks a few times a second. Longer between two looks, this program had no time, and the nodes beside it have none.
const STALL_US: u64 = 1_000_000;
/// Before nodes are said not to follow one leader, they have so long.
const RECOVERY_US: u64 = 60_000_000;

/// Times in which the machine did not let this program run.
fn stalls(samples: &[Sample]) -> Vec<Outage> {
    let looks = samples.windows(2);
    let gaps = looks.filter(|pair| pair[1].at_us > pair[0].at_us + STALL_US);
    gaps.map(|pair| Outage {
        from_us: pair[0].at_us,
        until_us: pair[1].at_us,
    })
    .collect()
}

/// Stretches of time, up to `end_us`, in which nothing that was done kept the nodes from serving. What changes without that, the next
/// fault of a row, ends none.
fn able(chronicle: &Chronicle, end_us: u64) -> Vec<Outage> {
    let mut stretches = Vec::new();
    let mut since = Some(0);
    for transition in &chronicle.transitions {
        match (since, transition.can_serve) {
            (Some(from_us), false) => {
                let until_us = transition.at_us;
                stretches.push(Outage { from_us, until_us });
                since = None;
            }
            (None, true) => since = Some(transition.at_us),
            _ => {}
        }
    }
    let last = since.filter(|since| *since < end_us);
    stretches.extend(last.map(|from_us| Outage {
        from_us,
        until_us: end_us,
    }));
    stretches
}

/// The longest time within a stretch in which no probe was acknowledged; `times` are those of acknowledgements, in order.
fn longest_gap(stretch: Outage, times: &[u64]) -> Outage {
    let begin = times.partition_point(|at| *at <= stretch.from_us);
    let end = times.partition_point(|at| *at < stretch.until_us);
    let mut longest = Outage {
        from_us: stretch.from_us,
        until_us: stretch.from_us,
    };
    let mut from_us = stretch.from_us;
    let within = times.get(begin..end).unwrap_or_default().iter().copied();
    for until_us in within.chain([stretch.until_us]) {
        if until_us - from_us > longest.until_us - longest.from_us {
            longest = Outage { from_us, until_us };
        }
        from_us = until_us;
    }
    longest
}

/// A cluster that can serve does so again, in a time that is long enough for any machine that lets it run; and it does in the end.
#[must_use]
pub fn liveness(chronicle: &Chronicle, probes: &[Probes], looks: &[Sample]) -> Check {
    let mut check = Check::new("it serves again");
    let stalls = stalls(looks);
    check.examined = probes.len() as u64;
    for stuck in &chronicle.stuck_us {
        let what =
            "the nodes did not follow one leader and take a write, long after all was mended";
        if idle(&stalls, stuck.saturating_sub(RECOVERY_US), *stuck) > RECOVERY_US / 4 {
            check.doubt(&format!("{what}, and the machine had no time for them"));
        } else {
            check.violate(Some(*stuck), what.to_owned());
        }
    }
    let times = acknowledged(probes);
    let sent = probes.iter().map(|probe| probe.invoked_us).max();
    for stretch in able(chronicle, sent.unwrap_or(0)) {
        let gap = longest_gap(stretch, &times);
        let ms = (gap.until_us - gap.from_us) / 1000;
        let stalled_ms = idle(&stalls, gap.from_us, gap.until_us) / 1000;
        let before = chronicle.transitions.iter().rev();
        let mut before = before.filter(|it| it.at_us <= gap.until_us);
        let what = before.next().map_or("nothing was done", |it| &it.what);
        let what = format!("no write was acknowledged for {ms} ms, the last that was done: {what}");
        if ms.saturating_sub(stalled_ms) > LONGEST_MS {
            check.violate(Some(gap.from_us), what);
        } else if ms > LONGEST_MS {
            check.doubt(&format!(
                "{what}, and for {stalled_ms} of them the machine had no time"
            ));
        }
    }
    let last = chronicle.transitions.last().map(|last| last.at_us);
    let sent_after = |probe: &&Probes| last.is_none_or(|last| probe.invoked_us > last);
    let mut late = probes.iter().filter(sent_after);
    if !late.any(|probe| probe.outcome.answer().is_some()) {
        check.doubt("no probe that was sent after the last fault was acknowledged");
    }
    check.expect_facts()
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::super::testing::{assert_invalid, assert_valid, lost, told};
    use super::*;
    use crate::torture::faults::{Episode, Kind, Transition};

    fn transition(at_us: u64, can_serve: bool) -> Transition {
        Transition {
            at_us,
            what: "kill-leader".to_owned(),
            can_serve,
        }
    }

    fn chronicle(transitions: &[Transition]) -> Chronicle {
        Chronicle {
            transitions: transitions.to_vec(),
            ..Chronicle::default()
        }
    }

    #[test]
    fn an_outage_lies_between_acknowledgements() {
        let probes = [
            told(0, 1_000, 0, ()),
            lost(10_000, 900_000, 1),
            told(20_000, 801_000, 2, ()),
            told(30_000, 802_000, 3, ()),
        ];
        let found = outages(&probes);
        assert_eq!(found.len(), 1);
        assert_eq!(idle(&found, 0, 900_000), 800_000);
        assert_eq!(idle(&found, 1_000, 2_000), 1_000);
        assert_eq!(idle(&found, 801_000, 900_000), 0);
    }

    #[test]
    fn recovery_is_from_the_change_to_the_first_probe_sent_after_it() {
        let probes = [
            told(0, 300_000, 0, ()),
            lost(20_000, 500_000, 1),
            told(30_000, 250_000, 2, ()),
        ];
        let found = measure(&chronicle(&[transition(10_000, true)]), &probes);
        assert_eq!((found.samples, found.max_ms), (1, 240));
        assert_eq!(found.longest_by_cause["kill-leader"], 240);
        assert_eq!(found.buckets.iter().map(|(_, count)| count).sum::<u64>(), 1);
        // What cannot serve need not; and what changed again meanwhile says nothing.
        assert_eq!(
            measure(&chronicle(&[transition(10_000, false)]), &probes).samples,
            0
        );
        let twice = [transition(10_000, true), transition(100_000, false)];
        assert_eq!(measure(&chronicle(&twice), &probes).samples, 0);
    }

    #[test]
    fn the_longest_is_told_as_it_was_however_long() {
        let slow = 14_628_000;
        let mut transitions = Vec::new();
        let mut probes = Vec::new();
        for nth in 0..10 {
            let at_us = 1_000_000 + nth * 30_000_000;
            transitions.push(transition(at_us, true));
            let took_us = if nth == 3 { slow } else { 40_000 + nth * 1_000 };
            probes.push(told(at_us + 1, at_us + took_us, nth, ()));
        }
        let found = measure(&chronicle(&transitions), &probes);
        assert_eq!(
            (found.samples, found.p50_ms, found.max_ms),
            (10, 45, 14_628)
        );
        let filled: Vec<_> = found
            .buckets
            .iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(filled, [&(50, 9), &(30_000, 1)]);
    }

    #[test]
    fn a_fault_of_the_leader_alone_has_its_outage() {
        let episode = |kind, node, begun_us, ended_us| Episode {
            kind,
            nodes: vec![node],
            leader: 1,
            begun_us,
            ended_us,
            proof: Proof::Proven("seen".to_owned()),
        };
        let probes = [
            told(0, 1_000_000, 0, ()),
            told(1, 1_900_000, 0, ()),
            told(1, 2_000_000, 0, ()),
        ];
        let mut chronicle = chronicle(&[]);
        chronicle.episodes = vec![
            episode(Kind::FailedSync, 1, 900_000, 1_500_000),
            episode(Kind::FailedSync, 2, 90_000_000, 91_000_000),
            episode(Kind::KillLeader, 1, 190_000_000, 191_000_000),
            episode(Kind::Latency, 1, 190_500_000, 191_000_000),
        ];
        let found = measure(&chronicle, &probes).leader_outages;
        let only = Outages {
            count: 1,
            p50_ms: 900,
            max_ms: 900,
        };
        assert_eq!(found, [("failed-sync".to_owned(), only)].into());
    }

    #[test]
    fn a_cluster_that_stays_away_is_found() {
        let probes = [
            told(0, 1_000, 0, ()),
            told(20_000, 40_020_000, 1, ()),
            told(40_030_000, 40_031_000, 2, ()),
        ];
        let long = liveness(&chronicle(&[transition(10_000, true)]), &probes, &[]);
        assert_invalid(&long, "no write was acknowledged for 40019 ms");
        let mut stuck = chronicle(&[]);
        stuck.stuck_us.push(7);
        assert_invalid(&liveness(&stuck, &probes, &[]), "did not follow one leader");
        // It could not serve.
        let down = [transition(15_000, false), transition(40_000_000, true)];
        assert_valid(&liveness(&chronicle(&down), &probes, &[]));
    }

    #[test]
    fn faults_that_come_one_after_the_other_hide_no_outage() {
        let transitions: Vec<_> = (1..60)
            .map(|nth| transition(nth * 2_500_000, true))
            .collect();
        let mut probes = vec![told(0, 1_000, 0, ())];
        probes.extend((1..120).map(|second| {
            let at_us = second * 1_000_000;
            lost(at_us, at_us + 900_000, second)
        }));
        probes.push(told(150_000_000, 150_001_000, 120, ()));
        let found = liveness(&chronicle(&transitions), &probes, &[]);
        assert_invalid(&found, "the last that was done: kill-leader");
        // Each time they could serve, but not for long.
        let off_and_on: Vec<_> = (1..60)
            .map(|nth| transition(nth * 2_500_000, nth % 2 == 0))
            .collect();
        assert_valid(&liveness(&chronicle(&off_and_on), &probes, &[]));
    }

    #[test]
    fn a_machine_that_stands_still_proves_nothing() {
        let look = |at_us| Sample {
            at_us,
            node: 1,
            member: 1,
            leader: None,
            term: 0,
            memory_kb: 1,
            files: 1,
        };
        let probes = [
            told(0, 1_000, 0, ()),
            told(20_000, 40_020_000, 1, ()),
            told(40_030_000, 40_031_000, 2, ()),
        ];
        let changed = chronicle(&[transition(10_000, true)]);
        let still = [look(1_000_000), look(30_000_000)];
        let found = liveness(&changed, &probes, &still);
        assert_eq!(found.judgement, Judgement::Unknown, "{found:#?}");
        // It looked on all the time.
        let looked: Vec<_> = (0..100).map(|tick| look(tick * 400_000)).collect();
        assert_invalid(&liveness(&changed, &probes, &looked), "40019 ms");
        let mut stuck = chronicle(&[]);
        stuck.stuck_us.push(60_000_000);
        assert_eq!(
            liveness(&stuck, &probes, &still).judgement,
            Judgement::Unknown
        );
        assert_invalid(
            &liveness(&stuck, &probes, &looked),
            "did not follow one leader",
        );
    }

    #[test]
    fn nobody_who_is_served_after_the_last_fault_is_a_violation() {
        let mut probes = vec![told(0, 1_000, 0, ())];
        let changed = chronicle(&[transition(10_000, true)]);
        probes.extend(
            (1..60).map(|second| lost(second * 10_000_000, second * 10_000_000 + 1, second)),
        );
        let found = liveness(&changed, &probes, &[]);
        assert_invalid(&found, "no write was acknowledged for 589999 ms");
        // Nobody has looked for long enough to say so.
        let found = liveness(&changed, &probes[..2], &[]);
        assert_eq!(found.judgement, Judgement::Unknown, "{found:#?}");
    }
}
