//! Gateways in front of a cluster.

mod accounts;
mod browser;
mod checkout;
mod cluster;
mod drain;
mod keys;
mod orders;
mod protection;
mod records;
mod refusals;
mod streams;
