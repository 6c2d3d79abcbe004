//! Replies and records become responses. No decision is taken here.

use crate::node::Leadership;
use crate::proto::internal::{self as pb, reply::Body};
use crate::proto::v1::{self, outcome::Response};
use crate::raft::Reply;
use crate::state::{Fault, Rejection, query, seal};
use crate::types::{LogTime, Revision, SessionHandle, TokenHash};

use super::Error;
use super::parse::{CreateEcho, Echo, TokenEcho};

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
pub(crate) fn write(echo: Echo, reply: Reply) -> Result<Answer, Error> {
    let Reply { reply, replayed } = reply;
    let revision = Revision::new(reply.revision);
    let body = reply.body.ok_or(Error::ForeignReply("it is empty"))?;
    let response = response(echo, body, revision)?;
    Ok(Answer {
        revision,
        replayed,
        response,
    })
}

fn response(echo: Echo, body: Body, revision: Revision) -> Result<Response, Error> {
    Ok(match (echo, body) {
        (_, Body::Rejected(rejected)) => return Err(rejection(rejected)),
        (Echo::SessionCreate(echo), Body::SessionCreated(created)) => {
            Response::CreateSession(session_created(*echo, &created, revision)?)
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
        (Echo::SessionSave, Body::SaveConflict(conflict)) => {
            return Err(Error::SaveConflict {
                fields: conflict.fields,
                actual: Revision::new(conflict.actual_revision),
            });
        }
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
        (Echo::CartAdd, Body::CartLineChanged(changed)) => {
            Response::AddCartLine(v1::AddCartLineResponse {
                header: None,
                line: changed.line,
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::CartSetQuantity, Body::CartLineChanged(changed)) => {
            Response::SetCartLineQuantity(v1::SetCartLineQuantityResponse {
                header: None,
                line: changed.line,
                mod_revision: changed.mod_revision,
            })
        }
        (Echo::CartRemove, Body::CartLineChanged(changed)) => {
            Response::RemoveCartLine(v1::RemoveCartLineResponse {
                header: None,
                line: changed.line,
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
        (Echo::KeyPut, Body::KeyPut(put)) => Response::PutKey(v1::PutKeyResponse {
            header: None,
            create_revision: put.create_revision,
            mod_revision: put.mod_revision,
            deadline_ms: put.deadline,
        }),
        (Echo::KeyDelete, Body::KeyDeleted(_)) => {
            Response::DeleteKey(v1::DeleteKeyResponse { header: None })
        }
        _ => return Err(Error::ForeignReply("it answers another kind of request")),
    })
}

pub(super) fn rejection(rejected: pb::Rejected) -> Error {
    match Rejection::from_stored(rejected) {
        Some(rejection) => Error::Rejected(rejection),
        None => Error::ForeignReply("its rejection is of a newer version"),
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
        cart: rotated.cart,
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
        fields: record.fields.clone(),
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

/// A cart as it is read.
pub(crate) fn cart(record: &pb::CartRecord) -> v1::Cart {
    v1::Cart {
        lines: record.lines.clone(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
    }
}

/// A key as it is read.
pub(crate) fn key_value(key: &str, record: &pb::KvRecord) -> v1::KeyValue {
    v1::KeyValue {
        key: key.to_owned(),
        value: record.value.clone(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        deadline_ms: record.deadline,
    }
}
