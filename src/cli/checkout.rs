//! `trolley cart`: several actions at once, merges, and orders.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::arguments::{Form, Target, WriteArgs, identified, lifetime, optional, revision};
use super::cart::{OwnerArgs, cart_sheet, cart_value};
use super::failure::Failure;
use super::input::Input;
use super::output::{money, reply, show, time};
use super::{cart_actions, cart_actions::action};
use crate::client::{CartOwner, Client, MergePolicy, Reply, UpdateCart};
use crate::proto::v1::{self, cart_action::Action};
use crate::types::Revision;

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PolicyArg {
    /// All lines of both; quantities of the same line are added up
    Sum,
    /// All lines of both; of the same line the greater quantity
    Max,
    /// The target stays as it is
    KeepTarget,
    /// What the source held, unless it has no lines
    KeepSource,
    /// What the source held, where the target has no lines
    SourceIfTargetEmpty,
}

impl From<PolicyArg> for MergePolicy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Sum => Self::Sum,
            PolicyArg::Max => Self::Max,
            PolicyArg::KeepTarget => Self::KeepTarget,
            PolicyArg::KeepSource => Self::KeepSource,
            PolicyArg::SourceIfTargetEmpty => Self::SourceIfTargetEmpty,
        }
    }
}

/// Which cart is merged; its owner fills the other from then on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SourceArgs {
    /// Merge the cart of this user
    #[arg(long, value_name = "USER_ID")]
    from_user: Option<String>,
    /// Merge the cart of the session with this token; - reads it from standard input
    #[arg(long, value_name = "TOKEN")]
    from_session: Option<String>,
}

impl SourceArgs {
    fn owner(self) -> Result<CartOwner, Failure> {
        match self.from_user {
            Some(user) => Ok(CartOwner::User(user)),
            None => Ok(CartOwner::Session(
                Input::default().token(self.from_session)?,
            )),
        }
    }
}

