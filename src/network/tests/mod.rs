//! Clusters in one process: real connections and real openraft over a log and a machine in memory.

mod alone;
mod cluster;
mod ending;
mod pipeline;
mod proxy;
mod snapshots;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::network::RPCOption;
use openraft::raft::VoteRequest;
use openraft::{RaftNetworkFactory as _, RaftNetworkV2 as _, ServerState};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic_types::StatusExt as _;

use self::cluster::{
    DEADLINE, LEASE, Node, converge, disk, eventually, leader, local, proposal, start, start_with,
    write,
};
use self::store::Files;
use super::channel::within;
use super::{
    Dialer, ElectionTimers, Error, Lane, PeerRooms, Pool, Timing, campaign, refuses_connections,
};
use crate::clock::{Clock, LogClock};
use crate::proto::internal as pb;
use crate::raft::{Member, Vote};
use crate::types::{ClusterId, InstanceId, LogTime, Room};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_elects_and_replicates_ten_thousand_entries() {
    let nodes = start(3).await;
    write(&nodes, 10_000).await;
    converge(&nodes).await;
    // One connection per lane from each of the others at most, whatever number of clients openraft made.
    for node in &nodes {
        let accepted = node.proxy.accepted();
        assert!(accepted <= 6, "{accepted} connections to node {}", node.id);
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_survives_connections_that_break_in_the_middle() {
    let nodes = start(3).await;
    let leads = leader(&nodes).await;
    let is_follower = |node: &&Node| node.id != nodes[leads].id;
    for round in 0..10_u64 {
        // Each round sends about 150,000 bytes to each of them.
        for node in nodes.iter().filter(is_follower) {
            node.proxy.cut_after(50_000 + 10_000 * round);
        }
        write(&nodes, 500).await;
        converge(&nodes).await;
    }
    for node in nodes.iter().filter(is_follower) {
        assert!(node.proxy.cuts() > 0, "connections did break");
    }
    stop(nodes).await;
}

/// Lets nodes campaign with these timers, and not by openraft's. `is_gone` is what they find where the leader was.
fn campaign_with(nodes: &[Node], timers: ElectionTimers, is_gone: bool) -> JoinSet<()> {
    let mut campaigns = JoinSet::new();
    for node in nodes {
        node.raft.runtime_config().elect(false);
        let (raft, contact) = (node.raft.clone(), node.contact.clone());
        campaigns.spawn(campaign(raft, contact, timers, move |_| {
            std::future::ready(is_gone)
        }));
    }
    campaigns
}

/// Kills the leader in such a way that all others see its connections break. Returns who it was.
async fn kill_leader(nodes: &mut Vec<Node>) -> u64 {
    let leads = leader(nodes).await;
    let killed = nodes.swap_remove(leads);
    let old = killed.id;
    let losses = || -> Vec<u64> { nodes.iter().map(|node| node.contact.get().losses).collect() };
    let before = losses();
    for node in &*nodes {
        node.proxy.isolate(true);
    }
    // Before the leader's Raft can end its streams in order. Until the proxies let them, the others do not reach each other.
    eventually("broken connections", async || {
        losses()
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before)
    })
    .await;
    killed.kill().await;
    for node in &*nodes {
        // A heartbeat that had come before may have been read since, and is a sign of life; nobody here misses a silent leader.
        node.contact.lost(old);
        node.proxy.isolate(false);
    }
    old
}

async fn await_other_leader(nodes: &[Node], old: u64) {
    eventually("another leader", async || {
        let new = nodes[0].raft.current_leader().await;
        new.is_some_and(|id| id != old)
    })
    .await;
    write(nodes, 10).await;
    converge(nodes).await;
}

/// Nobody misses a leader for its silence.
const DEAF: ElectionTimers = ElectionTimers {
    lease: LEASE,
    silence: DEADLINE.saturating_mul(100),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_connection_broke_is_replaced_when_its_lease_is_over() {
    let mut nodes = start(3).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let _campaigns = campaign_with(&nodes, DEAF, false);
    let old = kill_leader(&mut nodes).await;
    await_other_leader(&nodes, old).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_has_ended_is_replaced_in_spite_of_its_lease() {
    let lease = DEADLINE * 100;
    let mut nodes = start_with(3, lease).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let _campaigns = campaign_with(&nodes, ElectionTimers { lease, ..DEAF }, true);
    let old = kill_leader(&mut nodes).await;
    await_other_leader(&nodes, old).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_is_replaced() {
    let mut nodes = start(3).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let leads = leader(&nodes).await;
    let silent = nodes.swap_remove(leads);
    let timers = ElectionTimers {
        lease: LEASE,
        silence: LEASE * 2,
    };
    let _campaigns = campaign_with(&nodes, timers, false);
    // It lives, and its connections stand.
    silent.raft.runtime_config().heartbeat(false);
    await_other_leader(&nodes, silent.id).await;
    silent.stop().await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_where_connections_are_refused_has_a_process_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    assert!(!refuses_connections(&address).await, "somebody listens");
    drop(listener);
    assert!(refuses_connections(&address).await, "nobody listens");
    assert!(!refuses_connections("no address").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request() {
    let nodes = start(3).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let leads = leader(&nodes).await;
    let target = nodes[(leads + 1) % 3].id;
    let trigger = nodes[leads].raft.trigger();
    trigger.transfer_leader(target).await.expect("runs");
    eventually("the target leads", async || {
        nodes[0].raft.current_leader().await == Some(target)
    })
    .await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_voter_is_waited_for_as_long_as_openraft_does() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let member = Member {
        address: silent.local_addr().expect("bound").to_string(),
        instance: local(2).instance,
    };
    let clock = Arc::new(LogClock::new(Clock::System));
    let pool = Pool::new(Timing::default());
    let mut dialer = Dialer::<Files>::new(local(1), pool, clock, PeerRooms::default());
    let mut peer = dialer.new_client(2, &member).await;
    let patience = Duration::from_millis(300);
    let request = || VoteRequest::new(Vote::new(1, 1), None);
    let began = Instant::now();
    let answer = peer.vote(request(), RPCOption::new(patience)).await;
    assert!(answer.is_err(), "nobody votes");
    assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
    let began = Instant::now();
    let answer = peer.pre_vote(request(), RPCOption::new(patience)).await;
    assert!(answer.is_err(), "nobody would");
    assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
}

/// A node that was restarted is elected by others who went on: it has heard no leader, and its wall clock is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_learns_log_time_from_its_voters() {
    let log_time = LogTime::from_millis(5_000_000);
    let nodes = start(3).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let leads = leader(&nodes).await;
    let restarted = &nodes[(leads + 1) % 3];
    for node in nodes.iter().filter(|node| node.id != restarted.id) {
        node.clock.observe(log_time);
    }
    let trigger = nodes[leads].raft.trigger();
    trigger.transfer_leader(restarted.id).await.expect("runs");
    eventually("it leads", async || {
        restarted.raft.current_leader().await == Some(restarted.id)
    })
    .await;
    let told = restarted.clock.peek().expect("a voter told it");
    let longest = LogTime::from_millis(log_time.as_millis() + 3_600_000);
    assert!((log_time..longest).contains(&told), "{told}");
    stop(nodes).await;
}

/// Or a leader that dies before its first heartbeat takes log time with it: its entries have stamps, but when was that?
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_took_an_entry_has_heard_log_time() {
    let nodes = start(3).await;
    let leads = leader(&nodes).await;
    for node in &nodes {
        let config = node.raft.runtime_config();
        config.heartbeat(false);
        config.elect(false);
    }
    write(&nodes, 1).await;
    converge(&nodes).await;
    let unheard = nodes.iter().all(|node| node.clock.peek().is_none());
    assert!(unheard, "there is nothing to hear");
    let log_time = LogTime::from_millis(5_000_000);
    nodes[leads].clock.observe(log_time);
    write(&nodes, 1).await;
    converge(&nodes).await;
    for node in &nodes {
        let heard = node.clock.peek();
        assert!(heard >= Some(log_time), "node {}: {heard:?}", node.id);
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hears_of_room_and_a_full_follower_takes_no_commands() {
    let nodes = start(3).await;
    write(&nodes, 10).await;
    converge(&nodes).await;
    let leads = leader(&nodes).await;
    let full = (leads + 1) % 3;
    let id = nodes[full].id;
    let heard = || {
        let metrics = nodes[leads].metrics();
        let heard = nodes[leads].rooms.in_term(metrics.current_term);
        heard.get(&id).and_then(|heard| heard.room)
    };
    eventually("the leader hears", async || heard() == Some(Room::Ample)).await;
    nodes[full].disk.send_replace(disk(Room::Full));
    eventually("the leader hears", async || heard() == Some(Room::Full)).await;
    let before = nodes[full].metrics().last_log_index;
    let contact = nodes[full].contact.get().heard_at;
    write(&nodes, 10).await;
    assert_eq!(nodes[full].metrics().last_log_index, before, "it is full");
    // It follows all the same, or it would stand for election.
    eventually("a heartbeat", async || {
        nodes[full].contact.get().heard_at > contact
    })
    .await;
    nodes[full].disk.send_replace(disk(Room::Scarce));
    converge(&nodes).await;
    assert!(nodes[full].metrics().last_log_index > before);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_node_wins_no_pre_vote_and_disturbs_nobody() {
    let nodes = start(3).await;
    let leads = leader(&nodes).await;
    let stale = (leads + 1) % 3;
    nodes[stale].proxy.isolate(true);
    eventually("the majority commits", async || {
        nodes[leads].write(100).await
    })
    .await;
    let term = nodes[leads].metrics().current_term;
    // It hears nothing, its lease runs out, and it asks for pre-votes: its own calls go out.
    eventually("the isolated node gives its leader up", async || {
        nodes[stale].raft.trigger().elect(true).await.expect("runs");
        nodes[stale].contact.get().heard_at.elapsed() > 2 * LEASE
    })
    .await;
    let metrics = nodes[stale].metrics();
    assert_eq!(metrics.current_term, term, "no pre-vote was granted");
    assert_ne!(metrics.state, ServerState::Leader);
    assert_eq!(
        nodes[leads].raft.current_leader().await,
        Some(nodes[leads].id)
    );
    nodes[stale].proxy.isolate(false);
    converge(&nodes).await;
    assert_eq!(nodes[leads].metrics().current_term, term);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_before_anything_happens() {
    let nodes = start(1).await;
    let target = local(1).instance;
    let address = nodes[0].proxy.address.to_string();
    let pool = Pool::new(Timing::default());
    let mut foreign = local(2);
    foreign.cluster = ClusterId::new([8; 16]);
    let cases = [
        (
            "another cluster",
            foreign.envelope(1, target),
            "WRONG_CLUSTER",
        ),
        ("another node", local(2).envelope(3, target), "WRONG_NODE"),
        (
            "another disk",
            local(2).envelope(1, InstanceId::new([9; 16])),
            "WRONG_NODE",
        ),
    ];
    let vote = pb::Vote {
        term: 99,
        node_id: 2,
        committed: true,
    };
    for (name, envelope, expected) in cases {
        let mut client = pool.raft(&address, Lane::Control).expect("an address");
        let append = pb::AppendRequest {
            envelope: Some(envelope.clone()),
            vote: Some(vote),
            ..pb::AppendRequest::default()
        };
        let refused = within(DEADLINE, client.append(append.clone())).await;
        assert_eq!(reason(refused.expect_err(name)), expected, "{name}");

        let stream = tokio_stream::iter([append]);
        let refused = client.stream_append(stream).await.expect_err(name);
        let info = refused.get_details_error_info().expect("has details");
        assert_eq!(info.reason, expected, "{name}");

        let request = pb::VoteRequest {
            envelope: Some(envelope.clone()),
            vote: Some(pb::Vote {
                committed: false,
                ..vote
            }),
            ..pb::VoteRequest::default()
        };
        let refused = within(DEADLINE, client.vote(request.clone())).await;
        assert_eq!(reason(refused.expect_err(name)), expected, "{name}");
        let refused = within(DEADLINE, client.pre_vote(request)).await;
        assert_eq!(reason(refused.expect_err(name)), expected, "{name}");
        let offer = pb::SnapshotOffer {
            envelope: Some(envelope),
            ..pb::SnapshotOffer::default()
        };
        let refused = within(DEADLINE, client.offer_snapshot(offer)).await;
        assert_eq!(reason(refused.expect_err(name)), expected, "{name}");
    }
    assert_eq!(nodes[0].metrics().current_term, 1);
    stop(nodes).await;
}

fn reason(error: Error) -> String {
    match error {
        Error::Refused { reason, .. } => reason,
        other => panic!("not refused: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_not_let_back_in_under_its_old_id() {
    let nodes = start(2).await;
    let mut wiped = local(2);
    wiped.instance = InstanceId::new([99; 16]);
    let impostor = Node::start_as(wiped, LEASE).await;
    let member = nodes[0].member();
    let mut client = Pool::new(Timing::default())
        .raft(&member.address, Lane::Control)
        .expect("an address");
    let request = pb::VoteRequest {
        envelope: Some(wiped.envelope(1, member.instance)),
        vote: Some(pb::Vote {
            term: 99,
            node_id: 2,
            committed: false,
        }),
        ..pb::VoteRequest::default()
    };
    let refused = within(DEADLINE, client.vote(request)).await;
    assert_eq!(reason(refused.expect_err("refused")), "WRONG_NODE");
    stop(nodes).await;
    impostor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_is_no_sign_of_life() {
    let nodes = start(3).await;
    let leads = leader(&nodes).await;
    let (follower, deposed) = (&nodes[(leads + 1) % 3], &nodes[(leads + 2) % 3]);
    for node in &nodes {
        // However slow this machine is, nobody else is elected meanwhile.
        node.raft.runtime_config().elect(false);
    }
    eventually("a heartbeat", async || {
        follower.contact.get().leader == nodes[leads].id
    })
    .await;
    let address = follower.proxy.address.to_string();
    let mut client = Pool::new(Timing::default())
        .raft(&address, Lane::Log)
        .expect("an address");
    let stale = pb::AppendRequest {
        envelope: Some(local(deposed.id).envelope(follower.id, local(follower.id).instance)),
        vote: Some(pb::Vote {
            term: 0,
            node_id: deposed.id,
            committed: true,
        }),
        ..pb::AppendRequest::default()
    };
    let mut news = follower.contact.subscribe();
    let unary = client.append(stale.clone()).await.expect("answered");
    let mut streamed = client
        .stream_append(tokio_stream::iter([stale]))
        .await
        .expect("opens")
        .into_inner();
    let streamed = streamed.message().await.expect("answered");
    for answer in [unary.into_inner(), streamed.expect("one")] {
        let refused = matches!(
            answer.result,
            Some(pb::append_response::Result::HigherVote(_))
        );
        assert!(refused, "{answer:?}");
    }
    assert!(
        !news.has_changed().expect("open"),
        "{:?}",
        news.borrow_and_update()
    );
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_an_error_and_no_panic() {
    let nodes = start(2).await;
    leader(&nodes).await;
    let address = nodes[0].proxy.address.to_string();
    let mut client = Pool::new(Timing::default())
        .raft(&address, Lane::Log)
        .expect("an address");
    let envelope = Some(local(2).envelope(1, local(1).instance));
    let vote = Some(pb::Vote {
        term: 99,
        node_id: 2,
        committed: true,
    });
    let at = |index| {
        Some(pb::LogId {
            term: 1,
            node_id: 1,
            index,
        })
    };
    let entry = |index, command: &'static [u8]| pb::Entry {
        log_id: at(index),
        payload: Some(pb::entry::Payload::Proposal(
            pb::Proposal {
                stamp: 1,
                commands: vec![Bytes::from_static(command)],
            }
            .encode_to_vec()
            .into(),
        )),
    };
    let good = pb::AppendRequest {
        envelope,
        vote,
        prev_log_id: at(5),
        leader_time: 0,
        leader_commit: None,
        entries: Vec::new(),
    };
    let stolen = Some(pb::Vote {
        term: 99,
        node_id: 1,
        committed: true,
    });
    let cases = [
        (
            "a damaged command",
            pb::AppendRequest {
                entries: vec![entry(6, b"\xff\xff")],
                ..good.clone()
            },
        ),
        (
            "a gap",
            pb::AppendRequest {
                entries: vec![entry(8, b"")],
                ..good.clone()
            },
        ),
        (
            "no vote",
            pb::AppendRequest {
                vote: None,
                ..good.clone()
            },
        ),
        (
            "the receiver's own vote",
            pb::AppendRequest {
                vote: stolen,
                ..good.clone()
            },
        ),
    ];
    for (name, request) in cases {
        let unary = client.append(request.clone()).await.expect_err(name);
        assert_eq!(unary.code(), tonic::Code::InvalidArgument, "{name}");
        let mut answers = client
            .stream_append(tokio_stream::iter([request]))
            .await
            .expect("opens")
            .into_inner();
        let streamed = answers.message().await.expect_err(name);
        assert_eq!(streamed.code(), tonic::Code::InvalidArgument, "{name}");
    }
    let leads = leader(&nodes).await;
    nodes[leads]
        .raft
        .client_write(proposal("still-alive"))
        .await
        .expect("committed");
    stop(nodes).await;
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}
