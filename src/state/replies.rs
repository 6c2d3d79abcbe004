//! Exactly-once: the reply tables.
//!
//! A retry is recognised by its identity, and answered with the first reply. A client of the exchange stream has
//! one [`pb::ClientWindow`] that holds its unconfirmed replies; a plain request id has one [`pb::RequestRecord`].
//! Both live for [`limits::REPLY_WINDOW_MS`] of log time: the window from its last use, the request from its reply.
//!
//! Invariants:
//! 1. A stored window's replies ascend by sequence, none below `confirmed_below`, at most
//!    [`limits::CLIENT_WINDOW`].
//! 2. While it is in a batch, a window may still hold replies below `confirmed_below`, at its front and fewer than
//!    the others: they count as absent, and are dropped many at a time so that confirming stays cheap.
//!    [`normalize`] drops them before the window is encoded, so no byte depends on when that was.
//! 3. What is refused here (`RequestIdReused`, `SequenceConfirmed`, `ClientWindowFull`) is neither executed nor stored.
//! 4. Nothing here moves the revision.

use std::sync::Arc;

use prost::Message as _;

use super::apply::{Applied, reply};
use super::batch::{Batch, SlotId};
use super::command::{Command, Identity};
use super::keys::Key;
use super::store::Record;
use super::{Fault, Rejection, Store};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{ClientId, LogTime, Ttl};

/// What a table knows of a request.
enum Known {
    /// Nothing: it may be executed.
    New,
    /// Its reply.
    Answered(pb::Reply),
    /// It may not be executed.
    Refused(Rejection),
}

/// Answers from the tables, or executes and remembers.
pub(super) fn answer<S: Store>(
    batch: &mut Batch<'_, S>,
    command: &Command,
    execute: impl FnOnce(&mut Batch<'_, S>) -> Result<pb::Reply, Fault>,
) -> Result<Applied, Fault> {
    match command.identity {
        Identity::Anonymous => execute(batch).map(fresh),
        Identity::Request(hash) => {
            let key = Key::Request(command.namespace.clone(), hash);
            let id = batch.load(&key)?;
            match look_up_request(batch, id, command.fingerprint)? {
                Known::Answered(reply) => Ok(replayed(reply)),
                Known::Refused(rejection) => Ok(refused(batch, rejection)),
                Known::New => {
                    let reply = execute(batch)?;
                    remember_request(batch, id, &key, command.fingerprint, &reply);
                    Ok(fresh(reply))
                }
            }
        }
        Identity::Client {
            client,
            sequence,
            confirmed_below,
        } => {
            let id = open_window(batch, client, confirmed_below)?;
            match look_up(batch, id, sequence, command.fingerprint)? {
                Known::Answered(reply) => Ok(replayed(reply)),
                Known::Refused(rejection) => Ok(refused(batch, rejection)),
                Known::New => {
                    let reply = execute(batch)?;
                    remember(batch, id, sequence, command.fingerprint, &reply);
                    Ok(fresh(reply))
                }
            }
        }
    }
}

fn fresh(reply: pb::Reply) -> Applied {
    Applied {
        reply,
        replayed: false,
    }
}

fn replayed(reply: pb::Reply) -> Applied {
    Applied {
        reply,
        replayed: true,
    }
}

fn refused<S: Store>(batch: &Batch<'_, S>, rejection: Rejection) -> Applied {
    fresh(reply(batch, Body::Rejected(rejection.to_stored())))
}

/// When a reply that is stored now is forgotten.
fn window_end(now: LogTime) -> LogTime {
    now.after(Ttl::from_millis(limits::REPLY_WINDOW_MS))
}

fn compare(stored: &pb::StoredReply, fingerprint: u64) -> Result<Known, Fault> {
    if stored.fingerprint != fingerprint {
        return Ok(Known::Refused(Rejection::RequestIdReused));
    }
    let reply = pb::Reply::decode(stored.reply.clone())
        .map_err(|e| Fault::corrupt("a stored reply", e.to_string()))?;
    Ok(Known::Answered(reply))
}

fn stored_reply(sequence: u64, fingerprint: u64, reply: &pb::Reply) -> pb::StoredReply {
    pb::StoredReply {
        sequence,
        fingerprint,
        reply: reply.encode_to_vec().into(),
    }
}

fn look_up_request<S: Store>(
    batch: &Batch<'_, S>,
    id: SlotId,
    fingerprint: u64,
) -> Result<Known, Fault> {
    let live = batch
        .read::<pb::RequestRecord>(id)
        .filter(|request| request.deadline > batch.now().as_millis());
    match live.and_then(|request| request.reply.as_ref()) {
        Some(stored) => compare(stored, fingerprint),
        None => Ok(Known::New),
    }
}

/// Stores a reply, in place of one that is no longer valid but was not swept yet.
fn remember_request<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    key: &Key,
    fingerprint: u64,
    reply: &pb::Reply,
) {
    if let Some(old) = batch.read::<pb::RequestRecord>(id) {
        let indexed = LogTime::from_millis(old.deadline);
        batch.unindex(indexed, key);
    }
    let deadline = window_end(batch.now());
    batch.index(deadline, key);
    let record = pb::RequestRecord {
        reply: Some(stored_reply(0, fingerprint, reply)),
        deadline: deadline.as_millis(),
    };
    batch.put(id, record);
}

