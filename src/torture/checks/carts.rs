//! Adds that count exactly once, however often they are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Check;
use crate::torture::record::{Audit, NodeAudit};
use crate::torture::workloads::carts::{Add, Added, Adds};

/// All attempts of one add.
struct Story<'a> {
    add: &'a Add,
    answers: Vec<&'a Added>,
    may_have_happened: bool,
    first_invoked: u64,
    first_answered: Option<u64>,
}

fn stories(adds: &[Adds]) -> BTreeMap<&str, Story<'_>> {
    let mut stories: BTreeMap<&str, Story<'_>> = BTreeMap::new();
    for attempt in adds {
        let story = stories.entry(&attempt.call.id).or_insert(Story {
            add: &attempt.call,
            answers: Vec::new(),
            may_have_happened: false,
            first_invoked: attempt.invoked_us,
            first_answered: None,
        });
        story.first_invoked = story.first_invoked.min(attempt.invoked_us);
        story.may_have_happened |= attempt.outcome.may_have_happened();
        if let Some(answer) = attempt.outcome.answer() {
            story.answers.push(answer);
            let returned = attempt.returned_us.unwrap_or(u64::MAX);
            let first = story.first_answered.unwrap_or(u64::MAX);
            story.first_answered = Some(first.min(returned));
        }
    }
    stories
}

/// What became of adds that were acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// How many there were.
    pub acknowledged: u64,
    /// How many of them are certainly lost, on some node at least; `None` if no node could be read and answers alone show none.
    pub lost: Option<u64>,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, lost } = self;
        match lost {
            Some(lost) => write!(
                f,
                "{acknowledged} adds were acknowledged, {lost} of them lost"
            ),
            None => write!(
                f,
                "{acknowledged} adds were acknowledged, and no node could be asked for them"
            ),
        }
    }
}

/// Adds that were acknowledged, and how many of them are lost. Each left a line with a number of pieces that no other one left, and with
/// no more than are there in the end: of those that share a number all but one are lost, and all beyond what is there.
#[must_use]
pub fn durability(adds: &[Adds], audit: &Audit) -> Durability {
    let mut left: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for story in stories(adds).values() {
        let line = (story.add.cart.as_str(), story.add.sku.as_str());
        let told = story.answers.first().map(|answer| answer.quantity);
        left.entry(line).or_default().extend(told);
    }
    let kept = |(line, told): (&(&str, &str), &Vec<u64>)| {
        let held = audit.nodes.iter().map(|node| held(node, *line)).min();
        let held = held.unwrap_or(u64::MAX);
        let kept: BTreeSet<_> = told.iter().filter(|quantity| **quantity <= held).collect();
        kept.len() as u64
    };
    let acknowledged = left.values().map(|told| told.len() as u64).sum();
    let lost = acknowledged - left.iter().map(kept).sum::<u64>();
    Durability {
        acknowledged,
        lost: (lost > 0 || !audit.nodes.is_empty()).then_some(lost),
    }
}

fn held(node: &NodeAudit, (cart, sku): (&str, &str)) -> u64 {
    let line = node.carts.get(cart).and_then(|cart| cart.get(sku));
    line.copied().unwrap_or(0)
}

/// Every acknowledged add is in its cart once, every other one at most once; all attempts of one add have one answer; and the
/// quantities that were told go up, one by one, in real time.
#[must_use]
pub fn exactly_once(adds: &[Adds], audit: &Audit) -> Check {
    let mut check = Check::new("exactly once");
    let stories = stories(adds);
    let mut lines: BTreeMap<(&str, &str), Vec<&Story<'_>>> = BTreeMap::new();
    for (id, story) in &stories {
        check.examined += u64::from(!story.answers.is_empty());
        if story.answers.windows(2).any(|pair| pair[0] != pair[1]) {
            let what = format!("request {id} was answered in two ways: {:?}", story.answers);
            check.violate_in(id, story.first_answered, what);
        }
        let line = (story.add.cart.as_str(), story.add.sku.as_str());
        lines.entry(line).or_default().push(story);
    }
    for (line, stories) in &lines {
        in_sequence(&mut check, *line, stories);
        let acknowledged = stories.iter().filter(|it| !it.answers.is_empty());
        let acknowledged = acknowledged.count() as u64;
        for node in &audit.nodes {
            let held = held(node, *line);
            let possible = stories.iter().filter(|it| it.may_have_happened).count() as u64;
            if held < acknowledged || held > possible {
                let what = format!(
                    "{} of {}: node {} holds {held}, {acknowledged} were acknowledged, {possible} sent",
                    line.1, line.0, node.node
                );
                check.violate_in(line.1, Some(audit.at_us), what);
            }
        }
    }
    check.note = durability(adds, audit).to_string();
    check.expect_facts()
}

