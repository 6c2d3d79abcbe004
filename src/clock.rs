//! The only reader of wall time. Everything else gets its time from here or from the log.
//!
//! [`Clock`] is a node's own wall clock. [`LogClock`] is what a leader stamps proposals with, and it must
//! not be a wall clock: a leader whose clock is an hour ahead would end every session an hour early, for good,
//! since log time never goes back. So the time is handed from node to node:
//!
//! 1. Whatever a leader sends, entries as well as heartbeats, carries its log clock. A follower notes it beside a monotonic
//!    instant before it confirms an entry, and goes on from there by its monotonic clock, also when it comes to lead. So every
//!    majority has somebody who knows what time it was when an acknowledged write was stamped. Wall-clock jumps on any node
//!    change nothing. What is heard is late by as long as it was under way, so a follower goes by the latest time of all that it
//!    heard in the last `HEARD_FOR`: or log time would fall behind with each message that was held up before its sender died.
//!    And by nothing older, because monotonic clocks do not run alike: one that is slewed gains minutes in an hour, and a
//!    node that stayed with the latest time it ever knew would keep them, and end sessions early when it comes to lead.
//! 2. A node writes down what it knows, beside the clock of its machine, see [`LogClock::note`]. One that was restarted goes on
//!    from there, if the machine was not.
//! 3. A node whose machine was restarted knows nothing of log time. If it is elected before it has heard a leader, it goes on from
//!    what its voters say: every answer to a candidate carries the voter's log clock. The latest counts.
//! 4. Only if none of those who elected it knows log time either do wall clocks count: then the earliest of theirs and its
//!    own, and never a time before what was applied.
//!
//! So whatever wall clocks show, log time passes as fast as it does on the monotonic clock of whoever leads, until the machines of a
//! majority have been restarted without hearing of log time in between. (Pauses are time: a monotonic clock goes on while a process
//! is stopped, but not while a machine sleeps, which makes log time late and never early.) Then:
//!
//! - Time that passed while nobody led counts, because wall clocks showed it.
//! - Nothing ends early, unless the wall clock of *every* node of the electing majority is ahead of log time; then by as
//!   much as the least of them is ahead. One fast clock among nodes that are right does nothing.
//! - Where the earliest of these clocks is behind, everything lives longer by as much as it is behind, at most by as long
//!   as nobody led. If that happens again, with clocks that are right, log time makes it up at once.

mod machine;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::planted::{self, Bug};
use crate::types::LogTime;

pub use machine::{BootId, MachineTime};

/// For so long, and at most twice as long, a time that was heard stands against later ones by which it is earlier. Longer than messages
/// are held up while their senders live, short enough for what a clock gains meanwhile to be nothing.
const HEARD_FOR: Duration = Duration::from_secs(10);

/// Wall time, or a hand that a test moves.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's wall clock.
    System,
    /// Shows what the test last set, in Unix milliseconds, on a machine that is restarted with each of its processes.
    Manual(Arc<AtomicU64>),
    /// Shows what the test last set, on the machine that there is.
    Skewed(Arc<AtomicU64>),
}

impl Clock {
    /// A manual clock that shows `millis`.
    #[must_use]
    pub fn manual(millis: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(millis)))
    }

    /// Now. A system clock set before 1970 reads as 0; log time never goes back whatever it reads.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where wall time is read"
    )]
    pub fn now(&self) -> LogTime {
        let millis = match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Manual(hand) | Self::Skewed(hand) => hand.load(Ordering::Relaxed),
        };
        LogTime::from_millis(millis)
    }

    /// The clock of the machine, if what it showed to an earlier process means something to this one.
    fn of_machine(&self) -> Option<MachineTime> {
        match self {
            Self::System | Self::Skewed(_) => MachineTime::now(),
            Self::Manual(_) => None,
        }
    }
}

/// What this node believes log time to be, between the entries that carry it.
#[derive(Debug)]
pub struct LogClock {
    wall: Clock,
    known: Mutex<Known>,
}

/// What was heard of time.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Log time, as leaders had it.
    log: Option<Heard>,
    /// The latest that a voter knew, or this node itself before it was restarted.
    told: Option<Anchor>,
    /// The earliest wall clock of voters who did not know log time.
    wall: Option<Anchor>,
}

impl Known {
    /// Log time, as far as anything is known of it. Whoever heard a leader needs no advice.
    fn time(&self) -> Option<Anchor> {
        self.log.map(Heard::time).or(self.told)
    }
}

/// What was heard of leaders in the last while: the latest of this period, and of the one before.
#[derive(Debug, Clone, Copy)]
struct Heard {
    before: Option<Anchor>,
    latest: Anchor,
    since: Instant,
}

