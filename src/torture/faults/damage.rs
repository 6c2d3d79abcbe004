//! Damage to one file of a node that is down: a byte flipped, a stretch zeroed, an end cut off, a file gone.
//!
//! Files of the log are hit in any of these ways. Files of the state are cut off or removed only: a flipped byte in them may be
//! found late, when the log that could repair them has been purged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::torture::cluster::copy;

/// Zeroed at once.
const STRETCH: u64 = 512;

/// What was done, and how it was before.
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
        let matters = |file: &&PathBuf| is_open(data, file) && matters(file);
        let files: Vec<&PathBuf> = files.iter().filter(matters).collect();
        let what = match random.choice(&files) {
            None => "no file".to_owned(),
            Some(file) => {
                let how = damage(file, is_log(data, file), random)?;
                let name = file.strip_prefix(data).unwrap_or(file);
                format!("{how} {}", name.display())
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

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
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

/// Not what databases write for people.
fn matters(file: &Path) -> bool {
    let name = file.file_name().map(|it| it.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let idle = ["LOG", "OPTIONS", "LOCK", "IDENTITY"];
    !idle.iter().any(|it| name.starts_with(it))
}

/// A database that the node opens at its start. A damaged snapshot may be found long after, by whoever is sent it.
fn is_open(data: &Path, file: &Path) -> bool {
    let below = file.strip_prefix(data).unwrap_or(file);
    let mut names = below.iter().map(|name| name.to_string_lossy());
    names.any(|name| name == "log" || name.starts_with("state-"))
}

fn is_log(data: &Path, file: &Path) -> bool {
    file.starts_with(data.join("log"))
}

fn damage(file: &Path, is_log: bool, random: &mut Rng) -> io::Result<&'static str> {
    let length = fs::metadata(file)?.len();
    let middle = random.u64(0..length);
    let way = random.u8(if is_log { 0 } else { 2 }..4);
    match way {
        0 => {
            let byte = fs::read(file)?[usize::try_from(middle).unwrap_or(0)];
            overwrite(file, middle, &[byte ^ 0x40])?;
            Ok("flipped a byte of")
        }
        1 => {
            let zeroes = vec![0; usize::try_from(STRETCH.min(length - middle)).unwrap_or(0)];
            overwrite(file, middle, &zeroes)?;
            Ok("zeroed a part of")
        }
        2 => {
            OpenOptions::new().write(true).open(file)?.set_len(middle)?;
            Ok("truncated")
        }
        _ => {
            fs::remove_file(file)?;
            Ok("removed")
        }
    }
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
