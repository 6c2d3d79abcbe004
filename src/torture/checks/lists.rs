//! Transactions that append to lists: there is one order of all of them that explains what each has seen, and that agrees with real
//! time.
//!
//! A list names its writers in order, so most of that order is told: who wrote what somebody saw comes before, who wrote
//! what somebody did not see yet comes after, and so does whoever began after it was over. An order exists if and only if none of
//! these arrows leads back to where it came from.
//!
//! A transaction whose outcome is unknown counts as one that happened if anybody has seen an element of it, and not at all otherwise.

use std::collections::BTreeMap;

use super::Check;
use super::graph::Graph;
use crate::torture::record::Audit;
use crate::torture::tape::Outcome;
use crate::torture::workloads::lists::{Listings, PREFIX, decode};

/// Transactions of a circle that a violation names.
const SHOWN: usize = 6;

/// What is known of all lists.
struct Known<'a> {
    entries: &'a [Listings],
    /// Each list as it was when it was longest.
    longest: BTreeMap<&'a str, Vec<u64>>,
    /// Who appends what, by list and element.
    writers: BTreeMap<(&'a str, u64), usize>,
}

/// What a transaction has seen of its lists, if it has happened.
fn seen(entry: &Listings) -> Option<Vec<(&str, &[u64])>> {
    let keys = entry.call.parts.iter().map(|part| part.key.as_str());
    if entry.call.is_read() {
        let lists = entry.outcome.answer()?;
        return Some(keys.zip(lists.iter().map(Vec::as_slice)).collect());
    }
    let seen = entry.call.parts.iter().map(|part| part.seen.as_slice());
    entry
        .outcome
        .may_have_happened()
        .then(|| keys.zip(seen).collect())
}

/// One order of all transactions, in which none is lost, none counts twice, and all is as it was seen.
#[must_use]
pub fn serialisable(entries: &[Listings], audit: &Audit) -> Check {
    let mut check = Check::new("transactions have one order");
    let mut known = Known {
        entries,
        longest: BTreeMap::new(),
        writers: BTreeMap::new(),
    };
    known.collect(audit, &mut check);
    known.prefixes(audit, &mut check);
    known.acknowledged(audit, &mut check);
    known.order(&mut check);
    check.note = format!("{} lists", known.longest.len());
    check.expect_facts()
}

impl<'a> Known<'a> {
    fn collect(&mut self, audit: &'a Audit, check: &mut Check) {
        for (number, entry) in self.entries.iter().enumerate() {
            for part in &entry.call.parts {
                if let Some(element) = part.adds {
                    self.writers.insert((&part.key, element), number);
                }
            }
        }
        let mut lists: Vec<(&'a str, Vec<u64>)> = Vec::new();
        for entry in self.entries {
            let Some(seen) = seen(entry) else { continue };
            check.examined += 1;
            let is_certain = entry.outcome.answer().is_some();
            for ((key, list), part) in seen.into_iter().zip(&entry.call.parts) {
                let mut list = list.to_vec();
                list.extend(part.adds.filter(|_| is_certain));
                lists.push((key, list));
            }
        }
        for node in &audit.nodes {
            for (key, (value, _)) in node.keys.range(PREFIX.to_owned()..) {
                if !key.starts_with(PREFIX) {
                    break;
                }
                match decode(value) {
                    Some(list) => lists.push((key, list)),
                    None => {
                        check.violate_in(key, Some(audit.at_us), format!("{key} holds {value}"));
                    }
                }
            }
        }
        for (key, list) in lists {
            let longest = self.longest.entry(key).or_default();
            if list.len() > longest.len() {
                *longest = list;
            }
        }
    }

    /// Every list that was seen is the beginning of the longest one, and each element has one writer that was not refused.
    fn prefixes(&self, audit: &Audit, check: &mut Check) {
        for entry in self.entries {
            for (key, list) in seen(entry).into_iter().flatten() {
                let longest = &self.longest[key];
                if !longest.starts_with(list) {
                    let what = format!("{key} was {list:?} and is {longest:?}");
                    check.violate_in(key, entry.returned_us, what);
                }
            }
        }
        for (key, list) in &self.longest {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            if let Some([twice, _]) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                check.violate_in(key, Some(audit.at_us), format!("{key} holds {twice} twice"));
            }
            for element in list {
                let writer = self.writers.get(&(*key, *element));
                let happened =
                    writer.is_some_and(|it| self.entries[*it].outcome.may_have_happened());
                if !happened {
                    let what = format!("{key} holds {element}, which nobody has appended");
                    check.violate_in(key, Some(audit.at_us), what);
                }
            }
        }
    }

