//! Decides whether a history is linearizable: whether every operation can be given one instant between its
//! invocation and its return, so that the operations, taken in the order of those instants, are what a
//! single register per key would have done (Herlihy and Wing, "Linearizability: a correctness condition for
//! concurrent objects", TOPLAS 1990).
//!
//! # The search
//! - Wing and Gong, "Testing and verifying concurrent objects", JPDC 1993: try every operation that no
//!   other one precedes as the first, apply it to the model, and go on with the rest; step back on a dead end.
//! - Lowe, "Testing for linearizability", CCPE 2017: remember each pair of (set of operations taken,
//!   model state) and never search from the same pair twice.
//! - Horn and Kroening, "Faster linearizability checking via P-compositionality", FORTE 2015: keys do not
//!   influence each other, so a history is linearizable if each key's part is.
//!
//! # Unknown outcomes
//! An operation that was never answered may take effect at any time after its invocation, or never. It has no
//! return, so it precedes nothing, and the search may leave it out. Left alone, each would double the search;
//! `search` says which orders it need not try.
//!
//! # Invariants
//! - `Invalid` is certain: all orders have been tried. `Valid` is a found order. `Unknown` says only that the
//!   budget ran out.
//! - An operation that is known not to have been applied takes no part; neither does a read without an answer.
//!
//! Deliberately absent: expiry (keys of a checked workload have no TTL), and order *between* keys beyond
//! what linearizability of each gives.

mod register;
mod search;

use std::fmt;

use super::history::{History, Operation, Outcome};
use register::Compiled;
use search::Ending;

/// Enough for any history that a person would wait for, and little enough memory (about 200 MB).
pub const DEFAULT_BUDGET: u64 = 2_000_000;

/// How many operations of an order a counterexample shows at most.
const SHOWN: usize = 12;

/// What the checker found.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Every key's operations have a legal order.
    Valid,
    /// One key's have none.
    Invalid(Box<Counterexample>),
    /// No violation was found, but one key's search ran out of its budget.
    Unknown {
        /// The key.
        key: String,
        /// How many configurations were tried.
        steps: u64,
    },
}

impl Verdict {
    /// A legal order exists for every key.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }
}

/// The shortest beginning of one key's history that has no legal order, and how far an order got.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// The key.
    pub key: String,
    /// The operations of that shortest beginning. The last to return is the one that nothing explains.
    pub operations: Vec<Operation>,
    /// The longest order that is legal.
    pub order: Vec<Operation>,
    /// What the key held after it.
    pub state: String,
    /// The operations one of which would have to come next; none of them can.
    pub blocked: Vec<Operation>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "key {:?} is not linearizable: of its first {} operations at most {} can be put in order",
            self.key,
            self.operations.len(),
            self.order.len()
        )?;
        let skipped = self.order.len().saturating_sub(SHOWN);
        if skipped > 0 {
            writeln!(f, "  ({skipped} before these)")?;
        }
        for operation in self.order.iter().skip(skipped) {
            writeln!(f, "  {operation}")?;
        }
        writeln!(
            f,
            "then the key holds {}, and none of these fits:",
            self.state
        )?;
        for operation in &self.blocked {
            writeln!(f, "  {operation}")?;
        }
        Ok(())
    }
}

/// Checks every key of a history, each within `budget` steps.
#[must_use]
pub fn check(history: &History, budget: u64) -> Verdict {
    let mut verdict = Verdict::Valid;
    for (key, operations) in history.by_key() {
        match check_key(key, operations, budget) {
            Verdict::Valid => {}
            Verdict::Invalid(counterexample) => return Verdict::Invalid(counterexample),
            // Another key may still have a violation, which says more.
            unknown @ Verdict::Unknown { .. } => verdict = unknown,
        }
    }
    verdict
}

fn check_key(key: &str, operations: &[Operation], budget: u64) -> Verdict {
    match search::run(&Compiled::new(operations), budget) {
        Ending::Found => Verdict::Valid,
        Ending::OutOfBudget { steps } => Verdict::Unknown {
            key: key.to_owned(),
            steps,
        },
        Ending::Exhausted => Verdict::Invalid(Box::new(explain(key, operations, budget))),
    }
}

/// Shortens a history that has no legal order, and says where its best order ends.
///
/// What holds of a history holds of each of its beginnings, with operations that were still open there counted
/// as unanswered. So the beginnings are legal up to one of them and illegal from there on: bisect.
fn explain(key: &str, operations: &[Operation], budget: u64) -> Counterexample {
    let mut returns: Vec<usize> = operations.iter().filter_map(|o| o.returned).collect();
    returns.sort_unstable();
    let is_legal = |end: usize| {
        let beginning = beginning(operations, end);
        // A beginning that is too hard to judge is not the one to show.
        search::run(&Compiled::new(&beginning), budget) != Ending::Exhausted
    };
    let shortest = returns.partition_point(|end| is_legal(*end));
    let end = returns.get(shortest).copied().unwrap_or(usize::MAX);
    let operations = beginning(operations, end);

    let compiled = Compiled::new(&operations);
    let best = search::longest(&compiled, budget);
    let pick = |indexes: &[usize]| indexes.iter().map(|i| operations[*i].clone()).collect();
    Counterexample {
        key: key.to_owned(),
        order: pick(&best.order),
        state: compiled.describe(best.state),
        blocked: pick(&best.blocked),
        operations,
    }
}

/// The operations invoked by `end`; what had not returned by then is unanswered.
fn beginning(operations: &[Operation], end: usize) -> Vec<Operation> {
    let invoked = operations.iter().filter(|o| o.invoked <= end);
    invoked
        .map(|operation| {
            let mut operation = operation.clone();
            if operation.returned.is_some_and(|returned| returned > end) {
                operation.returned = None;
                // What never took effect stays so, however early one looks.
                if operation.outcome != Outcome::NotApplied {
                    operation.outcome = Outcome::Unknown;
                }
            }
            operation
        })
        .collect()
}

#[cfg(test)]
mod tests;
