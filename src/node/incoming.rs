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
