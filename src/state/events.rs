//! Events as they are read: what happened to which record at which revision, and what it held then.
//!
//! Applied in order to an empty map, by key, the events of all revisions give what the store holds: each carries the
//! whole record, and says when one is gone. A record that expired is invisible from its deadline on and its event
//! follows when it is swept, so whoever keeps such a map looks at deadlines as every reader does.

use bytes::Bytes;
use prost::Message as _;

use super::keys::{Key, KeyRange};
use super::store::Record;
use super::{Fault, record};
use crate::proto::internal as pb;
use crate::types::{LogTime, Revision, TokenHash, UserId};

/// Why a record is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its owner ended it.
    Deleted,
    /// Its time was over.
    Expired,
    /// It was ended without its holder's doing.
    Revoked,
}

impl Gone {
    pub(super) fn to_stored(self) -> u32 {
        match self {
            Self::Deleted => 1,
            Self::Expired => 2,
            Self::Revoked => 3,
        }
    }

    pub(super) fn from_stored(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Deleted),
            2 => Some(Self::Expired),
            3 => Some(Self::Revoked),
            _ => None,
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It came into being.
    Created(Record),
    /// It was there and holds this now.
    Updated(Record),
    /// It is no more.
    Gone {
        /// Why.
        why: Gone,
        /// Whose session it was.
        user: Option<UserId>,
    },
    /// Under [`Key::User`]: all of the user's sessions that were there are no more, and their carts with them.
    SessionsRevoked {
        /// But for this one.
        except: Option<TokenHash>,
    },
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The revision that made it.
    pub revision: Revision,
    /// Its place among that revision's events, from 0.
    pub position: u32,
    /// Log time of the revision.
    pub log_time: LogTime,
    /// The record's key.
    pub key: Key,
    /// What became of it.
    pub change: Change,
}

impl Event {
    /// The user that a session belongs to or belonged to, that owns a cart, or whose sessions are no more.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        if let Key::UserCart(_, user) | Key::User(_, user) = &self.key {
            return Some(user.as_str());
        }
        let user = match &self.change {
            Change::Created(Record::Session(session))
            | Change::Updated(Record::Session(session)) => session.user_id.as_str(),
            Change::Gone { user, .. } => user.as_ref()?.as_str(),
            _ => return None,
        };
        (!user.is_empty()).then_some(user)
    }
}

/// What a revision did, from its stored value.
pub fn decode(revision: Revision, value: Bytes) -> Result<Vec<Event>, Fault> {
    let stored = pb::RevisionEvents::decode(value)
        .map_err(|e| Fault::corrupt("a revision's events", e.to_string()))?;
    let log_time = LogTime::from_millis(stored.log_time);
    (0..)
        .zip(stored.events)
        .map(|(position, event)| {
            let key = Key::decode(&event.key)?;
            Ok(Event {
                revision,
                position,
                log_time,
                change: change(&key, event)?,
                key,
            })
        })
        .collect()
}

fn change(key: &Key, event: pb::StoredEvent) -> Result<Change, Fault> {
    let damaged = |detail| Fault::corrupt("an event", detail);
    if let Key::User(..) = key {
        let kept = (!event.kept.is_empty()).then(|| TokenHash::parse(&event.kept));
        let except = kept
            .transpose()
            .map_err(|e| Fault::corrupt("an event", e.to_string()))?;
        return Ok(Change::SessionsRevoked { except });
    }
    if event.gone != 0 {
        let why = Gone::from_stored(event.gone).ok_or_else(|| damaged("its end is unknown"))?;
        let user = (!event.user_id.is_empty()).then(|| UserId::parse(event.user_id));
        let user = user
            .transpose()
            .map_err(|e| Fault::corrupt("an event", e.to_string()))?;
        return Ok(Change::Gone { why, user });
    }
    let record = record::decode(key, event.record)?.record;
    if !key.has_events() {
        return Err(damaged("its record is of a kind that has none"));
    }
    Ok(if event.created {
        Change::Created(record)
    } else {
        Change::Updated(record)
    })
}

/// What a look into the history found.
#[derive(Debug, Clone, PartialEq)]
pub enum Page {
    /// The events of all revisions from the one that was asked for to `through`.
    Events {
        /// In order.
        events: Vec<Event>,
        /// The last revision that was looked at.
        through: Revision,
    },
    /// The store has not come to the revision that was asked for.
    CaughtUp {
        /// What it has come to.
        at: Revision,
        /// Log time there.
        log_time: LogTime,
    },
    /// The revision's events are forgotten.
    Forgotten {
        /// The oldest revision whose events are kept.
        oldest: Revision,
    },
}

/// The oldest revision whose events a store keeps; the next one that it will have, when it keeps none.
#[must_use]
pub fn oldest(header: &pb::StateHeader) -> Revision {
    header.history.map_or_else(
        || Revision::new(header.revision).next(),
        |history| Revision::new(history.oldest),
    )
}

/// Reads the history from a revision on. `scan` visits what is stored of a range, ascending, as much as it will.
pub fn read(
    header: &pb::StateHeader,
    from: Revision,
    scan: impl FnOnce(
        &KeyRange,
        &mut dyn FnMut(Revision, Bytes) -> Result<(), Fault>,
    ) -> Result<(), Fault>,
) -> Result<Page, Fault> {
    let at = Revision::new(header.revision);
    if from > at {
        let log_time = LogTime::from_millis(header.log_time);
        return Ok(Page::CaughtUp { at, log_time });
    }
    let oldest = oldest(header);
    if from < oldest {
        return Ok(Page::Forgotten { oldest });
    }
    let missing = |revision| {
        Fault::corrupt(
            "the history of events",
            format!("revision {revision} is missing"),
        )
    };
    let (mut events, mut next) = (Vec::new(), from);
    scan(
        &KeyRange::events(from, at.next()),
        &mut |revision, value| {
            if revision != next {
                return Err(missing(next));
            }
            events.append(&mut decode(revision, value)?);
            next = next.next();
            Ok(())
        },
    )?;
    if next == from {
        return Err(missing(from));
    }
    let through = Revision::new(next.get().saturating_sub(1));
    Ok(Page::Events { events, through })
}
