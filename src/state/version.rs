//! How a cluster comes to follow new rules while its programs are replaced one after the other.
//!
//! What a log entry does must be the same on every replica, and nodes whose programs differ are replicas of each other while an
//! operator replaces them. So the rules have a number, the [`StateVersion`], which is itself part of the state:
//!
//! 1. An entry is applied by the version in the header, whatever newer ones the program knows: it makes the bytes, the digest and
//!    the replies that a program makes which knows no newer.
//! 2. A program knows every version up to [`StateVersion::NEWEST`].
//! 3. A leader proposes a newer version only when every member has said that it knows it, see `node::versions`. A
//!    replica that does not know it, because its program was replaced by an older one meanwhile, stops before it applies the entry, and
//!    goes on from there with a newer program.
//! 4. The version is never lowered. A program that does not know it opens no such state.
//!
//! So whoever changes what a golden transcript answers, or how a record is encoded, raises `NEWEST` and asks
//! `Batch::version` which rules hold; and a leader proposes commands of a new kind only once their version holds.

use super::apply::{Outcome, Stop};
use super::batch::Batch;
use super::{Fault, Store};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::StateVersion;

/// From the next command on, at least `version` holds. Repeated, or overtaken by a newer one, it does nothing.
pub(super) fn raise<S: Store>(batch: &mut Batch<'_, S>, version: StateVersion) -> Outcome {
    let newest = batch.newest_version();
    if version > newest {
        return Err(Stop::Fault(Fault::UnknownVersion { version, newest }));
    }
    batch.set_version(batch.version().max(version));
    Ok(Body::Ticked(pb::Ticked {}))
}
