//! From bytes to [`Room`]: what the free space allows, and how much the ballast should hold.
//!
//! All sizes follow from one, the floor `F`, see [`Sizes`]. What counts is what is free, and what the ballast can still give:
//!
//! ```text
//! counts   0 ─────── F·3/16 ──────── F/4 ─────────────────── F ─────────── F + F/4 ──▶
//! room        full     │    scarce    │        short         │  as before │  ample
//! ```
//!
//! Half of the ballast is given back at once: memory has to be written out, and compactions that are under way need room. The
//! rest goes in steps, and only while hardly anything is free: a program that writes until the disk is full takes one or
//! two of them and stops, where it would take all.
//!
//! Invariants:
//! 1. Room is ample only while the ballast is whole. So a node whose disk fills up, whoever fills it, has what the ballast
//!    gives back on the day it is needed.
//! 2. A room is left upwards only above the mark at which it was entered: space that is freed and used again at once does
//!    not make it flap.
//! 3. Nothing here remembers a clock or a rate.

use crate::limits;
use crate::storage::Capacity;
use crate::types::Room;

/// What follows from the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Less is short.
    pub floor: u64,
    /// What is set aside while there is room.
    pub ballast: u64,
    /// What of it is not given back at once.
    kept: u64,
    /// What of it stays set aside whatever comes, to start on.
    keel: u64,
    /// Less is scarce.
    scarce: u64,
    /// Less is full.
    full: u64,
    /// What the ballast gives back at a time.
    step: u64,
}

impl Sizes {
    /// Of a floor that somebody chose.
    pub fn of(floor: u64) -> Self {
        Self {
            floor,
            ballast: floor / 16 * 12,
            kept: floor / 16 * 7,
            keel: floor / 16 * 2,
            scarce: floor / 16 * 4,
            full: floor / 16 * 3,
            step: floor / 16,
        }
    }

    /// Of what suits a disk.
    pub fn suiting(disk: Capacity) -> Self {
        let share = disk.total / limits::MIN_FREE_DISK_PARTS;
        Self::of(share.min(limits::MIN_FREE_DISK_BYTES))
    }

    /// On a file system that can set nothing aside.
    pub fn without_ballast(self) -> Self {
        Self {
            ballast: 0,
            kept: 0,
            keel: 0,
            ..self
        }
    }
}

/// What was seen of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Free.
    pub free: u64,
    /// In the ballast.
    pub held: u64,
}

/// The room, and the sizes by which it is judged.
#[derive(Debug)]
pub(super) struct Gauge {
    sizes: Sizes,
    room: Room,
}

impl Gauge {
    /// Before the first look. A ballast that is whole says that there was room when the node last looked.
    pub fn new(sizes: Sizes, held: u64) -> Self {
        let room = if held >= sizes.ballast {
            Room::Ample
        } else {
            Room::Short
        };
        Self { sizes, room }
    }

    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Nothing can be set aside here.
    pub fn give_up_ballast(&mut self) {
        self.sizes = self.sizes.without_ballast();
    }

    /// What must be free, beside a whole ballast, for the room to be ample.
    fn enough(&self) -> u64 {
        let floor = self.sizes.floor;
        match self.room {
            Room::Ample => floor,
            Room::Short | Room::Scarce | Room::Full => floor + floor / 4,
        }
    }

    /// What the ballast should hold; `None` when it is right as it is.
    pub fn wants(&self, seen: Seen) -> Option<u64> {
        let Sizes {
            ballast,
            kept,
            keel,
            scarce,
            step,
            ..
        } = self.sizes;
        let Seen { free, held } = seen;
        // What would be free if it held so much.
        let left = |hold: u64| (free + held).saturating_sub(hold);
        let hold = if left(ballast) >= self.enough() {
            ballast
        } else if held > kept {
            kept
        } else if held < keel && left(keel) >= 2 * scarce {
            keel
        } else if held > keel && free < 2 * step {
            held.saturating_sub(step).max(keel)
        } else {
            held
        };
        (hold != held).then_some(hold)
    }

    /// Whether giving back so much is a step, after which whoever fills the disk should find it full.
    pub fn is_step(&self, seen: Seen, hold: u64) -> bool {
        hold < seen.held && seen.held <= self.sizes.kept
    }

    /// How much of what counts stands between this room and the next lower one.
    pub fn margin(&self, seen: Seen) -> u64 {
        let Sizes {
            floor, full, step, ..
        } = self.sizes;
        match self.room {
            Room::Ample => seen.free.saturating_sub(floor),
            // The ballast has to give something then.
            Room::Short => seen.free.saturating_sub(2 * step),
            Room::Scarce => self.counts(seen).saturating_sub(full),
            Room::Full => floor,
        }
    }

    /// What is free, and what the ballast can give.
    fn counts(&self, seen: Seen) -> u64 {
        seen.free + seen.held.saturating_sub(self.sizes.keel)
    }

