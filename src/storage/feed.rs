//! The newest events in memory, for watchers that keep up: as they were committed, each decoded once, by the first
//! watcher that looks at it.
//!
//! It holds what was committed while somebody watched, up to [`limits::WATCH_TAIL_BYTES`]. Whoever needs older events
//! reads them from the database; whoever needs none costs a commit one look at a counter.
//!
//! Invariant: the tail has no gap. Where revisions jump, because a snapshot was installed, it starts anew.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::limits;
use crate::planted::{self, Bug};
use crate::state::Fault;
use crate::state::events::{self, Event};
use crate::state::history::Chunk;
use crate::types::Revision;

/// What a commit's events cost beside their bytes.
const OVERHEAD_BYTES: usize = 160;

/// The events of the revisions that one commit made.
#[derive(Debug)]
pub struct Committed {
    chunk: Chunk,
    decoded: OnceLock<Arc<[Event]>>,
}

impl Committed {
    fn new(chunk: Chunk) -> Self {
        Self {
            chunk,
            decoded: OnceLock::new(),
        }
    }

    /// The first revision in it.
    #[must_use]
    pub fn first(&self) -> Revision {
        self.chunk.first()
    }

    /// The last revision in it.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.chunk.last()
    }

    /// The events of all its revisions, in order.
    pub fn events(&self) -> Result<Arc<[Event]>, Fault> {
        if let Some(decoded) = self.decoded.get() {
            return Ok(Arc::clone(decoded));
        }
        let mut all = Vec::new();
        for (revision, value) in self.chunk.revisions()? {
            if planted::has(Bug::LostEvents) && revision.get().is_multiple_of(500) {
                continue;
            }
            all.append(&mut events::decode(revision, value)?);
        }
        // Two watchers may come at the same time; either's work is as good.
        Ok(Arc::clone(self.decoded.get_or_init(|| all.into())))
    }

    fn bytes(&self) -> usize {
        self.chunk.bytes() + OVERHEAD_BYTES
    }
}

#[derive(Debug, Default)]
struct Tail {
    commits: VecDeque<Arc<Committed>>,
    bytes: usize,
}

/// The newest events.
#[derive(Debug, Default)]
pub struct Feed {
    tail: Mutex<Tail>,
    watchers: AtomicUsize,
    /// The first watcher comes.
    entered: Notify,
    jumps: AtomicU64,
}

/// Where a revision is.
#[derive(Debug)]
pub enum Found {
    /// In this commit.
    Here(Arc<Committed>),
    /// In none that is still here.
    Older,
    /// In none that was here yet.
    Absent,
}

/// Somebody who watches: while there is one, the feed holds what is committed.
#[derive(Debug)]
pub struct Watching {
    feed: Arc<Feed>,
}

impl Feed {
    /// Counts a watcher in, unless there are [`limits::WATCHERS`].
    pub fn enter(self: &Arc<Self>) -> Option<Watching> {
        let room = |count| (count < limits::WATCHERS).then_some(count + 1);
        let entered = self
            .watchers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        entered.ok().map(|others| {
            if others == 0 {
                self.entered.notify_one();
            }
            Watching {
                feed: Arc::clone(self),
            }
        })
    }

    /// Waits for the first watcher.
    pub async fn entered(&self) {
        self.entered.notified().await;
    }

