//! What storage can fail with. Every message is one line that names the file or record and says what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{ClusterId, NodeId, StateVersion};

/// What to do about damage. A node never repairs itself by dropping entries: its copy is gone, its peers' is not.
const REPLACE: &str = "keep the directory for inspection and replace this node by a new one under a node id that was never used";

/// A failure of storage. Any of these stops the node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Bytes on disk are not what was written, or are missing.
    #[error("{record} in {} is damaged: {detail}; {REPLACE}", place.display())]
    Corrupt {
        /// The file or directory.
        place: PathBuf,
        /// Which record or file of it.
        record: String,
        /// What is wrong.
        detail: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}; check the disk and its permissions", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// RocksDB failed.
    #[error("cannot {action} the database {}: {source}; check the disk, its free space and its permissions", directory.display())]
    Database {
        /// What was tried, as a verb.
        action: &'static str,
        /// The database.
        directory: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// Another process has the directory open.
    #[error("directory in use: another process has {} open; stop it or choose another data directory", directory.display())]
    InUse {
        /// The database.
        directory: PathBuf,
    },
    /// The directory belongs to another node.
    #[error("{} belongs to node {owner}, not to node {node}; give the node its own data directory", directory.display())]
    ForeignNode {
        /// The data directory.
        directory: PathBuf,
        /// Whose it is.
        owner: NodeId,
        /// Who asked.
        node: NodeId,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {owner}, not to cluster {cluster}; use a new data directory to join another cluster",
        directory.display()
    )]
    ForeignCluster {
        /// The data directory.
        directory: PathBuf,
        /// Whose it is.
        owner: ClusterId,
        /// Which one was to be joined.
        cluster: ClusterId,
    },
    /// The directory was written by a version that this one does not know.
    #[error("{} has storage format {found}, this version knows {known}; run the version that wrote it", directory.display())]
    FormatVersion {
        /// The data directory.
        directory: PathBuf,
        /// The format found.
        found: u32,
        /// The format of this version.
        known: u32,
    },
    /// The state follows rules that this program does not know.
    #[error(
        "{} follows state version {found}, this program knows {newest} at most; run a newer one, nothing here is damaged",
        directory.display()
    )]
    StateVersion {
        /// The state database.
        directory: PathBuf,
        /// The version that its header names.
        found: StateVersion,
        /// The newest that is known.
        newest: StateVersion,
    },
    /// An earlier write failed, so that nothing after it may be written.
    #[error(
        "the log takes no more writes, because an earlier one failed ({first}); restart the node once the cause is gone"
    )]
    Poisoned {
        /// The failure.
        #[source]
        first: Arc<Error>,
    },
    /// The log was shut down.
    #[error("the log is shut down; restart the node")]
    Stopped,
    /// The caller broke the log's rules, which is a bug.
    #[error("the log refuses an entry: {detail}; this is a bug, please report it")]
    Misuse {
        /// Which rule.
        detail: String,
    },
}

/// Whether an error's text says that a disk is full, or a quota used up. `RocksDB` and openraft pass on nothing but texts.
#[must_use]
pub fn is_no_space(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|text| message.contains(text))
}

impl Error {
    /// There was no room on the disk. Nothing is damaged, and what failed may succeed once there is.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Database { source, .. } => is_no_space(source.as_ref()),
            Self::Poisoned { first } => first.is_no_space(),
            Self::Corrupt { .. }
            | Self::InUse { .. }
            | Self::ForeignNode { .. }
            | Self::ForeignCluster { .. }
            | Self::FormatVersion { .. }
            | Self::StateVersion { .. }
            | Self::Stopped
            | Self::Misuse { .. } => false,
        }
    }

    /// Damage to a record.
    pub(super) fn corrupt(
        place: &Path,
        record: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            place: place.to_owned(),
            record: record.into(),
            detail: detail.into(),
        }
    }

    /// A failed file operation.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// A failed database operation: damage, a held lock, or anything else.
    pub(super) fn database(action: &'static str, directory: &Path, source: rocksdb::Error) -> Self {
        let message: &str = source.as_ref();
        if source.kind() == rocksdb::ErrorKind::Corruption {
            return Self::corrupt(directory, "the database", message);
        }
        Self::undamaged(action, directory, source)
    }

    /// The same of one that says nothing about damage, whatever its kind.
    pub(super) fn undamaged(
        action: &'static str,
        directory: &Path,
        source: rocksdb::Error,
    ) -> Self {
        let message: &str = source.as_ref();
        // RocksDB has no kind of error for a lock that someone holds; both of its messages name the file.
        let lock = message.contains("/LOCK") && !message.contains("Permission denied");
        let directory = directory.to_owned();
        if lock {
            return Self::InUse { directory };
        }
        Self::Database {
            action,
            directory,
            source,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::Io { source, .. } => source.kind(),
            Error::InUse { .. } => io::ErrorKind::ResourceBusy,
            Error::Misuse { .. } => io::ErrorKind::InvalidInput,
            Error::Database { .. }
            | Error::ForeignNode { .. }
            | Error::ForeignCluster { .. }
            | Error::FormatVersion { .. }
            | Error::StateVersion { .. }
            | Error::Poisoned { .. }
            | Error::Stopped => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
