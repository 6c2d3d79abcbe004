//! `trolley cart`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::arguments::{self, ReadArgs, WriteArgs, identified, optional, pair, revision};
use super::failure::Failure;
use super::input::Input;
use super::output::{cart_line, money, readable, reply, show, table};
use crate::client::{CartOwner, LineRef, Reply};
use crate::proto::v1;
use crate::proto::v1::merged_into::Target;
use crate::types::Revision;

/// Whose cart.
#[derive(Debug, Args)]
pub(super) struct OwnerArgs {
    /// The cart of this user
    #[arg(long, value_name = "USER_ID", conflicts_with = "session")]
    user: Option<String>,
    /// The cart of the session with this token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
    #[arg(long, value_name = "TOKEN")]
    session: Option<String>,
}

impl OwnerArgs {
    pub fn owner(self) -> Result<CartOwner, Failure> {
        match self.user {
            Some(user) => Ok(CartOwner::User(user)),
            None => Ok(CartOwner::Session(Input::default().token(self.session)?)),
        }
    }
}

/// Which line.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct LineArgs {
    /// The line with this SKU, if there is only one
    #[arg(long)]
    sku: Option<String>,
    /// The line with this number
    #[arg(long, value_name = "N")]
    line_id: Option<u64>,
}

impl From<LineArgs> for LineRef {
    fn from(args: LineArgs) -> Self {
        match args.line_id {
            Some(id) => Self::Id(id),
            None => Self::Sku(args.sku.unwrap_or_default()),
        }
    }
}

/// What every change of a cart can be told.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Only if the cart is at this revision; 0: only if there is none yet
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    if_revision: Option<Revision>,
    #[command(flatten)]
    write: WriteArgs,
}