/// An add that was answered before another one was first sent has left fewer pieces than that.
fn in_sequence(check: &mut Check, line: (&str, &str), stories: &[&Story<'_>]) {
    let mut answered: Vec<_> = stories
        .iter()
        .filter_map(|it| {
            Some((
                it.first_invoked,
                it.first_answered?,
                it.answers.first()?.quantity,
            ))
        })
        .collect();
    let mut quantities: Vec<u64> = answered.iter().map(|(.., quantity)| *quantity).collect();
    quantities.sort_unstable();
    if let Some([twice, _]) = quantities.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("{} of {}: two adds left {twice} pieces", line.1, line.0);
        check.violate_in(line.1, None, what);
    }
    answered.sort_unstable();
    let mut by_return = answered.clone();
    by_return.sort_unstable_by_key(|(_, returned, _)| *returned);
    let mut told = by_return.into_iter().peekable();
    let mut highest = 0;
    for (invoked, returned, quantity) in answered {
        while let Some((.., before)) = told.next_if(|(_, returned, _)| *returned < invoked) {
            highest = highest.max(before);
        }
        if quantity <= highest {
            let what = format!(
                "{} of {}: an add left {quantity} pieces when there had been {highest} before",
                line.1, line.0
            );
            check.violate_in(line.1, Some(returned), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, lost, refused, told};
    use super::*;

    fn add(id: &str) -> Add {
        Add {
            id: id.to_owned(),
            cart: "ada".to_owned(),
            sku: "mug".to_owned(),
        }
    }

    fn left(quantity: u64) -> Added {
        Added {
            quantity,
            revision: quantity * 10,
        }
    }

    fn holding(quantities: &[u64]) -> Audit {
        let nodes = (1..).zip(quantities).map(|(node, quantity)| NodeAudit {
            node,
            carts: [("ada".to_owned(), [("mug".to_owned(), *quantity)].into())].into(),
            ..NodeAudit::default()
        });
        Audit {
            nodes: nodes.collect(),
            ..Audit::default()
        }
    }

    #[test]
    fn what_is_between_acknowledged_and_possible_is_right() {
        let adds = [
            told(0, 5, add("a"), left(1)),
            lost(6, 9, add("b")),
            told(10, 12, add("b"), left(2)),
            lost(13, 20, add("c")),
            refused(21, 22, add("d")),
        ];
        for held in [2, 3] {
            assert_valid(&exactly_once(&adds, &holding(&[held, held])));
        }
        assert_invalid(&exactly_once(&adds, &holding(&[2, 1])), "node 2 holds 1");
        assert_invalid(&exactly_once(&adds, &holding(&[4, 3])), "node 1 holds 4");
        assert_invalid(&exactly_once(&adds, &holding(&[0])), "2 were acknowledged");
    }

    #[test]
    fn what_is_lost_is_counted_although_others_came_after_it() {
        let adds = [
            told(0, 5, add("a"), left(1)),
            told(6, 9, add("b"), left(2)),
            told(6, 9, add("b"), left(2)),
            told(10, 12, add("c"), left(3)),
            // Two and three were lost; one of nobody knows what was added, and another one.
            lost(13, 20, add("d")),
            told(21, 25, add("e"), left(3)),
            told(26, 29, add("f"), left(4)),
        ];
        let counted = |held: &[u64]| durability(&adds, &holding(held)).lost;
        assert_eq!(counted(&[4, 4]), Some(1));
        assert_eq!(counted(&[4, 3]), Some(2));
        assert_eq!(counted(&[]), Some(1), "two adds left three pieces");
        assert_eq!(durability(&adds[..4], &holding(&[])).lost, None);
        assert_eq!(durability(&adds, &holding(&[4])).acknowledged, 5);
        assert_eq!(durability(&adds[..4], &holding(&[3, 3])).lost, Some(0));
    }

    #[test]
    fn adds_of_which_nobody_knows_prove_nothing() {
        let adds = [lost(0, 5, add("a")), refused(6, 9, add("b"))];
        let found = exactly_once(&adds, &holding(&[0]));
        assert_eq!(found.judgement, super::super::Judgement::Unknown);
    }

    #[test]
    fn a_retry_that_counts_again_is_found_by_its_answer() {
        let adds = [told(0, 5, add("a"), left(1)), told(6, 9, add("a"), left(2))];
        assert_invalid(&exactly_once(&adds, &holding(&[2])), "in two ways");
    }

    #[test]
    fn quantities_that_go_back_or_stand_still_are_found() {
        let back = [told(0, 5, add("a"), left(2)), told(6, 9, add("b"), left(1))];
        assert_invalid(&exactly_once(&back, &holding(&[2])), "had been 2 before");
        let same = [told(0, 5, add("a"), left(1)), told(3, 9, add("b"), left(1))];
        assert_invalid(&exactly_once(&same, &holding(&[2])), "two adds left 1");
        let at_once = [told(0, 5, add("a"), left(2)), told(3, 9, add("b"), left(1))];
        assert_valid(&exactly_once(&at_once, &holding(&[2])));
    }
}
