//! The pure state machine: no async, I/O, clock, randomness or hash order.
//!
//! A tour, in the order in which an entry passes:
//!
//! | module | owns |
//! |---|---|
//! | [`Command`] (`command`, `command_wire`) | what an entry asks for, and its bytes |
//! | `growth` | whether it needs room, for nodes whose disks are full |
//! | [`apply`] (`apply`) | one entry: time, sweep, replay, operation, reply |
//! | [`Batch`] (`batch`, `deadlines`, `sweep`) | the overlay over a store, log time, the deadline index, what is due |
//! | `replies`, `window` | exactly-once: the replies of clients and of request ids |
//! | `session`, `cart`, `kv`, `lease`, [`namespace`] | what the operations do |
//! | `txn` | several of them as one |
//! | [`version`] | by which rules, while programs are replaced |
//! | `roster` | the index of users' sessions |
//! | `journal`, [`events`], [`history`] | what they did, for watchers |
//! | [`keys`], [`record`], [`digest`] | stored bytes |
//! | [`store`], [`MemoryStore`] | what lies below |
//! | [`query`] | reads |
//! | [`seal`] | how a drawn token survives a replay |
//!
//! Invariants:
//! 1. The same entries over the same store give the same replies, bytes and digest, on every replica and store,
//!    however they are cut into batches.
//! 2. Log time never goes back. What is due at or before it is invisible at once, swept or not.
//! 3. A [`Rejection`] is a reply: it changes no record beside the reply tables, and a replay returns it again. A [`Fault`]
//!    is never a reply: the batch is dropped and the node stops.
//! 4. The revision grows by one with each command that changes a record which a caller can read, and with each
//!    entry whose sweep deletes one; never otherwise.
//! 5. A replay within the window returns the first reply, byte for byte, and changes nothing that can be read.
//! 6. Each record with a deadline has exactly one index entry, at or before that deadline. So has a user whose revoked
//!    sessions were not all swept yet. One entry of the log sweeps a bounded number of records, see
//!    [`crate::limits::SWEEP_PER_ENTRY`].
//! 7. No token is stored: only its hash, and a drawn one sealed under its request id.
//!
//! 8. Every change of a session, a cart or a key at a new revision is one event of it, committed with it.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test that panics has found something"
    )
)]

mod apply;
mod batch;
mod cart;
mod command;
mod command_wire;
mod deadlines;
pub mod digest;
pub mod events;
mod fault;
mod growth;
pub mod history;
mod journal;
pub mod keys;
mod kv;
mod lease;
mod memory;
pub mod namespace;
pub mod query;
pub mod record;
mod rejection;
mod replies;
mod roster;
pub mod seal;
mod session;
pub mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod txn;
pub mod version;
mod window;

pub use apply::{Applied, apply, apply_all};
pub use batch::Batch;
pub use cart::{CartAction, CartOperation, MergePolicy};
pub use command::{CartOwner, Command, Identity, LineRef, Operation, RequestHash, fingerprint};
pub use deadlines::SweepHorizon;
pub use fault::Fault;
pub use keys::{Key, KeyRange};
pub use kv::{Increment, KeyOperation, PutCondition};
pub use lease::LeaseOperation;
pub use memory::MemoryStore;
pub use namespace::{NamespaceOperation, Settings, TtlKind};
pub use rejection::Rejection;
pub use replies::is_answered;
pub use session::{Fields, Rotation, SavePolicy, SessionOperation};
pub use store::{Change, Changes, Record, Store, Stored};
pub use txn::{Compare, Operand, Relation, Step, Subject, Txn};
pub use window::ClientWindow;
