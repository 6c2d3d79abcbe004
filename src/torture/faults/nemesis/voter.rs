//! A voter that loses power right after it has voted.
//!
//! A vote is a promise: whoever gave it to one candidate follows nobody of less. If it is not on the disk when it is given, a power
//! cut takes it back, and nothing that is done to nodes at random moments shows that: the new leader's first entry, which is synced,
//! takes the vote to the disk with it, a millisecond later. So the moment is made longer, by latency, and waited for:
//!
//! 1. The leader falls asleep, and all links between nodes are slow.
//! 2. As soon as another node leads, those who elected it lose their power, and it falls asleep in its turn.
//! 3. The first leader wakes up, and those voters are started. They elect somebody, who takes writes.
//! 4. In the end the one in the middle wakes up. It must not find anybody who follows it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Nemesis, PATIENCE};
use crate::torture::cluster::view::View;
use crate::torture::faults::world::{Reason, between};
use crate::torture::faults::{Kind, Proof};

/// Each way between two nodes. Two rounds of it are less than an election timeout.
const LATENCY: Duration = Duration::from_millis(60);
const POLL: Duration = Duration::from_millis(2);
const ELECTION: Duration = Duration::from_secs(15);

impl Nemesis {
    pub(super) async fn cut_voter(&mut self, reason: Reason, leader: &[u64]) -> io::Result<Proof> {
        if let Some(why) = self.toolbox.lacks(Kind::CutVoter) {
            return Ok(Proof::Skipped(why));
        }
        let all: Vec<u64> = self.world.ids().collect();
        let old = self.highest_term().await;
        for id in leader {
            self.world.keep_asleep(*id, reason);
        }
        self.world.delay(between(&all, &all), LATENCY, reason);
        self.align().await?;
        let Some((elected, term)) = self.wait_for_leader_after(old, leader).await else {
            return Ok(Proof::Unproven("nobody was elected".to_owned()));
        };
        let voters: Vec<u64> = all
            .into_iter()
            .filter(|id| *id != elected && !leader.contains(id) && !self.world.is_down(*id))
            .collect();
        let shared = Arc::clone(&self.cluster);
        let mut cluster = shared.lock().await;
        // Whatever they were about to sync, they do not.
        for id in voters.iter().chain([&elected]) {
            cluster.set_paused(*id, true)?;
        }
        let cut = self.toolbox.cut(&voters, &mut cluster).await?;
        drop(cluster);
        self.world.forget(reason);
        self.world.keep_asleep(elected, reason);
        self.align().await?;
        Ok(match cut {
            Some(Proof::Proven(_)) => Proof::Proven(format!(
                "nodes {voters:?} lost power as soon as node {elected} led in term {term}"
            )),
            Some(other) => other,
            None => Proof::Unproven("there are no disks".to_owned()),
        })
    }

    async fn highest_term(&self) -> u64 {
        let headers = futures::future::join_all(self.views.iter().map(View::header)).await;
        let terms = headers.into_iter().flatten().map(|header| header.term);
        terms.max().unwrap_or(0)
    }

    /// Whoever says that it leads, in a later term.
    async fn wait_for_leader_after(&self, term: u64, asleep: &[u64]) -> Option<(u64, u64)> {
        let begun = Instant::now();
        while begun.elapsed() < ELECTION.max(PATIENCE) {
            let ids = self.world.ids().filter(|id| !asleep.contains(id));
            let headers = ids.map(async |id| Some((id, self.view(id).header().await?)));
            let headers = futures::future::join_all(headers).await;
            let mut leads = headers.into_iter().flatten();
            let found = leads.find(|(_, it)| it.leader_id == it.node_id && it.term > term);
            if let Some((id, header)) = found {
                return Some((id, header.term));
            }
            sleep(POLL).await;
        }
        None
    }
}
