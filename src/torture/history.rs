//! What concurrent clients asked of single keys, and what they were told, in real-time order.
//!
//! A [`Recorder`] is shared by all clients of a test. Each notes a call *before* it sends it and the outcome
//! *after* it has it; the recorder's lock puts all these events into one order. So if one operation returned
//! before another was invoked, that is how the history has it, and an overlap in the history may be wider
//! than the real one but never narrower: a checker can miss a violation by it, and never invent one.
//!
//! Invariants of a [`History`]: every operation has one invocation, at most one return, which comes later
//! and fits the call. An operation without a return has an unknown outcome.
//!
//! Deliberately absent: what the operations mean. [`super::linearizability`] judges.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a write requires of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key does not exist.
    IfAbsent,
    /// The key exists at this revision.
    IfRevision(u64),
    /// The key holds this value.
    IfValue(String),
}

/// One call on one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A linearizable read.
    Get,
    /// A write; with a condition it is a compare-and-set.
    Put {
        /// The new value. Checking is sharpest when no two puts write the same.
        value: String,
        /// When it may be written.
        condition: Condition,
    },
    /// A removal.
    Delete {
        /// When it may be removed.
        condition: Condition,
    },
}

/// What a call was told. Revisions are optional, because not every store has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A get found this.
    Found {
        /// The value.
        value: String,
        /// The revision that wrote it.
        revision: Option<u64>,
    },
    /// A get or a delete found no such key.
    Absent,
    /// A put took effect.
    Written {
        /// The key's new revision.
        revision: Option<u64>,
    },
    /// A delete took effect.
    Deleted {
        /// The store's revision after it.
        revision: Option<u64>,
    },
    /// A condition did not hold, and nothing was changed.
    Refused,
    /// It certainly never took effect.
    NotApplied,
    /// It may have taken effect, may still do so at any later time, or never: a timeout, a lost connection.
    Unknown,
}

impl Outcome {
    fn fits(&self, call: &Call) -> bool {
        match self {
            Self::Found { .. } => matches!(call, Call::Get),
            Self::Absent => matches!(call, Call::Get | Call::Delete { .. }),
            Self::Written { .. } => matches!(call, Call::Put { .. }),
            Self::Deleted { .. } => matches!(call, Call::Delete { .. }),
            Self::Refused => !matches!(call, Call::Get),
            Self::NotApplied | Self::Unknown => true,
        }
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A client is about to send a call.
    Invoke {
        /// The operation's number, unique in the history.
        operation: u64,
        /// Which client.
        process: u32,
        /// Since the recorder was made; for people, since the order of lines is what counts.
        at_us: u64,
        /// The key.
        key: String,
        /// The call.
        call: Call,
    },
    /// A client has been told the outcome.
    Return {
        /// The operation's number.
        operation: u64,
        /// Since the recorder was made.
        at_us: u64,
        /// The outcome.
        outcome: Outcome,
    },
}

/// One operation on one key, put together from its two events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which client.
    pub process: u32,
    /// The call.
    pub call: Call,
    /// What it was told; [`Outcome::Unknown`] if it was told nothing.
    pub outcome: Outcome,
    /// The position of its invocation among the history's events.
    pub invoked: usize,
    /// The position of its return.
    pub returned: Option<usize>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            call,
            outcome,
            invoked,
            returned,
        } = self;
        match returned {
            Some(returned) => write!(f, "[{invoked}..{returned}]")?,
            None => write!(f, "[{invoked}..]")?,
        }
        write!(f, " client {process}: {call:?} -> {outcome:?}")
    }
}

/// Why something is not a history.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("reading a history")]
    Io(#[from] io::Error),
    /// A line is not an event.
    #[error("line {line} is not an event")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Two invocations have one number.
    #[error("operation {0} is invoked twice")]
    InvokedTwice(u64),
    /// A return without its invocation before it.
    #[error("operation {0} returns before it is invoked")]
    NotInvoked(u64),
    /// Two returns of one operation.
    #[error("operation {0} returns twice")]
    ReturnedTwice(u64),
    /// Such an outcome cannot come from such a call.
    #[error("operation {0} has an outcome that does not fit its call")]
    Misfit(u64),
}

/// The operations of each key, in the order of their invocations.
pub type ByKey = BTreeMap<String, Vec<Operation>>;

/// A recorded or loaded history.
#[derive(Debug, Clone, Default)]
pub struct History {
    events: Vec<Event>,
    by_key: ByKey,
}

