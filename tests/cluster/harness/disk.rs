//! Small disks: file systems of their own, mounted where a node keeps its data.
//!
//! Mounting takes rights. Where this process has none, the test runs again in a user and mount namespace of its own, in
//! which it has. Where that is not possible either, as it never is for a file system in a file, it says so and proves
//! nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Set in a namespace of ours, so that no namespace is opened in it.
const INSIDE: &str = "TROLLEY_TEST_NAMESPACE";

/// Blocks of a file system in memory.
const PAGE_BYTES: u64 = 4096;
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
        fs::create_dir_all(path)?;
        match kind {
            Kind::Tmpfs => {
                let size = format!("size={bytes}");
                let tmpfs = ["-t", "tmpfs", "-o", &size, "trolley-test"];
                run(Command::new("mount").args(tmpfs).arg(path))?;
            }
            Kind::Ext4 => {
                let image = path.with_extension("img");
                File::create(&image)?.set_len(bytes)?;
                run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
                run(Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(path))?;
            }
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
        // The node writes meanwhile, and file systems keep some blocks: what cannot be had whole is had in pieces.
        let mut piece = self.free();
        while piece >= PAGE_BYTES {
            let held = file.metadata().expect("it is open").len();
            if fallocate(&file, FallocateFlags::empty(), held, piece).is_err() {
                piece /= 2;
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn empty(&self) {
        fs::remove_file(self.path.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that was just killed may hold on to it for a moment.
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} is still mounted", self.path.display());
        }
    }
}

/// Runs a program to its end.
fn run(command: &mut Command) -> io::Result<()> {
    let ended = command.output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(said.trim().to_owned()))
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
    let mut possible = Command::new("unshare");
    let possible = possible.args(["--user", "--map-root-user", "--mount", "true"]);
    if kind != Kind::Tmpfs || run(possible).is_err() {
        // Written past the test's own output, which nobody sees of a test that passes.
        let skipped = format!("SKIPPED {test}: no {kind:?} can be mounted here ({error})\n");
        drop(io::stderr().write_all(skipped.as_bytes()));
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
