//! The sweep: what is due is deleted at the beginning of each log entry, as much of it as one entry may.
//!
//! Nobody could read it any more: what is live is decided by deadlines alone. So how far a sweep has come changes nothing that callers
//! see but the revision under which watchers are told, and that is the same on every node, because the sweep is a part of the entry.

use super::batch::{Batch, SlotId};
use super::deadlines::Entry;
use super::events::Gone;
use super::keys::Key;
use super::window::ClientWindow;
use super::{Fault, Store, cart, kv, lease, replies, session};
use crate::limits;
use crate::proto::internal as pb;
use crate::types::LogTime;

/// What a sweep did for one entry of the deadline index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    /// Records that it looked at, of the budget of one log entry.
    pub records: usize,
    /// Something is gone that a caller could read until then.
    pub readable: bool,
}

impl Swept {
    fn one(readable: bool) -> Self {
        Self {
            records: 1,
            readable,
        }
    }
}

impl<S: Store> Batch<'_, S> {
    /// Begins an entry of so many commands: moves log time on, and sweeps what is due, as much as one entry may.
    pub(super) fn begin_entry(&mut self, stamp: LogTime, commands: usize) -> Result<(), Fault> {
        if !self.move_on(stamp, commands) {
            return Ok(());
        }
        self.ending(Gone::Expired);
        let mut deleted = false;
        let mut budget = None;
        let horizon = loop {
            let Some(entry) = self.earliest()? else {
                break None;
            };
            if entry.time > self.now() {
                break Some(entry.time);
            }
            let left = budget.unwrap_or_else(|| sweep_budget(self.now(), entry.time));
            if left == 0 {
                break Some(entry.time);
            }
            let swept = self.expire(entry, left)?;
            deleted |= swept.readable;
            budget = Some(left.saturating_sub(swept.records));
        };
        self.set_horizon(horizon);
        if deleted {
            self.next_revision();
        }
        self.close_revision()
    }

    /// Deletes the record that an index entry stands for, or moves the entry to where the record's deadline has
    /// moved since. Two kinds stand for more than themselves, and stay until all of that is swept, within the budget of
    /// each log entry: a user for revoked sessions, a group for the requests in it.
    fn expire(&mut self, entry: Entry, budget: usize) -> Result<Swept, Fault> {
        let target = Key::decode(&entry.target)?;
        let id = self.load(&target)?;
        let (indexed, deadline) = self.deadlines(&target, id)?;
        if indexed != entry.time {
            return Err(Fault::corrupt(
                "the deadline index",
                "an entry is not at its record's place",
            ));
        }
        if let Key::User(namespace, user) = &target {
            return session::sweep_revoked(self, id, namespace, user, budget);
        }
        if let Key::RequestGroup(..) = &target {
            return replies::expire_group(self, id, entry, budget);
        }
        self.remove_from_index(entry.key);
        if deadline > self.now() {
            self.index(deadline, &target);
            match &target {
                Key::Session(..) => session::note_indexed(self, id, deadline),
                Key::UserCart(..) | Key::SessionCart(..) => cart::note_indexed(self, id, deadline),
                Key::Kv(..) => kv::note_indexed(self, id, deadline),
                Key::Lease(..) => lease::note_indexed(self, id, deadline),
                _ => replies::note_indexed(self, id, deadline),
            }
            return Ok(Swept::one(false));
        }
        if let Key::Session(namespace, token) = &target {
            return session::expire(self, id, namespace, token).map(Swept::one);
        }
        if let Key::SessionCart(namespace, token) = &target {
            cart::note_expired(self, namespace, token)?;
            if session::is_cut_off(self, namespace, token)? {
                self.unseen(|batch| batch.delete(id));
                return Ok(Swept::one(true));
            }
        }
        if let Key::Kv(namespace, name) = &target {
            kv::leave_lease(self, namespace, name, id)?;
        }
        self.delete(id);
        Ok(Swept::one(matches!(
            target,
            Key::UserCart(..) | Key::SessionCart(..) | Key::Kv(..) | Key::Lease(..)
        )))
    }

    /// Where the index holds a record, and when it is really due.
    fn deadlines(&mut self, key: &Key, id: SlotId) -> Result<(LogTime, LogTime), Fault> {
        let found = match key {
            Key::Session(..) => self
                .read::<pb::SessionRecord>(id)
                .map(|it| (it.indexed_deadline, session::deadline(it).as_millis())),
            Key::User(..) => self
                .read::<pb::UserRecord>(id)
                .map(|it| (it.indexed_deadline, it.indexed_deadline)),
            Key::UserCart(..) | Key::SessionCart(..) => self
                .read::<pb::CartRecord>(id)
                .map(|it| (it.indexed_deadline, it.deadline)),
            Key::Order(..) => self
                .read::<pb::OrderRecord>(id)
                .map(|it| (it.deadline, it.deadline)),
            Key::Client(..) => self
                .read::<ClientWindow>(id)
                .map(|it| (it.indexed_deadline, it.deadline)),
            Key::Kv(namespace, _) => kv::deadlines(self, namespace, id)?,
            Key::Lease(..) => self
                .read::<pb::LeaseRecord>(id)
                .map(|it| (it.indexed_deadline, it.deadline)),
            Key::Request(..) => self
                .read::<pb::RequestRecord>(id)
                .filter(|it| !it.is_grouped)
                .map(|it| (it.deadline, it.deadline)),
            Key::RequestGroup(deadline, ..) => self
                .read::<pb::RequestGroupRecord>(id)
                .map(|_| (deadline.as_millis(), deadline.as_millis())),
            _ => None,
        };
        let (indexed, deadline) = found
            .ok_or_else(|| Fault::corrupt("the deadline index", "an entry stands for no record"))?;
        Ok((
            LogTime::from_millis(indexed),
            LogTime::from_millis(deadline),
        ))
    }
}

/// How many records an entry sweeps that meets one which has been due since `earliest`.
fn sweep_budget(now: LogTime, earliest: LogTime) -> usize {
    let late = earliest.as_millis().saturating_add(limits::SWEEP_LATE_MS);
    if now.as_millis() < late {
        limits::SWEEP_PER_ENTRY
    } else {
        limits::SWEEP_PER_ENTRY_LATE
    }
}
