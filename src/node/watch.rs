//! Watching: who is told of events, and when.
//!
//! Nothing is pushed to a watcher. It holds a place in the history and pulls: from memory while it keeps up, from the
//! database while it catches up, so that history and presence join without a gap or a double, and a watcher that does
//! not read costs nothing but its place. A commit does no more for watchers than keeping its events in memory; the
//! *beat* that wakes them comes from a task of its own, and the more they are, the longer it waits between two beats.
//!
//! Invariants:
//! 1. A watcher is told of every revision in turn, from the first that it asked for.
//! 2. One that kept up once and then falls behind what is in memory ends with [`Error::WatcherTooSlow`] and the revision to
//!    go on from: its reads of old events would otherwise compete with everybody else's work.
//! 3. One that watches at a node which has lost its leader for [`ISOLATED_AFTER`] ends with [`Error::NoLeader`]: such a
//!    node would have it wait for ever.
//!
//! Deliberately absent: filters, which `api` applies, and any state of a watcher beyond its connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Error, Leadership, Node, Shared};
use crate::limits;
use crate::network::LeaderContact;
use crate::state::Fault;
use crate::state::events::{Event, Page};
use crate::storage::feed::{Feed, Found, Watching};
use crate::storage::machine::AppliedAt;
use crate::types::Revision;

/// A node that neither leads nor hears of a leader for this long sends its watchers elsewhere.
pub const ISOLATED_AFTER: Duration = Duration::from_secs(5);
/// How often that is looked at.
const ISOLATION_PERIOD: Duration = Duration::from_secs(1);
/// So many watchers make the beat wait another millisecond: waking one takes some microseconds, and all of them together
/// may take about a tenth of a core.
const WATCHERS_PER_MILLISECOND: u64 = 50;
/// No watcher waits longer than this because of the others.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Where a watcher's events come from.
pub trait Source: Send + Sync {
    /// The newest events, in memory.
    fn feed(&self) -> &Arc<Feed>;
    /// Events from a revision on, about `budget` bytes of them.
    fn read(&self, from: Revision, budget: usize) -> Result<Page, Fault>;
    /// How far the state is.
    fn applied(&self) -> AppliedAt;
}

impl Source for Shared {
    fn feed(&self) -> &Arc<Feed> {
        self.base.state.feed()
    }

    fn read(&self, from: Revision, budget: usize) -> Result<Page, Fault> {
        let read = self.base.state.events(from, budget);
        read.map_err(|fault| self.halt(fault))
    }

    fn applied(&self) -> AppliedAt {
        *self.applied.borrow()
    }
}

/// What wakes watchers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beat {
    /// The revision that the state has come to, at least.
    pub revision: Revision,
    /// The node has lost its leader.
    pub isolated: bool,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// All events from the revision that it asked for to `through`; earlier ones may stand before them.
    Events {
        /// In order.
        events: Arc<[Event]>,
        /// The last revision that they tell of.
        through: Revision,
    },
    /// There is nothing yet.
    Nothing(AppliedAt),
}

/// One watcher. The node counts it until it is dropped.
pub struct Watcher {
    source: Arc<dyn Source>,
    beats: watch::Receiver<Beat>,
    /// It has kept up since this jump of the feed; `None` while it catches up.
    live_since: Option<u64>,
    _watching: Watching,
}

impl Watcher {
    /// A watcher of a source, unless it has [`limits::WATCHERS`].
    pub fn enter(source: Arc<dyn Source>, beats: watch::Receiver<Beat>) -> Result<Self, Error> {
        let watching = source.feed().enter().ok_or(Error::TooManyWatchers)?;
        Ok(Self {
            source,
            beats,
            live_since: None,
            _watching: watching,
        })
    }

    /// How far the state is.
    #[must_use]
    pub fn applied(&self) -> AppliedAt {
        self.source.applied()
    }

    /// What follows from a revision on.
    pub fn look(&mut self, from: Revision) -> Result<Told, Error> {
        let beat = *self.beats.borrow_and_update();
        if beat.isolated {
            return Err(Error::NoLeader);
        }
        let jumps = self.source.feed().jumps();
        match self.source.feed().find(from) {
            Found::Here(commit) => Ok(Told::Events {
                events: commit.events()?,
                through: commit.last(),
            }),
            Found::Older if self.live_since == Some(jumps) => {
                let oldest = self.oldest(from)?;
                Err(Error::WatcherTooSlow {
                    resume: from,
                    oldest,
                })
            }
            Found::Older | Found::Absent => self.read(from, jumps),
        }
    }

