//! Exactly-once: the reply tables.
//!
//! A retry is recognised by its identity, and answered with the first reply. A client of the exchange stream has
//! one [`ClientWindow`] that holds its unconfirmed replies; a plain request id has one [`pb::RequestRecord`].
//! Both live for [`limits::REPLY_WINDOW_MS`] of log time: the window from its last use, the request from its reply.
//!
//! Invariants:
//! 1. A stored window's replies ascend by sequence, none below `confirmed_below`. They are at most
//!    [`limits::CLIENT_WINDOW`] and one, and at most [`limits::CLIENT_WINDOW_BYTES`] and the two last ones: before a
//!    command is executed nobody knows how long its reply is, so a full window refuses the next.
//! 2. While it is in a batch, a window may still hold replies below `confirmed_below`, at its front and fewer than
//!    the others: they count as absent, and are forgotten many at a time so that confirming stays cheap.
//!    [`normalize`] forgets them before the window is encoded, so no byte depends on when that was.
//! 3. What is refused here (`RequestIdReused`, `SequenceConfirmed`, `ClientWindowFull`) is neither executed nor stored.
//! 4. The lowest sequence that is not confirmed is never refused for a full window. What fills it may be the replies
//!    above, which no client can confirm before this one is answered.
//! 5. Nothing here moves the revision.
//! 6. The requests that one entry of several commands answers end together, so they share one place in the index of
//!    deadlines: a [`pb::RequestGroupRecord`] lists each of them. A place for each would be as many writes again as
//!    there are replies. What an entry of one command answers has a place of its own.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::apply::{Applied, reply};
use super::batch::{Batch, SlotId};
use super::command::{Command, Identity, RequestHash};
use super::deadlines::Entry;
use super::keys::Key;
use super::store::Record;
use super::sweep::Swept;
use super::window::ClientWindow;
use super::{Fault, Rejection, Store};
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::types::{ClientId, LogTime, Namespace, Ttl};

/// The requests that the entry being applied has answered, if they are to be a group.
#[derive(Debug, Default)]
pub(super) struct Answered(Option<Group>);

#[derive(Debug, Default)]
struct Group {
    first: Option<(Namespace, RequestHash)>,
    /// Encoded keys.
    requests: Vec<Bytes>,
}

