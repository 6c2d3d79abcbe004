//! What every serving process is told in the same words: its threads, its log lines, how long it may take to leave.

use std::num::NonZero;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Error;
use super::node::check_duration;

/// Shortest and longest that a shutdown may wait.
const DRAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
const MOST_THREADS: usize = 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The flags, as they are typed.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// How long a shutdown waits for what is under way.
    #[arg(long, env = "TROLLEY_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// Threads that serve requests [default: one per core].
    #[arg(long, env = "TROLLEY_WORKER_THREADS", value_name = "N")]
    pub worker_threads: Option<usize>,

    /// How log lines look.
    #[arg(long, env = "TROLLEY_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Which log lines are written: a level, or module=level pairs separated by commas. With openraft=warn, every heartbeat that
    /// fails is told of; without, a node says once that another does not answer.
    #[arg(
        long,
        env = "TROLLEY_LOG_FILTER",
        value_name = "FILTER",
        default_value = "info,openraft=error"
    )]
    pub log_filter: String,
}

/// A process that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// How long a shutdown waits.
    pub drain_timeout: Duration,
    /// Threads that serve requests.
    pub worker_threads: usize,
    /// Log lines.
    pub logging: Logging,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// How they look.
    pub format: LogFormat,
    /// Which are written.
    pub filter: String,
}

impl TryFrom<ProcessArgs> for Process {
    type Error = Error;

    fn try_from(args: ProcessArgs) -> Result<Self, Error> {
        let (shortest, longest) = DRAIN;
        check_duration("--drain-timeout", args.drain_timeout, shortest, longest)?;
        check_filter(&args.log_filter)?;
        Ok(Self {
            drain_timeout: args.drain_timeout,
            worker_threads: worker_threads(args.worker_threads)?,
            logging: Logging {
                format: args.log_format,
                filter: args.log_filter,
            },
        })
    }
}

fn worker_threads(wanted: Option<usize>) -> Result<usize, Error> {
    match wanted {
        None => Ok(std::thread::available_parallelism().map_or(1, NonZero::get)),
        Some(threads @ 1..=MOST_THREADS) => Ok(threads),
        Some(threads) => Err(Error::OutOfRange {
            flag: "--worker-threads",
            actual: threads.to_string(),
            min: "1".to_owned(),
            max: MOST_THREADS.to_string(),
        }),
    }
}

fn check_filter(filter: &str) -> Result<(), Error> {
    let parsed = filter.parse::<tracing_subscriber::EnvFilter>();
    let malformed = |error| Error::Malformed {
        flag: "--log-filter",
        value: filter.to_owned(),
        expected: format!("a level or module=level pairs separated by commas ({error})"),
    };
    parsed.map(drop).map_err(malformed)
}
