//! The search for a legal order: depth first, over configurations of (operations taken, state).
//!
//! # What it need not try
//! - **Reads and refusals.** One that fits the state now, and teaches nothing about its revision, may be taken
//!   now: whatever order exists from here still exists after it. So it is the only choice.
//! - **Writes in revision order.** Revisions only grow, so of the writes that could come next only the one with
//!   the smallest revision can.
//! - **Unanswered writes that nothing depends on.** Take any legal order; if the operation after an unanswered
//!   write could have come in its place with the same result, leave the write out, and the order is still legal.
//!   So each unanswered write must be followed at once by an operation that depends on it.
//!   `before` is the state in front of it, to tell.
//! - **More unanswered writes used up for the same.** Where a search failed, one with the same operations
//!   taken, the same state, and no unanswered write to spare that the first had not, fails too.
//! - **Equal unanswered writes** stand for each other: they are taken in the order of their invocations.
//!
//! # Data
//! Invocations and returns of what is not yet taken form a doubly linked list in real-time order. An operation
//! may come next if its invocation stands in front of the first return. Taking one unlinks its two
//! entries, stepping back links them in again, each in constant time: the last taken is the first put back.

use std::collections::HashMap;

use super::register::{Candidate, Compiled, State};

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A legal order exists.
    Found,
    /// None exists.
    Exhausted,
    /// Nobody knows.
    OutOfBudget {
        /// Configurations tried.
        steps: u64,
    },
}

/// The longest legal order, by the operations' places in the key's history.
#[derive(Debug, Clone, Default)]
pub(super) struct Longest {
    pub(super) order: Vec<usize>,
    pub(super) state: State,
    pub(super) blocked: Vec<usize>,
}

/// Searches, within `budget` configurations.
pub(super) fn run(compiled: &Compiled<'_>, budget: u64) -> Ending {
    Search::new(compiled).run(budget)
}

/// How far a search without success gets.
pub(super) fn longest(compiled: &Compiled<'_>, budget: u64) -> Longest {
    let mut search = Search::new(compiled);
    search.longest = Some(Longest::default());
    search.run(budget);
    search.longest.unwrap_or_default()
}

/// An operation that may come next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Definite(usize),
    Optional(usize),
}

/// The state, and the one in front of the unanswered write that was just taken, if one was.
#[derive(Debug, Clone, Copy, Default)]
struct Model {
    state: State,
    before: Option<State>,
}

/// What can be tried from a configuration on the current path.
struct Frame {
    choices: Vec<(Choice, Model)>,
    tried: usize,
}

struct Search<'a> {
    compiled: &'a Compiled<'a>,
    list: List,
    taken: Taken,
    /// For each optional operation the equal one before it, which is taken first.
    twins: Vec<Option<usize>>,
    seen: Seen,
    path: Vec<Frame>,
    longest: Option<Longest>,
}

impl<'a> Search<'a> {
    fn new(compiled: &'a Compiled<'a>) -> Self {
        Self {
            compiled,
            list: List::new(&compiled.definite),
            taken: Taken::new(compiled.definite.len(), compiled.optional.len()),
            twins: twins(&compiled.optional),
            seen: Seen::new(),
            path: Vec::new(),
            longest: None,
        }
    }

    fn run(&mut self, budget: u64) -> Ending {
        let mut model = Model::default();
        let mut steps = 0;
        loop {
            if self.list.is_empty() {
                return Ending::Found;
            }
            let choices = self.choices(model);
            if choices.is_empty() {
                self.note_dead_end(model);
            }
            self.path.push(Frame { choices, tried: 0 });
            model = loop {
                if steps == budget {
                    return Ending::OutOfBudget { steps };
                }
                steps += 1;
                match self.advance() {
                    Advance::To(model) => break model,
                    Advance::Again => {}
                    Advance::Exhausted => return Ending::Exhausted,
                }
            };
        }
    }

