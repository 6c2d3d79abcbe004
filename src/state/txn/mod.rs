//! Transactions: several operations as one.
//!
//! The comparisons are looked at first. Then the operations of one branch are executed, each as it would be alone, on what
//! those before it left. One that is refused takes all of them back, see [`Batch::roll_back`].
//!
//! Invariants:
//! 1. All or nothing: an aborted transaction changes no record, no index entry, no digest and no revision.
//! 2. All of a transaction's changes have one revision.
//! 3. Whatever an operation may do alone it may do here: nothing in this module knows which operations there are.
//! 4. What a transaction answers is bounded by [`limits::TXN_RESULT_BYTES`], because replies are kept for replays.
//!
//! Deliberately absent: transactions across namespaces, and reads of more than one record at a time.

mod operation;

pub use operation::{Compare, Operand, Relation, Step, Subject, Txn};

use prost::Message as _;

use super::apply::{self, Outcome, Stop};
use super::batch::{Batch, SlotId};
use super::{Fault, Rejection, Store, cart, kv, session};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::internal::txn_result::Result as Answer;
use crate::types::Namespace;

/// Executes a transaction.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    txn: &Txn,
) -> Outcome {
    let succeeded = all_hold(batch, namespace, txn.compare())?;
    let steps = txn.branch(succeeded);
    batch.begin();
    let mut results = Vec::with_capacity(steps.len());
    let mut bytes = 0usize;
    for (index, step) in steps.iter().enumerate() {
        match execute(batch, namespace, step, &mut bytes) {
            Ok(result) => results.push(result),
            Err(stop) => {
                let rejected = stop.into_refusal()?;
                batch.roll_back();
                return Ok(aborted(succeeded, index, rejected));
            }
        }
    }
    batch.keep();
    Ok(Body::TxnDone(pb::TxnDone { succeeded, results }))
}

fn aborted(succeeded: bool, index: usize, rejected: pb::Rejected) -> Body {
    Body::TxnAborted(pb::TxnAborted {
        succeeded,
        index: u32::try_from(index).expect("limits::TXN_OPERATIONS is far below"),
        rejected: Some(rejected),
    })
}

/// Executes one operation of a branch. `bytes` is what the results take up to here.
fn execute<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    step: &Step,
    bytes: &mut usize,
) -> Result<pb::TxnResult, Stop> {
    let answer = match step {
        Step::Write(operation) => Answer::Reply(pb::Reply {
            revision: 0,
            body: Some(apply::operate(batch, namespace, operation)?),
        }),
        Step::Get(subject) => get(batch, namespace, subject)?,
    };
    let result = pb::TxnResult {
        result: Some(answer),
    };
    *bytes = bytes.saturating_add(result.encoded_len());
    if *bytes > limits::TXN_RESULT_BYTES {
        return Err(Rejection::TxnResultLimit.into());
    }
    Ok(result)
}

fn get<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    subject: &Subject,
) -> Result<Answer, Fault> {
    let found = find(batch, namespace, subject)?;
    // Where the index holds a record says when it was swept, which is nobody's business.
    let answer = found.and_then(|id| match subject {
        Subject::Key(_) => batch.read(id).map(|kv: &pb::KvRecord| {
            Answer::Key(pb::KvRecord {
                indexed_deadline: 0,
                ..kv.clone()
            })
        }),
        Subject::Session(_) => batch.read(id).map(|session: &pb::SessionRecord| {
            Answer::Session(pb::SessionRecord {
                indexed_deadline: 0,
                ..session.clone()
            })
        }),
        Subject::Cart(_) => batch
            .read(id)
            .map(|record| Answer::Cart(cart::shown(record, batch.now()))),
    });
    Ok(answer.unwrap_or(Answer::Nothing(pb::NothingRead {})))
}

/// The slot of a record that a caller could read.
fn find<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    subject: &Subject,
) -> Result<Option<SlotId>, Fault> {
    let found = match subject {
        Subject::Key(key) => kv::live(batch, namespace, key).map_err(Stop::from),
        Subject::Session(token) => session::live(batch, namespace, token).map(Some),
        Subject::Cart(owner) => cart::live(batch, namespace, owner),
    };
    match found {
        Ok(id) => Ok(id),
        Err(Stop::Fault(fault)) => Err(fault),
        // The session that was named, or that owns the cart, is not live.
        Err(_) => Ok(None),
    }
}

fn all_hold<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    compare: &[Compare],
) -> Result<bool, Fault> {
    for compare in compare {
        if !holds(batch, namespace, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    compare: &Compare,
) -> Result<bool, Fault> {
    let found = find(batch, namespace, compare.subject())?;
    let relation = compare.relation();
    Ok(match compare.operand() {
        Operand::Exists(exists) => relation.holds(found.is_some().cmp(exists)),
        Operand::CreateRevision(expected) => {
            let (created, _) = revisions(batch, compare.subject(), found);
            relation.holds(created.cmp(&expected.get()))
        }
        Operand::ModRevision(expected) => {
            let (_, modified) = revisions(batch, compare.subject(), found);
            relation.holds(modified.cmp(&expected.get()))
        }
        Operand::Value(expected) => {
            let kv = found.and_then(|id| batch.read::<pb::KvRecord>(id));
            related(relation, kv.map(kv::value), expected.as_bytes())
        }
        Operand::Counter(expected) => {
            let kv = found.and_then(|id| batch.read::<pb::KvRecord>(id));
            related(relation, kv.and_then(|kv| kv.counter), expected)
        }
    })
}

/// What is not there differs from everything, and is neither less nor greater.
fn related<T: Ord>(relation: Relation, stored: Option<T>, expected: &T) -> bool {
    match stored {
        Some(stored) => relation.holds(stored.cmp(expected)),
        None => relation == Relation::NotEqual,
    }
}

/// A record's create and mod revision; 0 for what is not there.
fn revisions<S: Store>(
    batch: &Batch<'_, S>,
    subject: &Subject,
    found: Option<SlotId>,
) -> (u64, u64) {
    let found = found.and_then(|id| match subject {
        Subject::Key(_) => batch
            .read::<pb::KvRecord>(id)
            .map(|it| (it.create_revision, it.mod_revision)),
        Subject::Session(_) => batch
            .read::<pb::SessionRecord>(id)
            .map(|it| (it.create_revision, it.mod_revision)),
        Subject::Cart(_) => batch
            .read::<pb::CartRecord>(id)
            .map(|it| (it.create_revision, it.mod_revision)),
    });
    found.unwrap_or_default()
}
