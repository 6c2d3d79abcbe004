//! Full disks: what a node refuses before its disk is full, and what it lives on then.
//!
//! A node that meets a full disk in the middle of an append cannot know what became of it, and stops. So it looks ahead.
//! Each node watches the free space of its data directory, [`gauge`] makes a [`Room`] of it, and nodes tell their leader
//! with every answer to a heartbeat.
//!
//! | room | a leader, where a quorum has no more than this |
//! |---|---|
//! | ample | takes everything |
//! | short | refuses what grows the store, see [`crate::state::Operation::grows`] |
//! | scarce, full | refuses every write |
//!
//! What a node does with the disk that it has itself:
//! * *Ample*: it keeps a ballast.
//! * *Short*: it gives back the ballast, half of it at once; takes snapshots to drop what they keep alive; compacts nothing
//!   where that might take the rest; and leads no longer than it must.
//! * *Scarce*: the same, and as a leader it refuses every write, whatever the others have.
//! * *Full*: it appends no commands that a leader sends either, and falls behind.
//!
//! # Why so
//!
//! * *Whose disk counts.* A majority decides, because a majority is what a write needs: one full disk of three must not stop the
//!   cluster, and two would stop it in the middle of a write if the leader went on. A leader that is short while others are
//!   not hands leadership over. It takes writes until it has, unless its disk is strained: then it asks to be asked again.
//! * *A reserve of three parts.* Between the floor and nothing there is what other programs may take as well. The ballast they
//!   cannot take, so that deletes, flushes and the log's purge go on although somebody filled the disk to the last block. The
//!   last of the ballast, the keel, stays where it is even then, so that a node can be started: [`crate::storage`] opens on it.
//! * *What is lost when it all is used up.* Nothing: appends are refused before they fail. If one fails all the same, because the
//!   disk was filled between two looks, the node stops with an exit code of its own, acknowledges nothing, and starts
//!   again on its ballast.
//! * *Without a person.* Nothing of this is kept but the ballast itself. Once there is room, the next look sees it.
//!
//! Raft's own entries, such as the one a new leader begins with, are refused by nobody: without them no read is served.
//!
//! Deliberately absent: limits of what a store may hold. Those are of the disk.

mod admission;
mod gauge;

use std::cmp::Ordering;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(super) use self::admission::Admission;
pub use self::admission::Shortage;
use self::admission::Voter;
use self::gauge::{Gauge, Seen, Sizes};
use super::{Base, Error, Node, Shared};
use crate::config::NodeConfig;
use crate::raft::Reply;
use crate::state::{self, Command};
use crate::storage::machine::StateDb;
use crate::storage::{self, Ballast};
use crate::types::{DiskSpace, NodeId, Room};

/// Shortest and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));
/// No disk fills up faster, in bytes a second: the closer a node is to the next mark, the sooner it looks again.
const FILL_RATE: u64 = 1 << 30;
/// Before each attempt to hand leadership over.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(1);
/// After one that failed.
const HAND_OVER_RETRY: Duration = Duration::from_secs(5);
/// How long one of them may take.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// The disk of a data directory, its ballast, and what was last seen of it.
pub(super) struct Disk {
    data_dir: PathBuf,
    ballast: Ballast,
    gauge: Gauge,
    /// The last look failed, so that it is told once.
    failed: bool,
    /// The ballast has just given something back: whoever fills the disk should find it full before it gives more.
    gave_back: bool,
    published: watch::Sender<DiskSpace>,
}

impl Disk {
    /// Takes the first look. The data directory must be open, that is, this process's.
    pub fn open(config: &NodeConfig) -> Result<Self, storage::Error> {
        let data_dir = config.data_dir.clone();
        let ballast = Ballast::new(&data_dir);
        let (capacity, held) = (storage::capacity(&data_dir)?, ballast.held()?);
        let sizes = config
            .min_free_disk
            .map_or_else(|| Sizes::suiting(capacity), Sizes::of);
        let gauge = Gauge::new(sizes, held);
        let unseen = DiskSpace {
            room: Room::Ample,
            free: capacity.free,
            floor: sizes.floor,
            ballast: held,
        };
        let mut disk = Self {
            data_dir,
            ballast,
            gauge,
            failed: false,
            gave_back: false,
            published: watch::Sender::new(unseen),
        };
        disk.look();
        Ok(disk)
    }

