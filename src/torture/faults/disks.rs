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
fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
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
            let image = disks.image(node);
            File::create(&image)?.set_len(BYTES)?;
            run("mkfs.ext4", &["-q", "-F", text(&image)?])?;
            fs::create_dir_all(disks.mounted(node))?;
            disks.mount(node)?;
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
            self.mount(*node)?;
            let marker = self.mounted(*node).join(MARKER);
            is_lost &= fs::read(&marker).map_or(true, |text| text.is_empty());
            fs::remove_file(&marker).ok();
        }
        Ok(is_lost)
    }

    /// Fills one. `true` once nothing more can be written to it.
    pub fn fill(&self, node: u64) -> io::Result<bool> {
        let ballast = File::create(self.mounted(node).join(BALLAST))?;
        let (mut end, mut more) = (0, BYTES);
        while more >= BLOCK {
            match fallocate(&ballast, FallocateFlags::empty(), end, more) {
                Ok(()) => end += more,
                Err(Errno::NOSPC) => more /= 2,
                Err(error) => return Err(error.into()),
            }
        }
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

    fn mount(&self, node: u64) -> io::Result<()> {
        let (image, mounted) = (self.image(node), self.mounted(node));
        run("mount", &["-o", "loop", text(&image)?, text(&mounted)?])
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
            if let Ok(mounted) = text(&self.mounted(node))
                && run("umount", &[mounted]).is_err()
            {
                // Busy while a node runs, which is then killed with whoever dropped this.
                run("umount", &["--lazy", mounted]).ok();
            }
        }
    }
}
