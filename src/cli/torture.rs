//! `trolley-torture`: its arguments, and what they lead to; `tell` says what came of it.

mod tell;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::output;
use crate::torture::checks::Judgement;
use crate::torture::corruption;
use crate::torture::evidence;
use crate::torture::faults::Kind;
use crate::torture::record::{self, Record};
use crate::torture::run::{self, Run, Settings, Workload};
use crate::torture::series::Series;
use crate::torture::timeline;
use crate::torture::verdict::Verdict;

/// Something other than the store went wrong: nothing was judged.
const BROKEN: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  trolley-torture run                                      # a minute and a half of everything, on three nodes
  trolley-torture run --profile soak --duration 8h
  trolley-torture run --profile power-cuts                 # all nodes lose power a hundred times; --profile kills: 500 SIGKILLs
  trolley-torture run --faults kill-leader,isolate-leader --workloads registers --duration 1m
  trolley-torture run --seed 42                            # the same faults, at the same times, to the same roles
  trolley-torture check torture-42                         # judge what was recorded once more
  trolley-torture series --seeds 1-20 --profile gate       # one run after the other, and what they come to together
  trolley-torture corruption                               # every kind of file, damaged in every way

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
    /// Runs one seed after another, and adds up
    Series(SeriesArgs),
    /// Damages each kind of file of a node in each way, and finds out what the node does
    Corruption(CorruptionArgs),
    /// Lists the kinds of faults
    Faults,
}

/// What a plan reckons for a phase.
const PHASE_SECONDS: u64 = 6;

/// How long, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Each kind of fault about once
    Smoke,
    /// A quarter of an hour
    Gate,
    /// Until --duration is over; an hour without it
    Soak,
    /// All nodes lose power at once, a hundred times, under load
    PowerCuts,
    /// SIGKILL of the leader, a follower, a majority and all, five hundred times, under load
    Kills,
}

impl Profile {
    fn duration(self) -> Duration {
        match self {
            Self::Smoke => Duration::from_secs(90),
            Self::Gate => Duration::from_secs(840),
            Self::Soak => Duration::from_secs(3600),
            Self::PowerCuts => Duration::from_secs(100 * PHASE_SECONDS),
            // A phase has two or three faults that overlap.
            Self::Kills => Duration::from_secs(500 / 2 * PHASE_SECONDS),
        }
    }

    /// Kinds of faults, if none are named.
    fn faults(self) -> &'static [Kind] {
        match self {
            Self::Smoke | Self::Gate | Self::Soak => &Kind::ALL,
            Self::PowerCuts => &[Kind::PowerCutAll],
            Self::Kills => &[
                Kind::KillLeader,
                Kind::KillFollower,
                Kind::KillMajority,
                Kind::KillAll,
            ],
        }
    }

    fn name(self) -> String {
        let name = self.to_possible_value();
        name.map(|name| name.get_name().to_owned())
            .unwrap_or_default()
    }
}

#[derive(Debug, Clone, Args)]
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
    /// Kinds of faults, separated by commas [default: all, or the profile's]
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

#[derive(Debug, Args)]
struct SeriesArgs {
    /// The first and the last seed, as in 1-20
    #[arg(long, value_parser = seeds)]
    seeds: (u64, u64),
    /// Begin no run after this time
    #[arg(long, value_parser = humantime::parse_duration)]
    at_most: Option<Duration>,
    #[command(flatten)]
    each: RunArgs,
}

#[derive(Debug, Args)]
struct CorruptionArgs {
    /// The `trolley` under test [default: beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where everything goes; must not exist
    #[arg(long, value_name = "DIR", default_value = "torture-corruption")]
    out: PathBuf,
    /// Print the matrix as JSON
    #[arg(long)]
    json: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let parse = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let (first, last) = text.split_once('-').ok_or("name two, as in 1-20")?;
    let (first, last) = (parse(first)?, parse(last)?);
    if first <= last {
        Ok((first, last))
    } else {
        Err("the first is the smaller one".to_owned())
    }
}

