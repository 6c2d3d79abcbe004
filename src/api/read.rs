//! Queries: from a consistent view to a response.

use super::backend::{Backend, View};
use super::parse::Query;
use super::{Error, Refused, cursor, encode};
use crate::proto::internal::reply::Body;
use crate::proto::v1::{self, outcome::Response};
use crate::raft::Reply;
use crate::state::namespace::effective;
use crate::state::query::{self, CartRead};
use crate::state::{Command, Fault, Identity, Rejection, SessionOperation};
use crate::types::{Key, KeyPrefix, LogTime, Namespace, Revision};

/// What a query found, or why it found nothing.
pub(crate) type Found = Result<Response, Rejection>;

/// Answers one query from the node's state as it is now.
pub(crate) fn now(node: &impl Backend, query: &Query) -> Result<encode::Answer, Refused> {
    let (revision, found) = node.view(|view| look(view, query))?;
    answer(revision, found)
}

/// A read's answer.
pub(crate) fn answer(revision: Revision, found: Found) -> Result<encode::Answer, Refused> {
    Ok(encode::Answer {
        revision,
        replayed: false,
        response: found.map_err(|rejection| Refused::at(revision, rejection))?,
    })
}

/// The touch that a read asked for, if it is due: then the session has to be read again behind it. A touch that is not due
/// writes nothing, so it needs no place in the log.
pub(crate) fn owed_touch(query: &Query, found: &Response, now: LogTime) -> Option<Command> {
    let (
        Query::Session {
            namespace,
            token,
            touch: true,
        },
        Response::GetSession(v1::GetSessionResponse {
            session: Some(session),
            ..
        }),
    ) = (query, found)
    else {
        return None;
    };
    let is_due = query::is_touch_due(session.last_seen_ms, session.touch_interval_ms, now);
    let touch = SessionOperation::Touch { token: *token };
    // It is the same whoever does it and however often, so its retries need no identity.
    let command = || Command::new(namespace.clone(), Identity::Anonymous, touch);
    is_due.then(command)
}

/// Whether a touch that was owed left the session readable.
pub(crate) fn check_touch(reply: &Reply) -> Result<(), Refused> {
    match &reply.reply.body {
        Some(Body::Rejected(rejected)) => {
            let revision = Revision::new(reply.reply.revision);
            Err(Refused::at(revision, encode::rejection(rejected)))
        }
        Some(_) => Ok(()),
        None => Err(Error::ForeignReply("it is empty").into()),
    }
}

/// Looks one thing up.
pub(crate) fn look(view: &View<'_>, query: &Query) -> Result<Found, Fault> {
    match query {
        Query::Session {
            namespace, token, ..
        } => {
            let found = query::session(view, namespace, token)?;
            Ok(found.ok_or(Rejection::SessionNotFound).map(|record| {
                Response::GetSession(v1::GetSessionResponse {
                    header: None,
                    session: Some(encode::session(&record)),
                })
            }))
        }
        Query::UserSessions {
            namespace,
            user,
            current,
            after,
            limit,
        } => {
            let page = query::user_sessions(view, namespace, user, *limit, *after)?;
            let items = page.items.iter();
            Ok(Ok(Response::ListSessions(v1::ListSessionsResponse {
                header: None,
                sessions: items
                    .map(|(token, record)| encode::user_session(record, token == current))
                    .collect(),
                next_cursor: page.next.map_or(String::new(), |birth| {
                    cursor::encode_session(namespace, user, birth)
                }),
            })))
        }
        Query::Namespace { namespace } => {
            let record = query::namespace(view, namespace)?.unwrap_or_default();
            let settings = record.settings.unwrap_or_default();
            Ok(Ok(Response::GetNamespace(Box::new(
                v1::GetNamespaceResponse {
                    header: None,
                    effective: Some(effective(&settings)),
                    settings: Some(settings),
                    mod_revision: record.mod_revision,
                },
            ))))
        }
        Query::Cart {
            namespace,
            owner,
            own,
        } => {
            let found = if *own {
                query::own_cart(view, namespace, owner)?
            } else {
                query::cart(view, namespace, owner)?
            };
            Ok(match found {
                CartRead::SessionNotFound => Err(Rejection::SessionNotFound),
                CartRead::Absent => Ok(cart(encode::empty_cart())),
                CartRead::Cart(record) => {
                    let freeze = query::running_freeze(view, &record);
                    Ok(cart(encode::cart(&record, freeze)))
                }
            })
        }
        Query::Key { namespace, key } => {
            let found = query::key(view, namespace, key)?;
            Ok(found.ok_or(Rejection::KeyNotFound).map(|record| {
                Response::GetKey(v1::GetKeyResponse {
                    header: None,
                    item: Some(encode::key_value(key.as_str(), &record)),
                })
            }))
        }
        Query::List {
            namespace,
            prefix,
            after,
            limit,
        } => list(view, namespace, prefix, after.as_ref(), *limit).map(Ok),
        Query::Lease { namespace, lease } => {
            let found = query::lease(view, namespace, *lease)?;
            Ok(found.ok_or(Rejection::LeaseNotFound).map(|record| {
                Response::GetLease(v1::GetLeaseResponse {
                    header: None,
                    ttl_ms: record.ttl,
                    deadline_ms: record.deadline,
                    keys: record.keys,
                })
            }))
        }
    }
}

fn cart(cart: v1::Cart) -> Response {
    Response::GetCart(Box::new(v1::GetCartResponse {
        header: None,
        cart: Some(cart),
    }))
}

fn list(
    view: &View<'_>,
    namespace: &Namespace,
    prefix: &KeyPrefix,
    after: Option<&Key>,
    limit: usize,
) -> Result<Response, Fault> {
    let page = query::list(view, namespace, prefix, limit, after)?;
    let next = page.next.as_ref();
    Ok(Response::ListKeys(v1::ListKeysResponse {
        header: None,
        next_cursor: next.map_or(String::new(), |last| {
            cursor::encode(namespace, prefix, last.as_str())
        }),
        items: page
            .items
            .iter()
            .map(|(key, record)| encode::key_value(key.as_str(), record))
            .collect(),
    }))
}
