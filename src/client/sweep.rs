//! Deadlines and silence: one sweeper per node looks at everything that waits for it, so that an operation needs no
//! timer of its own.
//!
//! It takes away, every [`SWEEP`] while there is anything,
//! - what is past its caller's deadline or was abandoned,
//! - what only the leader can answer, once another node is known to lead,
//! - what a node keeps for too long while it answers others,
//!
//! and it ends the stream of a node that owes an answer and has sent nothing for an attempt timeout: a process that is
//! paused or cut off keeps its connection. The stream is opened again at once, and the node introduces itself again
//! when it is back; that is how a leader that only paused becomes the leader again.
//!
//! A link may be slow and its node well. Nothing comes back while a large request is on its way, so what is on the way
//! beyond [`SMALL_BYTES`] gets as much longer as it takes at [`SLOWEST`]. And a node is not silent while a large answer
//! comes in: more than the pings of one that does not answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::node::{Answer, Cause, Node, Sent, Submission, Table, lose};
use super::supervisor::Shared;

/// How often deadlines are looked at while something is under way: what a deadline may be late by.
const SWEEP: Duration = Duration::from_millis(10);
/// Sweeps that find nothing before they pause.
const IDLE_SWEEPS: u32 = 100;
/// What a deposed leader gets to answer what it was sent, before that is sent to its successor.
const DEPOSED_GRACE: Duration = Duration::from_millis(20);
/// A leader may keep one operation for this many attempt timeouts, as long as it answers others.
const LONGEST_ATTEMPT: u32 = 4;

/// So much on its way to a node gets no longer for it: a link of today takes it in a moment.
const SMALL_BYTES: u64 = 256 << 10;
/// What the slowest link takes in a second.
const SLOWEST: u64 = 512 << 10;
/// What has come in since the last frame and is more than this is part of a large one.
const LARGE_BYTES: u64 = 4 << 10;

/// Operations that are taken away, and why.
type Lost = Vec<(oneshot::Sender<Answer>, Cause)>;

/// What a look at the sent operations found.
enum Finding {
    /// Nothing is owed.
    Idle,
    /// These are to be answered.
    Busy(Lost),
    /// The node owes an answer and says nothing.
    Silent,
}

impl Node {
    /// Sweeps until it is dropped; pauses while there is nothing to look at.
    pub(super) async fn sweep_forever(self: &Arc<Self>, shared: &Shared) {
        let mut idle = 0;
        loop {
            tokio::time::sleep(SWEEP).await;
            idle = if self.sweep(shared) { 0 } else { idle + 1 };
            if idle < IDLE_SWEEPS {
                continue;
            }
            idle = 0;
            self.sweeping.store(false, Ordering::SeqCst);
            // Whatever came before the store and saw no need to stir is found here.
            if self.sweep(shared) {
                self.sweeping.store(true, Ordering::SeqCst);
            } else {
                self.stir.notified().await;
            }
        }
    }

    /// Called after something was put into the inbox or the table.
    pub(super) fn keep_sweeping(&self) {
        if !self.sweeping.load(Ordering::SeqCst) {
            self.sweeping.store(true, Ordering::SeqCst);
            self.stir.notify_one();
        }
    }

    /// Answers whatever is out of time. False if there was nothing at all.
    fn sweep(self: &Arc<Self>, shared: &Shared) -> bool {
        let now = Instant::now();
        let expired = self.expire_waiting(now);
        let has_waiting = !expired.is_empty() || !self.lock_inbox().waiting.is_empty();
        for waiter in expired {
            lose(waiter, false, Cause::Expired);
        }
        match self.expire_sent(now, shared.directory.leads_elsewhere(self)) {
            Finding::Idle => has_waiting,
            Finding::Busy(lost) => {
                for (waiter, cause) in lost {
                    lose(waiter, true, cause);
                }
                true
            }
            Finding::Silent => {
                // In this order: whoever is woken must not come back here.
                shared.directory.suspect(self);
                self.shut(Cause::Silent);
                self.silent.notify_one();
                true
            }
        }
    }

    fn expire_waiting(&self, now: Instant) -> Vec<oneshot::Sender<Answer>> {
        let mut inbox = self.lock_inbox();
        let is_over = |s: &Submission| s.deadline <= now || s.waiter.is_closed();
        if !inbox.waiting.iter().any(is_over) {
            return Vec::new();
        }
        let (over, rest) = std::mem::take(&mut inbox.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(is_over);
        inbox.waiting = rest;
        drop(inbox);
        self.announce_room();
        over.into_iter().map(|s| s.waiter).collect()
    }

    fn expire_sent(&self, now: Instant, deposed: Option<Instant>) -> Finding {
        let mut table = self.lock_table();
        let is_arriving = table.look(self.received.load(Ordering::Relaxed), now);
        let Some(owed) = table.owed else {
            return Finding::Idle;
        };
        let on_the_way = time_for(table.bytes());
        if now.saturating_duration_since(owed) >= self.attempt_timeout + on_the_way {
            return Finding::Silent;
        }
        let is_deposed = deposed.is_some_and(|since| now > since + DEPOSED_GRACE);
        let mut over = Vec::new();
        for (sequence, sent) in table.sent() {
            let longest = self.longest_attempt(sent.needs_leader) + on_the_way;
            let longest = (!is_arriving).then_some(longest);
            if let Some(cause) = sent.judge(now, longest, is_deposed) {
                over.push((*sequence, cause));
            }
        }
        let take = |(sequence, cause)| Some((table.remove(sequence)?.waiter, cause));
        let lost: Lost = over.into_iter().filter_map(take).collect();
        drop(table);
        if !lost.is_empty() {
            // The table may have been full.
            self.drain.wake();
        }
        Finding::Busy(lost)
    }

    /// How long it may keep one operation, although it answers others: longer if no other node will do.
    pub(super) fn longest_attempt(&self, needs_leader: bool) -> Duration {
        if needs_leader {
            self.attempt_timeout * LONGEST_ATTEMPT
        } else {
            self.attempt_timeout
        }
    }
}

impl Table {
    /// Looks at what has come in, ever: whether the last that did is a part of a large frame. Of that, each piece is a word.
    fn look(&mut self, received: u64, now: Instant) -> bool {
        let is_arriving = received.saturating_sub(self.received) > LARGE_BYTES;
        if is_arriving && received > self.looked {
            self.owed = self.owed.map(|_| now);
        }
        self.looked = received;
        is_arriving
    }
}

/// How much longer so many bytes on their way to a node may take than few would.
fn time_for(bytes: u64) -> Duration {
    let large = bytes.saturating_sub(SMALL_BYTES);
    Duration::from_millis(large * 1000 / SLOWEST)
}

impl Sent {
    /// Why it is not waited for any longer, if so. There may be no time that it may take at the longest.
    fn judge(&self, now: Instant, longest: Option<Duration>, is_deposed: bool) -> Option<Cause> {
        if self.is_over(now) {
            return Some(Cause::Expired);
        }
        let age = now.saturating_duration_since(self.at);
        let is_left = self.needs_leader && is_deposed && age > DEPOSED_GRACE;
        let is_late = is_left || longest.is_some_and(|longest| age >= longest);
        is_late.then_some(Cause::Silent)
    }

    /// Nobody waits for it any more, or nobody should.
    fn is_over(&self, now: Instant) -> bool {
        self.deadline <= now || self.waiter.is_closed()
    }
}
