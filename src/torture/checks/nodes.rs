//! Nodes, seen from outside: who led, what they hold in the end, how they ended, what they wrote, what they took.

use std::collections::BTreeMap;

use super::Check;
use crate::torture::faults::chronicle::Chronicle;
use crate::torture::record::{Audit, Sample};

/// A node of such a run takes a tenth of it.
const MEMORY_KB: u64 = 1 << 20;
/// `RocksDB` keeps its files open; connections are few.
const FILES: u64 = 2_048;

/// A node's term never goes back, not even over a power cut: a vote is a promise, and whoever forgets the term has forgotten what
/// it promised there.
///
/// Leaders are ordered by term and node, so that one term may have two, of which the one with the greater id deposes the other. That
/// is no violation, and neither is a node that has just started and does not say its term yet.
#[must_use]
pub fn terms(samples: &[Sample]) -> Check {
    let mut check = Check::new("terms never go back");
    let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
    let told = |sample: &&Sample| sample.leader.is_some() && sample.term > 0;
    for sample in samples.iter().filter(told) {
        check.examined += 1;
        let highest = terms.entry(sample.member).or_default();
        if sample.term < *highest {
            let what = format!(
                "node {} was in term {highest} and is in term {}",
                sample.member, sample.term
            );
            check.violate(Some(sample.at_us), what);
        }
        *highest = sample.term.max(*highest);
    }
    check.note = format!("{} is the last", terms.values().max().unwrap_or(&0));
    check.expect_facts()
}

/// In the end all nodes are at one place, with one digest and one content.
#[must_use]
pub fn replicas(audit: &Audit, nodes: u64) -> Check {
    let mut check = Check::new("replicas are equal");
    for pair in audit.nodes.windows(2) {
        let [a, b] = pair else { continue };
        check.examined += 1;
        let mut compare = |what: &str, is_equal: bool| {
            if !is_equal {
                let what = format!("nodes {} and {} differ in {what}", a.node, b.node);
                check.violate(Some(audit.at_us), what);
            }
        };
        compare("their digests", a.digest == b.digest);
        compare("their revisions", a.revision == b.revision);
        compare("their keys", a.keys == b.keys);
        compare("their carts", a.carts == b.carts);
        compare("their sessions", a.sessions == b.sessions);
    }
    if let Some(problem) = audit.problems.first() {
        check.doubt(problem);
    } else if audit.nodes.len() as u64 != nodes {
        check.doubt("not every node could be read in the end");
    }
    check.expect_facts()
}

/// A node ends by itself only where a fault was to bring it about, and then it says so with its exit code.
#[must_use]
pub fn deaths(chronicle: &Chronicle) -> Check {
    let mut check = Check::new("nodes end only for a reason");
    check.examined = 1 + chronicle.deaths.len() as u64;
    for death in &chronicle.deaths {
        let is_told = matches!(death.code, Some(3 | 5 | 8));
        if !death.is_expected || !is_told {
            let what = format!(
                "node {} ended with exit code {:?}: {}",
                death.node, death.code, death.said
            );
            check.violate(Some(death.at_us), what);
        }
    }
    check
}

/// No panic in a log, no token in any file.
#[must_use]
pub fn files(audit: &Audit) -> Check {
    let mut check = Check::new("no panic, no secret in any file");
    check.examined = audit.scanned_bytes;
    for found in &audit.files {
        check.violate(None, found.clone());
    }
    check.note = format!(
        "{} MiB, {} tokens looked for; {} snapshots were installed",
        audit.scanned_bytes >> 20,
        audit.scanned_tokens,
        audit.installed_snapshots
    );
    check.expect_facts()
}

/// Memory and open files stay within bounds.
#[must_use]
pub fn resources(samples: &[Sample]) -> Check {
    let mut check = Check::new("memory and open files are bounded");
    let (mut memory, mut files) = (0, 0);
    for sample in samples.iter().filter(|sample| sample.memory_kb > 0) {
        check.examined += 1;
        memory = memory.max(sample.memory_kb);
        files = files.max(sample.files);
        if sample.memory_kb > MEMORY_KB || sample.files > FILES {
            let what = format!(
                "node {} takes {} MiB and {} files",
                sample.node,
                sample.memory_kb >> 10,
                sample.files
            );
            check.violate(Some(sample.at_us), what);
        }
    }
    check.note = format!("at most {} MiB and {files} files", memory >> 10);
    check.expect_facts()
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::super::testing::{assert_invalid, assert_valid};
    use super::*;
    use crate::torture::faults::Death;
    use crate::torture::record::NodeAudit;

    fn sample(node: u64, leader: u64, term: u64) -> Sample {
        Sample {
            at_us: 1,
            node,
            member: node,
            leader: Some(leader),
            term,
            memory_kb: 1,
            files: 1,
        }
    }

    #[test]
    fn a_term_that_is_forgotten_is_found() {
        let good = [
            sample(1, 1, 4),
            sample(2, 3, 4),
            sample(1, 0, 0),
            sample(1, 2, 5),
        ];
        assert_valid(&terms(&good));
        let back = [sample(1, 1, 4), sample(2, 2, 3), sample(1, 2, 3)];
        assert_invalid(&terms(&back), "node 1 was in term 4 and is in term 3");
    }

    fn node(node: u64, digest: &str) -> NodeAudit {
        NodeAudit {
            node,
            digest: digest.to_owned(),
            ..NodeAudit::default()
        }
    }

    #[test]
    fn replicas_that_differ_or_are_missing_are_not_equal() {
        let audit = |nodes: &[NodeAudit]| Audit {
            nodes: nodes.to_vec(),
            ..Audit::default()
        };
        assert_valid(&replicas(&audit(&[node(1, "a"), node(2, "a")]), 2));
        assert_invalid(
            &replicas(&audit(&[node(1, "a"), node(2, "b")]), 2),
            "digests",
        );
        let missing = replicas(&audit(&[node(1, "a"), node(2, "a")]), 3);
        assert_eq!(missing.judgement, Judgement::Unknown);
    }

    #[test]
    fn a_death_needs_a_fault_and_an_exit_code() {
        let died = |code, is_expected| {
            deaths(&Chronicle {
                deaths: vec![Death {
                    node: 1,
                    at_us: 1,
                    code,
                    is_expected,
                    said: "ERROR".to_owned(),
                }],
                ..Chronicle::default()
            })
        };
        assert_valid(&died(Some(5), true));
        assert_valid(&died(Some(8), true));
        assert_invalid(&died(Some(5), false), "exit code Some(5)");
        assert_invalid(&died(Some(101), true), "exit code Some(101)");
        assert_invalid(&died(None, true), "exit code None");
        assert_valid(&deaths(&Chronicle::default()));
    }

    #[test]
    fn what_grows_without_end_is_found() {
        assert_valid(&resources(&[sample(1, 1, 1)]));
        let mut fat = sample(1, 1, 1);
        fat.memory_kb = 2 << 20;
        assert_invalid(&resources(&[fat]), "2048 MiB");
    }

    #[test]
    fn what_was_found_in_files_is_a_violation() {
        let mut audit = Audit {
            scanned_bytes: 1,
            ..Audit::default()
        };
        assert_valid(&files(&audit));
        audit.files.push("node-1.log: a panic".to_owned());
        assert_invalid(&files(&audit), "a panic");
    }
}
