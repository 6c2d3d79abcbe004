//! Disks whose power can be cut, and syncs that are lies, for nodes of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use trolley::torture::faults::disks::Disks as Mounted;

use crate::harness::process::say_skipped;

/// Mounted until they are dropped, before the folder that they are in.
pub struct Disks {
    mounted: Mounted,
    nodes: Vec<u64>,
    folder: TempDir,
}

impl Disks {
    /// So many disks, or `None` where the test must not mount any: that takes root and loop devices, and is said aloud.
    pub fn new(count: u64) -> Option<Self> {
        let folder = TempDir::with_prefix("trolley-disks-").expect("a temporary folder");
        match Mounted::make(folder.path(), count) {
            Ok(mounted) => Some(Self {
                mounted,
                nodes: (1..=count).collect(),
                folder,
            }),
            Err(problem) => {
                let why = format!("it takes root and loop devices: {problem}");
                say_skipped("power cuts", &why);
                None
            }
        }
    }

    /// Where a node may keep its data.
    pub fn places(&self) -> Vec<PathBuf> {
        self.mounted.places()
    }

    /// The environment of a node whose syncs are lies while the switch is on.
    pub fn liar(&self) -> Vec<(String, String)> {
        let liar = compile_liar(&self.folder);
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
        let cut = self.mounted.cut(&self.nodes);
        cut.expect("a plug can be pulled");
    }

    /// Brings them back, through the journal, once nobody has them open.
    pub fn restore_power(&self) {
        let is_lost = self.mounted.restore(&self.nodes);
        let is_lost = is_lost.expect("nobody uses them, and the journal makes them whole");
        assert!(is_lost, "what was never synced is there all the same");
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("switch")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Compiles the library beside this file with the compiler that this test was made with.
fn compile_liar(folder: &TempDir) -> PathBuf {
    let (file, made) = (folder.path().join("liar.rs"), folder.path().join("liar"));
    fs::write(&file, include_str!("liar.rs")).expect("it can be written");
    let arguments = [
        "--edition",
        "2024",
        "-C",
        "panic=abort",
        "--crate-type",
        "cdylib",
        "-o",
    ];
    let output = Command::new("rustc")
        .args(arguments)
        .args([&made, &file])
        .output();
    let output = output.expect("there is a compiler");
    assert!(output.status.success(), "{output:?}");
    made
}
