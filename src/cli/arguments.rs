//! The arguments as they are typed.

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::failure::{Failure, Recourse};
use super::{bench, cart, cluster, demo, kv, lease, namespace, session, txn, watch};
use crate::client::{Client, ClientConfig, Consistency};
use crate::types::Revision;

const EXAMPLES: &str = "\
Examples:
  trolley serve --single --data-dir /var/lib/trolley
  trolley session create --field theme=dark
  TROLLEY_TOKEN=... trolley cart add SKU-1 2
  trolley kv put greeting hello && trolley kv get greeting
  trolley watch --user ada
  trolley --help, trolley cart add --help

Exit codes of every verb but `serve` and `gateway`:
  0  done
  1  something else went wrong
  2  usage, or a request that is invalid or beyond a limit
  3  not found
  4  conflict: exists already, is at another revision, or another precondition does not hold
  5  unavailable, or out of time; the message says whether a write was certainly not applied, or
     may have been, and what to do then";

/// A duration as people write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write it as 30s, 15m or 2h";
    let is_negative = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    if is_negative {
        return Err(format!("a duration is not negative; {EXAMPLES}"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; {EXAMPLES}"))
}

/// A number of what nothing can be done without.
pub(super) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// How long something lives, or is held: what has no time at all would be gone at once, and who writes 0 means no end.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < Duration::from_millis(1) {
        return Err("it would be over at once: give it a millisecond or more".to_owned());
    }
    Ok(lifetime)
}

/// A replicated store for web sessions and shopping carts.
#[derive(Debug, Parser)]
#[command(name = "trolley", version, after_help = EXAMPLES, max_term_width = 110)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Serve(Box<crate::config::ServeArgs>),
    Gateway(Box<crate::config::GatewayArgs>),
    #[command(flatten)]
    Client(Box<ClientVerb>),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  trolley completions bash > ~/.local/share/bash-completion/completions/trolley"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What talks to a cluster.
#[derive(Debug, Subcommand)]
pub(super) enum ClientVerb {
    /// Create, read, change and end sessions
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Session {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: session::Verb,
    },
    /// Fill and read carts
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Cart {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: cart::Verb,
    },
    /// Read and write plain keys
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Kv {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: kv::Verb,
    },
    /// Grant, keep alive, revoke and read leases, which keep keys alive
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Lease {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: lease::Verb,
    },
    /// Carry out several operations as one: all of them or none
    #[command(after_help = txn::EXAMPLES)]
    Txn {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: txn::TxnArgs,
    },
    /// Read and change the settings of a namespace: limits and lives of its sessions and carts
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Namespace {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: namespace::Verb,
    },
    /// Print what happens to sessions, carts and keys, as it happens
    #[command(after_help = watch::EXAMPLES)]
    Watch {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: watch::WatchArgs,
    },
    /// Look at the cluster, move its leader, make snapshots
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Cluster {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        verb: cluster::Verb,
    },
    /// Measure, in a closed loop
    #[command(after_help = bench::EXAMPLES)]
    Bench {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: bench::BenchArgs,
    },
    /// Fill a cart from many tasks, kill the leader, and account for every write
    #[command(after_help = demo::EXAMPLES)]
    Demo {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: demo::DemoArgs,
    },
}

/// How output looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    People,
    Json,
}

/// Which cluster, and how to talk about it.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// Any of the cluster's members, separated by commas; the others are found
    #[arg(
        long,
        global = true,
        env = "TROLLEY_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = crate::config::DEFAULT_ENDPOINTS
    )]
    pub endpoints: Vec<String>,
    /// Whose records
    #[arg(
        long,
        global = true,
        env = "TROLLEY_NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// How long a call may take in all, retries included
    #[arg(
        long,
        global = true,
        env = "TROLLEY_TIMEOUT",
        value_parser = duration,
        allow_hyphen_values = true,
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub timeout: Duration,
    /// Print JSON, with the field names of the protos
    #[arg(long, global = true)]
    pub json: bool,
}

impl Target {
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::People }
    }

    pub fn config(&self) -> Result<ClientConfig, Failure> {
        let config = ClientConfig::new(&self.endpoints)?;
        Ok(config
            .namespace(self.namespace.clone())
            .timeout(self.timeout))
    }

    pub fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.config()?)?)
    }
}

impl ClientVerb {
    fn target(&self) -> &Target {
        match self {
            Self::Session { target, .. }
            | Self::Cart { target, .. }
            | Self::Kv { target, .. }
            | Self::Lease { target, .. }
            | Self::Txn { target, .. }
            | Self::Namespace { target, .. }
            | Self::Watch { target, .. }
            | Self::Cluster { target, .. }
            | Self::Bench { target, .. }
            | Self::Demo { target, .. } => target,
        }
    }

    pub fn form(&self) -> Form {
        self.target().form()
    }

    /// How to find out what became of it, where that is unknown.
    pub fn recourse(&self) -> Recourse {
        match self {
            Self::Cluster { .. } => Recourse::Cluster,
            _ => Recourse::Records,
        }
    }