    /// Takes the next untried choice of the path's end, or steps back from it.
    fn advance(&mut self) -> Advance {
        let Some(frame) = self.path.last_mut() else {
            return Advance::Exhausted;
        };
        let Some(&(choice, model)) = frame.choices.get(frame.tried) else {
            self.path.pop();
            if let Some(parent) = self.path.last() {
                let (choice, _) = parent.choices[parent.tried - 1];
                self.put_back(choice);
            }
            return Advance::Again;
        };
        frame.tried += 1;
        self.take(choice);
        if self.is_new(model) {
            return Advance::To(model);
        }
        self.put_back(choice);
        Advance::Again
    }

    fn choices(&self, model: Model) -> Vec<(Choice, Model)> {
        let (open, horizon) = self.list.open();
        let mut choices = Vec::new();
        for &index in &open {
            let candidate = &self.compiled.definite[index];
            let Some(after) = model.state.after(candidate.step) else {
                continue;
            };
            let next = Model {
                state: after,
                before: None,
            };
            if after == model.state && candidate.step.is_read() {
                return vec![(Choice::Definite(index), next)];
            }
            if is_needed(model, candidate, after) {
                choices.push((Choice::Definite(index), next));
            }
        }
        self.keep_lowest_revision(&open, &mut choices);
        // What must return first is the likelier next.
        choices.sort_by_key(|(choice, _)| self.candidate(*choice).returned);
        self.add_optional(model, horizon, &mut choices);
        choices
    }

    /// Drops writes that would leave one with a lower revision behind.
    fn keep_lowest_revision(&self, open: &[usize], choices: &mut Vec<(Choice, Model)>) {
        let revisions = open
            .iter()
            .filter_map(|index| self.compiled.definite[*index].step.revision());
        if let Some(lowest) = revisions.min() {
            choices.retain(|(choice, _)| {
                let revision = self.candidate(*choice).step.revision();
                revision.is_none_or(|revision| revision <= lowest)
            });
        }
    }

    fn add_optional(&self, model: Model, horizon: usize, choices: &mut Vec<(Choice, Model)>) {
        for (index, candidate) in self.compiled.optional.iter().enumerate() {
            if candidate.invoked > horizon {
                break;
            }
            let twin_waits = self.twins[index].is_some_and(|twin| !self.taken.optional.has(twin));
            if twin_waits || self.taken.optional.has(index) {
                continue;
            }
            if let Some(after) = model.state.after(candidate.step)
                && after != model.state
                && is_needed(model, candidate, after)
            {
                let next = Model {
                    state: after,
                    before: Some(model.state),
                };
                choices.push((Choice::Optional(index), next));
            }
        }
    }

    fn candidate(&self, choice: Choice) -> &Candidate {
        match choice {
            Choice::Definite(index) => &self.compiled.definite[index],
            Choice::Optional(index) => &self.compiled.optional[index],
        }
    }

    fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Definite(index) => {
                self.list.unlink(index);
                self.taken.definite.set(index);
            }
            Choice::Optional(index) => self.taken.optional.set(index),
        }
    }

    fn put_back(&mut self, choice: Choice) {
        match choice {
            Choice::Definite(index) => {
                self.list.link(index);
                self.taken.definite.clear(index);
            }
            Choice::Optional(index) => self.taken.optional.clear(index),
        }
    }

    /// Remembers the configuration, unless one that could do at least as much is remembered.
    fn is_new(&mut self, model: Model) -> bool {
        let used = self.taken.optional.words(0);
        let known = self.seen.entry(self.key(model)).or_default();
        if known.iter().any(|less| is_subset(less, used)) {
            return false;
        }
        known.retain(|more| !is_subset(used, more));
        known.push(used.into());
        true
    }

    /// State and definite operations, as words. What could be confused has its length or a mark in front.
    fn key(&self, model: Model) -> Box<[u64]> {
        let mut key = Vec::with_capacity(16);
        key.extend(model.state.words());
        // No state begins with this word.
        match model.before {
            Some(before) => key.extend(before.words()),
            None => key.push(u64::MAX),
        }
        // Everything that was invoked before the first waiting one is taken.
        let start = self.list.first().map_or(0, |index| index / 64);
        key.push(start as u64);
        key.extend(self.taken.definite.words(start));
        key.into_boxed_slice()
    }

    fn note_dead_end(&mut self, model: Model) {
        let Some(longest) = &self.longest else {
            return;
        };
        if !longest.blocked.is_empty() && self.path.len() <= longest.order.len() {
            return;
        }
        let taken = self
            .path
            .iter()
            .map(|frame| frame.choices[frame.tried - 1].0);
        let order = taken.map(|choice| self.candidate(choice).index);
        let (open, _) = self.list.open();
        let blocked = open
            .iter()
            .map(|index| self.compiled.definite[*index].index);
        self.longest = Some(Longest {
            order: order.collect(),
            state: model.state,
            blocked: blocked.collect(),
        });
    }
}

