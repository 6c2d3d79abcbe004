//! Gateways in front of a cluster.

mod accounts;
mod browser;
mod cluster;
mod records;
mod refusals;
