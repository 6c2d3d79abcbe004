//! What the flags mean: complete and consistent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{ByteSize, Error, Process, ServeArgs};
use crate::limits;
use crate::types::{NodeId, StateVersion, is_dialable, split_address};

/// Where a node that is alone listens.
const SINGLE_ADDRESS: &str = "127.0.0.1:7400";
const SINGLE_ID: u64 = 1;
/// A heartbeat interval below it costs more than it finds out.
const HEARTBEAT_MIN_MS: u64 = 10;
/// Nobody waits longer than this for a new leader.
const ELECTION_MAX_MS: u64 = 60_000;
/// A follower must miss this many heartbeats in a row before it stands for election.
const HEARTBEATS_MISSED: u64 = 3;

/// Everything that a node needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node.
    pub node_id: NodeId,
    /// Where it stores everything.
    pub data_dir: PathBuf,
    /// Where it accepts connections.
    pub listen: String,
    /// Where others reach it; its entry in `initial_cluster`.
    pub advertise: String,
    /// The founding members, this node included.
    pub initial_cluster: BTreeMap<NodeId, String>,
    /// It waits to be added to a cluster that exists, and founds none.
    pub join: bool,
    /// Raft's timers.
    pub timers: Timers,
    /// When snapshots are taken.
    pub snapshots: Snapshots,
    /// Caches and buffers.
    pub memory: Memory,
    /// Disk space that must be free, in bytes; `None`: as the disk's size suggests.
    pub min_free_disk: Option<u64>,
    /// Largest message of a client.
    pub message_bytes: usize,
    /// The newest version of the state's rules that the program knows. No flag sets it: it is for tests, which have no other program.
    pub newest_state_version: StateVersion,
    /// The process.
    pub process: Process,
}

/// Raft's timers. `heartbeat * 3 <= election_min < election_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between a leader's heartbeats.
    pub heartbeat: Duration,
    /// A follower that was told nothing for so long asks for votes.
    pub election_min: Duration,
    /// Longest time until a follower that got nowhere asks again.
    pub election_max: Duration,
}

/// When snapshots are taken, and what stays behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshots {
    /// Growth of the log.
    pub log_bytes: u64,
    /// Age of the last one.
    pub interval: Duration,
    /// Entries that are kept behind one.
    pub keep_entries: u64,
}

/// Caches and buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Decoded records.
    pub record_cache: usize,
    /// Database blocks.
    pub block_cache: usize,
    /// Unsorted entries of the log.
    pub log_buffer: usize,
    /// Unsorted writes of the state database.
    pub write_buffer: usize,
    /// Changed records that are not in the state database yet.
    pub state_layer: usize,
}

impl TryFrom<ServeArgs> for NodeConfig {
    type Error = Error;

    fn try_from(args: ServeArgs) -> Result<Self, Error> {
        if args.data_dir.as_os_str().is_empty() {
            return Err(Error::Missing {
                flag: "--data-dir",
                hint: "name the directory that holds this node's data",
            });
        }
        let Place {
            node_id,
            listen,
            advertise,
            initial_cluster,
        } = Place::try_from(&args)?;
        Ok(Self {
            node_id,
            listen,
            advertise,
            initial_cluster,
            join: args.join,
            timers: timers(&args)?,
            snapshots: snapshots(&args)?,
            memory: memory(&args)?,
            min_free_disk: min_free_disk(args.min_free_disk)?,
            message_bytes: message_bytes(args.max_message_bytes)?,
            newest_state_version: StateVersion::NEWEST,
            process: Process::try_from(args.process)?,
            data_dir: args.data_dir,
        })
    }
}

/// Who this node is and where everybody is.
struct Place {
    node_id: NodeId,
    listen: String,
    advertise: String,
    initial_cluster: BTreeMap<NodeId, String>,
}

impl TryFrom<&ServeArgs> for Place {
    type Error = Error;

