//! The kinds of files in a node's data directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::torture::faults::damage::list;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Entries of the log that are on their way into a table: the write-ahead log.
    LogWal,
    /// Entries of the log in a table.
    LogTable,
    /// Which files the log's database is made of.
    LogManifest,
    /// Which of the manifests it is.
    LogCurrent,
    /// How the log's database was opened last. It is written anew at each start.
    LogOptions,
    /// A name that `RocksDB` gives each database; nothing reads it.
    LogDbId,
    /// The last commit group that is known to be synced.
    HighWater,
    /// Records of the state.
    StateTable,
    /// Which files the state's database is made of.
    StateManifest,
    /// Which of the manifests it is.
    StateCurrent,
    /// How it was opened last.
    StateOptions,
    /// Its name.
    StateDbId,
    /// A snapshot's table of contents.
    SnapshotContents,
    /// Records of a snapshot.
    SnapshotTable,
    /// Which files the snapshot's database is made of.
    SnapshotManifest,
    /// Blocks that are set aside; nothing reads them.
    Ballast,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::LogWal,
        Self::LogTable,
        Self::LogManifest,
        Self::LogCurrent,
        Self::LogOptions,
        Self::LogDbId,
        Self::HighWater,
        Self::StateTable,
        Self::StateManifest,
        Self::StateCurrent,
        Self::StateOptions,
        Self::StateDbId,
        Self::SnapshotContents,
        Self::SnapshotTable,
        Self::SnapshotManifest,
        Self::Ballast,
    ];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LogWal => "log: write-ahead log",
            Self::LogTable => "log: table",
            Self::LogManifest => "log: MANIFEST",
            Self::LogCurrent => "log: CURRENT",
            Self::LogOptions => "log: OPTIONS",
            Self::LogDbId => "log: IDENTITY",
            Self::HighWater => "HIGH_WATER",
            Self::StateTable => "state: table",
            Self::StateManifest => "state: MANIFEST",
            Self::StateCurrent => "state: CURRENT",
            Self::StateOptions => "state: OPTIONS",
            Self::StateDbId => "state: IDENTITY",
            Self::SnapshotContents => "snapshot: CONTENTS",
            Self::SnapshotTable => "snapshot: table",
            Self::SnapshotManifest => "snapshot: MANIFEST",
            Self::Ballast => "BALLAST",
        }
    }

    /// Of a file below the data directory.
    fn of(file: &Path) -> Option<Self> {
        let text = file.to_string_lossy();
        let name = file.file_name()?.to_str()?;
        let is_table = file.extension().is_some_and(|extension| extension == "sst");
        let of_database = |kinds: [Self; 5]| {
            let [table, manifest, current, options, id] = kinds;
            Some(match name {
                "CURRENT" => current,
                "IDENTITY" => id,
                _ if is_table => table,
                _ if name.starts_with("MANIFEST") => manifest,
                _ if name.starts_with("OPTIONS") => options,
                _ => return None,
            })
        };
        match name {
            "HIGH_WATER" => return Some(Self::HighWater),
            "BALLAST" => return Some(Self::Ballast),
            "CONTENTS" => return Some(Self::SnapshotContents),
            _ => {}
        }
        if text.starts_with("log/") {
            let is_wal = file.extension().is_some_and(|extension| extension == "log");
            if is_wal {
                return Some(Self::LogWal);
            }
            return of_database([
                Self::LogTable,
                Self::LogManifest,
                Self::LogCurrent,
                Self::LogOptions,
                Self::LogDbId,
            ]);
        }
        if text.contains("/state-") {
            return of_database([
                Self::StateTable,
                Self::StateManifest,
                Self::StateCurrent,
                Self::StateOptions,
                Self::StateDbId,
            ]);
        }
        if text.contains("/snapshot-") {
            return match name {
                _ if is_table => Some(Self::SnapshotTable),
                _ if name.starts_with("MANIFEST") => Some(Self::SnapshotManifest),
                _ => None,
            };
        }
        None
    }
}

/// Of each kind the largest file, below the directory.
pub fn found(data: &Path) -> io::Result<BTreeMap<Kind, PathBuf>> {
    let mut files = Vec::new();
    list(data, &mut files)?;
    let mut found: BTreeMap<Kind, (u64, PathBuf)> = BTreeMap::new();
    for file in files {
        let below = file.strip_prefix(data).unwrap_or(&file).to_owned();
        let Some(kind) = Kind::of(&below) else {
            continue;
        };
        let length = fs::metadata(&file)?.len();
        let largest = found.entry(kind).or_insert((0, PathBuf::new()));
        if length > largest.0 {
            *largest = (length, below);
        }
    }
    let found = found.into_iter().map(|(kind, (_, file))| (kind, file));
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_where_they_are() {
        let kinds = [
            ("log/000012.log", Some(Kind::LogWal)),
            ("log/000009.sst", Some(Kind::LogTable)),
            ("log/LOG", None),
            ("HIGH_WATER", Some(Kind::HighWater)),
            ("shards/0/state-3/CURRENT", Some(Kind::StateCurrent)),
            ("shards/0/state-3/000009.sst", Some(Kind::StateTable)),
            (
                "shards/0/snapshot-7-1/CONTENTS",
                Some(Kind::SnapshotContents),
            ),
            (
                "shards/0/snapshot-7-1/000009.sst",
                Some(Kind::SnapshotTable),
            ),
            ("shards/0/snapshot-7-1/CURRENT", None),
        ];
        for (file, kind) in kinds {
            assert_eq!(Kind::of(Path::new(file)), kind, "{file}");
        }
    }

    #[test]
    fn the_largest_of_each_kind_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("log")).expect("a folder");
        for (name, length) in [("log/1.log", 5), ("log/2.log", 9), ("log/3.log", 0)] {
            fs::write(folder.path().join(name), vec![1; length]).expect("a file");
        }
        let found = found(folder.path()).expect("it can be read");
        assert_eq!(found[&Kind::LogWal], Path::new("log/2.log"));
        assert_eq!(found.len(), 1);
    }
}
