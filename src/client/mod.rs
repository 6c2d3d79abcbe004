//! The leader-aware client library.
//!
//! A [`Client`] is given any of a cluster's members and finds the others. It keeps one multiplexed `Exchange` stream
//! per node: whatever its tasks want at the same moment travels in one frame, and outcomes come back in any order. It is
//! cheap to clone, and hundreds of tasks share one.
//!
//! ```no_run
//! use std::time::Duration;
//! use trolley::client::{CartOwner, Client, ClientConfig};
//!
//! # async fn shop() -> Result<(), trolley::client::Error> {
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7401", "127.0.0.1:7402"])?)?;
//!
//! let session = client
//!     .sessions()
//!     .create()
//!     .field("theme", "dark")
//!     .idle_ttl(Duration::from_secs(1800))
//!     .send()
//!     .await?;
//! let owner = CartOwner::Session(session.token.clone());
//! client.carts().add(&owner, "SKU-1", 2).send().await?;
//!
//! // Any node may answer this, and it sees what this client has written.
//! let cart = client.read_your_writes().carts().get(&owner).send().await?;
//! assert_eq!(cart.lines.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # One operation's journey
//!
//! `call` encodes the request once, draws its sequence from the `ledger` and asks the `directory` for the node to send
//! it to. The `node`'s `outbound` stream, polled by HTTP/2 whenever it can take more, drains everything that waits into
//! one frame. The node's task dispatches outcomes to whoever waits. When a node refuses, is lost or falls silent, `call`
//! tries again under the same sequence, so that a write is applied once however often it travels.
//!
//! # Invariants
//! 1. A mutating operation has one sequence for its life; a retry, on whichever node, carries the same.
//! 2. `confirmed_below` never passes a sequence whose caller still waits. A caller that gives up confirms its
//!    sequence: it will never ask again, and the state machine refuses copies that arrive later, so that an abandoned
//!    write was applied before that or never is.
//! 3. Fewer than [`crate::limits::CLIENT_WINDOW`] writes are unconfirmed; the next one waits.
//! 4. [`Error::outcome`] is `NotApplied` only where every attempt is known to have been refused.
//! 5. Every call ends by its deadline. Every queue has a bound.
//!
//! Deliberately absent: caches (a read always asks a node) and retries under a new identity (a caller that repeats a
//! failed call by itself makes a new write).

mod builder;
mod call;
mod carts;
mod checkout;
mod cluster;
mod config;
mod directory;
mod error;
mod frame;
mod keys;
mod leases;
mod ledger;
mod link;
mod lock;
mod logins;
mod namespaces;
mod node;
mod outbound;
mod parts;
mod saves;
mod sessions;
mod supervisor;
mod sweep;
mod txn;
mod unary;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::carts::{
    AddLine, CartOwner, Carts, ClearCart, GetCart, LineRef, RemoveLine, SetQuantity,
};
pub use self::checkout::{
    CompleteOrder, FreezeCart, FrozenCart, MergeCarts, MergePolicy, ReleaseCart, UpdateCart,
};
pub use self::cluster::Cluster;
pub use self::config::{ClientConfig, Consistency, Transport};
pub use self::error::{Error, Outcome, Rejected};
pub use self::keys::{DeleteKey, GetKey, IncrementKey, Keys, ListKeys, PutKey};
pub use self::leases::{GetLease, GrantLease, KeepLeaseAlive, Leases, RevokeLease};
pub use self::lock::{AcquireLock, Lock};
pub use self::logins::{
    EndSession, ListSessions, RevokeAllSessions, RotateSession, RotatedSession,
};
pub use self::namespaces::{GetNamespace, Namespaces, SetNamespace};
pub use self::saves::SaveSession;
pub use self::sessions::{
    CreateSession, CreatedSession, DestroySession, GetSession, Sessions, TouchSession,
    UpdateSession,
};
pub use self::txn::{Compare, Compared, InTxn, Txn};
pub use self::watch::{Watch, Watched};

use self::supervisor::Core;
use crate::proto::v1;
use crate::types::Revision;

/// A handle on a cluster. Clones share their connections; each has its own defaults.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    defaults: Defaults,
}

/// What a request that names nothing else gets.
#[derive(Debug, Clone)]
struct Defaults {
    namespace: Arc<str>,
    timeout: Duration,
    consistency: Consistency,
    transport: Transport,
}

/// What a node answered, and what it saw while it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// A read: the revision of the state that it saw. A write: the store's revision after it was applied.
    pub revision: Revision,
    /// A write that an earlier attempt had applied already; this is its first reply.
    pub replayed: bool,
    /// The node that answered; 0 if it did not say.
    pub node_id: u64,
}

impl<T> Reply<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reply<U> {
        Reply {
            value: change(self.value),
            revision: self.revision,
            replayed: self.replayed,
            node_id: self.node_id,
        }
    }
}

impl<T> std::ops::Deref for Reply<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Client {
    /// A client of the cluster that the configuration's endpoints belong to. It returns at once: connections are made
    /// by the first call, and an endpoint that is dead is no obstacle while another lives. Must be called inside a Tokio
    /// runtime, on which the client's tasks run until its last clone is dropped.
    pub fn connect(config: ClientConfig) -> Result<Self, Error> {
        let defaults = Defaults {
            namespace: config.namespace.clone().into(),
            timeout: config.timeout,
            consistency: config.consistency,
            transport: config.transport,
        };
        Ok(Self {
            core: Arc::new(Core::start(config)?),
            defaults,
        })
    }

    /// A clone whose requests are about another namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Self {
        let mut client = self.clone();
        client.defaults.namespace = namespace.into();
        client
    }

    /// A clone whose calls may take this long in all, retries included.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.defaults.timeout = timeout;
        client
    }

    /// A clone whose reads are this fresh.
    #[must_use]
    pub fn consistency(&self, consistency: Consistency) -> Self {
        let mut client = self.clone();
        client.defaults.consistency = consistency;
        client
    }

    /// A clone whose reads see at least everything that this client has written, read or watched up to now, on any node. What a node
    /// refused counts as well: that something is not there, or not as it was, has been read.
    #[must_use]
    pub fn read_your_writes(&self) -> Self {
        self.consistency(Consistency::AtLeast(self.revision()))
    }

    /// The highest revision that any answer to this client or its clones has named.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.core.shared().directory.revision()
    }

    /// Where the leader is, as far as this client knows now.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        let leader = self.core.shared().directory.leader()?;
        Some(leader.address().to_owned())
    }

    /// Sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { client: self }
    }

    /// Carts.
    #[must_use]
    pub fn carts(&self) -> Carts<'_> {
        Carts { client: self }
    }

    /// Plain keys.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys { client: self }
    }

    /// Leases, which keep keys alive.
    #[must_use]
    pub fn leases(&self) -> Leases<'_> {
        Leases { client: self }
    }

    /// The namespace's own settings.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces<'_> {
        Namespaces { client: self }
    }

    /// The cluster itself.
    #[must_use]
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster { client: self }
    }

    /// Ends the client's tasks and waits for them. Calls under way fail with [`Error::Closed`], in every clone.
    pub async fn close(self) {
        self.core.close().await;
    }

    fn namespace_field(&self) -> String {
        (*self.defaults.namespace).to_owned()
    }

    fn read_options(&self, consistency: Option<Consistency>) -> Option<v1::ReadOptions> {
        consistency
            .unwrap_or(self.defaults.consistency)
            .to_options()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}
