//! From a data directory to a running node.
//!
//! [`Prepared`] is a verified data directory whose cluster may not be known yet; it can greet and be greeted.
//! [`Prepared::settle`] finds out; [`Prepared::start_settled`] opens the state, starts openraft, and leaves the tasks running that
//! belong to a node.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::SnapshotPolicy;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::RaftError;
use openraft::storage::RaftLogStorage as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bootstrap::{BootstrapError, Newborn, Settled};
use super::incoming::Incoming;
use super::peers::Peers;
use super::recognition::Inquiry;
use super::{
    Disks, Node, Parts, Raft, drop_overtaken, recognition, roll_call, snapshot, space, timekeeping,
    watch as watching,
};
use crate::clock::{Clock, LogClock};
use crate::config::{NodeConfig, Snapshots, Timers};
use crate::limits;
use crate::network::{
    Dialer, ElectionTimers, Gate, Greeter, InitialClusterDiffers, LeaderContact, Local,
    PeerEndpoint, PeerRooms, Pool, RaftEndpoint, Timing,
};
use crate::proto::internal as pb;
use crate::raft::{Member, Membership};
use crate::storage::machine::{Machine, StateConfig};
use crate::storage::{self, DbConfig, LogConfig, LogDb, LogStore};
use crate::types::{ClusterId, NodeId, ShardId};

/// Longest time for a snapshot's chunk, and for installing a received snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// openraft wants a draw to be longer than a heartbeat interval.
const LEAST_DRAW: Duration = Duration::from_millis(1);
/// Entries deleted from the log at a time, at most.
const PURGE_BATCH: u64 = 4096;

/// Why a node did not come up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The node cannot belong to its cluster.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The log cannot be read.
    #[error("cannot read the log: {0}")]
    Log(#[source] std::io::Error),
    /// openraft refused its configuration.
    #[error("Raft refused its configuration: {0}")]
    Config(#[from] openraft::ConfigError),
    /// openraft did not start.
    #[error("Raft did not start: {0}")]
    Raft(String),
    /// The node was started under another address than its cluster dials.
    #[error(
        "the members know node {node} at {listed}, and it was started as {advertised}: start it under the address that they know, or \
         remove it and add a new node, under an id that was never used, at the new one"
    )]
    Moved {
        /// This node.
        node: NodeId,
        /// Where its peers and clients dial it.
        listed: String,
        /// What it was told of itself.
        advertised: String,
    },
}

/// A verified data directory on its way to a node. Cloning shares it.
#[derive(Clone)]
pub struct Prepared {
    config: Arc<NodeConfig>,
    log_db: Arc<LogDb>,
    log: LogStore,
    pool: Pool,
    clock: Clock,
    newborn: Newborn,
    unborn: bool,
}

/// A running node, and what its peers call.
pub struct Started {
    /// The node.
    pub node: Node,
    /// Raft as peers reach it.
    pub raft: RaftEndpoint<Machine, Incoming>,
    /// What peers ask beside Raft.
    pub peers: PeerEndpoint<Node>,
    /// Ends the peers' streams.
    pub end_peers: CancellationToken,
}

impl Prepared {
    /// Opens and verifies the data directory.
    pub async fn open(config: Arc<NodeConfig>, clock: Clock) -> Result<Self, OpenError> {
        let log_config = LogConfig {
            write_buffer_bytes: config.memory.log_buffer.min(table_limit(&config)?),
            ..LogConfig::default()
        };
        let log_db = LogDb::open(&config.data_dir, config.node_id, log_config)?;
        let log_db = Arc::new(log_db);
        let mut log = log_db.log(ShardId::ZERO)?;
        let identity = log_db.identity();
        let newborn = Newborn {
            node: config.node_id,
            instance: identity.instance,
            initial_cluster: config.initial_cluster.clone(),
            joins: config.join,
        };
        let empty = log
            .get_log_state()
            .await
            .map_err(OpenError::Log)?
            .last_log_id
            .is_none();
        // A founder that crashed between its stamp and its first entry goes through the birth again.
        let unborn = identity.cluster.is_none() || (empty && newborn.is_founder());
        let pool = Pool::new(Timing::default());
        Ok(Self {
            config,
            log_db,
            log,
            pool,
            clock,
            newborn,
            unborn,
        })
    }

