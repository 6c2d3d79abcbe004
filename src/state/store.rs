//! What the state machine stands on: typed records under ordered keys.
//!
//! A [`Store`] is committed state. [`super::Batch`] lays the changes of the entries being applied over it and
//! becomes [`Changes`], which the store commits in one atomic step or not at all. Two implementations exist:
//! [`super::MemoryStore`] for tests and models, and `storage::machine`'s over `RocksDB`. Equal commands give equal
//! bytes and digests on both.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Fault;
use super::history::Chunk;
use super::keys::{Key, KeyRange};
use super::window::ClientWindow;
use crate::proto::internal as pb;
use crate::types::StateVersion;

/// A decoded record. Cloning shares it.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Under [`Key::Session`].
    Session(Arc<pb::SessionRecord>),
    /// Under [`Key::User`].
    User(Arc<pb::UserRecord>),
    /// Under [`Key::Settings`].
    Settings(Arc<pb::NamespaceRecord>),
    /// Under [`Key::UserCart`] and [`Key::SessionCart`].
    Cart(Arc<pb::CartRecord>),
    /// Under [`Key::Order`].
    Order(Arc<pb::OrderRecord>),
    /// Under [`Key::Kv`].
    Kv(Arc<pb::KvRecord>),
    /// Under [`Key::Lease`].
    Lease(Arc<pb::LeaseRecord>),
    /// Under [`Key::Client`].
    Client(Arc<ClientWindow>),
    /// Under [`Key::Request`].
    Request(Arc<pb::RequestRecord>),
    /// Under [`Key::RequestGroup`].
    RequestGroup(Arc<pb::RequestGroupRecord>),
    /// Under [`Key::Deadline`] and [`Key::UserSession`]: the key says it all, the value is empty.
    Index,
    /// Under [`Key::EventMarks`].
    EventMarks(Arc<pb::EventMarks>),
}

impl Record {
    /// Brings the memory that a command will read into the processor's caches: reads a little of each piece. What comes out says
    /// nothing, and must be used lest the compiler leave it out.
    #[must_use]
    pub fn prefetch(&self) -> u64 {
        match self {
            Self::Session(session) => {
                let first = session.fields.entries_head();
                session.mod_revision ^ session.touch_interval ^ first
            }
            Self::Kv(kv) => kv.mod_revision,
            Self::Cart(cart) => cart.deadline,
            _ => 0,
        }
    }
}

/// A record as a store holds it: with what was found when it was encoded. It holds no memory but its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// [`super::digest::hash`] of its encoded key and value; 0 if it does not count in the digest.
    pub hash: u128,
    /// The length of its encoded value.
    pub bytes: usize,
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub struct Change {
    /// Where.
    pub key: Key,
    /// The new record; `None` deletes.
    pub value: Option<Stored>,
}

/// What applying a batch of entries changed.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Each key at most once.
    pub writes: Vec<Change>,
    /// What each new revision did, to be stored as [`super::history::pack`] has it; `None` without a new one. What lies before
    /// [`super::events::oldest`] of the header may go: nobody reads it.
    pub events: Option<Chunk>,
    /// Revision, log time and digest after the batch.
    pub header: pb::StateHeader,
}

/// Committed records.
pub trait Store {
    /// Revision, log time and digest of what is committed; the default when nothing is. Whoever reads it from
    /// bytes does so with [`super::record::decode_header`], which finds damage.
    fn header(&self) -> pb::StateHeader;

    /// The newest version of the state's rules that may hold here. A store is opened for a program, and this is what that knows.
    fn newest_version(&self) -> StateVersion {
        StateVersion::NEWEST
    }

    /// The record under a key.
    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault>;

    /// The records under some keys, in their order. Where memory is what one waits for, a store fetches them at the same time.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, Fault> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Visits keys and encoded values of a range, ascending, until told to break. One consistent view.
    #[allow(
        clippy::type_complexity,
        reason = "a name for the visitor would say less than its type"
    )]
    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault>;
}
