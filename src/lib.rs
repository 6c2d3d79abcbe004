//! Trolley: a Raft-replicated store for web sessions and shopping carts.
//!
//! Web tiers are stateless and scale by adding machines; somebody has to remember who is logged in and what is in the
//! cart, through crashes, retries and fail-overs. This crate is that somebody: server, client library, command line,
//! and the tools that prove it. This page is the tour; each module's own page says what it owns and promises.
//!
//! # One write's journey
//!
//! ```text
//! client ─▶ api ─▶ node ─▶ openraft ─▶ storage::log ─▶ fsync ─┐        (here, and on every follower over `network`)
//!                                                             ├─ majority ─▶ storage::machine ─▶ state ─▶ reply
//! followers: network ─▶ openraft ─▶ storage::log ─▶ fsync ────┘
//! ```
//!
//! 1. [`client`] numbers the operation, so that its retries are recognised, and puts it into the next frame to the leader.
//! 2. [`api`] parses it into a [`state::Command`], valid by construction. Whatever is random is drawn here.
//! 3. [`node`] stamps it with log time and hands it to openraft, all commands of a frame at once.
//! 4. [`storage`] appends: entries that arrive together form one batch and one fsync. [`network`] brings the same entries to
//!    the followers, pipelined, and each of them does the same.
//! 5. Once a majority has synced it, the state machine applies it: [`state::apply`] is pure, and its changes, the reply for a
//!    later retry, and the position in the log go into one atomic batch.
//! 6. The reply travels back. Only now is the write acknowledged.
//!
//! # One read's journey
//!
//! A linearizable read waits for one `ReadIndex` round, which every read that waits at the same time shares, then looks at
//! the local state under its exact revision. A follower asks the leader for the index and waits until it has applied it.
//!
//! # One event's journey
//!
//! While a command is applied, [`state`] notes which records it touches, whichever operation that is. When its revision is
//! complete, what became of each of them is written down and stored in the same atomic batch as the changes, so that every
//! replica has the same history. After the commit, [`storage::feed`] keeps it in memory while somebody watches; watchers pull
//! from there, or from the database until they have caught up.
//!
//! # Where to change what
//!
//! | to change | go to |
//! |---|---|
//! | what an operation means | [`state`], one file per kind of record |
//! | what is valid input, and limits | [`types`], [`limits`] |
//! | messages, stored formats | `proto/`, [`proto`] |
//! | what is on disk, fsyncs, snapshots | [`storage`] |
//! | how nodes talk | [`network`] |
//! | what a connection does with small writes | [`transport`] |
//! | leadership, ticks, births, reads, who is told of events, full disks | [`node`] |
//! | gRPC services and error reasons | [`api`] |
//! | flags, start, shutdown | [`config`], [`server`] |
//! | retries, leader hints | [`client`] |
//! | HTTP: routes, tokens, limits | [`gateway`] |
//! | log lines, signals, sockets | [`process`] |
//! | sessions of web frameworks | `tower_sessions`, behind a feature |
//! | verbs and output | [`cli`] |
//! | faults, workloads, checkers, benchmarks | [`torture`] |
//! | several nodes on one thread, by a seed | `tests/simulation` |
//!
//! # Invariants that cross modules
//!
//! 1. **Acknowledged is durable.** No reply leaves before its entry is fsynced on a majority and applied here.
//! 2. **Replicas are equal.** `state` sees no clock, randomness, hash order or batch boundary; two replicas at the same place
//!    in the log have the same digest, and one that differs stops.
//! 3. **A retry counts once.** The reply table is part of the state: same batch, same snapshot.
//! 4. **Not-applied is a proof.** An error says so only where it was raised before the proposal.
//! 5. **Damage stops the node.** It is a [`state::Fault`] or [`storage::Error`], never a reply and never skipped.
//! 6. **Everything is bounded.** Queues, frames, batches and waits take their bounds from [`limits`].

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(test)]
mod foreign;
pub mod gateway;
pub mod limits;
pub mod network;
pub mod node;
pub mod planted;
pub mod process;
pub mod proto;
pub mod raft;
pub mod server;
pub mod state;
pub mod storage;
pub mod torture;
#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;
pub mod transport;
pub mod types;

/// Counts what is allocated, for [`foreign`].
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
