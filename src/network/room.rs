//! What peers said of the room on their disks, in their answers to heartbeats.
//!
//! Invariant: what was heard belongs to a term. A node that leads again does not act on what it heard when it led before.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::types::Room;

/// A peer that leaves so many heartbeats in a row without an answer is not counted on. Single ones are late on a busy disk.
const MISSES: u32 = 5;

/// The last that was heard of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Of its disk; `None` from a version that does not tell, and from one that never answered.
    pub room: Option<Room>,
    /// It answers heartbeats.
    pub answers: bool,
    misses: u32,
    term: u64,
}

impl Heard {
    /// The last heartbeat was answered.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.misses == 0
    }
}

/// What was heard of all peers. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct PeerRooms {
    heard: Arc<watch::Sender<BTreeMap<u64, Heard>>>,
}

impl PeerRooms {
    /// What was heard in a term, by node id.
    #[must_use]
    pub fn in_term(&self, term: u64) -> BTreeMap<u64, Heard> {
        let heard = self.heard.borrow();
        let of_term = heard.iter().filter(|(_, heard)| heard.term == term);
        of_term.map(|(id, heard)| (*id, *heard)).collect()
    }

    /// Wakes when there is news.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<u64, Heard>> {
        self.heard.subscribe()
    }

    /// A peer answered a heartbeat.
    pub(super) fn heard(&self, peer: u64, term: u64, room: Option<Room>) {
        self.note(
            peer,
            Heard {
                room,
                answers: true,
                misses: 0,
                term,
            },
        );
    }

    /// A peer did not.
    pub(super) fn missed(&self, peer: u64, term: u64) {
        let before = self.heard.borrow().get(&peer).copied();
        let before = before.filter(|heard| heard.term == term);
        let misses = before.map_or(0, |heard| heard.misses).saturating_add(1);
        self.note(
            peer,
            Heard {
                room: before.and_then(|heard| heard.room),
                answers: misses < MISSES,
                misses,
                term,
            },
        );
    }

    fn note(&self, peer: u64, now: Heard) {
        self.heard.send_if_modified(|heard| {
            let before = heard.insert(peer, now);
            // Counting misses is no news.
            before.is_none_or(|before| {
                (before.room, before.answers, before.term) != (now.room, now.answers, now.term)
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rooms: &PeerRooms, term: u64) -> Option<(Option<Room>, bool)> {
        let heard = rooms.in_term(term);
        heard.get(&2).map(|heard| (heard.room, heard.answers))
    }

    #[test]
    fn a_peer_is_given_up_after_several_misses_and_not_before() {
        let rooms = PeerRooms::default();
        rooms.heard(2, 7, Some(Room::Short));
        for _ in 1..MISSES {
            rooms.missed(2, 7);
            assert_eq!(seen(&rooms, 7), Some((Some(Room::Short), true)));
        }
        rooms.missed(2, 7);
        assert_eq!(seen(&rooms, 7), Some((Some(Room::Short), false)));
        rooms.heard(2, 7, Some(Room::Ample));
        assert_eq!(seen(&rooms, 7), Some((Some(Room::Ample), true)));
    }

    #[test]
    fn another_term_begins_without_what_was_heard() {
        let rooms = PeerRooms::default();
        rooms.heard(2, 7, Some(Room::Full));
        assert_eq!(seen(&rooms, 8), None);
        rooms.missed(2, 8);
        assert_eq!(seen(&rooms, 8), Some((None, true)));
    }

    #[test]
    fn only_news_wakes() {
        let rooms = PeerRooms::default();
        let mut watcher = rooms.subscribe();
        rooms.heard(2, 7, Some(Room::Ample));
        assert!(watcher.has_changed().expect("open"));
        watcher.mark_unchanged();
        rooms.heard(2, 7, Some(Room::Ample));
        rooms.missed(2, 7);
        assert!(!watcher.has_changed().expect("open"), "nothing new");
        rooms.heard(2, 7, Some(Room::Short));
        assert!(watcher.has_changed().expect("open"));
    }
}