impl History {
    /// Checks the events against each other.
    pub fn new(events: Vec<Event>) -> Result<Self, Error> {
        let by_key = pair(&events)?;
        Ok(Self { events, by_key })
    }

    /// Reads what [`Self::dump`] wrote: JSON, an event per line.
    pub fn load(from: impl BufRead) -> Result<Self, Error> {
        let mut events = Vec::new();
        for (line, text) in (1..).zip(from.lines()) {
            let event = serde_json::from_str(&text?);
            events.push(event.map_err(|source| Error::Syntax { line, source })?);
        }
        Self::new(events)
    }

    /// Writes JSON, an event per line.
    pub fn dump(&self, mut into: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut into, event)?;
            into.write_all(b"\n")?;
        }
        into.flush()
    }

    /// The events in their order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When the event at a position was noted.
    #[must_use]
    pub fn at_us(&self, position: usize) -> u64 {
        match self.events.get(position) {
            Some(Event::Invoke { at_us, .. } | Event::Return { at_us, .. }) => *at_us,
            None => 0,
        }
    }

    /// The operations of each key.
    #[must_use]
    pub fn by_key(&self) -> &ByKey {
        &self.by_key
    }
}

fn pair(events: &[Event]) -> Result<ByKey, Error> {
    let mut by_key = ByKey::new();
    // Where each operation stands in `by_key`.
    let mut places: BTreeMap<u64, (&str, usize)> = BTreeMap::new();
    for (position, event) in events.iter().enumerate() {
        match event {
            Event::Invoke {
                operation,
                process,
                key,
                call,
                ..
            } => {
                let operations = by_key.entry(key.clone()).or_default();
                if places.insert(*operation, (key, operations.len())).is_some() {
                    return Err(Error::InvokedTwice(*operation));
                }
                operations.push(Operation {
                    process: *process,
                    call: call.clone(),
                    outcome: Outcome::Unknown,
                    invoked: position,
                    returned: None,
                });
            }
            Event::Return {
                operation, outcome, ..
            } => {
                let found = places
                    .get(operation)
                    .and_then(|(key, index)| by_key.get_mut(*key)?.get_mut(*index))
                    .ok_or(Error::NotInvoked(*operation))?;
                complete(found, *operation, outcome, position)?;
            }
        }
    }
    Ok(by_key)
}

fn complete(
    found: &mut Operation,
    number: u64,
    outcome: &Outcome,
    position: usize,
) -> Result<(), Error> {
    if found.returned.is_some() {
        return Err(Error::ReturnedTwice(number));
    }
    if !outcome.fits(&found.call) {
        return Err(Error::Misfit(number));
    }
    found.outcome = outcome.clone();
    found.returned = Some(position);
    Ok(())
}

/// An invoked operation. Neither copyable nor clonable, so that it returns at most once; dropped, its outcome
/// is unknown.
#[derive(Debug)]
#[must_use = "an operation that is not completed has an unknown outcome"]
pub struct Ticket {
    operation: u64,
}

/// Where concurrent clients note their calls and outcomes.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    inner: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<Event>,
    invoked: u64,
}

impl Recorder {
    /// An empty one; its clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::since(Instant::now())
    }

    /// An empty one, whose times count from then.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self {
            started,
            inner: Mutex::default(),
        }
    }

    /// Notes a call. To be called before the call is sent.
    pub fn invoke(&self, process: u32, key: &str, call: Call) -> Ticket {
        let mut recorded = self.lock();
        let operation = recorded.invoked;
        recorded.invoked += 1;
        recorded.events.push(Event::Invoke {
            operation,
            process,
            // Read under the lock, so that times go up line by line.
            at_us: self.at_us(),
            key: key.to_owned(),
            call,
        });
        Ticket { operation }
    }

    /// Notes an outcome. To be called once the client has it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the ticket is used up, so that an operation returns at most once"
    )]
    pub fn complete(&self, ticket: Ticket, outcome: Outcome) {
        let Ticket { operation } = ticket;
        let mut recorded = self.lock();
        let at_us = self.at_us();
        recorded.events.push(Event::Return {
            operation,
            at_us,
            outcome,
        });
    }

    /// What was recorded until now; what has not returned has an unknown outcome.
    ///
    /// Fails if an outcome did not fit its call.
    pub fn history(&self) -> Result<History, Error> {
        let events = self.lock().events.clone();
        History::new(events)
    }

    fn at_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    // A panic of another client leaves the list whole: each change to it is one push.
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