    /// Whether it must first be found out which cluster this node belongs to. Its greetings must be answered
    /// meanwhile, or no other new node gets further either.
    #[must_use]
    pub fn is_unborn(&self) -> bool {
        self.unborn
    }

    /// Waits until it is known which cluster this node belongs to. Run it while greetings are answered.
    pub async fn settle(&self) -> Result<Option<Settled>, OpenError> {
        if !self.unborn {
            return Ok(None);
        }
        Ok(Some(self.newborn.settle(&self.pool).await?))
    }

    /// Starts the node in the cluster that [`Prepared::settle`] found.
    pub async fn start_settled(self, settled: Option<Settled>) -> Result<Started, OpenError> {
        let (cluster, founding) = match (self.log_db.identity().cluster, settled) {
            (Some(cluster), None) => (cluster, None),
            (known, Some(Settled::Found(members))) => {
                let cluster = known.unwrap_or_else(draw_cluster_id);
                self.log_db.adopt_cluster(cluster).await?;
                (cluster, Some(members))
            }
            (_, Some(Settled::Join(cluster))) => {
                self.log_db.adopt_cluster(cluster).await?;
                (cluster, None)
            }
            (None, None) => return Err(OpenError::Raft("the cluster is not settled".to_owned())),
        };
        let started = self.assemble(cluster).await?;
        if let Some(members) = founding {
            tracing::info!(%cluster, members = members.len(), "founding the cluster");
            started
                .node
                .shared
                .raft
                .initialize(members)
                .await
                .map_err(|error| match error {
                    RaftError::APIError(error) => OpenError::Raft(error.to_string()),
                    RaftError::Fatal(fatal) => OpenError::Raft(fatal.to_string()),
                })?;
        }
        Ok(started)
    }

    async fn assemble(self, cluster: ClusterId) -> Result<Started, OpenError> {
        let config = self.config;
        let local = Local {
            cluster,
            node: config.node_id,
            instance: self.newborn.instance,
        };
        let log_clock = Arc::new(LogClock::new(self.clock));
        timekeeping::recall(&log_clock, &self.log_db)?;
        let contact = LeaderContact::new(Arc::clone(&log_clock));
        let disk = space::Disk::open(&config)?;
        let machine = {
            let (data_dir, log_db, state) = (
                config.data_dir.clone(),
                Arc::clone(&self.log_db),
                state_config(&config, table_limit(&config)?),
            );
            Machine::open(&data_dir, cluster, ShardId::ZERO, log_db, state)?
        };
        machine.check_reaches(self.log.purged())?;
        let (state, builder) = (machine.state(), machine.builder());
        let incoming = Incoming::new(machine.dir(), disk.seen());
        let peer_rooms = PeerRooms::default();
        let dialer = Dialer::new(
            local,
            self.pool.clone(),
            Arc::clone(&log_clock),
            peer_rooms.clone(),
        );
        let raft_config = Arc::new(raft_config(config.timers, config.snapshots).validate()?);
        let (mut log, mut machine) = (self.log.clone(), machine);
        let dropped = drop_overtaken(&mut log, &mut machine).await;
        dropped.map_err(|error| OpenError::Raft(error.to_string()))?;
        let raft = Raft::new(
            config.node_id.get(),
            raft_config,
            dialer.clone(),
            log,
            machine,
        )
        .await
        .map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        let members = raft
            .with_raft_state(|state| state.membership_state.effective().membership().clone())
            .await
            .map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        if let Err(moved) = check_place(&config, &members) {
            // The directory of another cluster has another address, too.
            let place = recognition::place_of(&self.newborn, cluster, &self.pool).await;
            let ended = raft.shutdown().await;
            ended.map_err(|error| OpenError::Raft(error.to_string()))?;
            return Err(place.err().map_or(moved, OpenError::Bootstrap));
        }
        let node = Node::start(Parts {
            applied: state.applied(),
            log_clock,
            contact: contact.clone(),
            cluster,
            id: config.node_id,
            timers: election_timers(config.timers),
            base: Disks {
                state,
                builder,
                log: self.log,
                log_db: self.log_db,
                disk: disk.seen(),
                peer_rooms,
                peers: Peers::new(raft.clone(), dialer, self.pool.clone()),
                beats: watch::Sender::default(),
                instance: self.newborn.instance,
                config: Arc::clone(&config),
            },
            raft,
        });
        node.tend(disk, contact.clone());
        node.inquire(Inquiry {
            newborn: self.newborn,
            cluster,
            pool: self.pool,
            shared: Arc::clone(&node.shared),
            contact: contact.clone(),
        });
        let gate = gate(local, &node.shared.raft);
        let end_peers = CancellationToken::new();
        Ok(Started {
            raft: RaftEndpoint::new(
                node.shared.raft.clone(),
                gate.clone(),
                contact,
                node.shared.base.disk.clone(),
                incoming,
                end_peers.clone(),
                node.shared.tasks.clone(),
            ),
            peers: PeerEndpoint::new(node.clone(), gate),
            node,
            end_peers,
        })
    }
}

