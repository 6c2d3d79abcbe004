//! Everything durable: the Raft log, the state database, snapshots, and who this data directory belongs to.
//!
//! ```text
//! <data directory>/
//!   HIGH_WATER                    what the log must at least hold
//!   BALLAST                       room that is set aside, see `ballast`
//!   log/                          the log database: entries, votes, identity of the node, for all shards
//!   shards/<shard>/               one state machine each, and its snapshots; see `generation`
//! ```
//!
//! Invariant: damage is refused, never repaired by leaving something out. Deliberately absent: any decision about
//! *when* to snapshot, purge or stop, which is the node's.

mod ballast;
mod cache;
mod commit;
mod committed;
mod db;
mod error;
mod event_db;
pub mod feed;
pub mod generation;
mod high_water;
mod identity;
mod layer;
mod log;
mod log_db;
#[cfg(test)]
mod log_tests;
pub mod machine;
mod opener;
mod position;
pub mod receive;
mod sabotage;
mod scan;
pub mod snapshot;
mod state_db;
mod state_view;
mod tail;
mod unwritten;
mod usage;
mod wal;
mod wire;

pub use ballast::Ballast;
pub use commit::Durability;
pub use db::{DbConfig, state_options};
pub use error::{Error, is_no_space};
pub use identity::Identity;
pub use log::{LogStore, committed_in};
pub use log_db::{LogConfig, LogDb};
pub use usage::{Capacity, capacity, disk_bytes};