/// What was searched: by state and definite operations, the smallest sets of unanswered ones used up, none
/// of which holds another. Exact and not hashed down: a collision would be a wrong verdict.
type Seen = HashMap<Box<[u64]>, Vec<Box<[u64]>>>;

enum Advance {
    To(Model),
    Again,
    Exhausted,
}

/// Without the unanswered write before it, would this operation have been refused or led elsewhere?
fn is_needed(model: Model, candidate: &Candidate, after: State) -> bool {
    model
        .before
        .is_none_or(|before| before.after(candidate.step) != Some(after))
}

fn twins(optional: &[Candidate]) -> Vec<Option<usize>> {
    let twin = |index: usize| (0..index).rfind(|i| optional[*i].step == optional[index].step);
    (0..optional.len()).map(twin).collect()
}

fn is_subset(set: &[u64], of: &[u64]) -> bool {
    set.len() <= of.len() && set.iter().zip(of).all(|(word, of)| word & !of == 0)
}

/// A set of small numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn set(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn clear(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }

    /// From word `start` up to the last that is not zero.
    fn words(&self, start: usize) -> &[u64] {
        let words = &self.0[start..];
        let end = words.iter().rposition(|word| *word != 0);
        &words[..end.map_or(0, |last| last + 1)]
    }
}

/// What the current path has taken.
struct Taken {
    definite: Bits,
    optional: Bits,
}

impl Taken {
    fn new(definite: usize, optional: usize) -> Self {
        Self {
            definite: Bits::new(definite),
            optional: Bits::new(optional),
        }
    }
}

/// Invocations and returns that wait, in real-time order. Operation `i` has entries `2i` (invocation) and
/// `2i + 1` (return); one more entry is both ends.
struct List {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each return among the history's events.
    positions: Vec<usize>,
}

impl List {
    fn new(definite: &[Candidate]) -> Self {
        let end = definite.len() * 2;
        let mut entries: Vec<(usize, usize)> = Vec::with_capacity(end);
        for (index, candidate) in definite.iter().enumerate() {
            entries.push((candidate.invoked, index * 2));
            entries.push((candidate.returned, index * 2 + 1));
        }
        entries.sort_unstable();
        let returns = definite.iter().map(|candidate| candidate.returned);
        let mut list = Self {
            next: vec![end; end + 1],
            previous: vec![end; end + 1],
            positions: returns.collect(),
        };
        let mut tail = end;
        for (_, entry) in entries {
            list.next[tail] = entry;
            list.previous[entry] = tail;
            tail = entry;
        }
        list.next[tail] = end;
        list.previous[end] = tail;
        list
    }

    fn end(&self) -> usize {
        self.positions.len() * 2
    }

    fn is_empty(&self) -> bool {
        self.next[self.end()] == self.end()
    }

    /// The operation that was invoked first of those that wait.
    fn first(&self) -> Option<usize> {
        (!self.is_empty()).then(|| self.next[self.end()] / 2)
    }

    /// What was invoked before the first return, and the position of that return.
    fn open(&self) -> (Vec<usize>, usize) {
        let mut open = Vec::new();
        let mut entry = self.next[self.end()];
        while entry != self.end() {
            if entry % 2 == 1 {
                return (open, self.positions[entry / 2]);
            }
            open.push(entry / 2);
            entry = self.next[entry];
        }
        (open, usize::MAX)
    }

    fn unlink(&mut self, index: usize) {
        for entry in [index * 2, index * 2 + 1] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the latest `unlink`, which must have been of this operation.
    fn link(&mut self, index: usize) {
        for entry in [index * 2 + 1, index * 2] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = entry;
            self.previous[next] = entry;
        }
    }
}
