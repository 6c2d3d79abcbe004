//! `trolley-torture`: its arguments, what it shows while it runs, and what it says in the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output;
use crate::torture::checks::Judgement;
use crate::torture::faults::Kind;
use crate::torture::record::{self, Record};
use crate::torture::run::{self, Progress, Settings, Workload, run};
use crate::torture::timeline;
use crate::torture::verdict::Verdict;

/// Something other than the store went wrong: nothing was judged.
const BROKEN: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  trolley-torture run                                      # a minute and a half of everything, on three nodes
  trolley-torture run --profile soak --duration 8h
  trolley-torture run --faults kill-leader,isolate-leader --workloads registers --duration 1m
  trolley-torture run --seed 42                            # the same faults, at the same times, to the same roles
  trolley-torture check torture-42                         # judge what was recorded once more

A run leaves a directory: verdict.json, timeline.html (open it in a browser), record/ (what clients were told),
logs/ of the nodes, and, unless the verdict is valid, their data.

Exit codes: 0 valid, 1 invalid, 2 unknown (something could not be decided, or a fault took no effect), 3 the run broke off, or was asked for
in a way that cannot be.";

/// Breaks a cluster on purpose, while clients use it, and finds out what was lost.
///
/// It starts nodes of its own on loopback, puts a proxy in front of each, runs clients over them and does harm: kills, pauses,
/// partitions, latency, restarts, and, where it is root, power cuts and faults of disks and clocks. Every fault must prove that it
/// took effect. What clients were told is recorded, and then held against what the store promises.
#[derive(Debug, Parser)]
#[command(name = "trolley-torture", version, after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs clients over a cluster while faults come and go, and judges what they were told
    Run(RunArgs),
    /// Judges a recorded run once more
    Check(CheckArgs),
    /// Lists the kinds of faults
    Faults,
}

/// How long, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Each kind of fault about once
    Smoke,
    /// A quarter of an hour
    Gate,
    /// Until --duration is over; an hour without it
    Soak,
}

impl Profile {
    fn duration(self) -> Duration {
        match self {
            Self::Smoke => Duration::from_secs(80),
            Self::Gate => Duration::from_secs(840),
            Self::Soak => Duration::from_secs(3600),
        }
    }

    fn name(self) -> String {
        let name = self.to_possible_value();
        name.map(|name| name.get_name().to_owned())
            .unwrap_or_default()
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// How long, and how much
    #[arg(long, value_enum, default_value = "smoke")]
    profile: Profile,
    /// How long faults come, instead of the profile's time
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Repeats the faults and choices of an earlier run [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// The `trolley` under test [default: beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where everything goes; must not exist [default: torture-SEED]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Kinds of faults, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    faults: Vec<Kind>,
    /// Kinds of clients, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    workloads: Vec<Workload>,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
    /// Keep the nodes' data even if the verdict is valid
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The directory of a run
    directory: PathBuf,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// Nothing was judged.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Run(#[from] run::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} exists already: choose another --out", .0.display())]
    Exists(PathBuf),
    #[error("{} holds no recorded run: name the directory that a run left", .0.display())]
    NoRecord(PathBuf),
    #[error("the threads of this program: {0}")]
    Runtime(io::Error),
    #[error("the system has no randomness")]
    Randomness,
    #[error("interrupted")]
    Interrupted,
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            // What cannot be printed, nobody waits for.
            drop(usage.print());
            // Clap's own code for a mistake is UNKNOWN's.
            return ExitCode::from(if usage.use_stderr() { BROKEN } else { 0 });
        }
    };
    let done = match arguments.verb {
        Verb::Run(args) => block_on(run_and_judge(&args)),
        Verb::Check(args) => check(&args),
        Verb::Faults => {
            list_faults();
            Ok(0)
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(broken) => {
            output::note(&format!("trolley-torture: {broken}"));
            ExitCode::from(BROKEN)
        }
    }
}

fn block_on(task: impl Future<Output = Result<u8, Broken>>) -> Result<u8, Broken> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Broken::Runtime)?;
    runtime.block_on(task)
}

fn list_faults() {
    for kind in Kind::value_variants() {
        if let Some(value) = kind.to_possible_value() {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            output::line(&format!("{:20} {help}", value.get_name()));
        }
    }
}

fn draw_seed() -> Result<u64, Broken> {
    // Short enough to be typed.
    let seed = getrandom::u32().map_err(|_| Broken::Randomness)?;
    Ok(u64::from(seed))
}

fn all_if_none<T: ValueEnum + Clone>(chosen: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        T::value_variants().to_vec()
    } else {
        chosen.to_vec()
    }
}

impl RunArgs {
    fn settings(&self) -> Result<Settings, Broken> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => draw_seed()?,
        };
        let folder = self.out.clone();
        let folder = folder.unwrap_or_else(|| PathBuf::from(format!("torture-{seed}")));
        if folder.exists() {
            return Err(Broken::Exists(folder));
        }
        fs::create_dir_all(&folder).map_err(of_file(&folder))?;
        let folder = folder.canonicalize().map_err(of_file(&folder))?;
        Ok(Settings {
            binary: match &self.binary {
                Some(binary) => existing(binary.clone())?,
                None => beside_this()?,
            },
            folder,
            seed,
            nodes: self.nodes,
            duration: self.duration.unwrap_or_else(|| self.profile.duration()),
            profile: self.profile.name(),
            faults: all_if_none(&self.faults),
            workloads: all_if_none(&self.workloads),
        })
    }
}

