//! Asking for votes as soon as the leader is missed.
//!
//! openraft begins an election when a follower's lease *and* a random timeout on top passed without an append. That is twice
//! the wait which an election timeout names, so [`campaign`] asks first, and openraft's timer is what is left if it gets
//! nowhere, and for nodes that have heard no leader yet. It tells three ways to miss a leader apart:
//!
//! | what a node sees | what follows |
//! |---|---|
//! | its connection broke, and connections to its address are refused: its process is gone | it lets go of the lease and asks at once |
//! | its connection broke, which says nothing about its other connections | it asks when the lease is over |
//! | nothing was heard for the shortest election timeout | it asks then |
//!
//! Leaders that are killed are replaced within milliseconds, whatever the timers say; those that hang, or whose machine is
//! gone, after the shortest timeout. Nodes take turns by their ids, where Raft has them draw: what a draw is for, that two
//! do not ask at once, a few milliseconds do as well.
//!
//! Invariants:
//! 1. What is started is a pre-vote: unless a majority misses the leader too, it changes nothing.
//! 2. A lease is let go only of a leader whose process has ended, and reads never rest on one: a linearizable read is
//!    confirmed by a majority. So whoever is wrong here costs an election and no more.
//! 3. A candidacy is not given up for the next one while openraft counts answers to it. Voters sync a vote before they answer, and
//!    whoever asked again meanwhile would throw their answers away.
//! 4. The lease is shorter than the shortest election timeout by more than the times differ at which voters heard the leader
//!    last: who misses it for that long finds others whose lease is over.

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::RaftStateMachine;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::LeaderContact;
use crate::raft::{TypeConfig, Vote};

/// First and longest pause between two attempts of a campaign, and between two looks at how one goes. Voters heard the leader at
/// slightly different times, so the first attempt may be early; a node that reaches nobody should not ask forty times a second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(15), Duration::from_millis(500));
/// Between the first attempts of two nodes. Two that asked at the same moment would both be granted the pre-vote, and the one
/// with the higher id would depose the other just when it has won.
const STAGGER: Duration = Duration::from_millis(10);
/// Nodes share their place in line beyond this, which bounds the wait.
const LAST_PLACE: usize = 4;
/// Looks at the address of a leader whose connection broke, and the time between two of them. A process that ends may close
/// its connections before its listener; one that still listens a moment later goes on.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a look may take. Who refuses a connection does so within a round trip.
const LOOK: Duration = Duration::from_millis(100);

/// When a leader is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionTimers {
    /// Nobody votes for another within this time of hearing the leader: openraft's longest election timeout.
    pub lease: Duration,
    /// A leader that was silent for so long is missed.
    pub silence: Duration,
}