    /// What was acknowledged is on every node; and of each transaction all elements are there, or none.
    fn acknowledged(&self, audit: &Audit, check: &mut Check) {
        for entry in self.entries.iter().filter(|it| !it.call.is_read()) {
            let adds = entry.call.parts.iter();
            let adds = adds.filter_map(|part| Some((part.key.as_str(), part.adds?)));
            for node in &audit.nodes {
                let held = adds.clone().filter(|(key, element)| {
                    let list = node.keys.get(*key).and_then(|(value, _)| decode(value));
                    list.is_some_and(|list| list.contains(element))
                });
                let (held, all) = (held.count(), adds.clone().count());
                let is_lost = matches!(entry.outcome, Outcome::Answered(_)) && held < all;
                if is_lost || (held > 0 && held < all) {
                    let what = format!(
                        "node {}: {held} of {all} elements of a transaction are there: {:?}",
                        node.node,
                        adds.clone().collect::<Vec<_>>()
                    );
                    let key = adds.clone().next().map_or("", |(key, _)| key);
                    check.violate_in(key, Some(audit.at_us), what);
                }
            }
        }
    }

    /// It happened: it was answered, or somebody has seen what it appended.
    fn happened(&self, number: usize) -> bool {
        let entry = &self.entries[number];
        let mut parts = entry.call.parts.iter();
        let is_seen = |key: &str, element: u64| {
            let list = self.longest.get(key);
            list.is_some_and(|list| list.contains(&element))
        };
        match entry.outcome {
            Outcome::Answered(_) => true,
            Outcome::Unknown => parts.any(|it| it.adds.is_some_and(|adds| is_seen(&it.key, adds))),
            Outcome::Refused(_) | Outcome::NotApplied => false,
        }
    }

