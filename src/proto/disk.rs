//! The room on a node's disk.

use super::v1::DiskRoom;
use crate::types::Room;

impl From<Room> for DiskRoom {
    fn from(room: Room) -> Self {
        match room {
            Room::Ample => Self::Ample,
            Room::Short => Self::Short,
            Room::Scarce => Self::Scarce,
            Room::Full => Self::Full,
        }
    }
}

/// `None` from a node of a version that does not tell.
impl From<DiskRoom> for Option<Room> {
    fn from(room: DiskRoom) -> Self {
        match room {
            DiskRoom::Unspecified => None,
            DiskRoom::Ample => Some(Room::Ample),
            DiskRoom::Short => Some(Room::Short),
            DiskRoom::Scarce => Some(Room::Scarce),
            DiskRoom::Full => Some(Room::Full),
        }
    }
}
