//! Small disks: file systems of their own, mounted where a node keeps its data.
//!
//! Mounting takes rights. Where this process has none, the test runs again in a user and mount namespace of its own, in
//! which it has. Where that is not possible either, as it never is for a file system in a file, it says so and proves
//! nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statvfs;
use trolley::torture::faults::disks::{make_ext4, run, take_all, unmount};

use super::process::say_skipped;

/// Set in a namespace of ours, so that no namespace is opened in it.
const INSIDE: &str = "TROLLEY_TEST_NAMESPACE";

/// Enough for a file system.
const PROBE_BYTES: u64 = 4 << 20;

/// What a small disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file system in memory.
    Tmpfs,
    /// One in a file, as servers have it: blocks are given out when they are written back, and some are kept for root.
    Ext4,
}

/// A file system of its own. It goes when this is dropped, whatever is on it.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes.
    pub fn mount(kind: Kind, path: &Path, bytes: u64) -> io::Result<Self> {
        match kind {
            Kind::Tmpfs => {
                fs::create_dir_all(path)?;
                let at = path.to_str();
                let at = at.ok_or_else(|| io::Error::other("the folder's name is not text"))?;
                let size = format!("size={bytes}");
                run("mount", &["-t", "tmpfs", "-o", &size, "trolley-test", at])?;
            }
            Kind::Ext4 => make_ext4(&path.with_extension("img"), bytes, path)?,
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Bytes that nobody has taken.
    pub fn free(&self) -> u64 {
        let found = statvfs(&self.path).expect("it is mounted");
        found.f_bfree * found.f_frsize
    }

    /// Takes all that is free, as another program might.
    pub fn fill(&self) {
        let mut options = File::options();
        let file = options
            .create(true)
            .append(true)
            .open(self.path.join("filler"));
        let file = file.expect("an empty file takes no block");
        take_all(&file, self.free()).expect("it takes what there is");
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn empty(&self) {
        fs::remove_file(self.path.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.path) {
            println!("{} is still mounted: {error}", self.path.display());
        }
    }
}

/// Whether this process can mount what a test needs. If not, the test was run elsewhere, or cannot be run.
pub fn can_mount(kind: Kind, test: &str) -> bool {
    let probe = tempfile::tempdir().expect("a temporary folder can be made");
    let Err(error) = SmallDisk::mount(kind, &probe.path().join("disk"), PROBE_BYTES) else {
        return true;
    };
    assert!(
        std::env::var_os(INSIDE).is_none(),
        "no mount in a namespace of our own: {error}"
    );
    let this = std::env::current_exe().expect("this program is somewhere");
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount"]);
    inside.arg(this).args([test, "--exact", "--nocapture"]);
    let possible = ["--user", "--map-root-user", "--mount", "true"];
    if kind != Kind::Tmpfs || run("unshare", &possible).is_err() {
        say_skipped(test, &format!("no {kind:?} can be mounted here ({error})"));
        return false;
    }
    let status = inside.env(INSIDE, "1").status();
    let status = status.expect("unshare was just there");
    assert!(
        status.success(),
        "{test}, in a namespace of its own: {status}"
    );
    false
}
