//! Whether a leader still leads: what a linearizable read costs two nodes, and no disk.
//!
//! openraft confirms its leadership by heartbeats to all others, each of which goes through their cores. For reads, where a
//! round serves a hundred callers and there are thousands of rounds a second, that is most of what a read costs. So a
//! leader asks for something that any node can tell from memory: the vote that it holds.
//!
//! Invariant: a read index is used only if, at moments after its round began, as many nodes as make a majority with this one
//! held no vote later than the one by which this node led when the round began. That one is looked up before openraft is asked for
//! the index: this node may have come to hold a later one when it answers, and what holds for the earlier vote holds for that too.
//! A vote is a promise not to follow an earlier one, and whoever grants one holds it before it says so
//! ([`LogStore::vote`](crate::storage::LogStore::vote)). A later leader needs the votes of a majority, so that it is elected after
//! one of those moments, and whatever it commits is after the beginning of the round (Ongaro, *Consensus: Bridging Theory and
//! Practice*, 6.4, where heartbeats say the same and more). That this node leads and up to where its own entries are committed,
//! openraft's core says within the round; it does so only while heartbeats are answered, so that with clocks that run alike nothing
//! else would be needed. Votes need no clocks.
//!
//! Whoever is silent for [`HEDGE`] is not waited for, but somebody else is asked as well. If not enough answer, openraft does
//! it in its way.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, timeout};

use super::{Base, Shared};
use crate::raft::Vote;

/// How long one node may think before another is asked as well.
const HEDGE: Duration = Duration::from_millis(2);
/// How long they may take together.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Whom to ask first: whoever answered when the others were silent. It is a guess.
#[derive(Debug, Default)]
pub(super) struct Preference(AtomicUsize);

/// Who is to be asked, and by which vote this node leads.
pub(super) struct Ballot {
    vote: Vote,
    /// `None` while the members change, and where this node is none.
    others: Option<Vec<u64>>,
}

impl<B: Base> Shared<B> {
    /// As it stands now.
    pub(super) fn ballot(&self) -> Ballot {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let knows = membership.get_joint_config().len() == 1 && voters.contains(&metrics.id);
        let others = voters.into_iter().filter(|id| *id != metrics.id);
        Ballot {
            vote: metrics.vote,
            others: knows.then(|| others.collect()),
        }
    }

    /// Whether as many nodes as make a majority with this one have promised nothing to a later leader, after this was called.
    pub(super) async fn holds_majority(&self, ballot: &Ballot) -> bool {
        let Some(others) = &ballot.others else {
            return false;
        };
        let ask = |id| self.base.ask_vote(id);
        hold_nothing_later(others, &ballot.vote, &self.preference, ask).await
    }
}

/// Whether so many of the other voters hold no later vote that they make a majority with this node.
async fn hold_nothing_later<A>(
    others: &[u64],
    own: &Vote,
    preference: &Preference,
    ask: impl Fn(u64) -> A,
) -> bool
where
    A: Future<Output = Option<Vote>>,
{
    let mut missing = others.len().div_ceil(2);
    if missing == 0 {
        return true;
    }
    let first = preference.0.load(Relaxed) % others.len();
    let ask = |index: usize| {
        let answer = ask(others[index % others.len()]);
        async move { (index, answer.await) }
    };
    let mut rest = first..first + others.len();
    let mut asked: FuturesUnordered<_> = rest.by_ref().take(missing).map(ask).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match timeout(HEDGE, asked.next()).await {
            Ok(Some((index, Some(held)))) if is_not_later(&held, own) => {
                missing -= 1;
                if missing == 0 {
                    preference.0.store(index, Relaxed);
                    return true;
                }
            }
            // It said something else, or nothing yet.
            Ok(Some(_)) | Err(_) => match rest.next() {
                Some(index) => asked.push(ask(index)),
                None if Instant::now() >= deadline => return false,
                None => {}
            },
            Ok(None) => return false,
        }
    }
}

/// Votes are ordered by term, within a term by whom they are for.
fn is_not_later(held: &Vote, own: &Vote) -> bool {
    held.partial_cmp(own).is_some_and(Ordering::is_le)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use super::*;

    /// The leader's, in term 5.
    fn own() -> Vote {
        Vote::new_committed(5, 1)
    }

    #[test]
    fn only_a_vote_that_is_not_later_confirms() {
        for held in [own(), Vote::new(5, 1), Vote::new_committed(4, 3)] {
            assert!(is_not_later(&held, &own()), "{held}");
        }
        for held in [Vote::new(5, 2), Vote::new_committed(5, 2), Vote::new(6, 1)] {
            assert!(!is_not_later(&held, &own()), "{held}");
        }
    }

    /// What another node does when it is asked.
    #[derive(Clone, Copy)]
    enum Does {
        Hold(Vote),
        Fail,
        Sleep,
    }

    /// Whether the leader is confirmed by these nodes, 2 and higher, and who was asked.
    async fn confirm(preference: &Preference, nodes: &[Does]) -> (bool, Vec<u64>) {
        let asked = Mutex::new(Vec::new());
        let others: Vec<u64> = (2..).take(nodes.len()).collect();
        let ask = |id: u64| {
            asked.lock().expect("no panic").push(id);
            let does = others.iter().zip(nodes).find(|(node, _)| **node == id);
            let does = *does.expect("it is one of them").1;
            async move {
                match does {
                    Does::Hold(vote) => Some(vote),
                    Does::Fail => None,
                    Does::Sleep => pending().await,
                }
            }
        };
        let confirmed = hold_nothing_later(&others, &own(), preference, ask).await;
        (confirmed, asked.into_inner().expect("no panic"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_that_holds_nothing_later_confirms_and_nothing_less_does() {
        let (holds, later) = (Does::Hold(own()), Does::Hold(Vote::new(6, 3)));
        let earlier = Does::Hold(Vote::new_committed(3, 2));
        let (fails, sleeps) = (Does::Fail, Does::Sleep);
        let cases: [(&[Does], bool, &[u64]); 14] = [
            (&[], true, &[]),
            (&[holds], true, &[2]),
            (&[later], false, &[2]),
            (&[holds, holds], true, &[2]),
            (&[earlier, later], true, &[2]),
            (&[later, holds], true, &[2, 3]),
            (&[fails, holds], true, &[2, 3]),
            (&[sleeps, holds], true, &[2, 3]),
            (&[later, later], false, &[2, 3]),
            (&[sleeps, fails], false, &[2, 3]),
            (&[sleeps, sleeps], false, &[2, 3]),
            (&[holds, holds, later], true, &[2, 3]),
            (&[holds, sleeps, later, holds], true, &[2, 3, 4, 5]),
            (&[holds, sleeps, later, fails], false, &[2, 3, 4, 5]),
        ];
        for (number, (nodes, expected, asked)) in cases.into_iter().enumerate() {
            let found = confirm(&Preference::default(), nodes).await;
            assert_eq!(found, (expected, asked.to_vec()), "case {number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_silent_is_not_asked_first_again() {
        let preference = Preference::default();
        let nodes = [Does::Sleep, Does::Hold(own())];
        let began = Instant::now();
        assert_eq!(confirm(&preference, &nodes).await, (true, vec![2, 3]));
        let once = began.elapsed();
        assert!(once >= HEDGE && once < PATIENCE, "{once:?}");
        assert_eq!(confirm(&preference, &nodes).await, (true, vec![3]));
        assert_eq!(began.elapsed(), once);
    }
}
