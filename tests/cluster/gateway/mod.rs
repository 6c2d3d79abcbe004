//! Gateways in front of a cluster.

mod access;
mod accounts;
mod balanced;
mod browser;
mod checkout;
mod cluster;
mod crowd;
mod drain;
mod keys;
mod orders;
mod protection;
mod records;
mod refusals;
mod streams;
