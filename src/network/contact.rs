//! When a leader was last heard of, what its clock said, whether the connection it spoke on broke, and what follows from that.
//!
//! openraft starts an election when a follower's lease (the longer election timeout) *and* a random timeout on top
//! passed without an append. A leader that was killed shows at once: the kernel closes its connections. On that
//! evidence [`campaign`] asks for votes as soon as the lease alone is over, and leaves the long wait to leaders that
//! are merely silent.
//!
//! Invariant: this never weakens a lease. A broken connection proves nothing about the leader's other connections,
//! so what is started is a pre-vote: openraft refuses it here while the lease runs, and so does every other voter.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::storage::RaftStateMachine;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{LogClock, Testimony};
use crate::raft::TypeConfig;
use crate::types::LogTime;

/// First and longest pause between two attempts of a campaign. Voters heard the leader at slightly different times,
/// so the first attempt may be early; a node that reaches nobody should not ask forty times a second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(15), Duration::from_millis(500));

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

    /// Waits until a leader's connection is lost and `lease` has passed since it was heard.
    pub async fn overdue(&self, lease: Duration) -> Contact {
        let mut contacts = self.subscribe();
        loop {
            let contact = *contacts.borrow_and_update();
            let lease_over = async {
                if contact.lost {
                    tokio::time::sleep_until(contact.heard_at + lease).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = lease_over => return contact,
                // It cannot fail: `self` keeps the sender.
                _ = contacts.changed() => {}
            }
        }
    }

    /// An append of `leader` came in.
    pub fn heard(&self, leader: u64) {
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
            let news = contact.leader == leader && !contact.lost;
            contact.lost |= news;
            news
        });
    }
}

/// Between the first attempts of two nodes whose ids follow each other. Two that asked at the same moment would both
/// be granted the pre-vote, and the one with the higher id would depose the other just when it has won.
const STAGGER: Duration = Duration::from_millis(10);
/// Ids share their place in line beyond this, which bounds the wait.
const PLACES: u64 = 5;

/// Asks for votes whenever the leader's connection broke and its lease is over, until some leader is heard. `lease` is
/// openraft's: the longer election timeout. Ends when Raft does.
pub async fn campaign<SM>(raft: Raft<TypeConfig, SM>, contact: LeaderContact, lease: Duration)
where
    SM: RaftStateMachine<TypeConfig>,
{
    let (first, longest) = PAUSES;
    let place = u32::try_from(raft.node_id() % PLACES).unwrap_or_default();
    let mut pause = first;
    let mut last = contact.get();
    loop {
        let missed = contact.overdue(lease + STAGGER * place).await;
        if missed != last {
            tracing::info!(
                leader = missed.leader,
                "the leader's connection broke, asking for votes"
            );
            (pause, last) = (first, missed);
        }
        if raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
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
