//! A black box over the client: workloads, checkers, benchmarks.

pub mod bench;
pub mod demo;
pub mod history;
pub mod linearizability;
pub mod peers;
pub mod shop;
