//! All that was noted of a run: written to a directory, read back, judged again.
//!
//! Each tape is a file of JSON, an entry per line, so that it can be looked through with the usual tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::faults::chronicle::Chronicle;
use super::history::{self, History};
use super::workloads::{bank, carts, leases, lists, locks, probes, registers, sessions, watchers};

/// Where it is below a run's directory.
pub const FOLDER: &str = "record";

/// What the run was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Repeats the plan and what clients choose.
    pub seed: u64,
    /// Of this program.
    pub version: String,
    /// As it was asked for.
    pub profile: String,
    /// How many there were.
    pub nodes: u64,
    /// From the first call to the end of the audit.
    pub elapsed_ms: u64,
    /// The workloads that ran.
    pub workloads: Vec<String>,
    /// Kinds of faults that were asked for and cannot be carried out here, with the reason.
    pub skipped: BTreeMap<String, String>,
    /// Kinds that were asked for.
    pub faults: Vec<String>,
    /// Somebody has ended it early.
    #[serde(default)]
    pub was_interrupted: bool,
    /// Which round of the run it is, from 1 on; 0 if that was not noted.
    #[serde(default)]
    pub round: u32,
    /// Another round follows: the nodes go on, and what they write is looked through at its end.
    #[serde(default)]
    pub is_followed: bool,
}

/// A node, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was asked.
    pub at_us: u64,
    /// Which: its place, where one node may follow another.
    pub node: u64,
    /// Under which id it was a member there.
    pub member: u64,
    /// Whom it takes for the leader: 0 for nobody. `None`: it did not answer.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Kilobytes of memory.
    pub memory_kb: u64,
    /// Open files.
    pub files: u64,
}

/// What a node holds in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAudit {
    /// Which.
    pub node: u64,
    /// The last log entry that it has applied.
    pub applied_index: u64,
    /// The store's revision there.
    pub revision: u64,
    /// Of its state.
    pub digest: String,
    /// All keys: value and revision.
    pub keys: BTreeMap<String, (String, u64)>,
    /// Pieces by user and SKU.
    pub carts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether it reads a session, by label.
    pub sessions: BTreeMap<String, bool>,
}

/// What was found after everything had been mended and nobody wrote any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When the reading began.
    pub at_us: u64,
    /// Each node's state.
    pub nodes: Vec<NodeAudit>,
    /// What could not be read, although there was time for it.
    pub problems: Vec<String>,
    /// Panics and secrets, by file.
    pub files: Vec<String>,
    /// Bytes of logs and data that were looked through.
    pub scanned_bytes: u64,
    /// Tokens that were looked for in them.
    #[serde(default)]
    pub scanned_tokens: u64,
    /// How often a node has installed a snapshot that it received, by its log.
    #[serde(default)]
    pub installed_snapshots: u64,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the run was.
    pub about: About,
    /// Linearizable calls on registers.
    pub history: History,
    /// Their revisions.
    pub order: Vec<registers::Order>,
    /// Other reads of registers.
    pub looks: Vec<registers::Looks>,
    /// Adds to carts.
    pub adds: Vec<carts::Adds>,
    /// Transfers.
    pub bankings: Vec<bank::Bankings>,
    /// Transactions that append to lists.
    pub listings: Vec<lists::Listings>,
    /// Calls about sessions.
    pub sessions: Vec<sessions::Calls>,
    /// Calls about leases and keys that live for a time.
    pub leases: Vec<leases::Calls>,
    /// Calls about locks.
    pub locks: Vec<locks::Calls>,
    /// What watchers were told.
    pub feeds: Vec<watchers::Feed>,
    /// Probes.
    pub probes: Vec<probes::Probes>,
    /// What nodes looked like.
    pub samples: Vec<Sample>,
    /// What was done to them.
    pub chronicle: Chronicle,
    /// What they held in the end.
    pub audit: Audit,
}

/// A record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("{file}: {source}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The history of registers.
    #[error("registers.jsonl: {0}")]
    History(#[from] history::Error),
}

fn of_file(file: &str) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_owned();
    |source| Error::File { file, source }
}

impl Record {
    /// One in which nothing happened.
    #[must_use]
    pub fn of(about: About) -> Self {
        Self {
            about,
            history: History::default(),
            order: Vec::new(),
            looks: Vec::new(),
            adds: Vec::new(),
            bankings: Vec::new(),
            listings: Vec::new(),
            sessions: Vec::new(),
            leases: Vec::new(),
            locks: Vec::new(),
            feeds: Vec::new(),
            probes: Vec::new(),
            samples: Vec::new(),
            chronicle: Chronicle::default(),
            audit: Audit::default(),
        }
    }

