//! A node that leads alone: a state in which nothing happens, and nobody to ask but one who would join.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::{DEADLINE, Node, leader, local, proposal, start, write};
use super::stop;
use super::store::MemoryMachine;
use crate::network::{ElectionTimers, Error as NetworkError};
use crate::node::{self, Base, Error, LeaderHint, Outcome, Parts, Unconfirmed};
use crate::proto::internal as pb;
use crate::raft::Vote;
use crate::state::{Fault, MemoryStore};
use crate::storage::machine::AppliedAt;
use crate::types::{InstanceId, LogTime, Revision, Room, StateVersion};

/// Whoever is greeted.
const NEW: u64 = 2;

/// What it stands on.
#[derive(Default)]
pub(super) struct Alone(MemoryStore);

/// The node over the Raft of `cluster`'s.
pub(super) fn alone(cluster: &Node) -> node::Node<Alone> {
    let hour = Duration::from_secs(3600);
    // Whatever a read asks for.
    let applied = AppliedAt {
        log_index: u64::MAX,
        ..AppliedAt::default()
    };
    node::Node::start(Parts {
        raft: cluster.raft.clone(),
        base: Alone::default(),
        applied: watch::Sender::new(applied).subscribe(),
        log_clock: Arc::clone(&cluster.clock),
        contact: cluster.contact.clone(),
        cluster: local(cluster.id).cluster,
        id: local(cluster.id).node,
        timers: ElectionTimers {
            lease: hour,
            silence: hour,
        },
    })
}

impl Base for Alone {
    type Machine = MemoryMachine;
    type View<'a> = MemoryStore;

    fn view<T>(
        &self,
        look: impl FnOnce(&MemoryStore) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        Ok((Revision::default(), look(&self.0)?))
    }

    fn header(&self) -> pb::StateHeader {
        pb::StateHeader::default()
    }

    fn next_deadline(&self) -> Option<LogTime> {
        None
    }

    fn highest_node_id(&self) -> u64 {
        1
    }

    fn instance(&self) -> InstanceId {
        local(1).instance
    }

    fn newest_state_version(&self) -> StateVersion {
        StateVersion::FIRST
    }

    fn room_of(&self, _: u64, _: u64) -> Option<Room> {
        None
    }

    async fn greet(
        &self,
        _: &str,
        _: pb::HelloRequest,
        _: Duration,
    ) -> Result<pb::HelloResponse, NetworkError> {
        Ok(pb::HelloResponse {
            node_id: NEW,
            instance: Bytes::copy_from_slice(local(NEW).instance.as_bytes()),
            ..pb::HelloResponse::default()
        })
    }

    async fn ask_read_index(&self, _: &LeaderHint) -> Result<u64, Unconfirmed> {
        Err(Unconfirmed::NoLeader)
    }

    async fn ask_vote(&self, _: u64) -> Option<Vote> {
        None
    }

    async fn is_gone(&self, _: u64) -> bool {
        false
    }

    async fn broken(&self) -> String {
        pending().await
    }

    async fn close(&self) {}
}

/// As one that was cut off would: its entry is written, and nobody says what becomes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_the_members_that_is_not_committed_is_not_waited_for() {
    let cluster = start(1).await.remove(0);
    write(std::slice::from_ref(&cluster), 1).await;
    let node = alone(&cluster);
    let (_reached, fail) = cluster.log.break_next();
    let deadline = Instant::now() + Duration::from_secs(1);
    let added = node.add_member(local(NEW).node, "new:1", deadline);
    let added = tokio::time::timeout(DEADLINE, added).await;
    let error = added.expect("in time").expect_err("it is not committed");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    fail.send(()).expect("the core waits");
    node.close().await;
    cluster.stop().await;
}

/// Until the next leader is elected, which may take a while. Nobody has the entry, so whoever may not send it twice may send it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_leader_that_hands_over_is_given_is_not_applied() {
    let cluster = start(3).await;
    write(&cluster, 1).await;
    let leads = leader(&cluster).await;
    let (old, next) = (&cluster[leads], &cluster[(leads + 1) % 3]);
    let node = alone(old);
    assert!(node.leadership().is_leader());
    next.proxy.isolate(true);
    let handing = old.raft.trigger().transfer_leader(next.id).await;
    handing.expect("it runs");
    let before = old.metrics().last_log_index;
    let command = proposal("key").commands[0].clone();
    let error = node.propose(command).await.expect_err("it hands over");
    let is_next = |leader: &LeaderHint| leader.node.get() == next.id;
    assert!(
        matches!(&error, Error::NotLeader(leader) if is_next(leader)),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(old.metrics().last_log_index, before);
    node.close().await;
    stop(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_shut_down_takes_no_writes() {
    let cluster = start(1).await.remove(0);
    write(std::slice::from_ref(&cluster), 1).await;
    let node = alone(&cluster);
    let command = || proposal("key").commands[0].clone();
    // The machine here says nothing in reply.
    let taken = node.propose(command()).await;
    assert!(!matches!(taken, Err(Error::Draining)), "{taken:?}");
    node.start_drain();
    let error = node.propose(command()).await.expect_err("it drains");
    assert!(matches!(error, Error::Draining), "{error}");
    node.close().await;
    cluster.stop().await;
}