    /// What was last seen; changes with every look.
    pub fn seen(&self) -> watch::Receiver<DiskSpace> {
        self.published.subscribe()
    }

    /// Looks, and sees to the ballast. Blocks on the disk.
    fn look(&mut self) {
        match self.look_again() {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !self.failed {
                    tracing::warn!(%error, "cannot tell how much of the disk is free");
                }
                self.failed = true;
            }
        }
    }

    fn look_again(&mut self) -> Result<(), storage::Error> {
        let mut seen = self.see()?;
        self.gave_back = false;
        if let Some(hold) = self.gauge.wants(seen) {
            self.gave_back = self.gauge.is_step(seen, hold);
            match self.ballast.hold(hold) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    tracing::warn!(%error, "this file system can set nothing aside: the node has no ballast");
                    self.gauge.give_up_ballast();
                }
                // The next look tries again.
                Err(error) => tracing::debug!(%error, hold, "the ballast is as it was"),
            }
            seen = self.see()?;
        }
        let space = DiskSpace {
            room: self.gauge.judge(seen),
            free: seen.free,
            floor: self.gauge.sizes().floor,
            ballast: seen.held,
        };
        let before = self.published.send_replace(space);
        tell(before.room, &space);
        Ok(())
    }

    /// Until the next look.
    fn pause(&self) -> Duration {
        let (shortest, longest) = PAUSES;
        if self.gave_back {
            return longest;
        }
        let space = *self.published.borrow();
        let margin = self.gauge.margin(Seen {
            free: space.free,
            held: space.ballast,
        });
        Duration::from_millis(margin.saturating_mul(1000) / FILL_RATE).clamp(shortest, longest)
    }

    fn see(&self) -> Result<Seen, storage::Error> {
        Ok(Seen {
            free: storage::capacity(&self.data_dir)?.free,
            held: self.ballast.held()?,
        })
    }
}

/// One line at each change.
fn tell(before: Room, now: &DiskSpace) {
    let DiskSpace {
        room,
        free,
        floor,
        ballast,
    } = *now;
    match room.cmp(&before) {
        Ordering::Less => {
            tracing::warn!(%room, free, floor, ballast, "there is less room on the disk than there must be");
        }
        Ordering::Greater => {
            tracing::info!(%room, free, floor, ballast, "there is more room on the disk again");
        }
        Ordering::Equal => {}
    }
}

/// Looks at the disk until told to stop.
pub(super) async fn watch_disk(mut disk: Disk, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(disk.pause()) => {}
        }
        let looking = tokio::task::spawn_blocking(move || {
            disk.look();
            disk
        });
        disk = match looking.await {
            Ok(disk) => disk,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => return,
            },
        };
    }
}

/// Lets the state compact where there is room for it, until told to stop. A compaction takes as much as it gives back, and
/// takes it first. Nothing is lost where it is late.
pub(super) async fn watch_compactions(
    state: StateDb,
    mut disk: watch::Receiver<DiskSpace>,
    stop: CancellationToken,
) {
    let mut allowed = true;
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = disk.wait_for(|disk| disk.is_strained() == allowed) => changed.map(drop),
        };
        if changed.is_err() {
            return;
        }
        allowed = !allowed;
        let state = state.clone();
        let told = tokio::task::spawn_blocking(move || state.allow_compactions(allowed)).await;
        if let Ok(Err(error)) = told {
            tracing::debug!(%error, allowed, "compactions are as they were");
        }
    }
}

/// Decides what is taken, whenever something changes that it depends on, until told to stop.
pub(super) async fn admit(shared: Arc<Shared>, stop: CancellationToken) {
    let mut disk = shared.base.disk.clone();
    let mut peers = shared.base.peer_rooms.subscribe();
    let mut leadership = shared.leadership.subscribe();
    loop {
        let now = shared.decide();
        shared.admission.send_if_modified(|admission| {
            let changed = *admission != now;
            *admission = now;
            changed
        });
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = disk.changed() => changed,
            changed = peers.changed() => changed,
            changed = leadership.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Hands leadership over while another voter has more room, until told to stop.
pub(super) async fn hand_over(node: Node, stop: CancellationToken) {
    let shared = &node.shared;
    let mut admission = shared.admission.subscribe();
    let mut disk = shared.base.disk.clone();
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = disk.changed() => changed,
            changed = admission.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        if shared.roomier_voter().is_none() {
            continue;
        }
        // Disks that fill up together do so within a moment, and then it would be for nothing.
        if !shared.base.disk.borrow().is_strained() {
            pause(HAND_OVER_PAUSE, &stop).await;
        }
        let Some(target) = shared.roomier_voter() else {
            continue;
        };
        tracing::info!(%target, "handing leadership over to a node with more room on its disk");
        let deadline = Instant::now() + HAND_OVER_PATIENCE;
        if let Err(error) = node.transfer_leader(Some(target), deadline).await {
            tracing::warn!(%error, "leadership was not handed over");
            pause(HAND_OVER_RETRY, &stop).await;
        }
    }
}

/// Waits so long, or until told to stop.
async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(time) => {}
    }
}

