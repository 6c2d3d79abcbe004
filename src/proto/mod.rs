//! Generated messages and services, and nothing else but their names, and how those look that hold a secret.
//!
//! `v1` is the public API, `internal` what nodes say to each other and what they store. Conversions into
//! `types` stand in the modules of their kind beside this one.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated from the protos, which carry the documentation"
)]

mod codec;
mod disk;
mod fields;
mod secrets;
mod session;
pub(crate) mod wire;

#[cfg(test)]
pub(crate) use codec::parts_of;
pub use codec::{BoundedCodec, BoundedDecoder, WholeDecoder};

/// `trolley.v1`: the public API.
pub mod v1 {
    tonic::include_proto!("trolley.v1");
}

/// A message that stands in one of several places, boxed there or not.
pub(crate) trait Held<M> {
    /// The message.
    fn out(self) -> M;
}

impl<M: prost::Message> Held<M> for M {
    fn out(self) -> M {
        self
    }
}

impl<M: prost::Message> Held<M> for Box<M> {
    fn out(self) -> M {
        *self
    }
}

/// `trolley.internal.v1`: peers and stored records.
pub mod internal {
    /// The only version there is.
    pub mod v1 {
        tonic::include_proto!("trolley.internal.v1");
    }
    pub use super::fields::{PackedField, PackedFields};
    pub use super::session::{SessionRecord, SessionUpdate};
    pub use v1::*;
}

/// The cart service of the Online Boutique.
pub mod hipstershop {
    tonic::include_proto!("hipstershop");
}

/// The cart service of the OpenTelemetry demo, with the messages of [`hipstershop`].
pub mod oteldemo {
    tonic::include_proto!("oteldemo");
}

/// The part of etcd's API that a side-by-side benchmark needs.
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The encoded descriptors of every proto file, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