    /// Writes it below a run's directory.
    pub fn save(&self, run: &Path) -> Result<(), Error> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(of_file(FOLDER))?;
        let registers = File::create(folder.join("registers.jsonl"));
        let registers = registers.map_err(of_file("registers.jsonl"))?;
        self.history
            .dump(BufWriter::new(registers))
            .map_err(of_file("registers.jsonl"))?;
        write(&folder, "about.jsonl", std::slice::from_ref(&self.about))?;
        write(&folder, "order.jsonl", &self.order)?;
        write(&folder, "looks.jsonl", &self.looks)?;
        write(&folder, "carts.jsonl", &self.adds)?;
        write(&folder, "bank.jsonl", &self.bankings)?;
        write(&folder, "lists.jsonl", &self.listings)?;
        write(&folder, "sessions.jsonl", &self.sessions)?;
        write(&folder, "leases.jsonl", &self.leases)?;
        write(&folder, "locks.jsonl", &self.locks)?;
        write(&folder, "watchers.jsonl", &self.feeds)?;
        write(&folder, "probes.jsonl", &self.probes)?;
        write(&folder, "samples.jsonl", &self.samples)?;
        write(
            &folder,
            "faults.jsonl",
            std::slice::from_ref(&self.chronicle),
        )?;
        write(&folder, "audit.jsonl", std::slice::from_ref(&self.audit))
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(run: &Path) -> Result<Self, Error> {
        let folder = run.join(FOLDER);
        let registers = File::open(folder.join("registers.jsonl"));
        let registers = registers.map_err(of_file("registers.jsonl"))?;
        Ok(Self {
            history: History::load(BufReader::new(registers))?,
            about: only(read(&folder, "about.jsonl")?),
            order: read(&folder, "order.jsonl")?,
            looks: read(&folder, "looks.jsonl")?,
            adds: read(&folder, "carts.jsonl")?,
            bankings: read(&folder, "bank.jsonl")?,
            listings: read(&folder, "lists.jsonl")?,
            sessions: read(&folder, "sessions.jsonl")?,
            leases: read(&folder, "leases.jsonl")?,
            locks: read(&folder, "locks.jsonl")?,
            feeds: read(&folder, "watchers.jsonl")?,
            probes: read(&folder, "probes.jsonl")?,
            samples: read(&folder, "samples.jsonl")?,
            chronicle: only(read(&folder, "faults.jsonl")?),
            audit: only(read(&folder, "audit.jsonl")?),
        })
    }
}

fn only<T: Default>(lines: Vec<T>) -> T {
    lines.into_iter().next().unwrap_or_default()
}

fn write<T: Serialize>(folder: &Path, file: &str, lines: &[T]) -> Result<(), Error> {
    let write = || {
        let mut into = BufWriter::new(File::create(folder.join(file))?);
        for line in lines {
            serde_json::to_writer(&mut into, line)?;
            into.write_all(b"\n")?;
        }
        into.flush()
    };
    write().map_err(of_file(file))
}

fn read<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Vec<T>, Error> {
    let read = || {
        let lines = BufReader::new(File::open(folder.join(file))?).lines();
        lines
            .map(|line| Ok(serde_json::from_str(&line?)?))
            .collect::<io::Result<_>>()
    };
    read().map_err(of_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::checks::Judgement;
    use crate::torture::history::{Call, Condition, Outcome, Recorder};
    use crate::torture::tape::{Stopwatch, Tape};
    use crate::torture::verdict::Verdict;

    #[test]
    fn what_was_written_is_read_back_and_judged_alike() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = crate::torture::testing::empty_record();
        record.about.seed = 7;
        record.about.workloads = vec!["registers".to_owned()];
        let recorder = Recorder::new();
        let call = Call::Put {
            value: "a".to_owned(),
            condition: Condition::Always,
        };
        let ticket = recorder.invoke(0, "k", call);
        recorder.complete(ticket, Outcome::Written { revision: Some(3) });
        // It was acknowledged, and nobody has it.
        let ticket = recorder.invoke(1, "k", Call::Get);
        recorder.complete(ticket, Outcome::Absent);
        record.history = recorder.history().expect("outcomes fit");
        let order = Tape::new(Stopwatch::start());
        let open = order.begin(0, registers::Asked::Write);
        order.end(open, super::super::tape::Outcome::Answered(3));
        record.order = order.take();
        record.audit.problems.push("none".to_owned());
        record.save(folder.path()).expect("it can be written");

        let loaded = Record::load(folder.path()).expect("it can be read");
        assert_eq!(loaded.about, record.about);
        assert_eq!(loaded.order, record.order);
        assert_eq!(loaded.audit, record.audit);
        assert_eq!(loaded.history.events(), record.history.events());
        let verdict = Verdict::of(&loaded);
        assert_eq!(verdict.verdict, Judgement::Invalid);
        let again = serde_json::to_string(&verdict).expect("JSON");
        let first = serde_json::to_string(&Verdict::of(&record)).expect("JSON");
        assert_eq!(again, first);
        assert!(Record::load(Path::new("nowhere")).is_err());
    }
}
