//! Disks of their own for nodes: ext4 in a file, over a loop device. Their power can be cut, and they can be filled.
//!
//! A cut keeps exactly what was synced: the file system is shut down without writing back anything, not even its journal, by
//! `EXT4_IOC_SHUTDOWN`, and mounted again. That takes root, loop devices, and perl, which sends the request.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Of one disk. The file is sparse: it takes what is written.
const BYTES: u64 = 512 << 20;
/// The least that a file takes of it.
const BLOCK: u64 = 4 << 10;
/// What fills a disk.
const BALLAST: &str = "ballast";
/// Written and never synced, right before a cut: it must be gone afterwards.
const MARKER: &str = "never-synced";
/// Shuts the file systems down that hold the files which are named; all of them are open before the first goes down.
const PLUG: &str = "
    my @files = map { open(my $file, '<', $_) or die qq($_: $!); $file } @ARGV;
    for (@files) { my $how = pack('L', 2); ioctl($_, 0x8004587d, $how) or die qq(ioctl: $!); }
";

/// Runs a command, which says why it failed.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}", said.trim())))
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other("the directory's name is not text"))
}

/// Makes an ext4 file system of so many bytes in a file, and mounts it.
pub fn make_ext4(image: &Path, bytes: u64, mounted: &Path) -> io::Result<()> {
    File::create(image)?.set_len(bytes)?;
    run("mkfs.ext4", &["-q", "-F", text(image)?])?;
    fs::create_dir_all(mounted)?;
    mount_ext4(image, mounted)
}

fn mount_ext4(image: &Path, mounted: &Path) -> io::Result<()> {
    run("mount", &["-o", "loop", text(image)?, text(mounted)?])
}

/// Unmounts a file system. What is busy, because a process was killed a moment ago, goes as soon as nobody uses it.
pub fn unmount(mounted: &Path) -> io::Result<()> {
    let mounted = text(mounted)?;
    run("umount", &[mounted]).or_else(|_| run("umount", &["--lazy", mounted]))
}

/// Has a file take all that is free on a disk of at most so many bytes. Others write meanwhile, and file systems keep some blocks:
/// what cannot be had whole is had in pieces.
pub fn take_all(file: &File, most: u64) -> io::Result<()> {
    let (mut end, mut more) = (file.metadata()?.len(), most);
    while more >= BLOCK {
        match fallocate(file, FallocateFlags::empty(), end, more) {
            Ok(()) => end += more,
            Err(Errno::NOSPC) => more /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// One for each node, mounted until they are dropped.
#[derive(Debug)]
pub struct Disks {
    folder: PathBuf,
    count: u64,
}

impl Disks {
    /// So many disks; an error says what this machine lacks.
    pub fn make(folder: &Path, count: u64) -> io::Result<Self> {
        let folder = folder.join("disks");
        fs::create_dir_all(&folder)?;
        let mut disks = Self { folder, count: 0 };
        for node in 1..=count {
            make_ext4(&disks.image(node), BYTES, &disks.mounted(node))?;
            disks.count = node;
        }
        Ok(disks)
    }

    /// Where each node may keep its data.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        (1..=self.count)
            .map(|node| self.mounted(node).join("data"))
            .collect()
    }

    /// Cuts the power of these at one moment. Whoever has them open meets errors from now on.
    pub fn cut(&self, nodes: &[u64]) -> io::Result<()> {
        let mut arguments = vec!["-e".to_owned(), PLUG.to_owned()];
        for node in nodes {
            let marker = self.mounted(*node).join(MARKER);
            fs::write(&marker, "lost")?;
            arguments.push(text(&marker)?.to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run("perl", &arguments)
    }

    /// Brings them back through their journals, once nobody has them open. Whether what was never synced is gone.
    pub fn restore(&self, nodes: &[u64]) -> io::Result<bool> {
        let mut is_lost = true;
        for node in nodes {
            run("umount", &[text(&self.mounted(*node))?])?;
            mount_ext4(&self.image(*node), &self.mounted(*node))?;
            let marker = self.mounted(*node).join(MARKER);
            is_lost &= fs::read(&marker).map_or(true, |text| text.is_empty());
            fs::remove_file(&marker).ok();
        }
        Ok(is_lost)
    }

    /// Fills one. `true` once nothing more can be written to it.
    pub fn fill(&self, node: u64) -> io::Result<bool> {
        let ballast = File::create(self.mounted(node).join(BALLAST))?;
        take_all(&ballast, BYTES)?;
        let marker = File::create(self.mounted(node).join(MARKER));
        let written = marker.and_then(|mut file| file.write_all(&[0; 1 << 13]));
        Ok(written.is_err_and(|error| error.kind() == ErrorKind::StorageFull))
    }

    /// Gives one its space back.
    pub fn empty(&self, node: u64) {
        for name in [BALLAST, MARKER] {
            // It may have been lost in a cut.
            fs::remove_file(self.mounted(node).join(name)).ok();
        }
    }

    fn image(&self, node: u64) -> PathBuf {
        self.folder.join(format!("disk-{node}"))
    }

    fn mounted(&self, node: u64) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for node in 1..=self.count {
            // Busy while a node runs, which is then killed with whoever dropped this.
            unmount(&self.mounted(node)).ok();
        }
    }
}