/// The client's window: made if it has none, emptied if its time was over, confirmed as far as the client says, and
/// good for another while.
fn open_window<S: Store>(
    batch: &mut Batch<'_, S>,
    client: ClientId,
    confirmed_below: u64,
) -> Result<SlotId, Fault> {
    let key = Key::Client(client);
    let id = batch.load(&key)?;
    let now = batch.now();
    let deadline = window_end(now);
    let Some(window) = batch.change::<pb::ClientWindow>(id) else {
        batch.index(deadline, &key);
        let window = pb::ClientWindow {
            confirmed_below,
            replies: Vec::new(),
            deadline: deadline.as_millis(),
            indexed_deadline: deadline.as_millis(),
        };
        batch.put(id, window);
        return Ok(id);
    };
    if window.deadline <= now.as_millis() {
        // Its index entry may stay: the sweep moves it on.
        window.replies.clear();
        window.confirmed_below = 0;
    }
    window.deadline = deadline.as_millis();
    window.confirmed_below = window.confirmed_below.max(confirmed_below);
    let confirmed = confirmed(window);
    if confirmed > window.replies.len().wrapping_shr(1) {
        window.replies.drain(..confirmed);
    }
    Ok(id)
}

/// How many replies, at the front, are confirmed.
fn confirmed(window: &pb::ClientWindow) -> usize {
    window
        .replies
        .partition_point(|stored| stored.sequence < window.confirmed_below)
}

/// Brings a record into its stored form.
pub(super) fn normalize(record: &mut Record) {
    if let Record::Client(window) = record {
        let confirmed = confirmed(window);
        if confirmed > 0 {
            Arc::make_mut(window).replies.drain(..confirmed);
        }
    }
}

fn look_up<S: Store>(
    batch: &Batch<'_, S>,
    id: SlotId,
    sequence: u64,
    fingerprint: u64,
) -> Result<Known, Fault> {
    let Some(window) = batch.read::<pb::ClientWindow>(id) else {
        return Ok(Known::New);
    };
    if sequence < window.confirmed_below {
        return Ok(Known::Refused(Rejection::SequenceConfirmed));
    }
    let place = window
        .replies
        .binary_search_by_key(&sequence, |stored| stored.sequence);
    if let Some(stored) = place.ok().and_then(|at| window.replies.get(at)) {
        return compare(stored, fingerprint);
    }
    let unconfirmed = window.replies.len().saturating_sub(confirmed(window));
    Ok(if unconfirmed < limits::CLIENT_WINDOW {
        Known::New
    } else {
        Known::Refused(Rejection::ClientWindowFull)
    })
}

/// Stores a reply. Sequences arrive nearly in order, so that the place is at or near the end.
fn remember<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    sequence: u64,
    fingerprint: u64,
    reply: &pb::Reply,
) {
    let Some(window) = batch.change::<pb::ClientWindow>(id) else {
        return;
    };
    let at = window
        .replies
        .partition_point(|other| other.sequence < sequence);
    let stored = stored_reply(sequence, fingerprint, reply);
    window.replies.insert(at, stored);
}

/// The sweep moved the window's index entry.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(window) = batch.change::<pb::ClientWindow>(id) {
        window.indexed_deadline = deadline.as_millis();
    }
}
