//! Locks: a recipe over keys and leases.
//!
//! A lock is a key that is put if it is absent, with a lease that its holder keeps alive. When the holder dies or is cut off,
//! the lease runs out, the key goes with it, and the next one gets in.
//!
//! No lock service can stop a holder that was paused for longer than its lease, wakes up, and goes on as if it still held
//! the lock. So each acquisition has a *fencing token*, which is greater than all before: hand it to whatever the lock
//! protects, and let that refuse a token smaller than one it has seen. A transaction does it for what is in the store,
//! with [`super::Compared::create_revision`] of the lock's key.
//!
//! Invariants:
//! 1. The token is the create revision of the lock's key: revisions only grow.
//! 2. [`Lock::is_held`] turns false before the lease can have run out, as far as this machine's monotonic clock runs no
//!    slower than log time.
//! 3. The task that keeps the lease alive is owned by the [`Lock`], and ends with it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::Backoff;
use super::keys::Keys;
use super::{Client, Error};
use crate::types::Revision;

/// A lease whose taker names no TTL.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// The lease is kept alive this often in its TTL.
const RENEWALS: u32 = 3;
/// Longest pause of somebody who waits for a lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const KEY_EXISTS: &str = "KEY_EXISTS";

impl<'a> Keys<'a> {
    /// A lock: the key with this name, while it is there.
    pub fn lock(&self, name: impl Into<String>) -> AcquireLock<'a> {
        AcquireLock {
            client: self.client,
            name: name.into(),
            holder: Bytes::new(),
            ttl: DEFAULT_TTL,
            wait: self.client.defaults.timeout,
        }
    }
}

/// See [`Keys::lock`].
#[must_use]
pub struct AcquireLock<'a> {
    client: &'a Client,
    name: String,
    holder: Bytes,
    ttl: Duration,
    wait: Duration,
}

impl AcquireLock<'_> {
    /// Who wants it, for people who look at the key.
    pub fn holder(mut self, holder: impl Into<Bytes>) -> Self {
        self.holder = holder.into();
        self
    }

    /// How long the lock outlives a holder that fell silent; 10 seconds without.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long [`AcquireLock::acquire`] waits while somebody else has it; the client's timeout without.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Takes the lock if nobody has it.
    pub async fn try_acquire(mut self) -> Result<Option<Lock>, Error> {
        self.wait = Duration::ZERO;
        match self.acquire().await {
            Err(error) if error.reason() == Some(KEY_EXISTS) => Ok(None),
            acquired => acquired.map(Some),
        }
    }

    /// Takes the lock, and waits while somebody else has it. If that takes too long, the error's reason is `KEY_EXISTS`.
    pub async fn acquire(self) -> Result<Lock, Error> {
        let give_up = Instant::now() + self.wait;
        let granted_at = Instant::now();
        let lease = self.client.leases().grant(self.ttl).send().await?;
        let lease = HeldLease::keep(self.client.clone(), lease.lease_id, self.ttl, granted_at);
        match self.take(&lease, give_up).await {
            Ok(token) => Ok(Lock {
                name: self.name,
                token,
                lease,
            }),
            Err(error) => {
                // What cannot be revoked now runs out by itself.
                lease.end().await.ok();
                Err(error)
            }
        }
    }

    async fn take(&self, lease: &HeldLease, give_up: Instant) -> Result<Revision, Error> {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        loop {
            let put = self.client.keys().put(&self.name, self.holder.clone());
            let error = match put.if_absent().lease(lease.id).send().await {
                Ok(put) => return Ok(Revision::new(put.create_revision)),
                Err(error) => error,
            };
            let next = Instant::now() + backoff.next();
            if error.reason() != Some(KEY_EXISTS) || next > give_up {
                return Err(error);
            }
            sleep_until(next).await;
        }
    }
}

/// A lock that was acquired. Dropped without [`Lock::release`], it is free once its lease has run out.
#[derive(Debug)]
pub struct Lock {
    name: String,
    token: Revision,
    lease: HeldLease,
}

impl Lock {
    /// The key that stands for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fencing token: greater than that of everybody who had the lock before.
    #[must_use]
    pub fn token(&self) -> Revision {
        self.token
    }

    /// The lease that keeps it.
    #[must_use]
    pub fn lease_id(&self) -> u64 {
        self.lease.id
    }

    /// Whether it is certainly held: the lease was kept alive in time. Advice; what must not go wrong checks the token.
    #[must_use]
    pub fn is_held(&self) -> bool {
        *self.lease.held_until.borrow() > Instant::now()
    }

    /// Waits until it is not certainly held any more.
    pub async fn lost(&self) {
        let mut held_until = self.lease.held_until.clone();
        loop {
            let until = *held_until.borrow_and_update();
            if until <= Instant::now() {
                return;
            }
            // Either the lease is over, or there is news of it. A keeper that has ended brings none.
            if let Ok(Err(_)) = timeout_at(until, held_until.changed()).await {
                sleep_until(until).await;
            }
        }
    }

    /// Lets the next one in. To release what was lost is no error.
    pub async fn release(self) -> Result<(), Error> {
        self.lease.end().await
    }
}

/// A lease that a task keeps alive.
#[derive(Debug)]
struct HeldLease {
    client: Client,
    id: u64,
    /// In the past once it is lost.
    held_until: watch::Receiver<Instant>,
    /// The keeper alone. Dropping the set aborts it.
    keeper: JoinSet<()>,
}

impl HeldLease {
    fn keep(client: Client, id: u64, ttl: Duration, granted_at: Instant) -> Self {
        let (held, held_until) = watch::channel(granted_at + ttl);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_alive(client.clone(), id, ttl, held));
        Self {
            client,
            id,
            held_until,
            keeper,
        }
    }

    async fn end(mut self) -> Result<(), Error> {
        self.keeper.shutdown().await;
        match self.client.leases().revoke(self.id).send().await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Keeps a lease alive until it is lost. The deadline is counted from before the request was sent, so that it is never
/// later than the store's.
async fn keep_alive(client: Client, id: u64, ttl: Duration, held: watch::Sender<Instant>) {
    let pause = ttl / RENEWALS;
    let mut next = Instant::now() + pause;
    loop {
        sleep_until(next).await;
        let sent_at = Instant::now();
        next = sent_at + pause;
        let renewal = client.leases().keep_alive(id).timeout(pause);
        match renewal.send().await {
            Ok(_) => {
                held.send_replace(sent_at + ttl);
            }
            Err(error) if error.is_not_found() => {
                held.send_replace(sent_at);
                return;
            }
            // It is tried again: who cannot reach the store loses the lock when the time is over.
            Err(_) if sent_at >= *held.borrow() => return,
            Err(_) => {}
        }
    }
}
