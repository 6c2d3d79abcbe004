//! A black box over the client: workloads, faults, checkers, benchmarks.
//!
//! `trolley-torture` is [`run`]: real processes in a [`cluster`] whose network it owns, [`workloads`] that note what they were
//! told, [`faults`] that prove themselves, and a [`record`] of it all. [`checks`] judge the record, [`verdict`] sums up, and
//! [`timeline`] shows it. [`history`] and [`linearizability`] are the register's checker; [`bench`](mod@bench), [`peers`],
//! [`demo`] and [`shop`] measure. [`corruption`] damages one file at a time, and [`series`] adds up many runs.

pub mod audit;
pub mod bench;
pub mod checks;
pub mod cluster;
pub mod corruption;
pub mod demo;
pub mod evidence;
pub mod faults;
pub mod history;
pub mod linearizability;
pub mod observer;
pub mod peers;
pub mod record;
pub mod run;
pub mod series;
pub mod shop;
pub mod tape;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod verdict;
pub mod workloads;