impl Greeter for Prepared {
    fn hello(
        &self,
        request: &pb::HelloRequest,
    ) -> Result<pb::HelloResponse, InitialClusterDiffers> {
        let own = self.newborn.hello();
        // Who joins is greeted by the leader that is to add it.
        if !self.newborn.joins && own.initial_cluster != request.initial_cluster {
            return Err(InitialClusterDiffers);
        }
        Ok(pb::HelloResponse {
            node_id: own.node_id,
            instance: own.instance,
            cluster_id: Bytes::new(),
            members: Vec::new(),
            members_at: None,
            newest_state_version: self.config.newest_state_version.get(),
        })
    }
}

impl Node {
    fn inquire(&self, inquiry: Inquiry) {
        self.spawn(|stop| recognition::run(inquiry, stop));
    }

    /// What a node with disks does beside.
    fn tend(&self, disk: space::Disk, contact: LeaderContact) {
        let shared = &self.shared;
        let (state, seen) = (shared.base.state.clone(), shared.base.disk.clone());
        let snapshots = shared.base.config.snapshots;
        self.spawn(|stop| {
            let (clock, log_db) = (&shared.log_clock, &shared.base.log_db);
            timekeeping::run(Arc::clone(clock), Arc::clone(log_db), stop)
        });
        self.spawn(|stop| space::watch_disk(disk, stop));
        self.spawn(|stop| space::watch_compactions(state, seen, stop));
        self.spawn(|stop| space::admit(Arc::clone(shared), stop));
        self.spawn(|stop| space::hand_over(self.clone(), stop));
        self.spawn(|stop| watching::run(self.clone(), contact, stop));
        self.spawn(|stop| roll_call::run(self.clone(), stop));
        self.spawn(|stop| snapshot::run(self.clone(), snapshots, stop));
    }
}