    /// How often revisions have jumped, so that nobody can be blamed for having missed some.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Acquire)
    }

    /// A snapshot took the place of the state.
    pub fn jump(&self) {
        self.jumps.fetch_add(1, Ordering::AcqRel);
        self.clear();
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Acquire)
    }

    /// The commit that a revision belongs to.
    #[must_use]
    pub fn find(&self, revision: Revision) -> Found {
        let tail = self.lock();
        let at = tail
            .commits
            .partition_point(|commit| commit.last() < revision);
        match tail.commits.get(at) {
            None => Found::Absent,
            Some(found) if found.first() <= revision => Found::Here(Arc::clone(found)),
            Some(_) => Found::Older,
        }
    }

    /// Takes what a commit brought. Called by the one writer, in order, when readers can see the commit.
    pub fn push(&self, chunk: Chunk) {
        if self.watchers() == 0 {
            return;
        }
        let commit = Committed::new(chunk);
        let mut tail = self.lock();
        let follows = tail
            .commits
            .back()
            .is_none_or(|newest| newest.last().next() == commit.first());
        if !follows {
            self.jumps.fetch_add(1, Ordering::AcqRel);
            *tail = Tail::default();
        }
        tail.bytes += commit.bytes();
        tail.commits.push_back(Arc::new(commit));
        while tail.bytes > limits::WATCH_TAIL_BYTES
            && let Some(oldest) = tail.commits.pop_front()
        {
            tail.bytes -= oldest.bytes();
        }
    }

    fn clear(&self) {
        *self.lock() = Tail::default();
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // The tail is whole between any two of its statements but for its count of bytes, which is only a bound.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.feed.watchers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.feed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::internal as pb;
    use crate::state::history;

    fn encoded(revisions: std::ops::Range<u64>, bytes: usize) -> Chunk {
        let value = |revision: u64| {
            let event = pb::StoredEvent {
                key: crate::state::Key::Kv(
                    crate::types::Namespace::default(),
                    crate::types::Key::parse("k").expect("short"),
                )
                .encode(),
                record: pb::KvRecord {
                    value: vec![0; bytes].into(),
                    create_revision: revision,
                    mod_revision: revision,
                    ..pb::KvRecord::default()
                }
                .encode_to_vec()
                .into(),
                ..pb::StoredEvent::default()
            };
            pb::RevisionEvents {
                log_time: 1,
                events: vec![event],
            }
            .encode_to_vec()
        };
        let mut builder = history::Builder::default();
        for revision in revisions {
            builder.push(Revision::new(revision), |out| {
                out.extend_from_slice(&value(revision));
            });
        }
        builder.finish().expect("some revisions")
    }

    fn found(feed: &Feed, revision: u64) -> Option<(u64, u64)> {
        match feed.find(Revision::new(revision)) {
            Found::Here(commit) => Some((commit.first().get(), commit.last().get())),
            Found::Older | Found::Absent => None,
        }
    }

    #[test]
    fn it_holds_what_was_committed_while_somebody_watched() {
        let feed = Arc::new(Feed::default());
        feed.push(encoded(1..3, 1));
        assert_eq!(found(&feed, 1), None);
        let watching = feed.enter().expect("the first");
        feed.push(encoded(3..6, 1));
        feed.push(encoded(6..7, 1));
        assert_eq!(found(&feed, 2), None);
        assert_eq!(found(&feed, 3), Some((3, 5)));
        assert_eq!(found(&feed, 5), Some((3, 5)));
        assert_eq!(found(&feed, 6), Some((6, 6)));
        assert_eq!(found(&feed, 7), None);
        let Found::Here(commit) = feed.find(Revision::new(4)) else {
            panic!("it was found before");
        };
        let revisions: Vec<_> = commit
            .events()
            .expect("they decode")
            .iter()
            .map(|event| event.revision.get())
            .collect();
        assert_eq!(revisions, [3, 4, 5]);
        drop(watching);
        assert_eq!(found(&feed, 6), None);
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let feed = Arc::new(Feed::default());
        let _watching = feed.enter().expect("the first");
        let size = 1 << 20;
        for nth in 1..40 {
            feed.push(encoded(nth..nth + 1, size));
            assert!(feed.lock().bytes <= limits::WATCH_TAIL_BYTES);
        }
        assert!(matches!(feed.find(Revision::new(1)), Found::Older));
        assert!(matches!(feed.find(Revision::new(40)), Found::Absent));
        assert_eq!(found(&feed, 39), Some((39, 39)));
    }

    #[test]
    fn a_jump_leaves_no_gap() {
        let feed = Arc::new(Feed::default());
        let _watching = feed.enter().expect("the first");
        feed.push(encoded(1..3, 1));
        feed.push(encoded(9..10, 1));
        assert_eq!(found(&feed, 2), None);
        assert_eq!(found(&feed, 5), None);
        assert_eq!(found(&feed, 9), Some((9, 9)));
        assert_eq!(feed.jumps(), 1);
        feed.jump();
        assert_eq!(found(&feed, 9), None);
        assert_eq!(feed.jumps(), 2);
    }

    #[test]
    fn watchers_are_counted_and_bounded() {
        let feed = Arc::new(Feed::default());
        let all: Vec<_> = (0..limits::WATCHERS).map(|_| feed.enter()).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(feed.enter().is_none());
        drop(all);
        assert_eq!(feed.watchers(), 0);
    }
}