    fn read(&mut self, from: Revision, jumps: u64) -> Result<Told, Error> {
        match self.source.read(from, limits::WATCH_RESPONSE_BYTES)? {
            Page::Events { events, through } => Ok(Told::Events {
                events: events.into(),
                through,
            }),
            Page::CaughtUp { at, log_time } => {
                self.live_since = Some(jumps);
                Ok(Told::Nothing(AppliedAt {
                    revision: at,
                    log_time,
                    ..AppliedAt::default()
                }))
            }
            Page::Forgotten { oldest } => Err(Error::EventsForgotten {
                asked: from,
                oldest,
            }),
        }
    }

    /// What could be read still.
    fn oldest(&self, from: Revision) -> Result<Revision, Error> {
        Ok(match self.source.read(from, 0)? {
            Page::Forgotten { oldest } => oldest,
            Page::Events { .. } | Page::CaughtUp { .. } => from,
        })
    }

    /// Waits until there may be something new.
    pub async fn beat(&mut self) -> Result<(), Error> {
        let stopped = |_| Error::Stopped("the watch task ended".to_owned());
        self.beats.changed().await.map_err(stopped)
    }
}

impl Node {
    /// Begins to watch.
    pub fn watch(&self) -> Result<Watcher, Error> {
        let source = Arc::clone(&self.shared);
        Watcher::enter(source, self.shared.base.beats.subscribe())
    }
}

/// Beats, while there are watchers, after commits, and when the node becomes isolated or is so no more.
pub(super) async fn run(node: Node, contact: LeaderContact, stop: CancellationToken) {
    let shared = &node.shared;
    let feed = Arc::clone(shared.base.state.feed());
    let mut applied = shared.base.state.applied();
    let mut isolation = Isolation::new(contact);
    let mut period = interval(ISOLATION_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = feed.entered(), if feed.watchers() == 0 => continue,
            _ = period.tick() => isolation.look(&shared.leadership.borrow()),
            changed = applied.changed(), if feed.watchers() > 0 => if changed.is_err() { return },
        }
        let beat = Beat {
            revision: applied.borrow_and_update().revision,
            isolated: isolation.is_isolated(),
        };
        shared.base.beats.send_if_modified(|last| {
            let news = *last != beat;
            *last = beat;
            news
        });
        let pause = pause(feed.watchers());
        if !pause.is_zero() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Between two beats. None while there are few: they are told at once.
fn pause(watchers: usize) -> Duration {
    let watchers = u64::try_from(watchers).expect("limits::WATCHERS is far below");
    Duration::from_millis(watchers / WATCHERS_PER_MILLISECOND).min(LONGEST_PAUSE)
}

/// Since when a node is without a leader.
struct Isolation {
    contact: LeaderContact,
    well_at: Instant,
}

impl Isolation {
    fn new(contact: LeaderContact) -> Self {
        Self {
            contact,
            well_at: Instant::now(),
        }
    }

    fn look(&mut self, leadership: &Leadership) {
        self.well_at = if leadership.is_leader() {
            Instant::now()
        } else {
            self.well_at.max(self.contact.get().heard_at)
        };
    }

    fn is_isolated(&self) -> bool {
        self.well_at.elapsed() > ISOLATED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, LogClock};
    use crate::proto::v1;
    use crate::types::{ClusterId, NodeId};

    #[tokio::test(start_paused = true)]
    async fn a_node_is_isolated_when_it_has_neither_heard_a_leader_nor_led_for_a_while() {
        let contact = LeaderContact::new(Arc::new(LogClock::new(Clock::manual(0))));
        let mut isolation = Isolation::new(contact.clone());
        let mut leadership = Leadership {
            cluster: ClusterId::new([7; 16]),
            node: NodeId::new(1).expect("not 0"),
            term: 1,
            leader: None,
            role: v1::Role::Follower,
        };
        let moment = Duration::from_millis(1);
        tokio::time::advance(ISOLATED_AFTER).await;
        isolation.look(&leadership);
        assert!(!isolation.is_isolated(), "not yet");
        tokio::time::advance(moment).await;
        isolation.look(&leadership);
        assert!(isolation.is_isolated());
        contact.heard(2);
        isolation.look(&leadership);
        assert!(!isolation.is_isolated(), "it heard a leader");
        tokio::time::advance(ISOLATED_AFTER + moment).await;
        isolation.look(&leadership);
        assert!(isolation.is_isolated());
        leadership.role = v1::Role::Leader;
        isolation.look(&leadership);
        assert!(!isolation.is_isolated(), "it leads");
    }

    #[test]
    fn few_watchers_are_told_at_once_and_many_soon() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(49), Duration::ZERO);
        assert_eq!(pause(1000), Duration::from_millis(20));
        assert_eq!(pause(limits::WATCHERS), Duration::from_millis(40));
    }
}
