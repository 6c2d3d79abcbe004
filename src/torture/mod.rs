//! A black box over the client: workloads, checkers, benchmarks.

pub mod history;
pub mod linearizability;