/// What to do with whole carts.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Do several things at once: all of them or none
    #[command(after_help = cart_actions::HELP)]
    Update {
        /// What to do, in this order
        #[arg(required = true, value_name = "ACTION", value_parser = action)]
        actions: Vec<Action>,
        #[command(flatten)]
        owner: OwnerArgs,
        /// Only if the cart is at this revision; 0: only if there is none yet
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        if_revision: Option<Revision>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Move what one cart holds into another, whose owner both are from then on
    #[command(
        after_help = "Example, at login:\n  trolley cart merge --from-session \"$TROLLEY_TOKEN\" --user alice --policy sum"
    )]
    Merge {
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        target: OwnerArgs,
        /// What becomes of the lines
        #[arg(long, value_enum)]
        policy: PolicyArg,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Keep a cart as it is while an order is taken from it
    #[command(
        after_help = concat!(
            "Example:\n",
            "  trolley cart freeze till-1 --user alice --lease 10m\n",
            "  trolley cart complete-order ORDER-1 --holder till-1 --revision 7 --user alice",
        )
    )]
    Freeze {
        /// Who takes the order
        holder: String,
        #[command(flatten)]
        owner: OwnerArgs,
        /// How long, at most a day; freezing again renews it [default: 10m]
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        lease: Option<Duration>,
        /// Only if the cart is at this revision
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        if_revision: Option<Revision>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// End a freeze without an order
    Release {
        /// Who froze the cart
        holder: String,
        #[command(flatten)]
        owner: OwnerArgs,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// End a freeze with an order: take out of the cart what was frozen
    CompleteOrder {
        /// The order; the same one is completed once
        order_id: String,
        /// Who froze the cart
        #[arg(long)]
        holder: String,
        /// The revision that the freeze answered
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        revision: Revision,
        #[command(flatten)]
        owner: OwnerArgs,
        #[command(flatten)]
        write: WriteArgs,
    },
}

impl Verb {
    pub async fn run(self, client: &Client, target: &Target) -> Result<(), Failure> {
        let carts = client.carts();
        match self {
            Self::Update {
                actions,
                owner,
                if_revision,
                write,
            } => {
                let update = carts.update(&owner.owner()?);
                let update = optional!(update, if_revision, if_revision);
                let update = actions.into_iter().fold(update, UpdateCart::action);
                let done = identified!(update, write).send().await?;
                show_updated(target.form(), &done)?;
            }
            Self::Merge {
                source,
                target: into,
                policy,
                write,
            } => {
                let merge = carts.merge(&source.owner()?, &into.owner()?, policy.into());
                let done = identified!(merge, write).send().await?;
                show_merged(target.form(), &done)?;
            }
            Self::Freeze {
                holder,
                owner,
                lease,
                if_revision,
                write,
            } => {
                let freeze = carts.freeze(&owner.owner()?, holder);
                let freeze = optional!(freeze, lease, lease);
                let freeze = optional!(freeze, if_revision, if_revision);
                let done = identified!(freeze, write).send().await?;
                let json = || {
                    let fields = json!({
                        "revision": done.freeze_revision.get(),
                        "deadline_ms": done.deadline_ms,
                        "snapshot": cart_value(&done.snapshot),
                    });
                    reply(&done, fields)
                };
                show(target.form(), json, || cart_sheet(&done.snapshot))?;
            }
            Self::Release {
                holder,
                owner,
                write,
            } => {
                let release = carts.release(&owner.owner()?, holder);
                let done = identified!(release, write).send().await?;
                let json = || reply(&done, json!({ "mod_revision": done.mod_revision }));
                show(target.form(), json, || "the cart is open".to_owned())?;
            }
            Self::CompleteOrder {
                order_id,
                holder,
                revision,
                owner,
                write,
            } => {
                let complete = carts.complete_order(&owner.owner()?, holder, revision, order_id);
                let done = identified!(complete, write).send().await?;
                show_completed(target.form(), &done)?;
            }
        }
        Ok(())
    }
}

fn show_updated(form: Form, done: &Reply<v1::UpdateCartResponse>) -> Result<(), Failure> {
    let json = || {
        let results = done.results.iter();
        let results = results.map(|it| json!({ "line_id": it.line_id, "quantity": it.quantity }));
        let fields = json!({
            "mod_revision": done.mod_revision,
            "results": results.collect::<Vec<_>>(),
            "subtotal": done.subtotal.as_ref().map(money),
            "total_quantity": done.total_quantity,
        });
        reply(done, fields)
    };
    show(form, json, || {
        let (actions, pieces) = (done.results.len(), done.total_quantity);
        let revision = done.mod_revision;
        format!("{actions} actions done: {pieces} pieces, cart at revision {revision}")
    })
}

fn show_merged(form: Form, done: &Reply<v1::MergeCartsResponse>) -> Result<(), Failure> {
    let json = || {
        let fields = json!({
            "already_merged": done.already_merged,
            "mod_revision": done.mod_revision,
            "taken_lines": done.taken_lines,
            "dropped_lines": done.dropped_lines,
        });
        reply(done, fields)
    };
    show(form, json, || {
        if done.already_merged {
            return "they had been merged before".to_owned();
        }
        let (taken, dropped) = (done.taken_lines, done.dropped_lines);
        format!("merged; lines taken: {taken}, dropped: {dropped}")
    })
}

fn show_completed(form: Form, done: &Reply<v1::CompleteOrderResponse>) -> Result<(), Failure> {
    let json = || {
        let fields = json!({
            "already_completed": done.already_completed,
            "mod_revision": done.mod_revision,
            "remaining_lines": done.remaining_lines,
        });
        reply(done, fields)
    };
    show(form, json, || {
        let before = if done.already_completed {
            " before"
        } else {
            ""
        };
        let left = done.remaining_lines;
        format!("completed{before}; {left} lines stayed in the cart")
    })
}

/// A lease as people read it.
pub(super) fn freeze_line(freeze: &crate::proto::v1::CartFreeze) -> String {
    let until = time(freeze.deadline_ms);
    format!(
        "frozen by {} until {until}, revision {}",
        freeze.holder, freeze.revision
    )
}