    /// How many threads it wants, if it is of an opinion.
    pub fn threads(&self) -> Option<u16> {
        match self {
            Self::Bench { args, .. } => args.threads,
            _ => None,
        }
    }

    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Session { target, verb } => verb.run(&target).await?,
            Self::Cart { target, verb } => verb.run(&target).await?,
            Self::Kv { target, verb } => verb.run(&target).await?,
            Self::Lease { target, verb } => verb.run(&target).await?,
            Self::Txn { target, args } => args.run(&target).await?,
            Self::Namespace { target, verb } => verb.run(&target).await?,
            Self::Watch { target, args } => return watch::run(args, &target).await,
            Self::Cluster { target, verb } => verb.run(&target).await?,
            Self::Bench { target, args } => bench::show(&args, &target).await?,
            Self::Demo { target, args } => return demo::run(&args, &target).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What every write can be told.
#[derive(Debug, Clone, Args)]
pub(super) struct WriteArgs {
    /// Name this write: repeated under the same name, it returns the first reply and is not applied again
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub request_id: Option<String>,
}

/// Hands a request id to a builder, if there is one.
macro_rules! identified {
    ($builder:expr, $write:expr) => {
        match $write.request_id {
            Some(id) => $builder.request_id(id),
            None => $builder,
        }
    };
}
pub(super) use identified;

/// A flag that is not given changes nothing.
macro_rules! optional {
    ($builder:ident, $method:ident, $flag:expr) => {
        match $flag {
            Some(value) => $builder.$method(value),
            None => $builder,
        }
    };
}
pub(super) use optional;

/// What every read can be told.
#[derive(Debug, Clone, Args)]
pub(super) struct ReadArgs {
    /// How fresh the answer must be; at-least takes its revision from --min-revision
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ConsistencyArg,
    /// With --consistency at-least: the `revision` of an earlier answer
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        default_value_if("consistency", "linearizable", "0")
    )]
    min_revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConsistencyArg {
    /// Sees every write that was acknowledged before
    Linearizable,
    /// Sees at least --min-revision, from any node
    AtLeast,
    /// Sees whatever the answering node has
    Stale,
}

impl ReadArgs {
    pub fn consistency(&self) -> Consistency {
        match self.consistency {
            ConsistencyArg::Linearizable => Consistency::Linearizable,
            ConsistencyArg::AtLeast => Consistency::AtLeast(Revision::new(self.min_revision)),
            ConsistencyArg::Stale => Consistency::Stale,
        }
    }
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A revision of an earlier answer.
pub(super) fn revision(text: &str) -> Result<Revision, std::num::ParseIntError> {
    text.parse().map(Revision::new)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_the_target_are_understood_after_the_verb() {
        let line = "trolley kv get greeting --endpoints a:1,b:2 --json --consistency stale";
        let arguments = Arguments::try_parse_from(line.split(' ')).expect("it is well formed");
        let Verb::Client(verb) = arguments.verb else {
            panic!("kv is a client's verb");
        };
        assert_eq!(verb.form(), Form::Json);
        assert_eq!(verb.target().endpoints, ["a:1", "b:2"]);
    }

    #[test]
    fn a_negative_duration_is_told_from_an_unknown_flag() {
        for line in [
            "trolley kv put k v --ttl -5s",
            "trolley kv put k v --timeout -5s --json",
            "trolley session create --idle-ttl -1m",
            "trolley lease grant -5s --json",
        ] {
            let refused = Arguments::try_parse_from(line.split(' ')).expect_err("it is negative");
            let message = refused.to_string();
            assert!(message.contains("a duration is not negative"), "{message}");
        }
        let line = "trolley lease grant --json 5s";
        assert!(Arguments::try_parse_from(line.split(' ')).is_ok());
    }

    #[test]
    fn what_would_be_over_at_once_is_refused() {
        for words in [
            "kv put k v --ttl",
            "kv incr k --ttl",
            "lease grant",
            "session create --idle-ttl",
            "session create --absolute-ttl",
            "session update token --idle-ttl",
            "session update token --absolute-ttl",
            "session rotate token --idle-ttl",
            "session rotate token --absolute-ttl",
            "cart freeze till --user ada --lease",
            "namespace set --idle-ttl",
            "namespace set --idle-ttl-min",
            "namespace set --idle-ttl-max",
            "namespace set --absolute-ttl",
            "namespace set --absolute-ttl-min",
            "namespace set --absolute-ttl-max",
            "namespace set --cart-ttl-empty",
            "namespace set --cart-ttl-guest",
            "namespace set --cart-ttl-user",
        ] {
            let parsed =
                |ttl| Arguments::try_parse_from(format!("trolley {words} {ttl}").split(' '));
            for nothing in ["0s", "0ms", "999us"] {
                let refused = parsed(nothing).expect_err(words).to_string();
                assert!(refused.contains("over at once"), "{words}: {refused}");
            }
            assert!(parsed("1ms").is_ok(), "{words}");
        }
        // Each touch is stored then.
        let line = "trolley namespace set --touch-interval 0s";
        assert!(Arguments::try_parse_from(line.split(' ')).is_ok());
    }

    #[test]
    fn a_pair_keeps_what_follows_its_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("ab").is_err());
    }
}
