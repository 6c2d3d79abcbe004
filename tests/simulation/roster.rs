//! Which nodes there are, and which of them are members as far as operators know.
//!
//! Operators are clients and cannot start a node in the middle of a step. They say here what is to begin and to end, and the
//! run does it before the next step.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use crate::world::World;

/// See the module.
#[derive(Default)]
pub struct Roster(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// They run, or come back after a crash.
    present: BTreeSet<u64>,
    /// What the changes came to that have succeeded.
    members: BTreeSet<u64>,
    /// Somebody removes them.
    leaving: BTreeSet<u64>,
    highest: u64,
    changes: Changes,
}

/// What a run does for operators.
#[derive(Default)]
pub struct Changes {
    pub begun: Vec<u64>,
    pub ended: Vec<u64>,
    /// Come back with an empty disk: a bug.
    pub emptied: Vec<u64>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .expect("nothing panics while it holds the roster")
    }

    /// The nodes 1 to `count` are the first members.
    pub fn found(&self, count: u64) {
        let mut inner = self.lock();
        inner.present = (1..=count).collect();
        inner.members = (1..=count).collect();
        inner.highest = count;
    }

    /// The nodes that run, or come back.
    pub fn present(&self) -> Vec<u64> {
        self.lock().present.iter().copied().collect()
    }

    /// One of them.
    pub fn any(&self, world: &World) -> u64 {
        let present = self.present();
        present[world.pick(present.len())]
    }

    /// The members.
    pub fn members(&self) -> BTreeSet<u64> {
        self.lock().members.clone()
    }

    /// A new node, of an id that there never was.
    pub fn begin(&self) -> u64 {
        let mut inner = self.lock();
        inner.highest += 1;
        let id = inner.highest;
        inner.present.insert(id);
        inner.changes.begun.push(id);
        id
    }

    /// A node ends for good, and its disk with it.
    pub fn end(&self, id: u64) {
        let mut inner = self.lock();
        if inner.present.remove(&id) {
            inner.changes.ended.push(id);
        }
    }

    /// It is a voter now.
    pub fn joined(&self, id: u64) {
        self.lock().members.insert(id);
    }

    /// A member that is to be removed, if at least so many stay.
    pub fn take_leave(&self, world: &World, least: usize) -> Option<u64> {
        let mut inner = self.lock();
        let stay: Vec<u64> = inner.members.difference(&inner.leaving).copied().collect();
        if stay.len() <= least {
            return None;
        }
        let id = stay[world.pick(stay.len())];
        inner.leaving.insert(id);
        Some(id)
    }

    /// It is not removed, but comes back with an empty disk.
    pub fn stay(&self, id: u64) {
        let mut inner = self.lock();
        inner.leaving.remove(&id);
        inner.changes.emptied.push(id);
    }

    /// It is no member any more.
    pub fn left(&self, id: u64) {
        let mut inner = self.lock();
        inner.members.remove(&id);
        inner.leaving.remove(&id);
    }

    /// What is to begin and to end, once.
    pub fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.lock().changes)
    }
}
