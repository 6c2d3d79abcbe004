//! Snapshots on their way to a node that is behind: connections that break, disks that take their time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::storage::RaftStateMachine as _;
use tonic::transport::Channel;

use super::cluster::{DEADLINE, Node, PADDING, converge, eventually, local, start, write};
use super::stop;
use super::store::Files;
use crate::limits;
use crate::network::channel::within;
use crate::network::{Error, Lane, Pool, SnapshotFiles as _, Timing};
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_client::RaftServiceClient;

/// A sender that is told nothing for so long gives up.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// One node that leads, whose log begins behind its snapshot.
async fn start_purged() -> Vec<Node> {
    let nodes = start(1).await;
    write(&nodes, 100).await;
    let raft = nodes[0].raft.clone();
    raft.trigger().snapshot().await.expect("runs");
    eventually("a snapshot", async || nodes[0].metrics().snapshot.is_some()).await;
    let last = nodes[0].metrics().snapshot.expect("just seen").index;
    raft.trigger().purge_log(last).await.expect("runs");
    eventually("a purged log", async || nodes[0].metrics().purged.is_some()).await;
    nodes
}

async fn add(leader: &Node, learner: &Node) {
    let added = leader.raft.add_learner(learner.id, learner.member(), false);
    added.await.expect("leads");
}

async fn snapshot_of(node: &Node) -> Files {
    let current = node.machine.clone().get_current_snapshot().await;
    current.expect("readable").expect("it was made").snapshot
}

/// The leader's snapshot, offered by hand.
struct Offering {
    client: RaftServiceClient<Channel>,
    offer: pb::SnapshotOffer,
}

impl Offering {
    async fn new(leader: &Node, learner: &Node) -> Self {
        let snapshot = snapshot_of(leader).await;
        let member = learner.member();
        let client = Pool::new(Timing::default()).raft(&member.address, Lane::Snapshot);
        Self {
            client: client.expect("an address"),
            offer: pb::SnapshotOffer {
                envelope: Some(local(leader.id).envelope(learner.id, member.instance)),
                vote: Some(leader.metrics().vote.into()),
                manifest: Some(snapshot.manifest().clone()),
            },
        }
    }

    fn sizes(&self) -> Vec<u64> {
        let files = self.offer.manifest.iter().flat_map(|it| &it.files);
        files.map(|file| file.size).collect()
    }

    async fn offer(&mut self, patience: Duration) -> Result<pb::SnapshotProgress, Error> {
        within(patience, self.client.offer_snapshot(self.offer.clone())).await
    }

