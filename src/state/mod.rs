//! The pure state machine: no async, I/O, clock, randomness or hash order.

mod command;
mod fault;
mod rejection;
pub mod store;

pub use command::{
    CartOwner, Command, Identity, LineRef, Operation, PutCondition, RequestHash, fingerprint,
};
pub use fault::Fault;
pub use rejection::Rejection;
