//! The client's identity, and the sequences whose callers still wait.
//!
//! Invariants: sequences of writes are dense from 1 and ascend. `confirmed_below` is the lowest one whose caller still
//! waits, or the next to be drawn. Fewer than [`limits::CLIENT_WINDOW`] lie between it and the next. How long their replies
//! will be nobody knows: a node refuses a write whose predecessors' replies fill [`limits::CLIENT_WINDOW_BYTES`], but for
//! the lowest, and it is retried like anything else that may fare better later.
//!
//! A [`Sequence`] confirms itself when it is dropped: answered, out of time or abandoned, its caller never asks for it
//! again, which is all that a confirmation says. A copy that is still under way then does no harm: if it comes after
//! the confirmation the state machine refuses it, and if it comes before it is the write's one application.
//!
//! Reads leave no reply behind and are never recognised when they come again, so each attempt of one is tagged from a
//! range that no write reaches, and a slow read does not hold up confirmations.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::limits;

/// Tags of reads begin here. At a million writes a second sequences get here after two thousand years.
const FIRST_READ_TAG: u64 = 1 << 56;

pub(super) struct Ledger {
    client_id: Bytes,
    window: Mutex<Window>,
    /// A copy of the window's base, for frames.
    confirmed_below: AtomicU64,
    read_tags: AtomicU64,
    /// The window has room again.
    room: Notify,
}

struct Window {
    /// The lowest sequence whose caller still waits.
    base: u64,
    /// From `base` on: whether its caller is done with it.
    done: VecDeque<bool>,
    /// Callers that wait for room.
    waiting: usize,
}

/// A write's sequence, for as long as its caller cares.
pub(super) struct Sequence<'a> {
    ledger: &'a Ledger,
    number: u64,
}

impl Sequence<'_> {
    pub fn get(&self) -> u64 {
        self.number
    }
}

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        self.ledger.confirm(self.number);
    }
}

impl Ledger {
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut id = vec![0; limits::CLIENT_ID_BYTES];
        getrandom::fill(&mut id)?;
        Ok(Self {
            client_id: id.into(),
            window: Mutex::new(Window {
                base: 1,
                done: VecDeque::new(),
                waiting: 0,
            }),
            confirmed_below: AtomicU64::new(1),
            read_tags: AtomicU64::new(FIRST_READ_TAG),
            room: Notify::new(),
        })
    }

    pub fn client_id(&self) -> Bytes {
        self.client_id.clone()
    }

    pub fn confirmed_below(&self) -> u64 {
        self.confirmed_below.load(Ordering::Acquire)
    }

    /// A tag for one attempt of a read.
    pub fn read_tag(&self) -> u64 {
        self.read_tags.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether it is a read that carries this tag.
    pub fn is_read_tag(tag: u64) -> bool {
        tag >= FIRST_READ_TAG
    }

    /// The next write's sequence; waits while the window is full. The caller bounds the wait.
    pub async fn draw(&self) -> Sequence<'_> {
        let _waiting = Waiting::enter(self);
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before the window is looked at, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(sequence) = self.try_draw() {
                return sequence;
            }
            room.await;
        }
    }

    /// The next write's sequence, unless the window is full.
    pub fn try_draw(&self) -> Option<Sequence<'_>> {
        let mut window = self.lock();
        // One less than the limit, because the drawn one counts.
        if window.done.len() + 1 >= limits::CLIENT_WINDOW {
            return None;
        }
        let number = window.base + window.done.len() as u64;
        window.done.push_back(false);
        Some(Sequence {
            ledger: self,
            number,
        })
    }

    fn confirm(&self, number: u64) {
        let mut window = self.lock();
        let place = usize::try_from(number - window.base).expect("the window is small");
        window.done[place] = true;
        if place > 0 {
            return;
        }
        while window.done.front() == Some(&true) {
            window.done.pop_front();
            window.base += 1;
        }
        self.confirmed_below.store(window.base, Ordering::Release);
        if window.waiting > 0 {
            self.room.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().expect("no holder of this lock panics")
    }
}

/// Counts a caller that waits for room, also when it is dropped while it does.
struct Waiting<'a>(&'a Ledger);

impl<'a> Waiting<'a> {
    fn enter(ledger: &'a Ledger) -> Self {
        ledger.lock().waiting += 1;
        Self(ledger)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new().expect("the system has randomness")
    }

    #[tokio::test]
    async fn confirms_only_what_nobody_below_waits_for() {
        let ledger = ledger();
        let first = ledger.draw().await;
        let second = ledger.draw().await;
        assert_eq!((first.get(), second.get()), (1, 2));
        drop(second);
        assert_eq!(ledger.confirmed_below(), 1);
        drop(first);
        assert_eq!(ledger.confirmed_below(), 3);
        assert_eq!(ledger.draw().await.get(), 3);
    }

    #[tokio::test]
    async fn a_full_window_waits_until_its_lowest_is_done() {
        let ledger = ledger();
        let mut drawn = Vec::new();
        while let Some(sequence) = ledger.try_draw() {
            drawn.push(sequence);
        }
        assert_eq!(drawn.len(), limits::CLIENT_WINDOW - 1);
        let mut next = std::pin::pin!(ledger.draw());
        assert!(futures::poll!(next.as_mut()).is_pending());
        drop(drawn.remove(1));
        assert!(
            futures::poll!(next.as_mut()).is_pending(),
            "the lowest still waits"
        );
        drop(drawn.remove(0));
        assert_eq!(next.await.get(), limits::CLIENT_WINDOW as u64);
    }

    #[tokio::test]
    async fn an_abandoned_wait_leaves_no_trace() {
        let ledger = ledger();
        let drawn: Vec<_> = std::iter::from_fn(|| ledger.try_draw()).collect();
        {
            let mut next = std::pin::pin!(ledger.draw());
            assert!(futures::poll!(next.as_mut()).is_pending());
        }
        assert_eq!(ledger.lock().waiting, 0);
        drop(drawn);
        assert_eq!(ledger.confirmed_below(), limits::CLIENT_WINDOW as u64);
    }
}
