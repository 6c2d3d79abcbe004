//! Gateways in front of a cluster.

mod records;
mod refusals;
