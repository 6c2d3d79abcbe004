//! Replies and records become responses. No decision is taken here.

use crate::node::Leadership;
use crate::proto::internal::{self as pb, reply::Body, stored_owner::Owner, txn_aborted::Refusal};
use crate::proto::v1::{self, merged_into::Target, outcome::Response};
use crate::raft::Reply;
use crate::state::{Fault, Rejection, query, seal};
use crate::types::{LogTime, Revision, SessionHandle, TokenHash};

use super::parse::{CreateEcho, Echo, StepEcho, TokenEcho, TxnEcho};
use super::{Error, Refused};

/// A response without a header, and what stands for the header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub revision: Revision,
    pub replayed: bool,
    pub response: Response,
}

/// The header in front of every response.
pub(crate) fn header(
    leadership: &Leadership,
    revision: Revision,
    replayed: bool,
) -> v1::ResponseHeader {
    let (leader_id, leader_address) = match &leadership.leader {
        Some(leader) => (leader.node.get(), leader.address.clone()),
        None => (0, String::new()),
    };
    v1::ResponseHeader {
        cluster_id: leadership.cluster.to_string(),
        node_id: leadership.node.get(),
        term: leadership.term,
        revision: revision.get(),
        leader_id,
        leader_address,
        replayed,
    }
}

/// The answer to a write.
pub(crate) fn write(echo: Echo, reply: Reply) -> Result<Answer, Refused> {
    let Reply { reply, replayed } = reply;
    let revision = Revision::new(reply.revision);
    let body = reply.body.ok_or(Error::ForeignReply("it is empty"))?;
    let response = response(echo, body, revision);
    Ok(Answer {
        revision,
        replayed,
        response: response.map_err(|error| Refused::at(revision, error))?,
    })
}