fn of_file(path: &Path) -> impl FnOnce(io::Error) -> Broken {
    let path = path.to_owned();
    |source| Broken::File { path, source }
}

fn beside_this() -> Result<PathBuf, Broken> {
    let this = std::env::current_exe().map_err(of_file(Path::new("trolley-torture")))?;
    existing(this.with_file_name("trolley"))
}

fn existing(binary: PathBuf) -> Result<PathBuf, Broken> {
    if binary.is_file() {
        Ok(binary)
    } else {
        let source = io::Error::from(io::ErrorKind::NotFound);
        Err(of_file(&binary)(source))
    }
}

async fn run_and_judge(args: &RunArgs) -> Result<u8, Broken> {
    let settings = args.settings()?;
    output::note(&format!(
        "seed {}, into {}",
        settings.seed,
        settings.folder.display()
    ));
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let bar = progress_bar();
    let recorded = {
        let running = run(&settings, &stop, |progress| show(&bar, &progress));
        tokio::pin!(running);
        tokio::select! {
            recorded = &mut running => recorded,
            // Early, and with all that belongs to the end; at once, if it is asked for again.
            () = signalled() => {
                interrupted.cancel();
                tokio::select! {
                    recorded = &mut running => recorded,
                    () = signalled() => return Err(Broken::Interrupted),
                }
            }
        }
    };
    bar.finish_and_clear();
    let record = recorded?;
    record.save(&settings.folder)?;
    let verdict = judge(&record, &settings.folder)?;
    if verdict.verdict == Judgement::Valid && !args.keep {
        let nodes = (1..=settings.nodes).map(|node| format!("node-{node}"));
        for data in nodes.chain(["disks".to_owned()]) {
            // What is left is in nobody's way.
            fs::remove_dir_all(settings.folder.join(data)).ok();
        }
    }
    tell(&verdict, &settings.folder, args.json);
    Ok(verdict.exit_code())
}

/// Ctrl-C, or whoever else asks this program to end.
async fn signalled() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

fn check(args: &CheckArgs) -> Result<u8, Broken> {
    if !args.directory.join(record::FOLDER).is_dir() {
        return Err(Broken::NoRecord(args.directory.clone()));
    }
    let record = Record::load(&args.directory)?;
    let verdict = judge(&record, &args.directory)?;
    tell(&verdict, &args.directory, args.json);
    Ok(verdict.exit_code())
}

/// Judges a record, and writes what it comes to.
fn judge(record: &Record, folder: &Path) -> Result<Verdict, Broken> {
    let verdict = Verdict::of(record);
    let json = serde_json::to_string_pretty(&verdict).unwrap_or_default();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(of_file(&path))
    };
    write("verdict.json", json)?;
    write("timeline.html", timeline::page(record, &verdict))?;
    Ok(verdict)
}

/// Hidden by itself where standard error is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}");
    bar.enable_steady_tick(Duration::from_millis(200));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: &Progress) {
    match progress {
        Progress::Starting => bar.set_message("nodes start"),
        Progress::Phase(number, total, what) => {
            bar.set_length(*total as u64);
            bar.set_position(*number as u64);
            bar.set_message(what.clone());
        }
        Progress::Auditing => {
            bar.set_position(bar.length().unwrap_or(1));
            bar.set_message("everything is mended and read");
        }
    }
}

fn tell(verdict: &Verdict, folder: &Path, is_json: bool) {
    if is_json {
        let json = serde_json::to_string(verdict).unwrap_or_default();
        output::line(&json);
    } else {
        output::line(&describe(verdict));
        output::line(&format!("{}", folder.join("timeline.html").display()));
    }
}

fn describe(verdict: &Verdict) -> String {
    let word = match verdict.verdict {
        Judgement::Valid => "VALID",
        Judgement::Unknown => "UNKNOWN",
        Judgement::Invalid => "INVALID",
    };
    let mut faults = output::table(&[
        "fault",
        "took effect",
        "not seen",
        "skipped",
        "overlaps",
        "seen last",
    ]);
    for (kind, coverage) in &verdict.faults {
        let last: String = coverage.last.chars().take(60).collect();
        faults.add_row([
            kind.clone(),
            coverage.proven.to_string(),
            coverage.unproven.to_string(),
            coverage.skipped.to_string(),
            coverage.overlaps.to_string(),
            last,
        ]);
    }
    let mut checks = output::table(&["property", "", "facts", ""]);
    for check in &verdict.checks {
        let word = format!("{:?}", check.judgement).to_lowercase();
        checks.add_row([
            check.name.clone(),
            word,
            check.examined.to_string(),
            check.note.clone(),
        ]);
    }
    let recovery = &verdict.recovery;
    let total = &verdict.total;
    let mut text = format!(
        "{faults}\n{checks}\n{} calls in {} s: {} answered, {} refused, {} not applied, {} unknown; {} overlaps of two faults\n\
         recovery after {} changes: p50 {} ms, p99 {} ms, longest {} ms\n",
        total.invoked,
        verdict.elapsed_ms / 1000,
        total.answered,
        total.refused,
        total.not_applied,
        total.unknown,
        verdict.overlaps,
        recovery.samples,
        recovery.p50_ms,
        recovery.p99_ms,
        recovery.max_ms,
    );
    for reason in &verdict.reasons {
        text.push_str("  ");
        text.push_str(reason);
        text.push('\n');
    }
    text + &format!(
        "{word} (seed {}, {} nodes, {})",
        verdict.seed, verdict.nodes, verdict.version
    )
}
