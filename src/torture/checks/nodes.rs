//! Nodes, seen from outside: who led, what they hold in the end, how they ended, what they wrote, what they took.

use std::collections::BTreeMap;

use super::Check;
use crate::torture::faults::nemesis::Chronicle;
use crate::torture::record::{Audit, Sample};

/// A node of such a run takes a tenth of it.
const MEMORY_KB: u64 = 1 << 20;
/// `RocksDB` keeps its files open; connections are few.
const FILES: u64 = 2_048;

/// Raft's first promise: in one term at most one node takes itself for the leader, and all that know one know the same.
#[must_use]
pub fn one_leader_per_term(samples: &[Sample]) -> Check {
    let mut check = Check::new("one leader per term");
    let mut leaders: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for sample in samples {
        let Some(leader) = sample.leader.filter(|leader| *leader != 0) else {
            continue;
        };
        check.examined += 1;
        let (first, node) = leaders.entry(sample.term).or_insert((leader, sample.node));
        if *first != leader {
            let what = format!(
                "term {}: node {node} knows {first} as its leader, node {} {leader}",
                sample.term, sample.node
            );
            check.violate(Some(sample.at_us), what);
        }
    }
    check.note = format!("{} terms", leaders.len());
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
    check.note = format!("{} MiB", audit.scanned_bytes >> 20);
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
            leader: Some(leader),
            term,
            memory_kb: 1,
            files: 1,
        }
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let good = [
            sample(1, 1, 1),
            sample(2, 1, 1),
            sample(2, 2, 2),
            sample(1, 0, 2),
        ];
        assert_valid(&one_leader_per_term(&good));
        let split = [sample(1, 1, 2), sample(2, 2, 2)];
        assert_invalid(&one_leader_per_term(&split), "term 2");
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
