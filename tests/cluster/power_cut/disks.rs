//! Disks whose power can be cut: ext4 in a file, over a loop device.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const BYTES: u64 = 512 << 20;

/// Mounted until they are dropped.
pub struct Disks {
    folder: TempDir,
    count: usize,
    plug: PathBuf,
}

/// Runs a command, which says why it failed.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let command = format!("{program} {}", arguments.join(" "));
    match Command::new(program).args(arguments).output() {
        Err(error) => Err(format!("{command}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command}: {}: {said}", output.status))
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

impl Disks {
    /// So many disks, or `None` where the test must not mount any: that takes root and loop devices, and is said aloud.
    pub fn new(count: usize) -> Option<Self> {
        let folder = TempDir::with_prefix("trolley-disks-").expect("a temporary folder");
        let plug = compile(&folder, "plug", include_str!("plug.rs"), "bin");
        let mut disks = Self {
            folder,
            count: 0,
            plug,
        };
        for number in 1..=count {
            let image = File::create(disks.image(number)).expect("a file can be made");
            image.set_len(BYTES).expect("it can be as large");
            fs::create_dir(disks.mounted(number)).expect("a folder can be made");
            let image = disks.image(number);
            let made = run("mkfs.ext4", &["-q", "-F", text(&image)]);
            if let Err(problem) = made.and_then(|()| disks.mount(number)) {
                skipped(&problem);
                return None;
            }
            disks.count = number;
        }
        Some(disks)
    }

    /// Where a node may keep its data.
    pub fn places(&self) -> Vec<PathBuf> {
        let mounted = (1..=self.count).map(|number| self.mounted(number));
        mounted.map(|mounted| mounted.join("data")).collect()
    }

    /// The environment of a node whose syncs are lies while the switch is on.
    pub fn liar(&self) -> Vec<(String, String)> {
        let liar = compile(&self.folder, "liar", include_str!("liar.rs"), "cdylib");
        vec![
            ("LD_PRELOAD".to_owned(), text(&liar).to_owned()),
            ("LIAR_SWITCH".to_owned(), text(&self.switch()).to_owned()),
        ]
    }

    /// From now on nothing is synced, until [`Disks::tell_the_truth`].
    pub fn lie(&self) {
        fs::write(self.switch(), "").expect("a file can be made");
    }

    pub fn tell_the_truth(&self) {
        fs::remove_file(self.switch()).expect("it is there");
    }

    /// Cuts the power of all at once. What was not synced is gone; whoever has them open meets errors from now on.
    pub fn cut_power(&self) {
        let mounted: Vec<_> = (1..=self.count)
            .map(|number| self.mounted(number))
            .collect();
        let mounted: Vec<_> = mounted.iter().map(|path| text(path)).collect();
        run(text(&self.plug), &mounted).expect("a plug can be pulled");
    }

    /// Brings them back, through the journal, once nobody has them open.
    pub fn restore_power(&self) {
        for number in 1..=self.count {
            run("umount", &[text(&self.mounted(number))]).expect("nobody uses it");
            self.mount(number).expect("the journal makes it whole");
        }
    }

    fn mount(&self, number: usize) -> Result<(), String> {
        let (image, mounted) = (self.image(number), self.mounted(number));
        run("mount", &["-o", "loop", text(&image), text(&mounted)])
    }

    fn image(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("disk-{number}"))
    }

    fn mounted(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("mounted-{number}"))
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("switch")
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for number in 1..=self.count {
            if let Err(problem) = run("umount", &[text(&self.mounted(number))]) {
                println!("{problem}");
            }
        }
    }
}

/// Compiles one of the programs beside this file with the compiler that this test was made with.
fn compile(folder: &TempDir, name: &str, source: &str, kind: &str) -> PathBuf {
    let file = folder.path().join(format!("{name}.rs"));
    fs::write(&file, source).expect("it can be written");
    let made = folder.path().join(name);
    let arguments = [
        "--edition",
        "2024",
        "-C",
        "panic=abort",
        "--crate-type",
        kind,
    ];
    let arguments = [&arguments[..], &["-o", text(&made), text(&file)]].concat();
    run("rustc", &arguments).expect("it compiles");
    made
}

/// Past the test's captured output: somebody may believe that it was run.
fn skipped(problem: &str) {
    let said =
        format!("\nSKIPPED: power cuts, for this takes root and loop devices: {problem}\n\n");
    std::io::stderr()
        .write_all(said.as_bytes())
        .expect("somebody reads");
}
