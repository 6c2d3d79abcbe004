//! `trolley lease`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::arguments::{ReadArgs, Target, WriteArgs, identified, lifetime};
use super::failure::Failure;
use super::output::{reply, sheet, show, span, time};

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Grant a lease, and print its id
    #[command(
        after_help = concat!(
            "Example: a key that is gone ten seconds after its owner fell silent.\n",
            "  lease=$(trolley lease grant 10s)\n",
            "  trolley kv put workers/a up --lease $lease --if-absent\n",
            "  while sleep 3; do trolley lease keep-alive $lease || break; done",
        )
    )]
    Grant {
        /// How long it lives unless it is kept alive
        #[arg(value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        ttl: Duration,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Give a lease its whole time again
    KeepAlive {
        /// The lease
        #[arg(value_name = "LEASE")]
        id: u64,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// End a lease, and its keys with it
    Revoke {
        /// The lease
        #[arg(value_name = "LEASE")]
        id: u64,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Print how long a lease lives, and its keys
    Get {
        /// The lease
        #[arg(value_name = "LEASE")]
        id: u64,
        #[command(flatten)]
        read: ReadArgs,
    },
}

impl Verb {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let leases = client.leases();
        match self {
            Self::Grant { ttl, write } => {
                let done = identified!(leases.grant(ttl), write).send().await?;
                let json = || {
                    let fields = json!({
                        "lease_id": done.lease_id,
                        "ttl_ms": done.ttl_ms,
                        "deadline_ms": done.deadline_ms,
                    });
                    reply(&done, fields)
                };
                show(target.form(), json, || done.lease_id.to_string())?;
            }
            Self::KeepAlive { id, write } => {
                let done = identified!(leases.keep_alive(id), write).send().await?;
                let json = || {
                    let fields = json!({ "ttl_ms": done.ttl_ms, "deadline_ms": done.deadline_ms });
                    reply(&done, fields)
                };
                show(target.form(), json, || {
                    format!("lives until {}", time(done.deadline_ms))
                })?;
            }
            Self::Revoke { id, write } => {
                let done = identified!(leases.revoke(id), write).send().await?;
                let keys = done.deleted_keys;
                show(
                    target.form(),
                    || reply(&done, json!({ "deleted_keys": keys })),
                    || format!("revoked, {keys} keys deleted"),
                )?;
            }
            Self::Get { id, read } => {
                let get = leases.get(id).consistency(read.consistency());
                let lease = get.send().await?;
                let json = || {
                    let fields = json!({
                        "ttl_ms": lease.ttl_ms,
                        "deadline_ms": lease.deadline_ms,
                        "keys": lease.keys,
                    });
                    reply(&lease, fields)
                };
                show(target.form(), json, || {
                    let known = [
                        ("ttl".to_owned(), span(Duration::from_millis(lease.ttl_ms))),
                        ("deadline".to_owned(), time(lease.deadline_ms)),
                    ];
                    let keys = lease.keys.iter().map(|key| ("key".to_owned(), key.clone()));
                    sheet(known.into_iter().chain(keys))
                })?;
            }
        }
        Ok(())
    }
}