    fn try_from(args: &ServeArgs) -> Result<Self, Error> {
        if args.single {
            return Self::single(args);
        }
        let number = args.node_id.ok_or(Error::Missing {
            flag: "--node-id",
            hint: "give this node's number in --initial-cluster, or --single for a cluster of one",
        })?;
        let list = args.initial_cluster.as_ref().ok_or(Error::Missing {
            flag: "--initial-cluster",
            hint: "list every node as ID=HOST:PORT, or give --single for a cluster of one",
        })?;
        let node_id = node_id(number)?;
        let initial_cluster = initial_cluster(list)?;
        let own = initial_cluster
            .get(&node_id)
            .ok_or_else(|| Error::Conflict {
                first: "--node-id",
                second: "--initial-cluster",
                relation: format!("the list must have an entry for this node, {node_id}=HOST:PORT"),
            })?;
        let advertise = args.advertise.clone().unwrap_or_else(|| own.clone());
        if advertise != *own {
            return Err(Error::Conflict {
                first: "--advertise",
                second: "--initial-cluster",
                relation: format!(
                    "the list says {own} for node {node_id}, so --advertise must too"
                ),
            });
        }
        let listen = args.listen.clone().unwrap_or_else(|| advertise.clone());
        check_address("--listen", &listen)?;
        Ok(Self {
            node_id,
            listen,
            advertise,
            initial_cluster,
        })
    }
}

impl Place {
    fn single(args: &ServeArgs) -> Result<Self, Error> {
        let node_id = node_id(args.node_id.unwrap_or(SINGLE_ID))?;
        let listen = args
            .listen
            .clone()
            .unwrap_or_else(|| SINGLE_ADDRESS.to_owned());
        check_address("--listen", &listen)?;
        let advertise = args.advertise.clone().unwrap_or_else(|| listen.clone());
        check_reachable("--advertise", &advertise)?;
        Ok(Self {
            node_id,
            listen,
            initial_cluster: BTreeMap::from([(node_id, advertise.clone())]),
            advertise,
        })
    }
}

fn node_id(number: u64) -> Result<NodeId, Error> {
    NodeId::new(number).map_err(|_| Error::Malformed {
        flag: "--node-id",
        value: number.to_string(),
        expected: "node ids start at 1".to_owned(),
    })
}

fn initial_cluster(list: &str) -> Result<BTreeMap<NodeId, String>, Error> {
    let malformed = |expected: String| Error::Malformed {
        flag: "--initial-cluster",
        value: list.to_owned(),
        expected,
    };
    let mut members = BTreeMap::new();
    for entry in list.split(',') {
        let entry = entry.trim();
        let (id, address) = entry
            .split_once('=')
            .ok_or_else(|| malformed(format!("{entry:?} is not ID=HOST:PORT")))?;
        let id = id
            .parse()
            .ok()
            .and_then(|id| NodeId::new(id).ok())
            .ok_or_else(|| malformed(format!("{id:?} is not a node id; ids are numbers from 1")))?;
        check_reachable("--initial-cluster", address)?;
        if members.values().any(|known| known == address) {
            return Err(malformed(format!("{address} is listed twice")));
        }
        if members.insert(id, address.to_owned()).is_some() {
            return Err(malformed(format!("node id {id} is listed twice")));
        }
    }
    Ok(members)
}

/// An address to listen on.
fn check_address(flag: &'static str, address: &str) -> Result<(), Error> {
    match split_address(address) {
        Some(_) => Ok(()),
        None => Err(Error::Malformed {
            flag,
            value: address.to_owned(),
            expected: "expected HOST:PORT, for example 127.0.0.1:7400 or [::1]:7400".to_owned(),
        }),
    }
}

/// An address that another machine can dial.
fn check_reachable(flag: &'static str, address: &str) -> Result<(), Error> {
    check_address(flag, address)?;
    if is_dialable(address) {
        return Ok(());
    }
    Err(Error::Malformed {
        flag,
        value: address.to_owned(),
        expected: "others must be able to dial it: name a host and a port other than 0".to_owned(),
    })
}