impl Heard {
    /// From now on this counts, and what was known before for a while.
    fn begin(before: Option<Anchor>, latest: Anchor) -> Self {
        let since = latest.at;
        Self {
            before,
            latest,
            since,
        }
    }

    /// A period ends with what is heard after it, so that silence makes nothing forgotten: the first message after one may have been
    /// held up for as long.
    fn hear(self, heard: Anchor) -> Self {
        if heard.at.saturating_duration_since(self.since) >= HEARD_FOR {
            return Self::begin(Some(self.latest), heard);
        }
        Self {
            latest: self.latest.or_later(heard),
            ..self
        }
    }

    fn time(self) -> Anchor {
        let before = self.before.into_iter();
        before.fold(self.latest, Anchor::or_later)
    }
}

/// A time that was right at an instant.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    time: LogTime,
    at: Instant,
}

impl Anchor {
    fn now(time: LogTime) -> Self {
        let at = Instant::now();
        Self { time, at }
    }

    /// What is known, or what was just heard: the later of the two.
    fn later(known: Option<Self>, heard: LogTime) -> Self {
        let heard = Self::now(heard);
        known.map_or(heard, |known| known.or_later(heard))
    }

    /// Whichever shows a later time.
    fn or_later(self, other: Self) -> Self {
        let at = self.at.max(other.at);
        if other.shows(at) > self.shows(at) {
            other
        } else {
            self
        }
    }

    /// What it comes to at a later instant.
    fn shows(self, at: Instant) -> LogTime {
        let elapsed = at.saturating_duration_since(self.at).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        LogTime::from_millis(self.time.as_millis().saturating_add(elapsed))
    }
}

/// Log time as a node knew it at a moment of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Log time.
    pub log_time: LogTime,
    /// When it was that.
    pub at: MachineTime,
}

/// What a voter tells a candidate of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Testimony {
    /// Its log clock, if it has heard of log time since it started.
    pub log_time: Option<LogTime>,
    /// Its wall clock; `None` from a voter of an earlier version.
    pub wall_time: Option<LogTime>,
}

impl LogClock {
    /// A clock that has heard nothing yet.
    #[must_use]
    pub fn new(wall: Clock) -> Self {
        Self {
            wall,
            known: Mutex::default(),
        }
    }

