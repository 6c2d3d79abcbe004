//! When a leader was last heard of, what its clock said, and whether the connection it spoke on broke. What follows from that is
//! [`super::campaign`]'s business.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{LogClock, Testimony};
use crate::types::LogTime;

/// What this node last saw of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Whose append came last; 0 before the first.
    pub leader: u64,
    /// When it came.
    pub heard_at: Instant,
    /// How often the append stream of who led then broke. What it had sent may be read afterwards, so that it is heard once more.
    pub losses: u64,
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
            losses: 0,
        };
        Self {
            contact: Arc::new(watch::Sender::new(never)),
            clock,
        }
    }

    /// Wakes when contact is lost, or the leader changes; not with every append.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    /// What was last seen.
    #[must_use]
    pub fn get(&self) -> Contact {
        *self.contact.borrow()
    }

    /// Waits until a leader is missed: its connection broke after so many `losses`, or nothing came of it for `silence`. Whoever
    /// has heard none misses none.
    pub async fn missed(&self, silence: Duration, losses: u64) -> Contact {
        let mut contacts = self.subscribe();
        loop {
            let contact = *contacts.borrow_and_update();
            let silent_at = contact.heard_at + silence;
            let is_silent = contact.leader != 0 && silent_at <= Instant::now();
            if is_silent || contact.losses != losses {
                return contact;
            }
            let silent = async {
                if contact.leader == 0 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(silent_at).await;
            };
            tokio::select! {
                biased;
                // Appends wake nobody: it may have been heard since.
                () = silent => {}
                // It cannot fail: `self` keeps the sender.
                _ = contacts.changed() => {}
            }
        }
    }

    /// Nobody is missed until a leader is heard.
    pub fn forget(&self) {
        self.contact.send_if_modified(|contact| {
            contact.leader = 0;
            true
        });
    }

    /// An append of `leader` came in.
    pub fn heard(&self, leader: u64) {
        self.contact.send_if_modified(|contact| {
            let news = contact.leader != leader;
            contact.leader = leader;
            contact.heard_at = Instant::now();
            news
        });
    }

    /// An append that openraft accepted said this of log time; 0 says nothing.
    pub fn told_time(&self, leader_time: u64) {
        if leader_time > 0 {
            self.clock.observe(LogTime::from_millis(leader_time));
        }
    }

    /// What this node tells a candidate of time.
    #[must_use]
    pub fn testify(&self) -> Testimony {
        self.clock.testify()
    }

    /// The append stream of `leader` broke.
    pub fn lost(&self, leader: u64) {
        self.contact.send_if_modified(|contact| {
            let news = contact.leader == leader;
            contact.losses += u64::from(news);
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
        assert_eq!(watcher.borrow_and_update().losses, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_missed_when_it_is_silent_or_lost() {
        const SILENCE: Duration = Duration::from_millis(500);
        let contact = LeaderContact::new(Arc::new(LogClock::new(Clock::System)));
        let never =
            tokio::time::timeout(SILENCE * 10, contact.missed(SILENCE, contact.get().losses)).await;
        assert!(never.is_err(), "nobody was heard");
        contact.heard(1);
        let begun = Instant::now();
        let speaker = contact.clone();
        let talk = async {
            tokio::time::advance(SILENCE / 2).await;
            speaker.heard(1);
            std::future::pending::<()>().await;
        };
        let missed = tokio::select! {
            missed = contact.missed(SILENCE, 0) => missed,
            () = talk => unreachable!("it goes on for ever"),
        };
        assert_eq!((missed.leader, missed.losses), (1, 0));
        assert_eq!(
            begun.elapsed(),
            SILENCE / 2 + SILENCE,
            "since it was last heard"
        );
        contact.heard(1);
        contact.lost(1);
        // What had been on its way.
        contact.heard(1);
        let begun = Instant::now();
        assert_eq!(contact.missed(SILENCE, 0).await.losses, 1);
        assert_eq!(begun.elapsed(), Duration::ZERO, "at once");
        contact.forget();
        let never =
            tokio::time::timeout(SILENCE * 10, contact.missed(SILENCE, contact.get().losses)).await;
        assert!(never.is_err(), "whoever leads misses nobody");
    }
}
