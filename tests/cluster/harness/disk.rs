//! Small disks: file systems in memory, mounted where a node keeps its data.
//!
//! Mounting takes rights. Where this process has none, the test runs again in a user and mount namespace of its own, in
//! which it has; where there are no namespaces either, it says so and proves nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::eventually;

/// Set in a namespace of ours, so that no namespace is opened in it.
const INSIDE: &str = "TROLLEY_TEST_NAMESPACE";

/// Blocks of a file system in memory.
const PAGE_BYTES: u64 = 4096;

/// A file system of its own. It goes when this is dropped, whatever is on it.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes.
    pub fn mount(path: &Path, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
                "trolley-test",
            ])
            .arg(path)
            .output()?;
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Bytes that nobody has taken.
    pub fn free(&self) -> u64 {
        let found = statvfs(&self.path).expect("it is mounted");
        found.f_bavail * found.f_frsize
    }

    /// Takes all that is free, as another program might.
    pub async fn fill(&self) {
        let path = self.path.join("filler");
        // The node writes meanwhile, so the last blocks may be gone when they are asked for.
        eventually("a full disk", async || {
            let file = File::options().create(true).append(true).open(&path);
            let file = file.expect("an empty file takes no block");
            let held = file.metadata().expect("it is open").len();
            let taken = fallocate(&file, FallocateFlags::empty(), held, self.free());
            taken.is_ok() || self.free() < PAGE_BYTES
        })
        .await;
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

/// Whether this process can mount what a test needs. If not, the test was run elsewhere, or cannot be run.
pub fn can_mount(test: &str) -> bool {
    let probe = tempfile::tempdir().expect("a temporary folder can be made");
    let error = match SmallDisk::mount(&probe.path().join("disk"), 1 << 20) {
        Ok(_) => return true,
        Err(error) => error,
    };
    assert!(
        std::env::var_os(INSIDE).is_none(),
        "no mount in a namespace of our own: {error}"
    );
    let this = std::env::current_exe().expect("this program is somewhere");
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount"]);
    inside.arg(this).args([test, "--exact", "--nocapture"]);
    let possible = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !possible {
        println!(
            "SKIPPED {test}: nothing can be mounted here ({error}), and there are no user namespaces"
        );
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