    /// What this node should write down, to go on from it after a restart; `None` while it knows nothing. It need not be new: time
    /// passes as fast on one clock as on the other.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        // In this order, so that a process which is stopped between the two makes log time late and never early.
        let log_time = self.peek()?;
        let at = self.wall.of_machine()?;
        Some(Note { log_time, at })
    }

    /// Goes on from what an earlier process wrote down. Returns log time as it follows, or `None` if the machine was restarted since.
    pub fn recall(&self, note: Note) -> Option<LogTime> {
        let passed = self.wall.of_machine()?.since(note.at)?;
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let time = LogTime::from_millis(note.log_time.as_millis().saturating_add(passed));
        let mut known = self.lock();
        known.told = Some(Anchor::later(known.told, time));
        Some(time)
    }

    /// A leader's heartbeat said that it is `time`.
    pub fn observe(&self, time: LogTime) {
        let mut known = self.lock();
        let heard = Anchor::now(time);
        known.log = Some(match known.log {
            Some(log) => log.hear(heard),
            None => Heard::begin(known.told, heard),
        });
    }

    /// What this node tells a candidate.
    #[must_use]
    pub fn testify(&self) -> Testimony {
        Testimony {
            log_time: self.peek(),
            wall_time: Some(self.wall.now()),
        }
    }

    /// A voter answered this node's candidacy. Whoever knows log time needs no advice.
    pub fn hear(&self, testimony: Testimony) {
        let mut known = self.lock();
        if known.log.is_some() {
            return;
        }
        if let Some(time) = testimony.log_time {
            known.told = Some(Anchor::later(known.told, time));
        }
        let walls = known.wall.into_iter();
        let walls = walls.chain(testimony.wall_time.map(Anchor::now));
        let at = Instant::now();
        known.wall = walls.min_by_key(|wall| wall.shows(at));
    }

    /// Log time now, never before `floor`, the newest that this node applied. Leaders only: the first call on
    /// a node that has not heard of log time anchors the clock to wall time.
    #[must_use]
    pub fn now(&self, floor: LogTime) -> LogTime {
        if planted::has(Bug::WallClockStamps) {
            return self.wall.now().max(floor);
        }
        let mut known = self.lock();
        let at = Instant::now();
        let time = known.time().map_or_else(
            || {
                let own = self.wall.now();
                known.wall.map_or(own, |wall| own.min(wall.shows(at)))
            },
            |known| known.shows(at),
        );
        if known.log.is_none() || time < floor {
            let time = time.max(floor);
            known.log = Some(Heard::begin(None, Anchor { time, at }));
        }
        time.max(floor)
    }

    /// Log time now for a heartbeat: `None` while this node has nothing to tell.
    #[must_use]
    pub fn peek(&self) -> Option<LogTime> {
        let known = self.lock().time();
        known.map(|known| known.shows(Instant::now()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // The guarded value is one plain copy: a panic elsewhere cannot have left it half-written.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_does_not_move_an_anchored_clock() {
        let hand = Arc::new(AtomicU64::new(1_000_000));
        let clock = LogClock::new(Clock::Manual(Arc::clone(&hand)));
        let before = clock.now(LogTime::default());
        hand.store(5_000_000, Ordering::Relaxed);
        let after = clock.now(LogTime::default());
        assert!(after >= before);
        assert!(after.as_millis() < 4_000_000, "{after}");
    }

    #[test]
    fn a_new_leader_goes_on_from_the_old_ones_time() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        assert_eq!(clock.peek(), None);
        clock.observe(LogTime::from_millis(1_000));
        assert!((1_000..500_000).contains(&clock.now(LogTime::default()).as_millis()));
    }

    #[test]
    fn a_heartbeat_that_was_held_up_does_not_set_time_back() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        clock.observe(LogTime::from_millis(1_000_000));
        clock.observe(LogTime::from_millis(600_000));
        let time = clock.now(LogTime::default()).as_millis();
        assert!((1_000_000..1_500_000).contains(&time), "{time}");
        clock.observe(LogTime::from_millis(2_000_000));
        let time = clock.now(LogTime::default()).as_millis();
        assert!((2_000_000..2_500_000).contains(&time), "{time}");
    }

    /// Hears its leader ten times a second, for so long by the leader's clock, while its own shows so many microseconds to each 100 ms.
    async fn follow(clock: &LogClock, leader_ms: &mut u64, seconds: u64, own_micros: u64) {
        for _ in 0..10 * seconds {
            tokio::time::advance(Duration::from_micros(own_micros)).await;
            *leader_ms += 100;
            clock.observe(LogTime::from_millis(*leader_ms));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_clock_gains_is_not_kept() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        let mut leader = 1_000_000;
        let ahead = |leader: u64| {
            let shown = clock.peek().expect("it heard").as_millis();
            shown.checked_sub(leader).expect("it is never behind")
        };
        follow(&clock, &mut leader, 3600, 108_333).await;
        let most = 2 * HEARD_FOR.as_secs() * 84;
        assert!(ahead(leader) <= most, "slewed: {}", ahead(leader));
        follow(&clock, &mut leader, 2 * HEARD_FOR.as_secs() + 1, 100_000).await;
        assert_eq!(ahead(leader), 0);
        // It is elected, and stamps with the time of the leader; never before what it applied.
        assert_eq!(clock.now(LogTime::default()).as_millis(), leader);
        let applied = LogTime::from_millis(leader + 5);
        assert_eq!(clock.now(applied), applied);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_up_in_a_long_silence_does_not_set_time_back() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        let mut leader = 1_000_000;
        follow(&clock, &mut leader, 60, 100_000).await;
        let silence = HEARD_FOR * 6;
        tokio::time::advance(silence).await;
        // What it said last, one after the other.
        for _ in 0..10 {
            clock.observe(LogTime::from_millis(leader));
        }
        let now = leader + u64::try_from(silence.as_millis()).expect("short");
        assert_eq!(clock.peek(), Some(LogTime::from_millis(now)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_recalled_yields_to_what_leaders_say() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        clock.hear(voter(Some(5_000_000), 0));
        let mut leader = 1_000_000;
        follow(&clock, &mut leader, 1, 100_000).await;
        assert!(clock.peek() >= Some(LogTime::from_millis(5_000_000)));
        follow(&clock, &mut leader, 2 * HEARD_FOR.as_secs() + 1, 100_000).await;
        assert_eq!(clock.peek(), Some(LogTime::from_millis(leader)));
    }

    #[test]
    fn a_wall_clock_that_is_behind_does_not_stop_time() {
        let clock = LogClock::new(Clock::manual(5));
        let floor = LogTime::from_millis(1_000_000);
        assert!(clock.now(floor) >= floor);
        let shown = clock.peek().expect("it was anchored");
        assert!(shown >= floor, "{shown}");
    }

    #[test]
    fn it_is_never_earlier_than_what_was_applied_and_goes_on_from_there() {
        let applied = LogTime::from_millis(777_000);
        let behind = LogClock::new(Clock::manual(5));
        behind.observe(LogTime::from_millis(1_000));
        for clock in [behind, LogClock::new(Clock::manual(5))] {
            assert!(clock.now(applied) >= applied);
            let shown = clock.peek().expect("it is anchored");
            assert!(shown >= applied, "{shown}");
        }
    }

    #[test]
    fn a_restarted_node_goes_on_by_the_clock_of_its_machine() {
        let skewed = |millis| LogClock::new(Clock::Skewed(Arc::new(AtomicU64::new(millis))));
        let before = skewed(9_000_000);
        assert_eq!(before.note(), None, "it knows nothing");
        before.observe(LogTime::from_millis(1_000));
        let mut note = before.note().expect("it was told");
        let shown = note.log_time.as_millis();
        assert!((1_000..500_000).contains(&shown), "{shown}");

        // As if two thousand seconds had passed since, or nearly so on a machine that has just been started.
        let passed = note.at.millis.min(2_000_000);
        note.at.millis -= passed;
        let after = skewed(5);
        let recalled = after.recall(note).expect("the machine is the same");
        assert!(recalled.as_millis() >= shown + passed, "{recalled}");
        let time = after.now(LogTime::default()).as_millis();
        assert!(
            (shown + passed..shown + passed + 500_000).contains(&time),
            "{time}"
        );
        assert_eq!(
            after.testify().log_time.map(|it| it >= recalled),
            Some(true)
        );
    }

    #[test]
    fn what_was_written_down_before_the_machine_was_restarted_says_nothing() {
        let clock = LogClock::new(Clock::System);
        clock.observe(LogTime::from_millis(1_000));
        let good = clock.note().expect("it was told");
        let mut other = good;
        other.at.boot = BootId::new([7; BootId::BYTES]);
        let mut later = good;
        later.at.millis += 1_000_000;
        for note in [other, later] {
            let after = LogClock::new(Clock::System);
            assert_eq!(after.recall(note), None);
            assert_eq!(after.peek(), None);
        }
        let rebooted = LogClock::new(Clock::manual(5));
        assert_eq!(rebooted.recall(good), None);
    }

    #[test]
    fn voters_who_know_a_later_time_than_was_written_down_are_believed() {
        let clock = LogClock::new(Clock::System);
        clock.observe(LogTime::from_millis(1_000));
        let note = clock.note().expect("it was told");
        let after = LogClock::new(Clock::System);
        after.recall(note).expect("the machine is the same");
        after.hear(voter(Some(5_000_000), 0));
        assert!(after.now(LogTime::default()).as_millis() >= 5_000_000);
    }

    fn voter(log_time: Option<u64>, wall_time: u64) -> Testimony {
        Testimony {
            log_time: log_time.map(LogTime::from_millis),
            wall_time: Some(LogTime::from_millis(wall_time)),
        }
    }

    /// Hours of log time that a leader begins with, whose wall clock shows nine o'clock.
    fn begins_at(testimonies: &[Testimony]) -> u64 {
        const HOUR: u64 = 3_600_000;
        let clock = LogClock::new(Clock::manual(9 * HOUR));
        for it in testimonies {
            let hours = |time: LogTime| LogTime::from_millis(time.as_millis() * HOUR);
            clock.hear(Testimony {
                log_time: it.log_time.map(hours),
                wall_time: it.wall_time.map(hours),
            });
        }
        clock.now(LogTime::default()).as_millis() / HOUR
    }

    #[test]
    fn a_restarted_leader_goes_on_from_what_its_voters_know() {
        assert_eq!(begins_at(&[voter(Some(4), 12)]), 4);
        assert_eq!(begins_at(&[voter(None, 3), voter(Some(4), 12)]), 4);
        assert_eq!(begins_at(&[voter(Some(4), 2), voter(None, 3)]), 4);
        let several = [voter(Some(3), 3), voter(Some(4), 4), voter(Some(2), 2)];
        assert_eq!(begins_at(&several), 4, "answers are late, none is early");
        assert_eq!(begins_at(&[voter(Some(13), 13)]), 13, "later than its own");
    }

    #[test]
    fn a_fast_wall_clock_yields_to_any_other() {
        let old_version = Testimony {
            log_time: None,
            wall_time: None,
        };
        assert_eq!(begins_at(&[]), 9);
        assert_eq!(begins_at(&[old_version]), 9);
        assert_eq!(begins_at(&[voter(None, 12)]), 9);
        assert_eq!(begins_at(&[voter(None, 8)]), 8);
        assert_eq!(begins_at(&[voter(None, 8), voter(None, 7)]), 7);
        assert_eq!(begins_at(&[voter(None, 7), voter(None, 8)]), 7);
    }

    #[test]
    fn whoever_knows_log_time_tells_it_and_takes_no_advice() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        assert_eq!(clock.testify(), voter(None, 9_000_000));
        clock.observe(LogTime::from_millis(1_000));
        clock.hear(voter(Some(5_000_000), 5_000_000));
        let told = clock.testify().log_time.expect("it was observed");
        assert!((1_000..500_000).contains(&told.as_millis()), "{told}");
    }
}
