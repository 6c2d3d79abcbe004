//! The model: one register, and what each call may do to it.
//!
//! Beside its value a register has the revision that wrote it, where that is known: a write without an answer has
//! one too, and only a later read tells which. `floor` is the greatest revision that is known to have
//! passed; revisions only grow, so nothing at or below it may be assigned any more.
//!
//! Invariant: `revision`, when known, equals `floor`; an absent register has no revision.
//!
//! What is not known is decided in favour of the history: a condition on a revision that nobody has seen may
//! have held or not.

use std::collections::HashMap;

use super::super::history::{self, Operation};

/// Values are compared only for equality, so a number stands for each.
type Value = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfRevision(u64),
    IfValue(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Put(Value, Condition),
    Delete(Condition),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Found(Value, Option<u64>),
    Absent,
    Written(Option<u64>),
    Deleted(Option<u64>),
    Refused,
    Unknown,
}

/// A call with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    call: Call,
    outcome: Outcome,
}

impl Step {
    /// It writes nothing, wherever it comes. (A put of what is held already changes nothing *here*.)
    pub(super) fn is_read(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Found(..) | Outcome::Absent | Outcome::Refused
        )
    }

    /// The revision that it says it wrote.
    pub(super) fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Written(revision) | Outcome::Deleted(revision) => revision,
            _ => None,
        }
    }
}

/// What a key holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    value: Option<Value>,
    revision: Option<u64>,
    floor: u64,
}

impl State {
    /// The state after `step`, or nothing if it could not have happened here.
    pub(super) fn after(self, step: Step) -> Option<Self> {
        match (step.call, step.outcome) {
            (Call::Get, Outcome::Found(value, revision)) => {
                (self.value == Some(value)).then_some(self)?.seen(revision)
            }
            (Call::Get | Call::Delete(_), Outcome::Absent) => self.value.is_none().then_some(self),
            (Call::Put(value, condition), Outcome::Written(revision)) => {
                self.meets(condition)?.write(Some(value), revision)
            }
            (Call::Put(value, condition), Outcome::Unknown) => {
                self.meets(condition)?.write(Some(value), None)
            }
            (Call::Delete(condition), Outcome::Deleted(revision)) => {
                self.present()?.meets(condition)?.write(None, revision)
            }
            (Call::Delete(condition), Outcome::Unknown) => {
                self.present()?.meets(condition)?.write(None, None)
            }
            (Call::Put(_, condition) | Call::Delete(condition), Outcome::Refused) => {
                self.may_refuse(condition).then_some(self)
            }
            // A history has no outcome that does not fit its call, and reads without an answer are left out.
            _ => None,
        }
    }

    /// Its words in a configuration's key.
    pub(super) fn words(self) -> [u64; 3] {
        let value = self.value.map_or(0, |value| u64::from(value) + 1);
        let known = u64::from(self.revision.is_some());
        [value, known, self.floor]
    }

    fn present(self) -> Option<Self> {
        self.value.is_some().then_some(self)
    }

    /// The value was seen with this revision.
    fn seen(self, revision: Option<u64>) -> Option<Self> {
        match (revision, self.revision) {
            (None, _) => Some(self),
            (Some(seen), Some(known)) => (seen == known).then_some(self),
            (Some(seen), None) => (seen > self.floor).then_some(Self {
                revision,
                floor: seen,
                ..self
            }),
        }
    }

    fn meets(self, condition: Condition) -> Option<Self> {
        match condition {
            Condition::Always => Some(self),
            Condition::IfAbsent => self.value.is_none().then_some(self),
            Condition::IfRevision(revision) => self.present()?.seen(Some(revision)),
            Condition::IfValue(value) => (self.value == Some(value)).then_some(self),
        }
    }

    fn may_refuse(self, condition: Condition) -> bool {
        match condition {
            Condition::Always => false,
            Condition::IfAbsent => self.value.is_some(),
            Condition::IfRevision(revision) => {
                self.value.is_none() || self.revision != Some(revision)
            }
            Condition::IfValue(value) => self.value != Some(value),
        }
    }

