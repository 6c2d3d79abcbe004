//! One entry, from its stamp to its reply.

use bytes::Bytes;

use super::batch::Batch;
use super::command::{Command, Operation};
use super::{Fault, Rejection, Store, cart, digest, kv, lease, replies, session, txn, version};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{LogTime, Namespace};

/// What an entry answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The reply: new, or the first one to the same request.
    pub reply: pb::Reply,
    /// The request had been answered before; this entry did nothing.
    pub replayed: bool,
}

/// Why an operation does not end with a body.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is refused, and has changed nothing.
    Rejected(Rejection),
    /// One action of several, by its place, is refused, and none has changed anything.
    Action(u32, Rejection),
    /// A save is refused, and the fields are named.
    Conflict(pb::SaveConflict),
    /// The node stops.
    Fault(Fault),
}

impl Stop {
    /// What the caller is told, unless the node stops.
    pub(super) fn into_refusal(self) -> Result<Refusal, Fault> {
        match self {
            Self::Rejected(rejection) => Ok(Refusal::Rejected(rejection.to_stored())),
            Self::Action(nth, rejection) => Ok(Refusal::Rejected(pb::Rejected {
                action: Some(nth),
                ..rejection.to_stored()
            })),
            Self::Conflict(conflict) => Ok(Refusal::Conflict(conflict)),
            Self::Fault(fault) => Err(fault),
        }
    }
}

/// A refusal as it is replied and stored.
#[derive(Debug)]
pub(super) enum Refusal {
    Rejected(pb::Rejected),
    Conflict(pb::SaveConflict),
}

impl Refusal {
    /// The reply to an operation that stands alone.
    fn into_body(self) -> Body {
        match self {
            Self::Rejected(rejected) => Body::Rejected(rejected),
            Self::Conflict(conflict) => Body::SaveConflict(conflict),
        }
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How an operation ends.
pub(super) type Outcome = Result<Body, Stop>;

/// Applies an entry of one command, see [`apply_all`].
pub fn apply<S: Store>(
    batch: &mut Batch<'_, S>,
    stamp: LogTime,
    command: &Command,
) -> Result<Applied, Fault> {
    let mut applied = apply_all(batch, stamp, std::slice::from_ref(command))?;
    Ok(applied.pop().expect("one command has one reply"))
}

/// Applies one entry to a batch, its commands one after the other. `stamp` is the leader's wall time when it proposed: log
/// time moves on to it, never back. After a fault the batch is unusable and must be dropped.
///
/// The order is part of the format: log time, sweep and its events, once per entry; then for each command replay or
/// operation, and its events; then when the replies of this entry end. An entry that swept for each of its commands would
/// hold up the node for as long as a thousand sweeps take.
pub fn apply_all<S: Store>(
    batch: &mut Batch<'_, S>,
    stamp: LogTime,
    commands: &[Command],
) -> Result<Vec<Applied>, Fault> {
    batch.begin_entry(stamp, commands.len())?;
    batch.load_subjects(commands)?;
    let mut applied = Vec::with_capacity(commands.len());
    for command in commands {
        applied.push(carry_out(batch, command)?);
    }
    replies::end_entry(batch)?;
    Ok(applied)
}

/// Answers a command: from the reply tables, or by executing it.
fn carry_out<S: Store>(batch: &mut Batch<'_, S>, command: &Command) -> Result<Applied, Fault> {
    let applied = replies::answer(batch, command, |batch| execute(batch, command))?;
    batch.close_revision()?;
    Ok(applied)
}

/// Executes an operation and makes its reply.
fn execute<S: Store>(batch: &mut Batch<'_, S>, command: &Command) -> Result<pb::Reply, Fault> {
    let body = match operate(batch, &command.namespace, &command.operation) {
        Ok(body) => body,
        Err(stop) => stop.into_refusal()?.into_body(),
    };
    Ok(reply(batch, body))
}

/// A reply at the batch's revision.
pub(super) fn reply<S: Store>(batch: &Batch<'_, S>, body: Body) -> pb::Reply {
    pb::Reply {
        revision: batch.revision().get(),
        body: Some(body),
    }
}

/// Executes an operation of its own or of a transaction.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &Operation,
) -> Outcome {
    match operation {
        Operation::Session(operation) => session::operate(batch, namespace, operation),
        Operation::Namespace(operation) => super::namespace::operate(batch, namespace, operation),
        Operation::Cart(operation) => cart::operate(batch, namespace, operation),
        Operation::Key(operation) => kv::operate(batch, namespace, operation),
        Operation::Lease(operation) => lease::operate(batch, namespace, *operation),
        Operation::Txn(txn) => txn::operate(batch, namespace, txn),
        Operation::RaiseVersion(version) => version::raise(batch, *version),
        Operation::Tick { checkpoint, expect } => tick(batch, *checkpoint, expect.as_ref()),
    }
}

/// Compares first, then makes the next checkpoint: what the leader expects is of an earlier entry, and the number
/// that it names is this replica's newest until the next one is made. Another number is of no use: a replica
/// that installed a newer snapshot never made that checkpoint.
fn tick<S: Store>(
    batch: &mut Batch<'_, S>,
    checkpoint: bool,
    expect: Option<&pb::DigestCheckpoint>,
) -> Outcome {
    if let (Some(expect), Some(own)) = (expect, batch.checkpoint())
        && expect.number == own.number
        && expect.digest != own.digest
    {
        return Err(Stop::Fault(Fault::Diverged {
            number: own.number,
            own: digest::from_bytes(&own.digest)?,
            leader: digest::from_bytes(&expect.digest)?,
        }));
    }
    if checkpoint {
        batch.note_checkpoint();
    }
    Ok(Body::Ticked(pb::Ticked {}))
}

/// A copy of its own. What a command brought is a piece of a log entry's or a message's buffer, and a small
/// record in a cache would keep all of that alive.
pub(super) fn detach(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
