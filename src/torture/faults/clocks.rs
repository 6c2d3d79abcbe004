//! Wall clocks of single nodes, which jump: a library that is loaded before the system's adds what a file says.
//!
//! Only the wall clock jumps. The monotonic one, by which timers run, cannot jump on a real machine either. `libfaketime` would do the
//! same, and hangs in programs whose allocator is `jemalloc`. So the library is compiled here, from a page of C.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
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
        for node in 1..=nodes {
            clocks.set(node, 0)?;
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
        let index = usize::try_from(node - 1).unwrap_or(usize::MAX);
        let Some(file) = self.files.get(index) else {
            return Ok(());
        };
        // In place: the node has it mapped.
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(file)?;
        file.write_all(&seconds.to_ne_bytes())
    }

    /// The largest jump between two lines of a log that were written behind a place: seconds.
    pub fn jump_in(log: &Path, from: u64) -> io::Result<i64> {
        let mut file = File::open(log)?;
        // One line before it, to jump from.
        file.seek(SeekFrom::Start(from.saturating_sub(1_000)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let times: Vec<i64> = text.lines().filter_map(time_of).collect();
        let jumps = times.windows(2).map(|pair| pair[1] - pair[0]);
        Ok(jumps.max_by_key(|jump| jump.abs()).unwrap_or(0))
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

/// Seconds since 1970 at the beginning of a line.
fn time_of(line: &str) -> Option<i64> {
    let word = line.split_whitespace().next()?;
    let time = humantime::parse_rfc3339(word).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
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
        clocks.set(2, 0).expect("it can be set");
        assert!((0..=1).contains(&(year(2) - year(1))));
    }

    #[test]
    fn a_jump_in_a_log_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let lines = "2026-03-01T10:00:00.5Z  INFO a\n2026-03-01T11:00:02Z  INFO b\nno time\n2026-03-01T11:00:03Z c\n";
        fs::write(&log, lines).expect("it can be written");
        assert_eq!(Clocks::jump_in(&log, 40).expect("it can be read"), 3_602);
        fs::write(&log, "2026-03-01T10:00:00Z a\n").expect("it can be written");
        assert_eq!(Clocks::jump_in(&log, 0).expect("it can be read"), 0);
    }
}