/// Nothing was judged.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Run(#[from] run::Error),
    #[error(transparent)]
    Corruption(#[from] corruption::Error),
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
    #[error(transparent)]
    Output(#[from] Failure),
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
        Verb::Series(args) => block_on(run_series(&args)),
        Verb::Corruption(args) => block_on(run_corruption(&args)),
        Verb::Faults => list_faults(),
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

fn list_faults() -> Result<u8, Broken> {
    for kind in Kind::value_variants() {
        if let Some(value) = kind.to_possible_value() {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            output::line(&format!("{:20} {help}", value.get_name()))?;
        }
    }
    Ok(0)
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
        let folder = new_folder(folder)?;
        Ok(Settings {
            binary: binary(self.binary.as_ref())?,
            folder,
            seed,
            nodes: self.nodes,
            duration: self.duration.unwrap_or_else(|| self.profile.duration()),
            profile: self.profile.name(),
            faults: if self.faults.is_empty() {
                self.profile.faults().to_vec()
            } else {
                self.faults.clone()
            },
            workloads: all_if_none(&self.workloads),
        })
    }
}

fn of_file(path: &Path) -> impl FnOnce(io::Error) -> Broken {
    let path = path.to_owned();
    |source| Broken::File { path, source }
}

fn new_folder(folder: PathBuf) -> Result<PathBuf, Broken> {
    if folder.exists() {
        return Err(Broken::Exists(folder));
    }
    fs::create_dir_all(&folder).map_err(of_file(&folder))?;
    folder.canonicalize().map_err(of_file(&folder))
}

fn binary(named: Option<&PathBuf>) -> Result<PathBuf, Broken> {
    match named {
        Some(binary) => existing(binary.clone()),
        None => beside_this(),
    }
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
    let stop = CancellationToken::new();
    let rounds = unless_asked_twice(&stop, one(args, &stop)).await?;
    if rounds.len() > 1 {
        output::line(&tell::series(&Series::of(&rounds)))?;
    }
    Ok(Series::of(&rounds).exit_code())
}

/// Asked once to end, it comes to its end early, with all that belongs to it; asked again, it breaks off at once.
async fn unless_asked_twice<T>(
    stop: &CancellationToken,
    task: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    tokio::pin!(task);
    tokio::select! {
        done = &mut task => return done,
        () = signalled() => stop.cancel(),
    }
    tokio::select! {
        done = &mut task => done,
        () = signalled() => Err(Broken::Interrupted),
    }
}

/// One run: each of its rounds judged and told of.
async fn one(args: &RunArgs, stop: &CancellationToken) -> Result<Vec<Verdict>, Broken> {
    let settings = args.settings()?;
    output::note(&format!(
        "seed {}, into {}",
        settings.seed,
        settings.folder.display()
    ));
    let bar = tell::progress_bar();
    let show = |progress| tell::show(&bar, &progress);
    let mut run = Run::open(&settings, &show).await?;
    let has_rounds = run.has_rounds();
    let mut rounds = Vec::new();
    while let Some(record) = run.next(stop, &show).await? {
        let folder = if has_rounds {
            settings
                .folder
                .join(format!("round-{}", record.about.round))
        } else {
            settings.folder.clone()
        };
        record.save(&folder)?;
        let verdict = judge(&record, &folder)?;
        bar.suspend(|| tell::tell(&verdict, &folder, args.json))?;
        if has_rounds && verdict.verdict == Judgement::Valid && !args.keep {
            // A hundred megabytes each, which nobody looks at.
            fs::remove_dir_all(folder.join(record::FOLDER)).ok();
        }
        rounds.push(verdict);
    }
    bar.finish_and_clear();
    let is_valid = rounds.iter().all(|it| it.verdict == Judgement::Valid);
    if is_valid && !args.keep {
        let nodes = (1..=settings.nodes).map(|node| format!("node-{node}"));
        for data in nodes.chain(["disks".to_owned()]) {
            // What is left is in nobody's way.
            fs::remove_dir_all(settings.folder.join(data)).ok();
        }
    }
    Ok(rounds)
}

async fn run_series(args: &SeriesArgs) -> Result<u8, Broken> {
    let folder = args.each.out.clone();
    let folder = new_folder(folder.unwrap_or_else(|| PathBuf::from("torture-series")))?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let all = async {
        let mut series = Series::default();
        for seed in args.seeds.0..=args.seeds.1 {
            let is_over = args.at_most.is_some_and(|most| begun.elapsed() > most);
            if is_over || stop.is_cancelled() {
                break;
            }
            let out = folder.join(format!("seed-{seed}"));
            let each = RunArgs {
                seed: Some(seed),
                out: Some(out.clone()),
                ..args.each.clone()
            };
            let rounds = one(&each, &stop).await?;
            let is_valid = rounds.iter().all(|it| it.verdict == Judgement::Valid);
            for round in &rounds {
                series.add(round);
            }
            if is_valid && !args.each.keep {
                fs::remove_dir_all(out.join(record::FOLDER)).ok();
            }
            let json = serde_json::to_string_pretty(&series).unwrap_or_default();
            let path = folder.join("series.json");
            fs::write(&path, json).map_err(of_file(&path))?;
        }
        Ok(series)
    };
    let series = unless_asked_twice(&stop, all).await?;
    output::line(&tell::series(&series))?;
    Ok(series.exit_code())
}

async fn run_corruption(args: &CorruptionArgs) -> Result<u8, Broken> {
    let settings = corruption::Settings {
        binary: binary(args.binary.as_ref())?,
        folder: new_folder(args.out.clone())?,
    };
    let stop = CancellationToken::new();
    let bar = tell::progress_bar();
    let all = async {
        let shown = |number: usize, total: usize, cell: &corruption::Cell| {
            bar.set_length(total as u64);
            bar.set_position(number as u64);
            bar.set_message(format!("{}: {}", cell.file, cell.ending.name()));
        };
        Ok(corruption::run(&settings, &stop, shown).await?)
    };
    let matrix = unless_asked_twice(&stop, all).await?;
    bar.finish_and_clear();
    let json = serde_json::to_string_pretty(&matrix).unwrap_or_default();
    let path = settings.folder.join("corruption.json");
    fs::write(&path, &json).map_err(of_file(&path))?;
    output::line(&if args.json {
        json
    } else {
        tell::matrix(&matrix)
    })?;
    Ok(u8::from(!matrix.is_valid()))
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
    tell::tell(&verdict, &args.directory, args.json)?;
    Ok(Series::of(std::slice::from_ref(&verdict)).exit_code())
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
    evidence::write(record, &verdict, folder).map_err(of_file(&folder.join(evidence::FOLDER)))?;
    Ok(verdict)
}