/// Each domain answers its own and asks the next one for the rest.
fn response(echo: Echo, body: Body, revision: Revision) -> Result<Response, Error> {
    Ok(match (echo, body) {
        (_, Body::Rejected(rejected)) => return Err(rejection(&rejected)),
        (Echo::SessionCreate(echo), Body::SessionCreated(created)) => {
            Response::CreateSession(session_created(*echo, &created, revision)?.into())
        }
        (Echo::SessionUpdate, Body::SessionChanged(changed)) => {
            Response::UpdateSession(v1::UpdateSessionResponse {
                header: None,
                mod_revision: changed.mod_revision,
                idle_deadline_ms: changed.idle_deadline,
            })
        }
        (Echo::SessionTouch, Body::SessionChanged(changed)) => {
            Response::TouchSession(v1::TouchSessionResponse {
                header: None,
                idle_deadline_ms: changed.idle_deadline,
            })
        }
        (Echo::SessionDestroy, Body::SessionDestroyed(_)) => {
            Response::DestroySession(v1::DestroySessionResponse { header: None })
        }
        (Echo::SessionRotate(echo), Body::SessionRotated(rotated)) => {
            Response::RotateSession(session_rotated(&echo, rotated, revision)?)
        }
        (Echo::SessionSave, Body::SessionSaved(saved)) => {
            Response::SaveSession(v1::SaveSessionResponse {
                header: None,
                mod_revision: saved.mod_revision,
                idle_deadline_ms: saved.idle_deadline,
                merged: saved.merged,
                overwritten: saved.overwritten,
            })
        }
        (Echo::SessionSave, Body::SaveConflict(conflict)) => return Err(save_conflict(conflict)),
        (Echo::SessionEnd, Body::SessionDestroyed(_)) => {
            Response::EndSession(v1::EndSessionResponse { header: None })
        }
        (Echo::SessionRevokeAll, Body::SessionsRevoked(revoked)) => {
            Response::RevokeAllSessions(v1::RevokeAllSessionsResponse {
                header: None,
                ended: revoked.ended,
            })
        }
        (Echo::NamespaceSet, Body::NamespaceChanged(changed)) => {
            Response::SetNamespace(v1::SetNamespaceResponse {
                header: None,
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::Txn(echo), Body::TxnDone(done)) => Response::Txn(txn(*echo, done, revision)?),
        (Echo::Txn(_), Body::TxnAborted(aborted)) => return Err(txn_aborted(aborted)),
        (echo, body) => cart_response(echo, body)?,
    })
}

fn cart_response(echo: Echo, body: Body) -> Result<Response, Error> {
    Ok(match (echo, body) {
        (Echo::CartAdd, Body::CartLineChanged(changed)) => {
            Response::AddCartLine(v1::AddCartLineResponse {
                header: None,
                line: changed.line.map(line),
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::CartSetQuantity, Body::CartLineChanged(changed)) => {
            Response::SetCartLineQuantity(v1::SetCartLineQuantityResponse {
                header: None,
                line: changed.line.map(line),
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::CartRemove, Body::CartLineChanged(changed)) => {
            Response::RemoveCartLine(v1::RemoveCartLineResponse {
                header: None,
                line: changed.line.map(line),
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::CartClear, Body::CartCleared(cleared)) => {
            Response::ClearCart(v1::ClearCartResponse {
                header: None,
                removed_lines: cleared.removed_lines,
                mod_revision: cleared.mod_revision,
            })
        }
        (Echo::CartUpdate, Body::CartUpdated(updated)) => {
            Response::UpdateCart(v1::UpdateCartResponse {
                header: None,
                mod_revision: updated.mod_revision,
                results: updated.results,
                subtotal: updated.subtotal,
                total_quantity: updated.total_quantity,
            })
        }
        (Echo::CartMerge, Body::CartsMerged(merged)) => {
            Response::MergeCarts(v1::MergeCartsResponse {
                header: None,
                already_merged: merged.already_merged,
                mod_revision: merged.mod_revision,
                taken_lines: merged.taken_lines,
                dropped_lines: merged.dropped_lines,
            })
        }
        (Echo::CartFreeze, Body::CartFrozen(frozen)) => {
            Response::FreezeCart(cart_frozen(*frozen).into())
        }
        (Echo::CartRelease, Body::CartReleased(released)) => {
            Response::ReleaseCart(v1::ReleaseCartResponse {
                header: None,
                mod_revision: released.mod_revision,
            })
        }
        (Echo::CompleteOrder, Body::OrderCompleted(completed)) => {
            Response::CompleteOrder(v1::CompleteOrderResponse {
                header: None,
                already_completed: completed.already_completed,
                mod_revision: completed.mod_revision,
                remaining_lines: completed.remaining_lines,
            })
        }
        (echo, body) => key_response(echo, body)?,
    })
}

fn key_response(echo: Echo, body: Body) -> Result<Response, Error> {
    Ok(match (echo, body) {
        (Echo::KeyPut, Body::KeyPut(put)) => Response::PutKey(v1::PutKeyResponse {
            header: None,
            create_revision: put.create_revision,
            mod_revision: put.mod_revision,
            deadline_ms: put.deadline,
        }),
        (Echo::KeyDelete, Body::KeyDeleted(_)) => {
            Response::DeleteKey(v1::DeleteKeyResponse { header: None })
        }
        (Echo::KeyIncrement, Body::KeyIncremented(it)) => {
            Response::IncrementKey(v1::IncrementKeyResponse {
                header: None,
                value: it.value,
                create_revision: it.create_revision,
                mod_revision: it.mod_revision,
                deadline_ms: it.deadline,
            })
        }
        (Echo::LeaseGrant, Body::LeaseGranted(it)) => {
            Response::GrantLease(v1::GrantLeaseResponse {
                header: None,
                lease_id: it.lease,
                ttl_ms: it.ttl,
                deadline_ms: it.deadline,
            })
        }
        (Echo::LeaseKeepAlive, Body::LeaseRenewed(it)) => {
            Response::KeepLeaseAlive(v1::KeepLeaseAliveResponse {
                header: None,
                ttl_ms: it.ttl,
                deadline_ms: it.deadline,
            })
        }
        (Echo::LeaseRevoke, Body::LeaseRevoked(it)) => {
            Response::RevokeLease(v1::RevokeLeaseResponse {
                header: None,
                deleted_keys: it.deleted_keys,
            })
        }
        _ => return Err(Error::ForeignReply("it answers another kind of request")),
    })
}

/// Each result is encoded as the reply to the operation alone would be.
fn txn(echo: TxnEcho, done: pb::TxnDone, revision: Revision) -> Result<v1::TxnResponse, Error> {
    let pb::TxnDone { succeeded, results } = done;
    let echoes = if succeeded { echo.then } else { echo.otherwise };
    if echoes.len() != results.len() {
        return Err(Error::ForeignReply("it has another number of results"));
    }
    let results = echoes.into_iter().zip(results).map(|(echo, result)| {
        Ok(v1::Outcome {
            response: Some(txn_result(echo, result, revision)?),
            ..v1::Outcome::default()
        })
    });
    Ok(v1::TxnResponse {
        header: None,
        succeeded,
        results: results.collect::<Result<_, Error>>()?,
    })
}

fn txn_result(
    echo: StepEcho,
    result: pb::TxnResult,
    revision: Revision,
) -> Result<Response, Error> {
    use pb::txn_result::Result::{Cart, Key, Nothing, Reply, Session};
    const FOREIGN: Error = Error::ForeignReply("a result answers another kind of operation");
    let result = result.result.ok_or(FOREIGN)?;
    Ok(match (echo, result) {
        (StepEcho::Write(echo), Reply(reply)) => {
            response(echo, reply.body.ok_or(FOREIGN)?, revision)?
        }
        (StepEcho::GetSession, found @ (Session(_) | Nothing(_))) => {
            let session = match found {
                Session(record) => Some(session(&record)),
                _ => None,
            };
            Response::GetSession(v1::GetSessionResponse {
                header: None,
                session,
            })
        }
        (StepEcho::GetCart, found @ (Cart(_) | Nothing(_))) => {
            let cart = match found {
                Cart(record) => Some(cart(&record, record.freeze.as_ref())),
                _ => None,
            };
            Response::GetCart(v1::GetCartResponse { header: None, cart }.into())
        }
        (StepEcho::GetKey(name), found @ (Key(_) | Nothing(_))) => {
            let item = match found {
                Key(record) => Some(key_value(name.as_str(), &record)),
                _ => None,
            };
            Response::GetKey(v1::GetKeyResponse { header: None, item })
        }
        _ => return Err(FOREIGN),
    })
}

fn txn_aborted(aborted: pb::TxnAborted) -> Error {
    let source = match aborted.refusal {
        Some(Refusal::Rejected(rejected)) => rejection(&rejected),
        Some(Refusal::SaveConflict(conflict)) => save_conflict(conflict),
        None => Error::ForeignReply("its refusal is of a newer version"),
    };
    Error::InTxn {
        branch: if aborted.succeeded {
            "then"
        } else {
            "otherwise"
        },
        index: aborted.index as usize,
        source: Box::new(source),
    }
}

fn save_conflict(conflict: pb::SaveConflict) -> Error {
    Error::SaveConflict {
        fields: conflict.fields,
        actual: Revision::new(conflict.actual_revision),
    }
}

pub(super) fn rejection(rejected: &pb::Rejected) -> Error {
    match (Rejection::from_stored(rejected), rejected.action) {
        (Some(rejection), None) => Error::Rejected(rejection),
        (Some(rejection), Some(action)) => Error::RejectedAction { action, rejection },
        (None, _) => Error::ForeignReply("its rejection is of a newer version"),
    }
}

fn session_created(
    echo: CreateEcho,
    created: &pb::SessionCreated,
    revision: Revision,
) -> Result<v1::CreateSessionResponse, Error> {
    Ok(v1::CreateSessionResponse {
        header: None,
        token: first_token(&echo.token, created)?,
        session: Some(v1::Session {
            user_id: echo.user_id,
            fields: echo.fields,
            create_revision: revision.get(),
            mod_revision: revision.get(),
            created_at_ms: created.created_at,
            last_seen_ms: created.created_at,
            idle_deadline_ms: created.idle_deadline,
            absolute_deadline_ms: created.absolute_deadline,
            idle_ttl_ms: created.idle_ttl,
            client: echo.client,
            handle: born_handle(created),
            touch_interval_ms: created.touch_interval,
        }),
        ended: ended(created),
    })
}

fn session_rotated(
    echo: &TokenEcho,
    rotated: pb::SessionRotated,
    revision: Revision,
) -> Result<v1::RotateSessionResponse, Error> {
    let created = rotated
        .created
        .ok_or(Error::ForeignReply("it tells of no session"))?;
    Ok(v1::RotateSessionResponse {
        header: None,
        token: first_token(echo, &created)?,
        user_id: rotated.user_id,
        handle: born_handle(&created),
        mod_revision: revision.get(),
        created_at_ms: created.created_at,
        idle_ttl_ms: created.idle_ttl,
        idle_deadline_ms: created.idle_deadline,
        absolute_deadline_ms: created.absolute_deadline,
        cart: rotated.cart.map(|merged| v1::CartMerge {
            policy: rotated.cart_policy,
            taken_lines: merged.taken_lines,
            dropped_lines: merged.dropped_lines,
            mod_revision: merged.mod_revision,
            moved: rotated.cart_moved,
            already_merged: merged.already_merged,
        }),
        ended: ended(&created),
    })
}

/// Empty for a guest's session.
fn born_handle(created: &pb::SessionCreated) -> String {
    let created_at = LogTime::from_millis(created.created_at);
    match created.birth {
        0 => String::new(),
        birth => SessionHandle::new(birth, created_at).to_string(),
    }
}

fn ended(created: &pb::SessionCreated) -> Vec<String> {
    let places = created.ended.iter();
    places
        .map(|place| SessionHandle::from(*place).to_string())
        .collect()
}

/// The token of the first attempt: this attempt's, or, in a replay, the one that was sealed then.
fn first_token(echo: &TokenEcho, created: &pb::SessionCreated) -> Result<String, Error> {
    if created.token_hash == echo.token.hash().as_bytes()[..] {
        return Ok(echo.token.expose());
    }
    let opened = echo.request_id.as_ref().and_then(|request_id| {
        let hash = TokenHash::parse(&created.token_hash).ok()?;
        seal::open(&echo.namespace, request_id, &hash, &created.sealed_token)
    });
    let damaged = || Fault::corrupt("a sealed session token", "it does not open");
    Ok(opened.ok_or_else(damaged)?.expose())
}

/// A session as it is read.
pub(crate) fn session(record: &pb::SessionRecord) -> v1::Session {
    v1::Session {
        user_id: record.user_id.clone(),
        fields: record
            .fields
            .shared()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        created_at_ms: record.created_at,
        last_seen_ms: record.last_seen,
        idle_deadline_ms: query::session_idle_deadline(record).as_millis(),
        absolute_deadline_ms: record.absolute_deadline,
        idle_ttl_ms: record.idle_ttl,
        client: record.client.clone(),
        handle: session_handle(record),
        touch_interval_ms: record.touch_interval,
    }
}

fn session_handle(record: &pb::SessionRecord) -> String {
    query::session_handle(record).map_or(String::new(), |handle| handle.to_string())
}

/// A session as a listing shows it.
pub(crate) fn user_session(record: &pb::SessionRecord, current: bool) -> v1::UserSession {
    v1::UserSession {
        handle: session_handle(record),
        created_at_ms: record.created_at,
        last_seen_ms: record.last_seen,
        idle_deadline_ms: query::session_idle_deadline(record).as_millis(),
        absolute_deadline_ms: record.absolute_deadline,
        client: record.client.clone(),
        current,
    }
}

/// A cart as it is read. Its freeze is given if its lease runs.
pub(crate) fn cart(record: &pb::CartRecord, freeze: Option<&pb::StoredFreeze>) -> v1::Cart {
    let freeze = freeze.map(cart_freeze);
    let state = match (&record.merged_into, &freeze) {
        (Some(_), _) => v1::CartState::Merged,
        (None, Some(_)) => v1::CartState::Frozen,
        (None, None) if record.order_id.is_empty() => v1::CartState::Open,
        (None, None) => v1::CartState::Ordered,
    };
    v1::Cart {
        lines: record.lines.iter().cloned().map(line).collect(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        state: state.into(),
        subtotal: query::subtotal(&record.lines),
        total_quantity: query::total_quantity(&record.lines),
        details: record.details.clone(),
        deadline_ms: record.deadline,
        freeze,
        order_id: record.order_id.clone(),
        merged_into: record.merged_into.as_ref().map(merged_into),
    }
}

fn cart_freeze(freeze: &pb::StoredFreeze) -> v1::CartFreeze {
    v1::CartFreeze {
        holder: freeze.holder.clone(),
        revision: freeze.revision,
        deadline_ms: freeze.deadline,
    }
}

/// A cart that nothing was added to.
pub(crate) fn empty_cart() -> v1::Cart {
    v1::Cart {
        state: v1::CartState::Open.into(),
        ..v1::Cart::default()
    }
}

/// A line with its total, which is not stored.
fn line(line: v1::CartLine) -> v1::CartLine {
    v1::CartLine {
        total_minor_units: query::line_total(&line),
        ..line
    }
}

/// A session's token is not known here, and its hash is nobody's business.
fn merged_into(owner: &pb::StoredOwner) -> v1::MergedInto {
    let target = match &owner.owner {
        Some(Owner::UserId(user)) => Target::UserId(user.clone()),
        Some(Owner::TokenHash(_)) | None => Target::Session(true),
    };
    v1::MergedInto {
        target: Some(target),
    }
}

fn cart_frozen(frozen: pb::CartFrozen) -> v1::FreezeCartResponse {
    let freeze = pb::StoredFreeze {
        holder: frozen.holder,
        revision: frozen.revision,
        deadline: frozen.deadline,
        lines: Vec::new(),
    };
    v1::FreezeCartResponse {
        header: None,
        snapshot: frozen.snapshot.map(|record| cart(&record, Some(&freeze))),
        freeze: Some(cart_freeze(&freeze)),
    }
}

/// A key as it is read.
pub(crate) fn key_value(key: &str, record: &pb::KvRecord) -> v1::KeyValue {
    v1::KeyValue {
        key: key.to_owned(),
        value: query::key_value(record),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        deadline_ms: record.deadline,
        counter: record.counter,
        lease_id: record.lease,
    }
}