/// Compares what the node was told of the members with what its log and its state say.
///
/// Its own address must be the same. Members dial the one in their membership, so that under another one the node would hear
/// nobody, be of no use to anybody, and look well. That this membership may be outdated is no excuse: an id keeps its address for as
/// long as it is a member, and is never used again. A node that is alone, and meant to be, is dialled by clients only, who are told
/// where it is by whoever moved it.
///
/// That others are listed is usual: some were removed since, or added.
fn check_place(config: &NodeConfig, members: &Membership) -> Result<(), OpenError> {
    let (node, advertised) = (config.node_id, &config.advertise);
    let own = members.get_node(&node.get());
    if let Some(Member {
        address: listed, ..
    }) = own.filter(|own| own.address != *advertised)
    {
        if members.nodes().count() > 1 || config.initial_cluster.len() > 1 {
            return Err(OpenError::Moved {
                node,
                listed: listed.clone(),
                advertised: advertised.clone(),
            });
        }
        tracing::warn!(
            listed,
            advertised,
            "this node was started under another address than it has as a member: that does no harm while it is alone; before \
             others are added it must be back"
        );
    }
    let strangers = strangers(config, members);
    if !strangers.is_empty() {
        tracing::warn!(
            ?strangers,
            "--initial-cluster names nodes that are no members: whoever is to become one is started with --join and added \
             by `trolley cluster add-member`"
        );
    }
    Ok(())
}

/// Who is listed and no member, where the members are known.
fn strangers(config: &NodeConfig, members: &Membership) -> Vec<u64> {
    let listed = config.initial_cluster.keys().map(|id| id.get());
    let is_known = members.nodes().next().is_some();
    listed
        .filter(|id| is_known && members.get_node(id).is_none())
        .collect()
}

fn draw_cluster_id() -> ClusterId {
    ClusterId::new(uuid::Uuid::new_v4().into_bytes())
}

fn gate(local: Local, raft: &Raft) -> Gate {
    let metrics = RwLock::new(raft.server_metrics());
    Gate::new(local, move |id| {
        let metrics = metrics.read().unwrap_or_else(PoisonError::into_inner);
        metrics
            .borrow_watched()
            .membership_config
            .membership()
            .get_node(&id)
            .cloned()
    })
}

/// How large a write buffer or a table may be on the disk that there is.
fn table_limit(config: &NodeConfig) -> Result<usize, storage::Error> {
    let disk = storage::capacity(&config.data_dir)?;
    let part = usize::try_from(disk.total / limits::TABLE_PARTS).unwrap_or(usize::MAX);
    Ok(part.max(limits::TABLE_MIN_BYTES))
}

fn state_config(config: &NodeConfig, table_limit: usize) -> StateConfig {
    StateConfig {
        database: DbConfig {
            block_cache_bytes: config.memory.block_cache,
            state_write_buffer_bytes: config.memory.write_buffer.min(table_limit),
            state_table_bytes: limits::STATE_TABLE_BYTES.min(table_limit),
            ..DbConfig::default()
        },
        record_cache_bytes: config.memory.record_cache,
        layer_bytes: config.memory.state_layer.min(table_limit),
        unwritten_bytes: limits::UNWRITTEN_EVENT_BYTES.min(table_limit),
        newest_version: config.newest_state_version,
    }
}

/// When a follower misses its leader. The lease leaves two heartbeats until then, and is at most half of the longest
/// timeout, because openraft waits for its lease and up to as much again.
#[must_use]
pub fn election_timers(timers: Timers) -> ElectionTimers {
    ElectionTimers {
        lease: (timers.election_min * 4 / 5).min(timers.election_max / 2),
        silence: timers.election_min,
    }
}

