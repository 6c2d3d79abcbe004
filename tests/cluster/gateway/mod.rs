//! Gateways in front of a cluster.

mod accounts;
mod cluster;
mod records;
mod refusals;