    fn write(self, value: Option<Value>, revision: Option<u64>) -> Option<Self> {
        let passed = revision.is_some_and(|revision| revision <= self.floor);
        (!passed).then_some(Self {
            value,
            revision: revision.filter(|_| value.is_some()),
            floor: revision.unwrap_or(self.floor),
        })
    }
}

/// An operation as the search wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its place among the key's operations.
    pub(super) index: usize,
    pub(super) step: Step,
    pub(super) invoked: usize,
    /// `usize::MAX` for one without an answer.
    pub(super) returned: usize,
}

/// One key's operations, with values as numbers, split by whether they must be in the order.
#[derive(Debug)]
pub(super) struct Compiled<'a> {
    values: Vec<&'a str>,
    /// Answered, in the order of their invocations.
    pub(super) definite: Vec<Candidate>,
    /// Writes without an answer, in the order of their invocations.
    pub(super) optional: Vec<Candidate>,
}

impl<'a> Compiled<'a> {
    /// Leaves out what cannot matter: what was never applied, and reads without an answer.
    pub(super) fn new(operations: &'a [Operation]) -> Self {
        let mut names = Names::default();
        let (mut definite, mut optional) = (Vec::new(), Vec::new());
        for (index, operation) in operations.iter().enumerate() {
            let Some(step) = names.step(operation) else {
                continue;
            };
            let answered = step.outcome != Outcome::Unknown;
            let candidate = Candidate {
                index,
                step,
                invoked: operation.invoked,
                returned: operation
                    .returned
                    .filter(|_| answered)
                    .unwrap_or(usize::MAX),
            };
            let group = if answered {
                &mut definite
            } else {
                &mut optional
            };
            group.push(candidate);
        }
        Self {
            values: names.values,
            definite,
            optional,
        }
    }

    /// A state in words.
    pub(super) fn describe(&self, state: State) -> String {
        let value = state.value.and_then(|value| {
            let index = usize::try_from(value).ok()?;
            self.values.get(index)
        });
        match (value, state.revision) {
            (None, _) => "nothing".to_owned(),
            (Some(value), Some(revision)) => format!("{value:?} at revision {revision}"),
            (Some(value), None) => format!("{value:?}"),
        }
    }
}

/// Numbers values in the order in which they are met.
#[derive(Default)]
struct Names<'a> {
    numbers: HashMap<&'a str, Value>,
    values: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn value(&mut self, value: &'a str) -> Value {
        let next =
            Value::try_from(self.values.len()).expect("fewer values than u32 counts fit memory");
        *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            next
        })
    }

    fn condition(&mut self, condition: &'a history::Condition) -> Condition {
        match condition {
            history::Condition::Always => Condition::Always,
            history::Condition::IfAbsent => Condition::IfAbsent,
            history::Condition::IfRevision(revision) => Condition::IfRevision(*revision),
            history::Condition::IfValue(value) => Condition::IfValue(self.value(value)),
        }
    }

    fn step(&mut self, operation: &'a Operation) -> Option<Step> {
        let call = match &operation.call {
            history::Call::Get => Call::Get,
            history::Call::Put { value, condition } => {
                Call::Put(self.value(value), self.condition(condition))
            }
            history::Call::Delete { condition } => Call::Delete(self.condition(condition)),
        };
        let outcome = match &operation.outcome {
            history::Outcome::Found { value, revision } => {
                Outcome::Found(self.value(value), *revision)
            }
            history::Outcome::Absent => Outcome::Absent,
            history::Outcome::Written { revision } => Outcome::Written(*revision),
            history::Outcome::Deleted { revision } => Outcome::Deleted(*revision),
            history::Outcome::Refused => Outcome::Refused,
            history::Outcome::NotApplied => return None,
            history::Outcome::Unknown if call == Call::Get => return None,
            history::Outcome::Unknown => Outcome::Unknown,
        };
        Some(Step { call, outcome })
    }
}
