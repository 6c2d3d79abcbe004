//! A black box over the client: workloads, checkers, benchmarks.