impl Shared {
    /// What this node takes if it leads.
    fn decide(&self) -> Admission {
        let own = *self.base.disk.borrow();
        let node = self.leadership.borrow().node.get();
        let (term, configs) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let term = metrics.vote.leader_id().term;
            (term, membership.get_joint_config().clone())
        };
        let heard = self.base.peer_rooms.in_term(term);
        // A voter of which nothing was heard is given the benefit of the doubt: a new leader would begin by refusing.
        let voter = |id: &u64| match heard.get(id) {
            _ if *id == node => Voter {
                room: own.room,
                answers: true,
            },
            Some(heard) => Voter {
                room: heard.room.unwrap_or(Room::Ample),
                answers: heard.answers,
            },
            None => Voter {
                room: Room::Ample,
                answers: true,
            },
        };
        let voters = configs.iter().flatten().map(|id| (*id, voter(id)));
        Admission::new(node, &own, &configs, &voters.collect())
    }

    /// While this node leads: a voter with more room.
    fn roomier_voter(&self) -> Option<NodeId> {
        let term = {
            let leadership = self.leadership.borrow();
            leadership.is_leader().then_some(leadership.term)?
        };
        let room = self.base.disk.borrow().room.max(Room::Scarce);
        let voters: Vec<u64> = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().voter_ids().collect()
        };
        let rooms = voters
            .into_iter()
            .filter_map(|id| Some((self.base.room_of(term, id)?, id)));
        let (most, id) = rooms.max()?;
        if most > room {
            NodeId::new(id).ok()
        } else {
            None
        }
    }
}

impl<B: Base> Shared<B> {
    /// Takes out the commands that are refused for want of room, and says of each whether it stays. The retry of one that was
    /// applied before stays: its reply is there, and its caller must learn of it.
    pub(super) fn sort_out(
        &self,
        commands: &mut Vec<Command>,
        shortage: &Shortage,
    ) -> Result<Vec<bool>, Error> {
        let (_, stay) = self.base.view(|state| {
            let stays = |command: &Command| {
                let refused = shortage.refuses(&command.operation);
                Ok(!refused || state::is_answered(state, command)?)
            };
            commands.iter().map(stays).collect::<Result<Vec<_>, _>>()
        })?;
        let mut verdicts = stay.iter();
        commands.retain(|_| *verdicts.next().expect("there is one for each"));
        Ok(stay)
    }
}

/// The replies to the commands that stayed, and refusals of the others, in the order of all.
pub(super) fn interleave(
    stay: Vec<bool>,
    replies: BoxStream<'static, Result<Reply, Error>>,
    admission: Admission,
) -> BoxStream<'static, Result<Reply, Error>> {
    let state = (stay.into_iter(), replies, admission);
    stream::unfold(state, |(mut stay, mut replies, admission)| async move {
        let next = if stay.next()? {
            replies.next().await?
        } else {
            Err(admission.refusal()?)
        };
        Some((next, (stay, replies, admission)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::internal as pb;

    #[tokio::test]
    async fn each_command_gets_its_own_answer() {
        let reply = |replayed| {
            let reply = pb::Reply::default();
            Ok(Reply { reply, replayed })
        };
        let replies = stream::iter([reply(false), reply(true)]).boxed();
        let admission = Admission::Without(Shortage {
            nodes: vec![1, 2],
            only_growth: true,
        });
        let answers = interleave(vec![true, false, true], replies, admission);
        let answers: Vec<_> = answers.collect().await;
        assert!(
            matches!(
                &answers[..],
                [
                    Ok(Reply {
                        replayed: false,
                        ..
                    }),
                    Err(Error::NoSpace(_)),
                    Ok(Reply { replayed: true, .. }),
                ]
            ),
            "{answers:?}"
        );
    }
}
