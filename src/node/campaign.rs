//! Campaigns early when the leader's connection broke.
//!
//! openraft waits for the lease and then for a random timeout. The second wait is there for leaders that are
//! merely silent; one that was killed shows at once, since the kernel closes its connections. So when contact was
//! lost and the lease is over, this node asks for pre-votes after a short random pause. It cannot disturb a leader
//! that lives: a pre-vote changes no term, and voters that hear from the leader refuse it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::network::LeaderContact;

/// Voters lose contact at the same instant; a random pause up to this keeps them from splitting the vote.
const SPREAD: Duration = Duration::from_millis(80);
/// Campaigns before the matter is left to openraft's own timer.
const ATTEMPTS: u32 = 4;

/// Watches the contact to the leader until told to stop. `lease` is the longest election timeout.
pub(super) async fn run(
    node: Node,
    contact: LeaderContact,
    lease: Duration,
    stop: CancellationToken,
) {
    let mut news = contact.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
        }
        let seen = *news.borrow_and_update();
        if !seen.lost {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // Contact came back, or another leader did: start over.
            _ = news.wait_for(|now| !now.lost || now.leader != seen.leader) => {}
            () = campaign(&node, seen.heard_at + lease) => {}
        }
    }
}

async fn campaign(node: &Node, lease_over: Instant) {
    let mut at = lease_over;
    for _ in 0..ATTEMPTS {
        at += pause();
        sleep_until(at).await;
        if let Err(error) = node.shared.raft.trigger().elect(true).await {
            tracing::warn!(%error, "cannot campaign");
            return;
        }
    }
}

/// A random part of [`SPREAD`]. Without randomness the whole of it: slower, and safe all the same.
fn pause() -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    SPREAD.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
