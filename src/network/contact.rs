//! When a leader was last heard of, what its clock said, and whether the connection it spoke on broke.
//!
//! openraft starts an election when a follower's lease (the longer election timeout) *and* a random timeout on top
//! passed without an append. A leader that was killed shows at once: the kernel closes its connections. Whoever
//! runs the node may use that evidence to campaign as soon as the lease alone is over, and leave the long wait to
//! leaders that are merely silent.
//!
//! Deliberately absent: any decision. A broken connection proves nothing about other nodes' connections, which is
//! why campaigning on it is a pre-vote that a quorum must grant.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::LogClock;
use crate::types::LogTime;

/// What this node last saw of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Whose append came last; 0 before the first.
    pub leader: u64,
    /// When it came.
    pub heard_at: Instant,
    /// The append stream of that leader broke, and it was not heard since.
    pub lost: bool,
}

/// Shared between whoever serves appends and whoever watches. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LeaderContact {
    contact: Arc<watch::Sender<Contact>>,
    clock: Arc<LogClock>,
}

impl LeaderContact {
    /// Nothing was heard yet. What leaders say of log time goes to `clock`.
    #[must_use]
    pub fn new(clock: Arc<LogClock>) -> Self {
        let never = Contact {
            leader: 0,
            heard_at: Instant::now(),
            lost: false,
        };
        Self {
            contact: Arc::new(watch::Sender::new(never)),
            clock,
        }
    }

    /// Wakes when contact is lost or regained, or the leader changes; not with every append.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    /// What was last seen.
    #[must_use]
    pub fn get(&self) -> Contact {
        *self.contact.borrow()
    }

    /// An append of `leader` was accepted.
    pub(super) fn heard(&self, leader: u64) {
        self.contact.send_if_modified(|contact| {
            let news = contact.leader != leader || contact.lost;
            *contact = Contact {
                leader,
                heard_at: Instant::now(),
                lost: false,
            };
            news
        });
    }

    /// A heartbeat that openraft accepted said this of log time; 0 says nothing.
    pub(super) fn told_time(&self, leader_time: u64) {
        if leader_time > 0 {
            self.clock.observe(LogTime::from_millis(leader_time));
        }
    }

    /// The append stream of `leader` broke.
    pub(super) fn lost(&self, leader: u64) {
        self.contact.send_if_modified(|contact| {
            let news = contact.leader == leader && !contact.lost;
            contact.lost |= news;
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn only_news_wakes() {
        let contact = LeaderContact::new(Arc::new(LogClock::new(Clock::System)));
        let mut watcher = contact.subscribe();
        contact.heard(1);
        assert!(watcher.has_changed().expect("open"));
        watcher.mark_unchanged();
        contact.heard(1);
        assert!(!watcher.has_changed().expect("open"), "nothing new");
        contact.lost(2);
        assert!(!watcher.has_changed().expect("open"), "not the leader");
        contact.lost(1);
        assert!(watcher.borrow_and_update().lost);
        contact.heard(1);
        assert!(!watcher.borrow_and_update().lost);
    }
}
