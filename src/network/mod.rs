//! Raft between nodes, over gRPC: dialling out and serving what comes in.
//!
//! Each pair of nodes has three HTTP/2 connections per direction, one per [`Lane`]: heartbeats and votes, the log,
//! snapshots. A lane that is busy or stuck never delays another, so that a large snapshot cannot hold up a
//! heartbeat until somebody calls an election.
//!
//! Invariants:
//! - Every call carries an [envelope](Gate) and its receiver checks it before it does anything else. Nothing in
//!   openraft looks at cluster or data directory, so this check is all that keeps a node of another cluster, or one
//!   that lost its disk, out of the quorum.
//! - Every call has a deadline, and every queue has a bound from `limits`.
//! - Nothing that a peer sends panics this node.
//!
//! What openraft leaves to a network, and what is easy to miss in its source:
//! - Heartbeats are one-item `stream_append` calls on the client that `new_heartbeat_client` made, and
//!   `append_entries` is called by nobody but openraft's sequential fallback. A client here knows its lane and sends
//!   heartbeats as unary calls.
//! - The hard TTL of heartbeats and append streams is the heartbeat interval, that of votes and of leadership
//!   transfers the shorter election timeout, that of snapshots `install_snapshot_timeout`. openraft drops a call
//!   after its hard TTL, except snapshots and streams, which are bounded by nobody but this module.
//! - A request stream that openraft hands to `stream_append` holds a lock of its replication task while it waits
//!   for entries. It must therefore die together with the response stream, and is never given to a task of its own.
//! - `Unreachable` starts a backoff at once, `Timeout` and `Network` after the eleventh in a row. The backoff delays
//!   appends and snapshots, never heartbeats or votes.
//! - The default `pre_vote` grants; a network that forgets it has no pre-vote at all.
//! - A leadership transfer is sent to every voter, and all of them let go of the lease; only the one it names
//!   campaigns. The vote that follows says so in `leadership_transfer`, which must cross the wire.
//! - `install_full_snapshot` panics on a snapshot that its sender cannot have had: `serve` checks first. And while one call
//!   installs a snapshot, the next says at once that it is installed: `receive` lets nobody ask twice.
//!
//! Deliberately absent: retries of anything but a broken snapshot transfer (openraft retries the rest), the peer
//! service's answers (`node` gives them), and TLS.

mod append;
mod campaign;
mod channel;
mod contact;
mod dial;
mod envelope;
mod error;
mod message;
mod peer;
mod receive;
mod room;
mod serve;
mod snapshot;
#[cfg(test)]
mod tests;

pub use campaign::{ElectionTimers, campaign, refuses_connections};
pub use channel::{Lane, Pool, Timing};
pub use contact::{Contact, LeaderContact};
pub use dial::{Dialer, Peer};
pub use envelope::{Gate, Local};
pub use error::Error;
pub use peer::{Greeter, GreetingEndpoint, InitialClusterDiffers, PeerEndpoint, PeerHandler};
pub use room::{Heard, PeerRooms};
pub use serve::{RaftEndpoint, ServerMetrics, is_current};
pub use snapshot::{SnapshotFiles, SnapshotSink, SnapshotStore};
