//! `trolley bench`: the closed loop against Trolley, etcd or Redis.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use super::arguments::{Target as Cluster, at_least_one};
use super::failure::Failure;
use super::output;
use crate::client::{Client, ClientConfig, Transport};
use crate::torture::bench::fan_out::{self, FanOut};
use crate::torture::bench::outage::Outage;
use crate::torture::bench::trolley::{Fill, Operation, Trolley, fill_sessions};
use crate::torture::bench::{self, Plan, Report, Target};
use crate::torture::peers::{etcd, redis};

/// What to measure, and how.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The operation that every client repeats
    #[arg(long, value_enum, default_value = "session-write")]
    pub operation: Operation,
    /// Clients, each with one operation under way
    #[arg(long, default_value_t = 256, value_parser = at_least_one())]
    pub clients: usize,
    /// Client library instances that the clients share, or connections to Redis
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    pub connections: usize,
    /// Threads that all clients share; as many as there are cores if it is not given. Where servers share the machine, one is often
    /// faster than two, which wake each other
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Measured time
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// Time before it that is not measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s")]
    pub warm_up: Duration,
    /// Size of a value or session field
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Sessions or keys that the clients walk over
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..))]
    pub keys: u64,
    /// One multiplexed stream, or one gRPC call per operation as other languages do it
    #[arg(long, value_enum, default_value = "exchange")]
    pub transport: TransportArg,
    /// What listens at the endpoints; for etcd and Redis the first endpoint is used, kv-put and kv-get only
    #[arg(long, value_enum, default_value = "trolley")]
    pub system: System,
    /// With --system etcd: read from the member's own state, not linearizable
    #[arg(long)]
    pub serializable: bool,
    /// Servers whose CPU time is charged to the operations (same machine)
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// Instead of measuring, run this command by the shell, to kill a leader, and see how long no write succeeds
    #[arg(long, value_name = "COMMAND", conflicts_with = "fill_sessions")]
    pub kill_command: Option<String>,
    /// Create this many sessions of one field instead of measuring, to see what memory they take
    #[arg(long, value_name = "COUNT")]
    pub fill_sessions: Option<u64>,
    /// Idle TTL of the sessions that --fill-sessions creates
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", requires = "fill_sessions")]
    pub fill_idle_ttl: Option<Duration>,
    /// Whose sessions --fill-sessions creates, and revoke-all ends
    #[arg(long, value_name = "USER", default_value = "")]
    pub user: String,
    /// Measure how so many watchers of one node follow what the clients put, who wait for all of them; they share --connections
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["fill_sessions", "kill_command", "system", "operation"])]
    pub watchers: Option<u32>,
}

/// How operations travel to Trolley.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// Many to a frame.
    Exchange,
    /// One call each.
    Unary,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Trolley.
    Trolley,
    /// etcd.
    Etcd,
    /// Redis.
    Redis,
}

/// A benchmark did not come to a result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The records for the run could not be made.
    #[error("cannot prepare the run: {0}")]
    Prepare(#[from] crate::client::Error),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] bench::Error),
    /// etcd or Redis could not be reached.
    #[error("cannot reach the system: {0}")]
    Connect(String),
    /// The system has no such operation.
    #[error("{system:?} is measured by kv-put and kv-get only")]
    Operation {
        /// The system.
        system: System,
    },
}

/// What a benchmark found.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum Found {
    /// Throughput and latency.
    Report(Report),
    /// How long no write succeeded.
    Outage(Outage),
    /// How watchers follow.
    FanOut(FanOut),
    /// Memory was filled, nothing was measured.
    Nothing {},
}

/// Runs the benchmark.
pub async fn run(
    args: &BenchArgs,
    endpoints: &[String],
    config: &ClientConfig,
) -> Result<Found, BenchError> {
    let first = endpoints.first().map(String::as_str).unwrap_or_default();
    match args.system {
        System::Trolley => {
            let clients = clients(args, config)?;
            if let Some(count) = args.fill_sessions {
                let fill = Fill {
                    count,
                    value_bytes: args.value_bytes,
                    idle_ttl: args.fill_idle_ttl,
                    user: &args.user,
                };
                fill_sessions(&clients[0], &fill).await?;
                return Ok(Found::Nothing {});
            }
            let (size, keys) = (args.value_bytes, args.keys);
            if let Some(watchers) = args.watchers {
                let found = fan_out::run(&plan(args), &clients, watchers, size, keys).await?;
                return Ok(Found::FanOut(found));
            }
            let target = Trolley::prepare(clients, args.operation, size, keys, &args.user);
            drive(args, target.await?).await
        }
        System::Etcd => {
            let endpoint = format!("http://{first}");
            let (size, keys) = (args.value_bytes, args.keys);
            let target =
                etcd::Etcd::connect(&endpoint, etcd_operation(args)?, args.clients, size, keys);
            let target = target.await;
            drive(
                args,
                target.map_err(|e| BenchError::Connect(e.to_string()))?,
            )
            .await
        }
        System::Redis => {
            let (size, keys) = (args.value_bytes, args.keys);
            let target =
                redis::Redis::connect(first, redis_operation(args)?, args.connections, size, keys);
            let target = target.await;
            drive(
                args,
                target.map_err(|e| BenchError::Connect(e.to_string()))?,
            )
            .await
        }
    }
}