    /// The room, once the ballast holds what it should or cannot.
    pub fn judge(&mut self, seen: Seen) -> Room {
        let Sizes {
            floor,
            ballast,
            scarce,
            full,
            ..
        } = self.sizes;
        let counts = self.counts(seen);
        let was = self.room;
        // A ballast that was just made may have taken a little more than its size.
        let tolerance = if was < Room::Ample { floor / 64 } else { 0 };
        let is_ample = seen.held >= ballast && seen.free + tolerance >= self.enough();
        let reaches = |mark: u64, room: Room| {
            let margin = if was < room { mark / 4 } else { 0 };
            counts >= mark + margin
        };
        self.room = if is_ample {
            Room::Ample
        } else if reaches(scarce, Room::Short) {
            Room::Short
        } else if reaches(full, Room::Scarce) {
            Room::Scarce
        } else {
            Room::Full
        };
        self.room
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk with what others have left of it, and the file of the ballast.
    struct Disk {
        gauge: Gauge,
        /// Free, were there no ballast.
        left: u64,
        held: u64,
    }

    impl Disk {
        fn new(floor: u64, left: u64, held: u64) -> Self {
            let gauge = Gauge::new(Sizes::of(floor), held);
            let mut disk = Self { gauge, left, held };
            disk.look();
            disk
        }

        fn seen(&self) -> Seen {
            Seen {
                free: self.left.saturating_sub(self.held),
                held: self.held,
            }
        }

        /// As a node does it.
        fn look(&mut self) -> Room {
            if let Some(hold) = self.gauge.wants(self.seen()) {
                assert!(hold <= self.left, "there is no room for {hold}");
                self.held = hold;
            }
            self.gauge.judge(self.seen())
        }

        /// Somebody takes all that is free.
        fn fill(&mut self) {
            self.left = self.held;
        }
    }

    /// Looks until nothing changes any more, and gives what the last one said.
    fn settle(disk: &mut Disk) -> Room {
        loop {
            let before = (disk.held, disk.gauge.room);
            let room = disk.look();
            if (disk.held, room) == before {
                return room;
            }
        }
    }

    #[test]
    fn a_disk_that_fills_up_goes_through_all_rooms_and_back() {
        // Floor 64, ballast 48, keel 8; scarce below 16, full below 12.
        let mut disk = Disk::new(64 * MIB, 1000 * MIB, 0);
        assert_eq!(disk.held, 48 * MIB, "a ballast is made");
        let mut rooms = vec![Room::Ample];
        let mut marks = Vec::new();
        for left in (8..1000).rev().chain(8..1000) {
            disk.left = left * MIB;
            let room = settle(&mut disk);
            if rooms.last() != Some(&room) {
                rooms.push(room);
                marks.push(left);
            }
        }
        let down = [Room::Ample, Room::Short, Room::Scarce, Room::Full];
        let up = [Room::Scarce, Room::Short, Room::Ample];
        assert_eq!(rooms, [&down[..], &up].concat());
        // What is left includes the ballast: below floor and ballast, then below keel and mark, then well above them.
        assert_eq!(marks, [111, 23, 19, 23, 28, 128]);
        assert_eq!(disk.held, 48 * MIB, "and made again");
    }

    #[test]
    fn whoever_fills_the_disk_leaves_most_of_the_ballast() {
        let mut disk = Disk::new(64 * MIB, 1000 * MIB, 0);
        disk.fill();
        assert_eq!(disk.look(), Room::Short, "deletes go on");
        assert_eq!(disk.held, 28 * MIB, "half was given back");
        disk.fill();
        assert_eq!(disk.look(), Room::Short, "still");
        assert_eq!(disk.held, 24 * MIB, "a step");
        while disk.held > 8 * MIB {
            disk.fill();
            disk.look();
        }
        disk.fill();
        assert_eq!(settle(&mut disk), Room::Full);
        assert_eq!(disk.held, 8 * MIB, "something to start on");
    }

    #[test]
    fn a_keel_that_was_used_is_set_aside_again_before_the_rest() {
        let mut disk = Disk::new(64 * MIB, 4 * MIB, 4 * MIB);
        assert_eq!((disk.look(), disk.held), (Room::Full, 4 * MIB));
        disk.left = 60 * MIB;
        assert_eq!((disk.look(), disk.held), (Room::Short, 8 * MIB));
        disk.left = 1000 * MIB;
        assert_eq!((disk.look(), disk.held), (Room::Ample, 48 * MIB));
    }

    #[test]
    fn another_floor_makes_another_ballast() {
        let mut disk = Disk::new(16 * MIB, 1000 * MIB, 48 * MIB);
        assert_eq!((disk.look(), disk.held), (Room::Ample, 12 * MIB));
        let mut disk = Disk::new(128 * MIB, 1000 * MIB, 48 * MIB);
        assert_eq!((disk.look(), disk.held), (Room::Ample, 96 * MIB));
    }

    #[test]
    fn a_disk_that_sets_nothing_aside_has_a_floor_all_the_same() {
        let mut disk = Disk::new(64 * MIB, 1000 * MIB, 0);
        disk.gauge.give_up_ballast();
        disk.held = 0;
        assert_eq!(disk.look(), Room::Ample);
        disk.left = 63 * MIB;
        assert_eq!((disk.look(), disk.held), (Room::Short, 0));
        disk.left = 100 * MIB;
        assert_eq!((disk.look(), disk.held), (Room::Ample, 0));
    }

    #[test]
    fn small_disks_keep_a_share_and_large_ones_no_more_than_is_of_use() {
        let disk = |total| Capacity { free: 0, total };
        assert_eq!(Sizes::suiting(disk(256 * MIB)).floor, 256 * MIB / 10);
        assert_eq!(Sizes::suiting(disk(1 << 40)).floor, 512 * MIB);
    }

    proptest! {
        #[test]
        fn ample_is_a_promise_and_a_room_that_was_won_stands_a_wobble(lefts in prop::collection::vec(0..300_u64, 1..60)) {
            let floor = 64 * MIB;
            let mut disk = Disk::new(floor, 1000 * MIB, 0);
            for left in lefts {
                disk.left = disk.held.max(left * MIB);
                let before = disk.gauge.room;
                let room = settle(&mut disk);
                let Seen { free, held } = disk.seen();
                prop_assert!(room != Room::Ample || (free >= floor && held == floor / 4 * 3));
                if room > before {
                    disk.left -= floor / 128;
                    prop_assert_eq!(settle(&mut disk), room, "won, and lost by so little");
                }
            }
        }
    }
}
