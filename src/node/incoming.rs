//! Where the network puts the snapshots that it receives: the storage's directories.

use std::io;
use std::path::Path;

use crate::network::{SnapshotFiles, SnapshotSink, SnapshotStore};
use crate::proto::internal as pb;
use crate::storage::generation::ShardDir;
use crate::storage::receive::{Error, Receiver};
use crate::storage::snapshot::SnapshotDir;

impl SnapshotFiles for SnapshotDir {
    fn path(&self) -> &Path {
        SnapshotDir::path(self)
    }

    fn manifest(&self) -> &pb::SnapshotManifest {
        SnapshotDir::manifest(self)
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

impl SnapshotStore for ShardDir {
    type Sink = Receiver;

    fn begin(&self, manifest: pb::SnapshotManifest) -> io::Result<Receiver> {
        Receiver::begin(self, manifest).map_err(blame)
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
