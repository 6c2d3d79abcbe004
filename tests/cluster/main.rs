//! Whole clusters of real processes (of real nodes in one process where their wall clocks differ), and what may happen to
//! them: crashes, pauses, restarts, lost nodes.
//!
//! Every test starts nodes of its own on loopback and drives them through the client library. They run one after
//! another, because timers mean little on a machine that runs three clusters at once. When a test fails, it
//! leaves data and logs behind and says where; random choices come from a seed that it prints, and
//! `TROLLEY_TEST_SEED` gives it again.

#![allow(
    clippy::print_stdout,
    reason = "seeds and logs of a failing test are for people"
)]

mod bad_start;
mod carts;
mod catch_up;
mod clocks;
mod damage;
mod exactly_once;
mod expiry;
mod failover;
mod full_disk;
mod gateway;
mod harness;
mod linearizable;
mod locks;
mod log_lines;
mod logins;
mod members;
mod memory;
mod pause;
mod power_cut;
mod reads;
mod reasons;
mod restart;
mod revocations;
mod scripts;
mod shops;
mod upgrade;
mod verbs;
mod watch;
mod web_sessions;