    fn order(&self, check: &mut Check) {
        let mut graph = Graph::new(self.entries.len());
        let happened: Vec<bool> = (0..self.entries.len())
            .map(|number| self.happened(number))
            .collect();
        for (number, entry) in self.entries.iter().enumerate() {
            if !happened[number] {
                continue;
            }
            for (key, list) in seen(entry).into_iter().flatten() {
                let writer = |element: &u64| self.writers.get(&(key, *element)).copied();
                if let Some(before) = list.last().and_then(writer) {
                    graph.arrow(before, number);
                }
                // Its own element comes next, if it appends to this list.
                let next = self.longest[key].get(list.len()).and_then(writer);
                if let Some(after) = next.filter(|after| *after != number) {
                    graph.arrow(number, after);
                }
            }
        }
        let times = self.entries.iter().zip(&happened).enumerate();
        let times = times.filter(|(_, (_, happened))| **happened);
        graph.real_time(times.map(|(number, (entry, _))| {
            let returned = entry.outcome.answer().and(entry.returned_us);
            (number, entry.invoked_us, returned)
        }));
        for circle in graph.circles() {
            let shown = circle.iter().take(SHOWN).map(|number| {
                let entry = &self.entries[*number];
                format!(
                    "[{}..{:?}] {:?}",
                    entry.invoked_us, entry.returned_us, entry.call
                )
            });
            let what = format!(
                "{} transactions have no order: {}",
                circle.len(),
                shown.collect::<Vec<_>>().join("; ")
            );
            let first = circle
                .iter()
                .filter_map(|it| self.entries[*it].returned_us)
                .min();
            let key = circle
                .first()
                .map(|it| &self.entries[*it].call.parts[0].key);
            check.violate_in(key.map_or("", String::as_str), first, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, audit_of, lost, refused, told};
    use super::*;
    use crate::torture::workloads::lists::{Listing, Part};

    fn key(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    fn append(parts: &[(&str, &[u64], Option<u64>)]) -> Listing {
        let parts = parts.iter().map(|(name, seen, adds)| Part {
            key: key(name),
            seen: seen.to_vec(),
            adds: *adds,
        });
        Listing {
            parts: parts.collect(),
        }
    }

    fn read(names: &[&str]) -> Listing {
        let parts: Vec<_> = names.iter().map(|name| (*name, &[][..], None)).collect();
        append(&parts)
    }

    fn holding(lists: &[(&str, &str)]) -> Audit {
        let lists = lists.iter();
        audit_of(lists.map(|(name, list)| (key(name), (*list).to_owned())))
    }

    #[test]
    fn what_one_order_explains_is_right() {
        let entries = [
            told(
                0,
                9,
                append(&[("a", &[], Some(1)), ("b", &[], Some(2))]),
                vec![],
            ),
            told(2, 8, read(&["a", "b"]), vec![vec![1], vec![2]]),
            told(3, 7, read(&["a", "b"]), vec![vec![], vec![]]),
            lost(10, 20, append(&[("a", &[1], Some(3))])),
            refused(10, 20, append(&[("a", &[1], Some(4))])),
            told(30, 31, read(&["a"]), vec![vec![1, 3]]),
        ];
        assert_valid(&serialisable(
            &entries,
            &holding(&[("a", "1,3"), ("b", "2")]),
        ));
    }

    #[test]
    fn half_of_a_transaction_is_found_while_it_is_seen_and_in_the_end() {
        let whole = append(&[("a", &[], Some(1)), ("b", &[], Some(2))]);
        let entries = [
            told(0, 9, whole.clone(), vec![]),
            told(2, 8, read(&["a", "b"]), vec![vec![1], vec![]]),
        ];
        let audit = holding(&[("a", "1"), ("b", "2")]);
        assert_invalid(
            &serialisable(&entries, &audit),
            "2 transactions have no order",
        );
        let half = [lost(0, 9, whole)];
        assert_invalid(
            &serialisable(&half, &holding(&[("a", "1"), ("b", "")])),
            "1 of 2",
        );
    }

    #[test]
    fn what_is_lost_twice_or_from_nowhere_is_found() {
        let entries = [told(0, 9, append(&[("a", &[], Some(1))]), vec![])];
        assert_invalid(&serialisable(&entries, &holding(&[("a", "")])), "0 of 1");
        assert_invalid(
            &serialisable(&entries, &holding(&[("a", "1,1")])),
            "1 twice",
        );
        assert_invalid(
            &serialisable(&entries, &holding(&[("a", "1,7")])),
            "nobody has appended",
        );
        let fork = [
            told(0, 1, append(&[("a", &[], Some(1))]), vec![]),
            told(2, 3, append(&[("a", &[], Some(2))]), vec![]),
        ];
        assert_invalid(&serialisable(&fork, &holding(&[("a", "1")])), "0 of 1");
    }

    #[test]
    fn an_order_that_real_time_forbids_is_none() {
        let stale = [
            told(0, 1, append(&[("a", &[], Some(1))]), vec![]),
            told(2, 3, read(&["a"]), vec![vec![]]),
        ];
        let audit = holding(&[("a", "1")]);
        assert_invalid(&serialisable(&stale, &audit), "have no order");
        // At the same time it may come before.
        let early = [
            told(0, 3, append(&[("a", &[], Some(1))]), vec![]),
            told(2, 3, read(&["a"]), vec![vec![]]),
        ];
        assert_valid(&serialisable(&early, &audit));
    }

    #[test]
    fn write_skew_is_found() {
        // Each has seen that the other had not happened.
        let skew = [
            told(
                0,
                9,
                append(&[("a", &[], Some(1)), ("b", &[], None)]),
                vec![],
            ),
            told(
                0,
                9,
                append(&[("b", &[], Some(2)), ("a", &[], None)]),
                vec![],
            ),
        ];
        let audit = holding(&[("a", "1"), ("b", "2")]);
        assert_invalid(&serialisable(&skew, &audit), "2 transactions have no order");
    }
}