/// Asks for votes whenever the leader is missed, until some leader is heard or this node leads. `is_gone` says whether the
/// process of a node has ended for certain. Ends when Raft does. Connections that break from this call on count, whenever what is
/// returned is first polled.
pub fn campaign<SM, G>(
    raft: Raft<TypeConfig, SM>,
    contact: LeaderContact,
    timers: ElectionTimers,
    is_gone: impl Fn(u64) -> G + Send + Sync,
) -> impl Future<Output = ()> + Send
where
    SM: RaftStateMachine<TypeConfig>,
    G: Future<Output = bool> + Send,
{
    let mut losses = contact.get().losses;
    async move {
        loop {
            let missed = contact.missed(timers.silence, losses).await;
            let is_lost = missed.losses != losses;
            losses = missed.losses;
            let before = Standing::of(&raft);
            if before.leads {
                // Whom it heard before is history.
                contact.forget();
                continue;
            }
            let (mut has_ended, mut why) = (false, "it is silent");
            if is_lost {
                has_ended = has_gone(missed.leader, &is_gone).await;
                if has_ended {
                    why = "its process has ended";
                    let_go(&raft, missed.leader).await;
                } else {
                    why = "its connection broke";
                    sleep_until(missed.heard_at + timers.lease).await;
                }
            }
            sleep(before.turn).await;
            // What a process sent before it ended may be read after that was found out, so then only another leadership counts.
            let is_settled = || {
                let now = Standing::of(&raft);
                now.leads
                    || (now.leader.is_some() && now.vote != before.vote)
                    || (!has_ended && contact.get().heard_at != missed.heard_at)
            };
            let (mut pause, longest) = PAUSES;
            if !is_settled() {
                tracing::info!(
                    leader = missed.leader,
                    why,
                    "the leader is missed, asking for votes"
                );
            }
            let mut candidacy = Candidacy::default();
            while !is_settled() {
                let Ok(stands) = candidacy.is_open(&raft).await else {
                    return;
                };
                if !stands && raft.trigger().elect(true).await.is_err() {
                    return;
                }
                sleep(pause).await;
                if !stands {
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }
}

/// For whom this node stood when it was looked at last, which is itself, and since when it was seen to.
#[derive(Default)]
struct Candidacy(Option<(Vote, Instant)>);

impl Candidacy {
    /// Whether this node stands, and not for longer than openraft waits for the answer to a vote. Only openraft's core knows: what it
    /// publishes comes after the vote is on this node's disk.
    async fn is_open<SM>(&mut self, raft: &Raft<TypeConfig, SM>) -> Result<bool, Fatal<TypeConfig>>
    where
        SM: RaftStateMachine<TypeConfig>,
    {
        let vote = raft.with_raft_state(|state| {
            let stands = state.server_state.is_candidate();
            stands.then(|| *state.vote_ref())
        });
        let since = |vote| match self.0 {
            Some((before, since)) if before == vote => since,
            _ => Instant::now(),
        };
        self.0 = vote.await?.map(|vote| (vote, since(vote)));
        let patience = Duration::from_millis(raft.config().election_timeout_min);
        Ok(self.0.is_some_and(|(_, since)| since.elapsed() < patience))
    }
}

/// What this node is in its cluster.
struct Standing {
    vote: Vote,
    leader: Option<u64>,
    leads: bool,
    /// How long it lets others ask before it.
    turn: Duration,
}

impl Standing {
    fn of<SM>(raft: &Raft<TypeConfig, SM>) -> Self
    where
        SM: RaftStateMachine<TypeConfig>,
    {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader;
        // The voter whose id follows the leader's is the first in line.
        let voters = metrics.membership_config.membership().voter_ids();
        let (own, first) = (metrics.id, leader.unwrap_or_default());
        let distance = |id: u64| id.wrapping_sub(first);
        let before = voters.filter(|id| *id != first && distance(*id) < distance(own));
        let place = before.count().min(LAST_PLACE);
        Self {
            vote: metrics.vote,
            leader,
            leads: metrics.state.is_leader(),
            turn: STAGGER * u32::try_from(place).unwrap_or_default(),
        }
    }
}

/// A leader's connection broke: whether its process is seen to have ended.
async fn has_gone<G>(leader: u64, is_gone: &impl Fn(u64) -> G) -> bool
where
    G: Future<Output = bool> + Send,
{
    for _ in 0..LOOKS {
        if is_gone(leader).await {
            return true;
        }
        sleep(LOOK_AGAIN).await;
    }
    false
}

/// Ends the lease that a leader has here. openraft does so for a leader that hands over to another node, which is what this
/// tells it; of whom it votes for next, and whether anybody is elected, that decides nothing.
async fn let_go<SM>(raft: &Raft<TypeConfig, SM>, leader: u64)
where
    SM: RaftStateMachine<TypeConfig>,
{
    let now = Standing::of(raft);
    if now.leader == Some(leader) {
        let request = TransferLeaderRequest::new(now.vote, leader, None);
        // It fails when Raft has ended, which the next trigger finds too.
        let _ = raft.handle_transfer_leader(request).await;
    }
}

/// Whether connections to an address are refused, as they are where nobody listens. Silence, and whatever else may be in
/// the way, says nothing.
pub async fn refuses_connections(address: &str) -> bool {
    match timeout(LOOK, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}
