//! `trolley serve`: its flags as they are typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::switch::switch;
use super::{ByteSize, ProcessArgs};

/// Runs a node.
///
/// One node alone needs a data directory and --single. A cluster needs, on every node, the same
/// --initial-cluster and that node's own --node-id; the address in the list is where it listens.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Directory that holds everything this node stores. Created if absent; one per node, and no two nodes run on copies of one.
    #[arg(long, env = "TROLLEY_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// A cluster of this one node: node id 1, 127.0.0.1:7400 unless --listen says otherwise.
    #[arg(long, env = "TROLLEY_SINGLE", conflicts_with = "initial_cluster", value_parser = switch)]
    pub single: bool,

    /// This node's number in the cluster, from 1. It belongs to the data directory for good.
    #[arg(long, env = "TROLLEY_NODE_ID", value_name = "N")]
    pub node_id: Option<u64>,

    /// Every founding member as ID=HOST:PORT, separated by commas; the same list on every node.
    #[arg(long, env = "TROLLEY_INITIAL_CLUSTER", value_name = "1=A,2=B,3=C")]
    pub initial_cluster: Option<String>,

    /// Become a member of a cluster that exists: wait until its leader was told to add this node (`trolley cluster add-member`).
    /// --initial-cluster then names some of its members, and this node. Of no effect once the data directory is the cluster's.
    #[arg(long, env = "TROLLEY_JOIN", conflicts_with = "single", value_parser = switch)]
    pub join: bool,

    /// Address to accept connections on [default: what --advertise says].
    #[arg(long, env = "TROLLEY_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address under which clients and the other nodes reach this node [default: its entry in --initial-cluster]. The members
    /// remember it: a node that was started under one address does not start under another.
    #[arg(long, env = "TROLLEY_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Milliseconds between a leader's heartbeats. At most a third of the shortest election timeout.
    #[arg(
        long,
        env = "TROLLEY_HEARTBEAT_INTERVAL_MS",
        value_name = "MS",
        default_value_t = 100
    )]
    pub heartbeat_interval_ms: u64,

    /// Time without a heartbeat, in milliseconds, after which a follower asks for votes. A leader whose process has ended is
    /// replaced at once.
    #[arg(
        long,
        env = "TROLLEY_ELECTION_TIMEOUT_MIN_MS",
        value_name = "MS",
        default_value_t = 800
    )]
    pub election_timeout_min_ms: u64,

    /// Longest such time: where asking got nowhere, or no leader was heard yet, a follower asks again after a time that it draws.
    #[arg(
        long,
        env = "TROLLEY_ELECTION_TIMEOUT_MAX_MS",
        value_name = "MS",
        default_value_t = 1600
    )]
    pub election_timeout_max_ms: u64,

    /// A snapshot is taken when the log has grown by this much since the last one.
    #[arg(
        long,
        env = "TROLLEY_SNAPSHOT_LOG_BYTES",
        value_name = "SIZE",
        default_value = "256MiB"
    )]
    pub snapshot_log_bytes: ByteSize,

    /// A snapshot is taken when the last one is this old and something was written since.
    #[arg(long, env = "TROLLEY_SNAPSHOT_INTERVAL", value_name = "DURATION", default_value = "10m",
          value_parser = humantime::parse_duration)]
    pub snapshot_interval: Duration,

    /// Log entries kept behind a snapshot, so that a follower that was away briefly needs no snapshot.
    #[arg(
        long,
        env = "TROLLEY_SNAPSHOT_KEEP_ENTRIES",
        value_name = "N",
        default_value_t = 10_000
    )]
    pub snapshot_keep_entries: u64,

    /// Memory for decoded records of the state.
    #[arg(
        long,
        env = "TROLLEY_RECORD_CACHE_BYTES",
        value_name = "SIZE",
        default_value = "64MiB"
    )]
    pub record_cache_bytes: ByteSize,

    /// Memory for the state database's blocks.
    #[arg(
        long,
        env = "TROLLEY_BLOCK_CACHE_BYTES",
        value_name = "SIZE",
        default_value = "32MiB"
    )]
    pub block_cache_bytes: ByteSize,

    /// Memory that the log collects entries in before it sorts them into a file, and about the length of each of its
    /// write-ahead logs; at most a 256th of the disk.
    #[arg(
        long,
        env = "TROLLEY_LOG_BUFFER_BYTES",
        value_name = "SIZE",
        default_value = "16MiB"
    )]
    pub log_buffer_bytes: ByteSize,

    /// Memory that the state database collects writes in before it sorts them into a file; at most a 256th of the disk.
    #[arg(
        long,
        env = "TROLLEY_WRITE_BUFFER_BYTES",
        value_name = "SIZE",
        default_value = "16MiB"
    )]
    pub write_buffer_bytes: ByteSize,

    /// Memory for changed records that are not in the state database yet: up to three times as much for a moment, and more
    /// while the disk is full. A record that changes again before it is written costs one write less. At most a 256th of the
    /// disk.
    #[arg(
        long,
        env = "TROLLEY_STATE_LAYER_BYTES",
        value_name = "SIZE",
        default_value = "16MiB"
    )]
    pub state_layer_bytes: ByteSize,

    /// Disk space that must be free: below it, nothing is taken that would make the store larger. Three quarters of it are set
    /// aside in a file, for deletes and restarts while the disk is full [default: 512MiB, or a tenth of a smaller disk].
    #[arg(long, env = "TROLLEY_MIN_FREE_DISK", value_name = "SIZE")]
    pub min_free_disk: Option<ByteSize>,

    /// Largest message accepted from a client.
    #[arg(
        long,
        env = "TROLLEY_MAX_MESSAGE_BYTES",
        value_name = "SIZE",
        default_value = "4MiB"
    )]
    pub max_message_bytes: ByteSize,

    /// Of any serving process.
    #[command(flatten)]
    pub process: ProcessArgs,
}