    async fn install(&mut self, patience: Duration) -> Result<pb::SnapshotInstalled, Error> {
        within(patience, self.client.install_snapshot(self.offer.clone())).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_transfer_resumes_where_it_broke() {
    let mut nodes = start_purged().await;
    let learner = Node::start(2).await;
    for _ in 0..2 {
        // Both cuts fall into the padding, which is most of the snapshot.
        learner.proxy.cut_after(5 << 20);
        add(&nodes[0], &learner).await;
        eventually("the transfer breaks", async || learner.proxy.was_cut()).await;
    }
    nodes.push(learner);
    converge(&nodes).await;

    let inbox = &nodes[1].inbox;
    assert_eq!(inbox.begun.load(Ordering::Relaxed), 1, "one transfer");
    let written = inbox.written.load(Ordering::Relaxed);
    let whole = PADDING as u64;
    let again = written.saturating_sub(whole);
    assert!(written >= whole, "{written} of {whole} bytes");
    assert!(
        again <= 4 * limits::SNAPSHOT_CHUNK_BYTES as u64,
        "{again} bytes were sent twice"
    );
    stop(nodes).await;
}

/// A learner that has received all of the leader's snapshot and verifies it, until its gate is opened.
async fn start_verifying(leader: &Node) -> (Node, Offering) {
    let learner = Node::start(2).await;
    let inbox = learner.inbox.clone();
    inbox.gate.close();
    add(leader, &learner).await;
    eventually("all of it to be verified", async || {
        inbox.finished.load(Ordering::Relaxed) == 1
    })
    .await;
    let offering = Offering::new(leader, &learner).await;
    (learner, offering)
}

/// A disk may need minutes to read and sync a large snapshot, and no call waits as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_verified_and_installed_once_however_many_senders_give_up_waiting() {
    let mut nodes = start_purged().await;
    let (learner, mut offering) = start_verifying(&nodes[0]).await;
    let inbox = learner.inbox.clone();
    for _ in 0..3 {
        let given_up = offering.install(IMPATIENCE).await;
        assert!(matches!(given_up, Err(Error::Timeout(_))), "{given_up:?}");
        let progress = offering.offer(DEADLINE).await.expect("answered");
        assert_eq!(
            progress.held,
            offering.sizes(),
            "nothing is to be sent again"
        );
    }
    let told = offering.install(DEADLINE).await.expect("answered");
    assert!(told.under_way && told.vote.is_none(), "{told:?}");
    inbox.gate.open();
    nodes.push(learner);
    converge(&nodes).await;
    assert_eq!(inbox.begun.load(Ordering::Relaxed), 1, "transfers");
    assert_eq!(inbox.finished.load(Ordering::Relaxed), 1, "verifications");
    let written = inbox.written.load(Ordering::Relaxed);
    assert!(written < 2 * PADDING as u64, "{written} bytes");
    stop(nodes).await;
}

/// Its sender may be gone, or not know that it succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_installed_although_nobody_waits_and_not_received_twice() {
    let nodes = start_purged().await;
    let (learner, mut offering) = start_verifying(&nodes[0]).await;
    let inbox = learner.inbox.clone();
    let last = nodes[0].metrics().snapshot;
    stop(nodes).await;
    inbox.gate.open();
    eventually("an installed snapshot", async || {
        learner.metrics().snapshot == last
    })
    .await;
    eventually(
        "only the machine and the inbox to hold the files",
        async || inbox.holders() == 2,
    )
    .await;
    eventually("an answer that there is nothing to send", async || {
        let progress = offering.offer(DEADLINE).await.expect("answered");
        progress.held == offering.sizes() && progress.transfer == 0
    })
    .await;
    let installed = offering.install(DEADLINE).await.expect("answered");
    assert_eq!(installed.vote, offering.offer.vote);
    assert_eq!(inbox.begun.load(Ordering::Relaxed), 1, "transfers");
    learner.stop().await;
}

/// Whatever became of the files, the next offer looks at them anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_whose_files_cannot_be_written_begins_anew() {
    let mut nodes = start_purged().await;
    let learner = Node::start(2).await;
    let inbox = learner.inbox.clone();
    inbox.breaks.store(true, Ordering::Relaxed);
    add(&nodes[0], &learner).await;
    nodes.push(learner);
    converge(&nodes).await;
    assert_eq!(inbox.begun.load(Ordering::Relaxed), 2, "transfers");
    stop(nodes).await;
}

/// It would be refused, and sent again without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_snapshot_is_damaged_stops_and_sends_nothing_of_what_is() {
    let nodes = start_purged().await;
    let snapshot = snapshot_of(&nodes[0]).await;
    let damaged = snapshot.path().join("padding");
    let mut content = std::fs::read(&damaged).expect("readable");
    content[PADDING / 2] ^= 1;
    std::fs::write(&damaged, content).expect("written");
    let learner = Node::start(2).await;
    add(&nodes[0], &learner).await;
    eventually("the leader to stop", async || {
        nodes[0].metrics().running_state.is_err()
    })
    .await;
    let fatal = nodes[0].metrics().running_state.expect_err("it stopped");
    assert!(fatal.to_string().contains("padding"), "{fatal}");
    let written = learner.inbox.written.load(Ordering::Relaxed);
    assert!(written < 100, "{written} bytes");
    learner.stop().await;
}
