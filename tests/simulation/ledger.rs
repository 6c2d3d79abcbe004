//! What must hold at every step, and the first thing that did not.
//!
//! | invariant | source | checked when |
//! |---|---|---|
//! | a vote that was given is never taken back | Raft, section 5.2 | a node starts |
//! | entries of the same index and leader are the same, and so are the ones before them | Raft, figure 3 | an entry is appended |
//! | what is applied anywhere is synced on a majority of its voters | the promise | an entry is applied |
//! | members are those that operators made | `node::membership` | an operator is told so, the end |
//! | what is applied at an index is the same everywhere, for good | Raft, figure 3 | an entry is applied |
//! | equal logs give equal states, however they are cut into batches | `state` | a batch is applied, a snapshot installed |
//! | revision and log time never go back | `state` | a batch is applied |
//! | a node does not stop by itself, and starts again | `node` | it does, or does not |
//!
//! A term may have two leaders here, one after the other, and Raft's election safety is none of these: openraft orders
//! leaders by term *and* node, and so are their log ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use trolley::proto::internal as pb;
use trolley::raft::{LogId, Vote};
use xxhash_rust::xxh3::xxh3_64;

/// See the module.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The first of each term.
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<u64, Vote>,
    /// By index, term and leader: the hash of the entry, and the one before it.
    appended: BTreeMap<(u64, u64, u64), (u64, Option<LogId>)>,
    applied: BTreeMap<u64, (LogId, u64)>,
    states: BTreeMap<u64, pb::StateHeader>,
    /// Who votes from an entry on, by its index.
    configurations: BTreeMap<u64, Vec<(LogId, BTreeSet<u64>)>>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
}

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What it found.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VIOLATION of {}: {}", self.check, self.detail)
    }
}

impl Inner {
    fn is_applied(&self, id: LogId) -> bool {
        self.applied.get(&id.index).is_some_and(|(at, _)| *at == id)
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .expect("nothing panics while it holds the ledger")
    }

    /// The first violation.
    pub fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// A check failed. The first one stands.
    pub fn fail(&self, check: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        self.lock()
            .violation
            .get_or_insert(Violation { check, detail });
    }

    /// Something happened that a run should have seen.
    pub fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    /// What happened, and how often.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// A node leads in this term from now on.
    pub fn leads(&self, node: u64, term: u64) {
        let first = *self.lock().leaders.entry(term).or_insert(node);
        self.count(if first == node {
            "election"
        } else {
            "second election of a term"
        });
    }

    /// A node gave its vote.
    pub fn voted(&self, node: u64, vote: Vote) {
        self.lock().votes.insert(node, vote);
    }

    /// A node starts with this vote.
    pub fn starts(&self, node: u64, vote: Option<Vote>) {
        let given = self.lock().votes.get(&node).copied();
        if given > vote {
            let detail = format!("node {node} had voted {given:?}, and starts with {vote:?}");
            self.fail("votes", detail);
        }
    }

    /// A node appended an entry behind another.
    pub fn appended(&self, node: u64, id: LogId, entry: &[u8], previous: Option<LogId>) {
        let leader = id.leader_id;
        let key = (id.index, leader.term, leader.node_id);
        let this = (xxh3_64(entry), previous);
        let first = *self.lock().appended.entry(key).or_insert(this);
        if first != this {
            let detail = format!("node {node} has another entry {id}, or another one before it");
            self.fail("log matching", detail);
        }
    }

    /// An entry that changes who votes was appended.
    pub fn configured(&self, id: LogId, voters: BTreeSet<u64>) {
        let mut inner = self.lock();
        let at = inner.configurations.entry(id.index).or_default();
        if !at.iter().any(|(known, _)| *known == id) {
            at.push((id, voters));
        }
    }

    /// Who may have committed an applied entry: those who voted when it was appended, or whom a later entry, which may be
    /// committed or not, made voters before it was.
    pub fn voters_of(&self, id: LogId) -> Vec<BTreeSet<u64>> {
        let inner = self.lock();
        let earlier = inner.configurations.range(..=id.index).rev();
        let mut earlier = earlier.flat_map(|(_, at)| at);
        let earlier = earlier.find(|(it, _)| inner.is_applied(*it));
        let later = inner.configurations.range(id.index + 1..);
        let later = later.flat_map(|(_, at)| at);
        let all = earlier.into_iter().chain(later);
        all.map(|(_, voters)| voters.clone()).collect()
    }

    /// Who votes by the last entry that any node has applied and that changed it.
    pub fn voters(&self) -> BTreeSet<u64> {
        let inner = self.lock();
        let mut all = inner.configurations.values().rev().flatten();
        let last = all.find(|(it, _)| inner.is_applied(*it));
        last.map(|(_, voters)| voters.clone()).unwrap_or_default()
    }

    /// A node applied an entry.
    pub fn applied(&self, node: u64, id: LogId, entry: &[u8]) {
        let this = (id, xxh3_64(entry));
        let first = *self.lock().applied.entry(id.index).or_insert(this);
        if first != this {
            let detail = format!("node {node} applied {id} where {} was applied", first.0);
            self.fail("state machine safety", detail);
        }
    }

    /// A node's state stands at this index.
    pub fn stands(&self, node: u64, index: u64, header: &pb::StateHeader) {
        let first = self
            .lock()
            .states
            .entry(index)
            .or_insert_with(|| header.clone())
            .clone();
        if first != *header {
            let detail = format!(
                "node {node} at index {index}: revision {}, log time {}, digest {:02x?}; another had revision {}, log time {}, \
                 digest {:02x?}",
                header.revision,
                header.log_time,
                &header.digest[..],
                first.revision,
                first.log_time,
                &first.digest[..]
            );
            self.fail("equal states", detail);
        }
    }

    /// A node went on from one state to the next.
    pub fn advanced(&self, node: u64, from: &pb::StateHeader, to: &pb::StateHeader) {
        if to.revision < from.revision || to.log_time < from.log_time {
            let detail = format!(
                "node {node}: revision {} to {}, log time {} to {}",
                from.revision, to.revision, from.log_time, to.log_time
            );
            self.fail("time and revision", detail);
        }
    }

    /// The last entry that any node has applied.
    pub fn last_applied(&self) -> Option<LogId> {
        let inner = self.lock();
        inner.applied.last_key_value().map(|(_, (id, _))| *id)
    }
}
