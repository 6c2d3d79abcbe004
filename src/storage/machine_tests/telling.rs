//! The entries that a seed stands for: what the scripts of the state machine's own tests tell, as a log has it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use openraft::EntryPayload;

use super::{entry, membership};
use crate::raft::{Entry, Proposal};
use crate::state::tests::steps::{self, Script};
use crate::types::LogTime;

/// A small generator, so that a seed says everything.
pub(super) struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

/// Entries after which half of the tokens are new ones.
const TOKENS_LAST: u64 = 40;

/// How far apart the entries of a history may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// Milliseconds: whatever happened is still known at the end.
    Steady,
    /// Now and then days, over which whatever has a deadline comes to it.
    WithLulls,
}

/// A history as far as it was told.
struct Telling {
    pace: Pace,
    script: Script,
    random: Random,
    /// From index 1 on.
    entries: Vec<Entry>,
}

/// What was told once stays known: a step depends on all before.
static TOLD: Mutex<BTreeMap<(u64, Pace), Telling>> = Mutex::new(BTreeMap::new());

/// Entry `index` of the history that a seed stands for: mostly commands, at times a blank or a membership.
pub(super) fn history(seed: u64, index: u64) -> Entry {
    history_at(Pace::Steady, seed, index)
}

/// The same at a pace.
pub(super) fn history_at(pace: Pace, seed: u64, index: u64) -> Entry {
    // A telling is whole between two entries, so a panic of another test does not spoil it.
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let telling = told
        .entry((seed, pace))
        .or_insert_with(|| Telling::new(pace, seed));
    let nth = usize::try_from(index).expect("small");
    while telling.entries.len() < nth {
        telling.go_on();
    }
    telling.entries[nth - 1].clone()
}

impl Telling {
    fn new(pace: Pace, seed: u64) -> Self {
        let mut script = Script::default();
        script.now = 1_000_000;
        Self {
            pace,
            script,
            random: Random::new(seed),
            entries: Vec::new(),
        }
    }

    fn go_on(&mut self) {
        let index = self.entries.len() as u64 + 1;
        if index.is_multiple_of(TOKENS_LAST) {
            let next = self
                .script
                .first_token
                .wrapping_add(u16::from(steps::TOKENS / 2));
            self.script.first_token = next;
        }
        let payload = match self.random.below(50) {
            0 => EntryPayload::Blank,
            1 => EntryPayload::Membership(membership(index)),
            _ => EntryPayload::Normal(self.proposal()),
        };
        self.entries.push(entry(index, payload));
    }

    /// What was proposed together; most often a command alone.
    fn proposal(&mut self) -> Proposal {
        let mut step = self.step();
        if self.pace == Pace::Steady {
            step[0] %= steps::FIRST_LULL;
        }
        let (stamp, first) = self.script.next(step);
        let mut commands = vec![first];
        if self.random.below(3) == 0 {
            for _ in 0..self.random.below(4) {
                let mut step = self.step();
                // At the same time.
                step[0] = 0;
                commands.push(self.script.next(step).1);
            }
        }
        Proposal::new(LogTime::from_millis(stamp), commands)
    }

    fn step(&mut self) -> steps::Step {
        let mut step = steps::Step::default();
        for byte in &mut step {
            *byte = self.random.next().to_le_bytes()[0];
        }
        // A large session fills a layer by itself, which is worth being seen now and then.
        if steps::has_large_fields(&step) && self.random.below(8) > 0 {
            step[steps::SIZE] |= 1;
        }
        step
    }
}
