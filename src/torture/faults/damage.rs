//! Damage to one file of a node that is down: a byte flipped, all of it zeroed, an end cut off, the file gone.
//!
//! Files of the log, snapshots and the high-water mark are hit in any of these ways. Files of the state are cut off or removed only: a
//! flipped byte in them may be found late, when the log that could repair them has been purged. The corruption matrix, which needs
//! no repair, flips bytes there, too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::torture::cluster::copy;

/// A way to damage a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A byte near the beginning is flipped.
    Head,
    /// One in the middle.
    Middle,
    /// One near the end.
    Tail,
    /// All bytes are zero.
    Zeroed,
    /// The second half is gone.
    Truncated,
    /// The file is gone.
    Missing,
}

/// From either end to the byte that is flipped there.
const MARGIN: u64 = 4;

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Head,
        Self::Middle,
        Self::Tail,
        Self::Zeroed,
        Self::Truncated,
        Self::Missing,
    ];

    /// What was done, in words.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Head => "flipped a byte at the beginning of",
            Self::Middle => "flipped a byte in the middle of",
            Self::Tail => "flipped a byte at the end of",
            Self::Zeroed => "zeroed",
            Self::Truncated => "truncated",
            Self::Missing => "removed",
        }
    }

    /// Does it.
    pub fn apply(self, file: &Path) -> io::Result<()> {
        let length = fs::metadata(file)?.len();
        match self {
            Self::Head => flip(file, MARGIN.min(length - 1)),
            Self::Middle => flip(file, length / 2),
            Self::Tail => flip(file, length.saturating_sub(MARGIN).min(length - 1)),
            Self::Zeroed => overwrite(file, 0, &vec![0; usize::try_from(length).unwrap_or(0)]),
            Self::Truncated => OpenOptions::new()
                .write(true)
                .open(file)?
                .set_len(length / 2),
            Self::Missing => fs::remove_file(file),
        }
    }
}

fn flip(file: &Path, at: u64) -> io::Result<()> {
    let mut byte = [0];
    File::open(file)?.read_exact_at(&mut byte, at)?;
    overwrite(file, at, &[byte[0] ^ 0x40])
}

/// What was done to a node, and how it was before.
#[derive(Debug)]
pub(super) struct Damage {
    data: PathBuf,
    copy: PathBuf,
    what: String,
}

impl Damage {
    /// Damages a file below `data`, after it has copied everything.
    pub fn inflict(data: &Path, backup: &Path, random: &mut Rng) -> io::Result<Self> {
        if backup.exists() {
            fs::remove_dir_all(backup)?;
        }
        copy(data, backup)?;
        let mut files = Vec::new();
        list(data, &mut files)?;
        let files: Vec<&PathBuf> = files.iter().filter(|it| matters(it)).collect();
        let what = match random.choice(&files) {
            None => "no file".to_owned(),
            Some(file) => {
                let ways: &[Way] = if is_state(data, file) {
                    &[Way::Truncated, Way::Missing]
                } else {
                    &Way::ALL
                };
                let way = random.choice(ways).copied().unwrap_or(Way::Missing);
                way.apply(file)?;
                let name = file.strip_prefix(data).unwrap_or(file);
                format!("{} {}", way.done(), name.display())
            }
        };
        Ok(Self {
            data: data.to_owned(),
            copy: backup.to_owned(),
            what,
        })
    }

    /// What was done to which file.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Everything is as it was.
    pub fn undo_all(self) -> io::Result<()> {
        fs::remove_dir_all(&self.data)?;
        copy(&self.copy, &self.data)?;
        sync(&self.data)?;
        self.forget()
    }

    /// The state is as it was; the log stays.
    pub fn undo_state(self) -> io::Result<()> {
        let state = self.data.join("shards");
        fs::remove_dir_all(&state)?;
        copy(&self.copy.join("shards"), &state)?;
        sync(&self.data)?;
        self.forget()
    }

    /// The copy is not needed.
    pub fn forget(self) -> io::Result<()> {
        fs::remove_dir_all(&self.copy)
    }
}

/// What was put back must survive a power cut, as what was there before would have.
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Files below a directory that hold something, in order.
pub fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else if entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(())
}

/// Not what databases write for people, and not what nobody reads.
fn matters(file: &Path) -> bool {
    let name = file.file_name().map(|it| it.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let idle = ["LOG", "OPTIONS", "LOCK", "IDENTITY", "BALLAST"];
    !idle.iter().any(|it| name.starts_with(it))
}

fn is_state(data: &Path, file: &Path) -> bool {
    let below = file.strip_prefix(data).unwrap_or(file);
    let mut names = below.iter().map(|name| name.to_string_lossy());
    names.any(|name| name.starts_with("state-"))
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(file)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_damaged_and_can_be_made_whole_again() {
        for seed in 0..40 {
            let folder = tempfile::tempdir().expect("a folder");
            let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
            for name in ["log/1.log", "shards/0/state-1/CURRENT", "log/LOG"] {
                let file = data.join(name);
                fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
                fs::write(file, vec![7; 2_000]).expect("a file");
            }
            let read = |name: &str| fs::read(data.join(name)).unwrap_or_default();
            let mut random = Rng::with_seed(seed);
            let damage = Damage::inflict(&data, &backup, &mut random).expect("it is damaged");
            assert_eq!(read("log/LOG"), vec![7; 2_000]);
            let is_whole = |name: &str| read(name) == vec![7; 2_000];
            let (log, state) = (is_whole("log/1.log"), is_whole("shards/0/state-1/CURRENT"));
            assert!(log != state, "{}", damage.what());
            damage.undo_all().expect("it can be undone");
            assert!(is_whole("log/1.log") && is_whole("shards/0/state-1/CURRENT"));
            assert!(!backup.exists());
        }
    }
}