/// What to do with carts.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add pieces of a SKU
    #[command(
        after_help = "Examples:\n  trolley cart add SKU-1 2 --user alice --price 1999:EUR\n  trolley cart add SHIRT --attribute size=L"
    )]
    Add {
        /// What is added
        sku: String,
        /// How many pieces
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        quantity: i64,
        /// Price of one piece: minor units (cents, for EUR) and the currency's ISO 4217 code
        #[arg(long, value_name = "MINOR_UNITS:CURRENCY", value_parser = price)]
        price: Option<(i64, String)>,
        /// Tells lines of the same SKU apart
        #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = pair)]
        attributes: Vec<(String, String)>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Set a line's quantity
    Set {
        /// How many pieces
        #[arg(allow_negative_numbers = true)]
        quantity: i64,
        #[command(flatten)]
        line: LineArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove a line
    Remove {
        #[command(flatten)]
        line: LineArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove every line
    Clear {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Print a cart
    Get {
        #[command(flatten)]
        owner: OwnerArgs,
        /// The owner's own cart, even if it was merged into another
        #[arg(long)]
        own: bool,
        #[command(flatten)]
        read: ReadArgs,
    },
    #[command(flatten)]
    Whole(super::checkout::Verb),
}

/// Sends a change under its conditions.
macro_rules! send {
    ($builder:expr, $change:ident) => {{
        let builder = $builder;
        let builder = optional!(builder, if_revision, $change.if_revision);
        identified!(builder, $change.write).send().await?
    }};
}

impl Verb {
    pub async fn run(self, target: &arguments::Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let carts = client.carts();
        match self {
            Self::Add { .. } => self.add(target).await?,
            Self::Set {
                quantity,
                line,
                change,
            } => {
                let owner = change.owner.owner()?;
                let done = send!(carts.set_quantity(&owner, line.into(), quantity), change);
                show_line(target, &done, done.line.as_ref(), done.mod_revision)?;
            }
            Self::Remove { line, change } => {
                let owner = change.owner.owner()?;
                let done = send!(carts.remove(&owner, line.into()), change);
                show_line(target, &done, done.line.as_ref(), done.mod_revision)?;
            }
            Self::Clear { change } => {
                let owner = change.owner.owner()?;
                let done = send!(carts.clear(&owner), change);
                let (removed, revision) = (done.removed_lines, done.mod_revision);
                let fields = json!({ "removed_lines": removed, "mod_revision": revision });
                show(
                    target.form(),
                    || reply(&done, fields),
                    || format!("{removed} lines removed"),
                )?;
            }
            Self::Get { owner, own, read } => {
                let get = carts.get(&owner.owner()?);
                let get = if own { get.own() } else { get };
                let cart = get.consistency(read.consistency()).send().await?;
                let json = || reply(&cart, json!({ "cart": cart_value(&cart) }));
                show(target.form(), json, || cart_sheet(&cart))?;
            }
            Self::Whole(verb) => verb.run(&client, target).await?,
        }
        Ok(())
    }

    async fn add(self, target: &arguments::Target) -> Result<(), Failure> {
        let Self::Add {
            sku,
            quantity,
            price,
            attributes,
            change,
        } = self
        else {
            return Ok(());
        };
        let client = target.connect()?;
        let owner = change.owner.owner()?;
        let mut add = client.carts().add(&owner, sku, quantity);
        if let Some((minor_units, currency)) = price {
            add = add.unit_price(minor_units, currency);
        }
        for (name, value) in attributes {
            add = add.attribute(name, value);
        }
        let done = send!(add, change);
        show_line(target, &done, done.line.as_ref(), done.mod_revision)?;
        Ok(())
    }
}

pub(super) fn price(text: &str) -> Result<(i64, String), String> {
    const EXPECTED: &str = "expected minor units and a currency, for example 1999:EUR";
    let (minor_units, currency) = text.split_once(':').ok_or(EXPECTED)?;
    let minor_units = minor_units.parse().map_err(|_| EXPECTED)?;
    Ok((minor_units, currency.to_owned()))
}

fn show_line<T>(
    target: &arguments::Target,
    done: &Reply<T>,
    line: Option<&v1::CartLine>,
    revision: u64,
) -> Result<(), Failure> {
    let json = || {
        let fields = json!({ "line": line.map(cart_line), "mod_revision": revision });
        reply(done, fields)
    };
    show(target.form(), json, || {
        let mut table = line_table();
        table.add_rows(line.map(line_row));
        format!("{table}\ncart at revision {revision}")
    })
}

/// A cart as JSON, with the protos' names.
pub(super) fn cart_value(cart: &v1::Cart) -> Value {
    let lines: Vec<_> = cart.lines.iter().map(cart_line).collect();
    let details = cart.details.clone().unwrap_or_default();
    let freeze = cart.freeze.as_ref();
    let freeze = freeze.map(|freeze| {
        json!({
            "holder": freeze.holder,
            "revision": freeze.revision,
            "deadline_ms": freeze.deadline_ms,
        })
    });
    let merged_into = cart
        .merged_into
        .as_ref()
        .map(|merged| match &merged.target {
            Some(Target::UserId(user)) => json!({ "user_id": user }),
            Some(Target::Session(_)) | None => json!({ "session": true }),
        });
    json!({
        "lines": lines,
        "create_revision": cart.create_revision,
        "mod_revision": cart.mod_revision,
        "state": cart.state().as_str_name(),
        "subtotal": cart.subtotal.as_ref().map(money),
        "total_quantity": cart.total_quantity,
        "details": {
            "note": details.note,
            "coupon_codes": details.coupon_codes,
            "attributes": details.attributes,
            "shipping_address": details.shipping_address,
            "billing_address": details.billing_address,
        },
        "deadline_ms": cart.deadline_ms,
        "freeze": freeze,
        "order_id": cart.order_id,
        "merged_into": merged_into,
    })
}

/// A cart for people: its lines, then what else there is to say.
pub(super) fn cart_sheet(cart: &v1::Cart) -> String {
    let mut parts = Vec::new();
    if cart.lines.is_empty() {
        parts.push("the cart is empty".to_owned());
    } else {
        let mut table = line_table();
        table.add_rows(cart.lines.iter().map(line_row));
        parts.push(table.to_string());
    }
    if let Some(subtotal) = &cart.subtotal {
        parts.push(format!(
            "subtotal {} {}, {} pieces",
            subtotal.minor_units, subtotal.currency, cart.total_quantity
        ));
    }
    parts.extend(cart.details.as_ref().into_iter().flat_map(detail_lines));
    parts.extend(cart.freeze.as_ref().map(super::checkout::freeze_line));
    if !cart.order_id.is_empty() {
        parts.push(format!("ordered: {}", cart.order_id));
    }
    parts.extend(
        cart.merged_into
            .as_ref()
            .map(|merged| match &merged.target {
                Some(Target::UserId(user)) => format!("merged into the cart of user {user}"),
                Some(Target::Session(_)) | None => "merged into the cart of a session".to_owned(),
            }),
    );
    parts.push(format!("cart at revision {}", cart.mod_revision));
    parts.join("\n")
}

fn detail_lines(details: &v1::CartDetails) -> Vec<String> {
    let map = |map: &BTreeMap<String, String>| {
        let fields = map.iter().map(|(name, value)| format!("{name}={value}"));
        fields.collect::<Vec<_>>().join("; ")
    };
    let named = [
        ("note", details.note.clone()),
        ("coupon codes", details.coupon_codes.join(" ")),
        ("attributes", map(&details.attributes)),
        ("shipping", map(&details.shipping_address)),
        ("billing", map(&details.billing_address)),
    ];
    let given = named.into_iter().filter(|(_, text)| !text.is_empty());
    // They come from shoppers, and may hold anything.
    given
        .map(|(name, text)| format!("{name}: {}", readable(&text.into())))
        .collect()
}

fn line_table() -> comfy_table::Table {
    table(&[
        "line",
        "sku",
        "quantity",
        "unit price",
        "total",
        "attributes",
    ])
}

fn line_row(line: &v1::CartLine) -> [String; 6] {
    let price = line.unit_price.as_ref();
    let total = price.map(|_| line.total_minor_units.to_string());
    let price = price.map(|price| format!("{} {}", price.minor_units, price.currency));
    let attributes = line.attributes.iter();
    let attributes: Vec<_> = attributes
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    [
        line.line_id.to_string(),
        line.sku.clone(),
        line.quantity.to_string(),
        price.unwrap_or_default(),
        total.unwrap_or_default(),
        attributes.join(" "),
    ]
}
