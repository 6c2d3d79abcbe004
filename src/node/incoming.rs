//! Where the network puts the snapshots that it receives: the storage's directories.

use std::io;
use std::path::Path;

use tokio::sync::watch;

use crate::network::{SnapshotFiles, SnapshotSink, SnapshotStore};
use crate::proto::internal as pb;
use crate::storage::generation::ShardDir;
use crate::storage::receive::{Error, Receiver};
use crate::storage::snapshot::SnapshotDir;
use crate::types::DiskSpace;

/// A received snapshot leaves this part of what must be free.
const RESERVE_PARTS: u64 = 4;

impl SnapshotFiles for SnapshotDir {
    fn path(&self) -> &Path {
        SnapshotDir::path(self)
    }

    fn manifest(&self) -> &pb::SnapshotManifest {
        SnapshotDir::manifest(self)
    }

    fn check(&self, file: &pb::SnapshotFile) -> io::Result<()> {
        Ok(SnapshotDir::check(self, file)?)
    }
}

impl SnapshotSink for Receiver {
    type Data = SnapshotDir;

    fn held(&self) -> Vec<u64> {
        Receiver::held(self)
    }

    fn write(&mut self, file: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        Receiver::write(self, file, offset, data).map_err(blame)
    }

    fn finish(mut self) -> io::Result<SnapshotDir> {
        Receiver::finish(&mut self).map_err(blame)
    }
}

/// Takes snapshots in that fit on the disk.
#[derive(Debug)]
pub struct Incoming {
    dir: ShardDir,
    disk: watch::Receiver<DiskSpace>,
}

impl Incoming {
    /// Keeps them in the directory of a shard.
    pub(super) fn new(dir: ShardDir, disk: watch::Receiver<DiskSpace>) -> Self {
        Self { dir, disk }
    }

    /// A snapshot that does not fit would fill the disk on its way, and be sent for nothing again and again.
    fn check_room(&self, receiver: &Receiver) -> io::Result<()> {
        let missing = receiver.missing();
        let free = self.disk.borrow().free;
        if free.saturating_sub(missing) < self.disk.borrow().floor / RESERVE_PARTS {
            let why = format!("the disk has {free} bytes free, and {missing} are to come");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        Ok(())
    }
}

impl SnapshotStore for Incoming {
    type Sink = Receiver;

    fn begin(&self, manifest: pb::SnapshotManifest) -> io::Result<Receiver> {
        let receiver = Receiver::begin(&self.dir, manifest).map_err(blame)?;
        self.check_room(&receiver)?;
        Ok(receiver)
    }
}

/// The sender is to blame for what it sent, the disk for the rest.
fn blame(error: Error) -> io::Error {
    let kind = match error {
        Error::Refused(_) => io::ErrorKind::InvalidInput,
        Error::Damaged { .. } => io::ErrorKind::InvalidData,
        Error::Storage(_) => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{ClusterId, Room, ShardId};

    const CLUSTER: [u8; 16] = [7; 16];
    const FLOOR: u64 = 4000;

    fn manifest(size: u64) -> pb::SnapshotManifest {
        pb::SnapshotManifest {
            format: 1,
            cluster_id: Bytes::from_static(&CLUSTER),
            last_log_id: Some(pb::LogId::default()),
            files: vec![pb::SnapshotFile {
                name: "file".to_owned(),
                size,
                checksum: Bytes::from_static(&[0; 16]),
            }],
            ..pb::SnapshotManifest::default()
        }
    }

    /// Of a node whose disk has so much free.
    fn incoming(data_dir: &Path, free: u64) -> Incoming {
        let dir = ShardDir::new(data_dir, ClusterId::new(CLUSTER), ShardId::ZERO);
        std::fs::create_dir_all(dir.path()).expect("writable");
        let disk = DiskSpace {
            room: Room::Ample,
            free,
            floor: FLOOR,
            ballast: 0,
        };
        Incoming::new(dir, watch::Sender::new(disk).subscribe())
    }

    #[test]
    fn a_snapshot_is_begun_where_it_leaves_a_reserve() {
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        let reserve = FLOOR / RESERVE_PARTS;
        let begun = |free| incoming(data_dir.path(), free).begin(manifest(10));
        let refused = begun(reserve + 9).expect_err("it would not fit");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        let mut sink = begun(reserve + 10).expect("it fits");
        SnapshotSink::write(&mut sink, 0, 0, b"half").expect("written");
        drop(sink);
        begun(reserve + 6).expect("what is there takes no more");
    }

    #[test]
    fn whoever_sent_something_else_is_told_from_a_disk_that_failed() {
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        let incoming = incoming(data_dir.path(), 1 << 30);
        let foreign = pb::SnapshotManifest {
            cluster_id: Bytes::from_static(&[8; 16]),
            ..manifest(4)
        };
        let refused = incoming.begin(foreign).expect_err("of another cluster");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let mut sink = incoming.begin(manifest(4)).expect("there is room");
        SnapshotSink::write(&mut sink, 0, 0, b"data").expect("written");
        let damaged = SnapshotSink::finish(sink).expect_err("not what was announced");
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
    }
}