impl Answered {
    /// None yet.
    pub fn by_entry_of(commands: usize) -> Self {
        Self((commands > 1).then(Group::default))
    }
}

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
            let id = batch.load(&Key::Request(command.namespace.clone(), hash))?;
            match look_up_request(batch, id, command.fingerprint)? {
                Known::Answered(reply) => Ok(replayed(reply)),
                Known::Refused(rejection) => Ok(refused(batch, rejection)),
                Known::New => {
                    let reply = execute(batch)?;
                    remember_request(batch, id, command, hash, &reply);
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

/// Whether a command was answered before, as far as a store knows: to apply it again would change nothing.
pub fn is_answered(store: &impl Store, command: &Command) -> Result<bool, Fault> {
    let key = match command.identity {
        Identity::Anonymous => return Ok(false),
        Identity::Request(hash) => Key::Request(command.namespace.clone(), hash),
        Identity::Client { client, .. } => Key::Client(client),
    };
    let Some(stored) = store.get(&key)? else {
        return Ok(false);
    };
    let now = store.header().log_time;
    Ok(match (&stored.record, command.identity) {
        (Record::Request(request), _) => request.deadline > now,
        (Record::Client(window), Identity::Client { sequence, .. }) => {
            let is_known = sequence < window.confirmed_below || window.find(sequence).is_some();
            window.deadline > now && is_known
        }
        _ => false,
    })
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

fn look_up_request<S: Store>(
    batch: &Batch<'_, S>,
    id: SlotId,
    fingerprint: u64,
) -> Result<Known, Fault> {
    let live = batch
        .read::<pb::RequestRecord>(id)
        .filter(|request| request.deadline > batch.now().as_millis());
    let live = live.filter(|_| !planted::has(Bug::ForgottenReplies));
    let Some(stored) = live.and_then(|request| request.reply.as_ref()) else {
        return Ok(Known::New);
    };
    if stored.fingerprint != fingerprint {
        return Ok(Known::Refused(Rejection::RequestIdReused));
    }
    let reply = pb::Reply::decode(stored.reply.clone())
        .map_err(|e| Fault::corrupt("a stored reply", e.to_string()))?;
    Ok(Known::Answered(reply))
}

/// Stores a reply, in place of one that is no longer valid but was not swept yet.
fn remember_request<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    command: &Command,
    hash: RequestHash,
    reply: &pb::Reply,
) {
    let key = Key::Request(command.namespace.clone(), hash);
    let old = batch.read::<pb::RequestRecord>(id);
    // One in a group stays listed there: the sweep sees that it is no longer what the group ends.
    if let Some(old) = old.filter(|old| !old.is_grouped) {
        let indexed = LogTime::from_millis(old.deadline);
        batch.unindex(indexed, &key);
    }
    let deadline = window_end(batch.now());
    let is_grouped = batch.answered.0.is_some();
    if let Some(group) = &mut batch.answered.0 {
        let first = || (command.namespace.clone(), hash);
        group.first.get_or_insert_with(first);
        group.requests.push(key.encode());
    } else {
        batch.index(deadline, &key);
    }
    let record = pb::RequestRecord {
        reply: Some(pb::StoredReply {
            sequence: 0,
            fingerprint: command.fingerprint,
            reply: reply.encode_to_vec().into(),
        }),
        deadline: deadline.as_millis(),
        is_grouped,
    };
    batch.put(id, record);
}

/// Gives the requests that the entry answered their place among the deadlines.
pub(super) fn end_entry<S: Store>(batch: &mut Batch<'_, S>) -> Result<(), Fault> {
    let Some(Group {
        first: Some((namespace, hash)),
        requests,
    }) = std::mem::take(&mut batch.answered).0
    else {
        return Ok(());
    };
    let deadline = window_end(batch.now());
    // Nobody has it: the first request is answered once until then.
    let key = Key::RequestGroup(deadline, namespace, hash);
    let id = batch.load(&key)?;
    batch.put(id, pb::RequestGroupRecord { requests });
    batch.index(deadline, &key);
    Ok(())
}

/// Forgets replies of a group, as many as the budget allows, and the group with the last of them.
pub(super) fn expire_group<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    entry: Entry,
    budget: usize,
) -> Result<Swept, Fault> {
    let Some(group) = batch.change::<pb::RequestGroupRecord>(id) else {
        return Err(Fault::corrupt("the deadline index", "a group is missing"));
    };
    let records = budget.min(group.requests.len());
    let ended: Vec<_> = group.requests.drain(..records).collect();
    let is_last = group.requests.is_empty();
    for key in ended {
        let request = batch.load(&Key::decode(&key)?)?;
        let Some(record) = batch.read::<pb::RequestRecord>(request) else {
            return Err(Fault::corrupt("a group of requests", "a reply is missing"));
        };
        // One that was answered again, after its time and before the sweep, ends with another group.
        if record.deadline <= entry.time.as_millis() {
            batch.delete(request);
        }
    }
    if is_last {
        batch.remove_from_index(entry.key);
        batch.delete(id);
    }
    Ok(Swept {
        records,
        readable: false,
    })
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
    let Some(window) = batch.change::<ClientWindow>(id) else {
        batch.index(deadline, &key);
        let window = ClientWindow::empty(confirmed_below, deadline);
        batch.put(id, window);
        return Ok(id);
    };
    if window.deadline <= now.as_millis() {
        // Its index entry may stay: the sweep moves it on.
        window.clear();
    }
    window.deadline = deadline.as_millis();
    window.confirmed_below = window.confirmed_below.max(confirmed_below);
    if window.confirmed() > window.len().wrapping_shr(1) {
        window.forget_confirmed();
    }
    Ok(id)
}

/// Brings a record into its stored form.
pub(super) fn normalize(record: &mut Record) {
    if let Record::Client(window) = record
        && window.confirmed() > 0
    {
        Arc::make_mut(window).forget_confirmed();
    }
}

fn look_up<S: Store>(
    batch: &Batch<'_, S>,
    id: SlotId,
    sequence: u64,
    fingerprint: u64,
) -> Result<Known, Fault> {
    let Some(window) = batch.read::<ClientWindow>(id) else {
        return Ok(Known::New);
    };
    if sequence < window.confirmed_below {
        return Ok(Known::Refused(Rejection::SequenceConfirmed));
    }
    if let Some(remembered) = window.find(sequence) {
        return Ok(if remembered.fingerprint == fingerprint {
            Known::Answered(remembered.reply()?)
        } else {
            Known::Refused(Rejection::RequestIdReused)
        });
    }
    let is_lowest = sequence == window.confirmed_below;
    Ok(if is_lowest || !window.is_full() {
        Known::New
    } else {
        Known::Refused(Rejection::ClientWindowFull)
    })
}

/// Stores a reply.
fn remember<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    sequence: u64,
    fingerprint: u64,
    reply: &pb::Reply,
) {
    if let Some(window) = batch.change::<ClientWindow>(id) {
        window.remember(sequence, fingerprint, reply);
    }
}

/// The sweep moved the window's index entry.
pub(super) fn note_indexed<S: Store>(batch: &mut Batch<'_, S>, id: SlotId, deadline: LogTime) {
    if let Some(window) = batch.change::<ClientWindow>(id) {
        window.indexed_deadline = deadline.as_millis();
    }
}