fn timers(args: &ServeArgs) -> Result<Timers, Error> {
    let (heartbeat, min, max) = (
        args.heartbeat_interval_ms,
        args.election_timeout_min_ms,
        args.election_timeout_max_ms,
    );
    let ms = |n: u64| format!("{n} ms");
    if !(HEARTBEAT_MIN_MS..=ELECTION_MAX_MS).contains(&heartbeat) {
        return Err(Error::OutOfRange {
            flag: "--heartbeat-interval-ms",
            actual: ms(heartbeat),
            min: ms(HEARTBEAT_MIN_MS),
            max: ms(ELECTION_MAX_MS / HEARTBEATS_MISSED),
        });
    }
    if max > ELECTION_MAX_MS {
        return Err(Error::OutOfRange {
            flag: "--election-timeout-max-ms",
            actual: ms(max),
            min: ms(HEARTBEAT_MIN_MS * HEARTBEATS_MISSED),
            max: ms(ELECTION_MAX_MS),
        });
    }
    if min < heartbeat * HEARTBEATS_MISSED {
        return Err(Error::Conflict {
            first: "--heartbeat-interval-ms",
            second: "--election-timeout-min-ms",
            relation: format!(
                "heartbeat x {HEARTBEATS_MISSED} <= election-timeout-min, but {heartbeat} x {HEARTBEATS_MISSED} > {min}"
            ),
        });
    }
    if min >= max {
        return Err(Error::Conflict {
            first: "--election-timeout-min-ms",
            second: "--election-timeout-max-ms",
            relation: format!("min < max, but {min} >= {max}"),
        });
    }
    Ok(Timers {
        heartbeat: Duration::from_millis(heartbeat),
        election_min: Duration::from_millis(min),
        election_max: Duration::from_millis(max),
    })
}

fn snapshots(args: &ServeArgs) -> Result<Snapshots, Error> {
    let interval = args.snapshot_interval;
    let (min, max) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));
    check_duration("--snapshot-interval", interval, min, max)?;
    Ok(Snapshots {
        log_bytes: size_in(
            "--snapshot-log-bytes",
            args.snapshot_log_bytes,
            64 << 10,
            1 << 40,
        )?,
        interval,
        keep_entries: args.snapshot_keep_entries,
    })
}

fn memory(args: &ServeArgs) -> Result<Memory, Error> {
    let bytes = |flag, size, min| {
        let bytes = size_in(flag, size, min, 1 << 40)?;
        usize::try_from(bytes).map_err(|_| Error::Malformed {
            flag,
            value: size.to_string(),
            expected: "it must fit this machine's memory".to_owned(),
        })
    };
    Ok(Memory {
        record_cache: bytes("--record-cache-bytes", args.record_cache_bytes, 0)?,
        block_cache: bytes("--block-cache-bytes", args.block_cache_bytes, 1 << 20)?,
        log_buffer: bytes("--log-buffer-bytes", args.log_buffer_bytes, 64 << 10)?,
        write_buffer: bytes("--write-buffer-bytes", args.write_buffer_bytes, 1 << 20)?,
        state_layer: bytes("--state-layer-bytes", args.state_layer_bytes, 1 << 20)?,
    })
}

fn min_free_disk(size: Option<ByteSize>) -> Result<Option<u64>, Error> {
    size.map(|size| size_in("--min-free-disk", size, 1 << 20, 1 << 50))
        .transpose()
}

/// Not above what the limits of `limits` were related for, and not below the largest valid request.
fn message_bytes(size: ByteSize) -> Result<usize, Error> {
    let smallest = limits::VALUE_BYTES + (64 << 10);
    let bytes = size_in(
        "--max-message-bytes",
        size,
        smallest as u64,
        limits::MESSAGE_BYTES as u64,
    )?;
    Ok(usize::try_from(bytes).unwrap_or(limits::MESSAGE_BYTES))
}

fn size_in(flag: &'static str, size: ByteSize, min: u64, max: u64) -> Result<u64, Error> {
    if (min..=max).contains(&size.bytes()) {
        return Ok(size.bytes());
    }
    Err(Error::OutOfRange {
        flag,
        actual: size.to_string(),
        min: ByteSize::new(min).to_string(),
        max: ByteSize::new(max).to_string(),
    })
}

pub(super) fn check_duration(
    flag: &'static str,
    duration: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), Error> {
    if (min..=max).contains(&duration) {
        return Ok(());
    }
    let show = |duration| humantime::format_duration(duration).to_string();
    Err(Error::OutOfRange {
        flag,
        actual: show(duration),
        min: show(min),
        max: show(max),
    })
}

#[cfg(test)]
mod tests;
