//! `trolley kv`.

use std::time::Duration;

use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use serde_json::json;

use super::arguments::{
    Form, ReadArgs, Target, WriteArgs, identified, lifetime, optional, revision,
};
use super::failure::Failure;
use super::input::Input;
use super::output::{self, key_value, readable, reply, show, table, time};
use crate::proto::v1;
use crate::types::Revision;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a key's value as it is; with --json all that is known of it
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Write a key
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  trolley kv put greeting hello --ttl 1h\n",
            "  trolley kv put photo - < photo.jpg\n",
            "  trolley kv put lock me --if-absent --ttl 30s",
        )
    )]
    Put {
        /// The key
        key: String,
        /// Its value; - reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// How long it lives; until it is deleted without
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        ttl: Option<Duration>,
        /// The key dies with this lease
        #[arg(long, value_name = "LEASE", value_parser = clap::value_parser!(u64).range(1..))]
        lease: Option<u64>,
        #[command(flatten)]
        condition: Condition,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a key
    Delete {
        /// The key
        key: String,
        /// Only if the key is at this revision
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        if_revision: Option<Revision>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// List keys in byte order
    List(ListArgs),
    /// Add to a counter, and print the sum
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  trolley kv incr stock/SKU-1 -2 --min 0       # fails, with exit code 4, rather than sell what is not there\n",
            "  trolley kv incr stock/SKU-1 100 --max 500\n",
            "  trolley kv incr visits/10.0.0.1 --ttl 1m --max 60\n\n",
            "The sum must keep to the bounds; the failure tells what the counter holds.",
        )
    )]
    Incr(IncrArgs),
}

/// What to add.
#[derive(Debug, Args)]
pub(super) struct IncrArgs {
    /// The counter
    key: String,
    /// What to add; negative to take away
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    delta: i64,
    /// The sum must not be below
    #[arg(long, allow_negative_numbers = true)]
    min: Option<i64>,
    /// The sum must not be above
    #[arg(long, allow_negative_numbers = true)]
    max: Option<i64>,
    /// What a counter that is not there counts from
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    initial: i64,
    /// How long a counter that is not there will live; until it is deleted without
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    ttl: Option<Duration>,
    #[command(flatten)]
    write: WriteArgs,
}

/// At most one.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Condition {
    /// Only if the key is at this revision
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    if_revision: Option<Revision>,
    /// Only if there is no such key
    #[arg(long)]
    if_absent: bool,
}

/// What to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only keys that begin so
    #[arg(default_value = "")]
    prefix: String,
    /// Keys in one page, at most 1000 [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where the previous page ended
    #[arg(long, conflicts_with = "all")]
    cursor: Option<String>,
    /// All pages
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    read: ReadArgs,
}

impl Verb {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let keys = client.keys();
        match self {
            Self::Get { key, read } => {
                let got = keys.get(key).consistency(read.consistency()).send().await?;
                match target.form() {
                    Form::Json => {
                        let fields = json!({ "item": key_value(&got) });
                        output::line(&reply(&got, fields).to_string())?;
                    }
                    Form::People => {
                        show_value(&got.value.value)?;
                    }
                }
            }
            Self::Put {
                key,
                value,
                ttl,
                lease,
                condition,
                write,
            } => {
                let put = keys.put(key, Input::default().value(value)?);
                let put = optional!(put, ttl, ttl);
                let put = optional!(put, lease, lease);
                let put = optional!(put, if_revision, condition.if_revision);
                let put = if condition.if_absent {
                    put.if_absent()
                } else {
                    put
                };
                let done = identified!(put, write).send().await?;
                let json = || {
                    let fields = json!({
                        "create_revision": done.create_revision,
                        "mod_revision": done.mod_revision,
                        "deadline_ms": done.deadline_ms,
                    });
                    reply(&done, fields)
                };
                show(target.form(), json, || {
                    format!("at revision {}", done.mod_revision)
                })?;
            }
            Self::Delete {
                key,
                if_revision,
                write,
            } => {
                let delete = keys.delete(key);
                let delete = optional!(delete, if_revision, if_revision);
                let done = identified!(delete, write).send().await?;
                show(
                    target.form(),
                    || reply(&done, json!({})),
                    || "deleted".to_owned(),
                )?;
            }
            Self::List(args) => list(args, target).await?,
            Self::Incr(args) => increment(args, target).await?,
        }
        Ok(())
    }
}

/// The value itself, so that it can be piped; a terminal gets a line's end, and no control characters.
fn show_value(value: &bytes::Bytes) -> Result<output::Reader, Failure> {
    use std::io::IsTerminal as _;
    if std::io::stdout().is_terminal() {
        output::people(&readable(value))
    } else {
        output::raw(value)
    }
}

async fn increment(args: IncrArgs, target: &Target) -> Result<(), Failure> {
    let client = target.connect()?;
    let increment = client.keys().increment(args.key, args.delta);
    let increment = increment.initial(args.initial);
    let increment = optional!(increment, min, args.min);
    let increment = optional!(increment, max, args.max);
    let increment = optional!(increment, ttl, args.ttl);
    let done = identified!(increment, args.write).send().await?;
    let json = || {
        let fields = json!({
            "value": done.value.value,
            "create_revision": done.create_revision,
            "mod_revision": done.mod_revision,
            "deadline_ms": done.deadline_ms,
        });
        reply(&done, fields)
    };
    show(target.form(), json, || done.value.value.to_string())?;
    Ok(())
}

async fn list(args: ListArgs, target: &Target) -> Result<(), Failure> {
    let client = target.connect()?;
    let list = client.keys().list().prefix(args.prefix);
    let list = list.consistency(args.read.consistency());
    let list = optional!(list, limit, args.limit);
    let list = optional!(list, cursor, args.cursor);
    if !args.all {
        let page = list.send().await?;
        let json = || {
            let items: Vec<_> = page.items.iter().map(key_value).collect();
            reply(
                &page,
                json!({ "items": items, "next_cursor": page.next_cursor }),
            )
        };
        show(target.form(), json, || {
            let table = item_table(&page.items);
            if page.next_cursor.is_empty() {
                table
            } else {
                format!("{table}\nmore: --cursor {}, or --all", page.next_cursor)
            }
        })?;
        return Ok(());
    }
    // A page at a time, so that a listing of any length takes no memory.
    let mut pages = std::pin::pin!(list.pages());
    while let Some(page) = pages.try_next().await? {
        match target.form() {
            Form::Json => {
                for item in &page.items {
                    output::line(&key_value(item).to_string())?;
                }
            }
            Form::People => {
                output::people(&item_table(&page.items))?;
            }
        }
    }
    Ok(())
}

fn item_table(items: &[v1::KeyValue]) -> String {
    if items.is_empty() {
        return "no keys".to_owned();
    }
    let mut table = table(&["key", "value", "revision", "lives until"]);
    table.add_rows(items.iter().map(|item| {
        [
            item.key.clone(),
            readable(&item.value),
            item.mod_revision.to_string(),
            time(item.deadline_ms),
        ]
    }));
    table.to_string()
}