/// What differs from openraft's defaults, and why.
#[must_use]
pub fn raft_config(timers: Timers, snapshots: Snapshots) -> openraft::Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let lease = election_timers(timers).lease;
    openraft::Config {
        cluster_name: "trolley".to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        // For openraft, the longest timeout is its lease, and a follower stands when that and a timeout are over. Who misses
        // a leader has asked for votes long before, see `network::campaign`. The shortest is also how long a candidate waits for an
        // answer, which comes when the voter has synced its vote: where that takes longer on a majority, nobody is ever elected.
        // So it is nearly the lease, and openraft draws from what is left.
        election_timeout_min: millis((lease * 9 / 10).max(timers.heartbeat + LEAST_DRAW)),
        election_timeout_max: millis(lease),
        // A node that comes back from a partition must not depose a leader that is well.
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected again: its state may be behind what it had acknowledged.
        enable_leader_restore: Some(false),
        // A follower whose log went back has lost acknowledged entries. That is never repaired in silence.
        allow_log_reversion: Some(false),
        // Longer than two elections, so that a leader without a quorum lets the others hear each other.
        quorum_loss_probe_interval: Some(2 * (2 * millis(timers.election_max))),
        max_payload_entries: limits::APPEND_ENTRIES,
        max_append_entries: Some(limits::APPEND_ENTRIES),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        // Snapshots are taken by size and age, see `snapshot`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: snapshots.keep_entries,
        replication_lag_threshold: snapshots.keep_entries.saturating_mul(4),
        // A purge waits until it has a whole batch: with fewer entries to keep, a batch of 4,096 would keep many times as many.
        purge_batch_size: PURGE_BATCH.min(snapshots.keep_entries.max(1)),
        ..openraft::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clap::Parser;

    use super::*;
    use crate::config::ServeArgs;
    use crate::types::InstanceId;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn parsed(flags: &[&str]) -> NodeConfig {
        let line = ["serve", "--data-dir", "unused", "--node-id", "2"];
        let line = line.iter().chain(flags);
        let args = Line::parse_from(line).args;
        NodeConfig::try_from(args).expect("they are well formed")
    }

    /// Node 2 of these.
    fn config(initial_cluster: &str) -> NodeConfig {
        parsed(&["--initial-cluster", initial_cluster])
    }

    fn members(all: &[(u64, &str)]) -> Membership {
        let instance = InstanceId::new([7; 16]);
        let member = |address: &str| Member {
            address: address.to_owned(),
            instance,
        };
        let nodes: BTreeMap<_, _> = all.iter().map(|(id, at)| (*id, member(at))).collect();
        let voters: BTreeSet<_> = nodes.keys().copied().collect();
        Membership::new(vec![voters], nodes).expect("every voter is a node")
    }

    #[test]
    fn a_node_that_is_a_member_at_another_address_does_not_start() {
        let known = members(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        let moved = check_place(&config("1=a:1,2=b:2,3=c:1"), &known);
        let moved = moved.expect_err("nobody dials b:2").to_string();
        for part in ["node 2", "b:1", "b:2"] {
            assert!(moved.contains(part), "{moved}");
        }
        check_place(&parsed(&["--single", "--listen", "b:2"]), &known)
            .expect_err("it is not alone");
        let others_moved = check_place(&config("1=a:2,2=b:1,3=c:2"), &known);
        others_moved.expect("it knows better where they are");
        let removed = members(&[(1, "a:1"), (3, "c:1")]);
        let removed = check_place(&config("1=a:1,2=b:2"), &removed);
        removed.expect("it asks the others, and hears that it was removed");
        check_place(&config("1=a:1,2=b:2"), &Membership::default()).expect("it is new");
    }

    #[test]
    fn a_node_alone_may_move_unless_it_is_to_be_one_of_several() {
        let alone = members(&[(2, "b:1")]);
        let moved = parsed(&["--single", "--listen", "b:2"]);
        check_place(&moved, &alone).expect("nobody dials it but clients");
        check_place(&config("1=a:1,2=b:2"), &alone).expect_err("others are to dial it");
    }

    #[test]
    fn who_is_listed_and_no_member_is_told_of() {
        let known = members(&[(2, "b:1"), (4, "d:1")]);
        assert_eq!(strangers(&config("1=a:1,2=b:1,3=c:1"), &known), [1, 3]);
        assert!(strangers(&config("2=b:1,4=d:1"), &known).is_empty());
        assert!(strangers(&config("1=a:1,2=b:1"), &Membership::default()).is_empty());
    }
}
