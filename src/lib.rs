//! Trolley: a Raft-replicated store for web sessions and shopping carts.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod limits;
pub mod network;
pub mod node;
pub mod proto;
pub mod raft;
pub mod server;
pub mod state;
pub mod storage;
pub mod torture;
pub mod types;
