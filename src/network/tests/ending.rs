//! Peers that hang up while openraft's core ends. Whoever noticed first must see it through: openraft panics in every
//! later call otherwise, see [`crate::raft::ask`].

use std::sync::mpsc;

use futures::{StreamExt as _, poll, stream};
use openraft::Vote;
use openraft::raft::AppendEntriesRequest;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tonic::Request;

use super::alone::alone;
use super::cluster::{DEADLINE, Node, local, proposal, start, write};
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_server::RaftService as _;
use crate::raft::Appending;

/// A node that leads alone, and whose core is held where it lets go of what it was asked: nobody can ask it any more, and
/// its task has not ended.
struct Ending {
    node: Node,
    /// Lets the core end, when it is dropped.
    held: mpsc::SyncSender<()>,
}

/// Says when it is dropped, and holds whoever drops it.
struct Holds {
    dropped: Option<oneshot::Sender<()>>,
    until: mpsc::Receiver<()>,
}

impl Drop for Holds {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            // The test may have failed already.
            let _ = dropped.send(());
        }
        // It ends with the sender, or after a time in which the test has failed.
        let _ = self.until.recv_timeout(DEADLINE);
    }
}

impl Ending {
    /// `ask` asks the core before it ends, and is never answered.
    async fn begin<Q>(ask: impl AsyncFnOnce(&Node) -> Q) -> (Self, Q) {
        let node = start(1).await.remove(0);
        write(std::slice::from_ref(&node), 1).await;
        let (reached, fail) = node.log.break_next();
        // Nobody waits for the reply: it would be he who notices first, and he does not hang up.
        let written = node.raft.client_write_many([proposal("key")]).await;
        in_time(reached).await.expect("said");
        let asked = ask(&node).await;
        let (held, until) = mpsc::sync_channel(0);
        let (dropped, is_dropped) = oneshot::channel();
        let holds = Holds {
            dropped: Some(dropped),
            until,
        };
        // It is never run: the core ends at the write before it.
        let request = move |_: &_| drop(holds);
        node.raft.external_request(request).await.expect("runs");
        fail.send(()).expect("the core waits");
        in_time(is_dropped).await.expect("said");
        drop(written.expect("proposed"));
        let ending = Self { node, held };
        (ending, asked)
    }

    /// Lets the core end, and asks it once more.
    async fn end(self) {
        let raft = self.node.raft.clone();
        let mut last = Box::pin(async move { raft.trigger().heartbeat().await });
        assert!(poll!(&mut last).is_pending(), "the core has not ended");
        drop(self.held);
        let fatal = in_time(last).await.expect_err("it has ended");
        assert!(fatal.to_string().contains("broken for a test"), "{fatal}");
        self.node.stop().await;
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("in time")
}

fn vote() -> pb::VoteRequest {
    pb::VoteRequest {
        envelope: Some(local(2).envelope(1, local(1).instance)),
        vote: Some(pb::Vote {
            term: 99,
            node_id: 2,
            committed: false,
        }),
        ..pb::VoteRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_cancelled_while_raft_ends_keeps_nobody_from_the_end() {
    let (ending, ()) = Ending::begin(async |_| ()).await;
    let endpoint = ending.node.endpoint(local(1));
    let mut call = endpoint.vote(Request::new(vote()));
    assert!(poll!(&mut call).is_pending(), "it waits for the end");
    drop(call);
    ending.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_breaks_while_raft_ends_keeps_nobody_from_the_end() {
    let begun = Ending::begin(async |node| {
        let (taken, is_taken) = oneshot::channel();
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(99, 2),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        // openraft looks for a second request when it has the first.
        let rest = stream::once(async move {
            taken.send(()).expect("the test waits");
            std::future::pending().await
        });
        let requests = stream::once(std::future::ready(request)).chain(rest);
        let answers = Appending::new(&node.raft, TaskTracker::new(), requests);
        in_time(is_taken).await.expect("said");
        answers
    });
    let (ending, mut answers) = begun.await;
    assert!(poll!(answers.next()).is_pending(), "it waits for the end");
    drop(answers);
    ending.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_that_hangs_up_while_raft_ends_keeps_nobody_from_the_end() {
    let (ending, leader) = Ending::begin(async |node| alone(node)).await;
    let mut asked = Box::pin(leader.read_index());
    assert!(poll!(&mut asked).is_pending(), "it waits for the end");
    drop(asked);
    ending.end().await;
    leader.close().await;
}
