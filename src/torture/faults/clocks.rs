//! Wall clocks of single nodes, which jump: a library that is loaded before the system's adds what a file says.
//!
//! Only the wall clock jumps. The monotonic one, by which timers run, cannot jump on a real machine either. `libfaketime` would do the
//! same, and hangs in programs whose allocator is `jemalloc`. So the library is compiled here, from a page of C.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock_shim.c");

/// One clock for each node.
#[derive(Debug)]
pub(super) struct Clocks {
    library: PathBuf,
    files: Vec<PathBuf>,
}

impl Clocks {
    /// All of them show the right time.
    pub fn make(folder: &Path, nodes: u64) -> io::Result<Self> {
        let folder = folder.join("clocks");
        fs::create_dir_all(&folder)?;
        let files = (1..=nodes).map(|node| folder.join(format!("fast-by-{node}")));
        let clocks = Self {
            library: compile(&folder)?,
            files: files.collect(),
        };
        for file in &clocks.files {
            fs::write(file, [0; 16])?;
        }
        Ok(clocks)
    }

    pub fn environment(&self) -> Vec<Vec<(String, String)>> {
        let of_node = |file: &PathBuf| {
            let variables = [("LD_PRELOAD", &self.library), ("TORTURE_CLOCK_FILE", file)];
            variables
                .map(|(name, value)| (name.to_owned(), value.display().to_string()))
                .to_vec()
        };
        self.files.iter().map(of_node).collect()
    }

    /// A node's clock is so many seconds fast from now on.
    pub fn set(&self, node: u64, seconds: i64) -> io::Result<()> {
        // In place: the node has it mapped.
        let mut file = OpenOptions::new().write(true).open(self.file(node)?)?;
        file.write_all(&seconds.to_ne_bytes())
    }

    /// How often the node has looked at its clock while it was wrong.
    pub fn looks(&self, node: u64) -> io::Result<u64> {
        let text = fs::read(self.file(node)?)?;
        let count = text.get(8..16).and_then(|bytes| bytes.try_into().ok());
        Ok(u64::from_ne_bytes(count.unwrap_or_default()))
    }

    fn file(&self, node: u64) -> io::Result<&PathBuf> {
        let index = usize::try_from(node - 1).unwrap_or(usize::MAX);
        let file = self.files.get(index);
        file.ok_or_else(|| io::Error::other("there is no such clock"))
    }
}

fn compile(folder: &Path) -> io::Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .output()?;
    if compiled.status.success() {
        Ok(library)
    } else {
        let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
        Err(io::Error::other(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is started with it has another time, which changes while it runs.
    #[test]
    fn a_process_sees_the_time_of_its_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let Ok(clocks) = Clocks::make(folder.path(), 2) else {
            // No C compiler: the fault is skipped, too.
            return;
        };
        let year = |node: usize| {
            let mut date = Command::new("date");
            let environment = clocks.environment();
            date.arg("+%Y").envs(environment[node - 1].iter().cloned());
            let output = date.output().expect("there is a date");
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            text.parse::<i64>().expect("a year")
        };
        clocks.set(2, 10 * 366 * 86_400).expect("it can be set");
        assert!((10..=11).contains(&(year(2) - year(1))));
        let looks = |node| clocks.looks(node).expect("it can be read");
        assert!(looks(1) == 0 && looks(2) > 0);
        clocks.set(2, 0).expect("it can be set");
        assert!((0..=1).contains(&(year(2) - year(1))));
    }
}