async fn drive<T: Target>(args: &BenchArgs, target: T) -> Result<Found, BenchError> {
    let target = Arc::new(target);
    if let Some(command) = &args.kill_command {
        let outage = bench::outage::measure(target, command).await?;
        return Ok(Found::Outage(outage));
    }
    Ok(Found::Report(bench::run(&plan(args), target).await?))
}

fn plan(args: &BenchArgs) -> Plan {
    Plan {
        clients: args.clients,
        warm_up: args.warm_up,
        duration: args.duration,
        server_pids: args.server_pids.clone(),
    }
}

fn clients(args: &BenchArgs, config: &ClientConfig) -> Result<Vec<Client>, crate::client::Error> {
    let transport = match args.transport {
        TransportArg::Exchange => Transport::Exchange,
        TransportArg::Unary => Transport::Unary,
    };
    (0..args.connections)
        .map(|_| Client::connect(config.clone().transport(transport)))
        .collect()
}

fn etcd_operation(args: &BenchArgs) -> Result<etcd::Operation, BenchError> {
    match args.operation {
        Operation::KvPut => Ok(etcd::Operation::Put),
        Operation::KvGet if args.serializable => Ok(etcd::Operation::SerializableGet),
        Operation::KvGet => Ok(etcd::Operation::Get),
        _ => Err(BenchError::Operation {
            system: args.system,
        }),
    }
}

fn redis_operation(args: &BenchArgs) -> Result<redis::Operation, BenchError> {
    match args.operation {
        Operation::KvPut => Ok(redis::Operation::Set),
        Operation::KvGet => Ok(redis::Operation::Get),
        _ => Err(BenchError::Operation {
            system: args.system,
        }),
    }
}

/// The report for people.
fn describe(report: &Report) -> String {
    let mut table = output::table(&[
        "clients",
        "op/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "errors",
        "server CPU µs/op",
    ]);
    let cpu = report
        .server_cpu_us_per_operation
        .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
    table.add_row([
        report.clients.to_string(),
        format!("{:.0}", report.operations_per_second),
        report.p50_us.to_string(),
        report.p99_us.to_string(),
        report.p999_us.to_string(),
        report.max_us.to_string(),
        report.errors.to_string(),
        cpu,
    ]);
    if report.errors == 0 {
        return table.to_string();
    }
    format!("{table}\nthe last error was: {}", report.last_error)
}

fn describe_fan_out(found: &FanOut) -> String {
    let mut table = output::table(&[
        "watchers",
        "clients",
        "events/s",
        "per watcher",
        "lag p50 µs",
        "lag p99 µs",
        "lag max µs",
        "server CPU µs/event",
    ]);
    let cpu = found
        .server_cpu_us_per_event
        .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
    table.add_row([
        found.watchers.to_string(),
        found.clients.to_string(),
        format!("{:.0}", found.events_per_second),
        format!("{:.0}", found.events_per_second_and_watcher),
        found.lag_p50_us.to_string(),
        found.lag_p99_us.to_string(),
        found.lag_max_us.to_string(),
        cpu,
    ]);
    table.to_string()
}

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  trolley bench --operation kv-put --clients 256
  trolley bench --operation kv-get --transport unary --duration 5s --json
  trolley bench --operation add-item --connections 4      # hipstershop.CartService at the leader
  trolley bench --watchers 1000 --clients 64
  trolley bench --system etcd --endpoints 127.0.0.1:2379 --operation kv-put

scripts/bench.sh runs this side by side with etcd and Redis.";

/// Runs the benchmark and prints what it found.
pub(super) async fn show(args: &BenchArgs, target: &Cluster) -> Result<(), Failure> {
    let found = run(args, &target.endpoints, &target.config()?).await?;
    output::show(
        target.form(),
        || serde_json::json!(found),
        || match &found {
            Found::Report(report) => describe(report),
            Found::FanOut(found) => describe_fan_out(found),
            Found::Outage(outage) => format!("no write succeeded for {} ms", outage.outage_ms),
            Found::Nothing {} => "done".to_owned(),
        },
    )?;
    Ok(())
}
