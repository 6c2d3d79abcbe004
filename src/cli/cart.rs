//! `trolley cart`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::arguments::{ReadArgs, Target, WriteArgs, identified, optional, pair, revision};
use super::failure::Failure;
use super::input::Input;
use super::output::{cart_line, reply, show, table};
use crate::client::{CartOwner, LineRef, Reply};
use crate::proto::v1;
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
    fn owner(self) -> Result<CartOwner, Failure> {
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
        #[command(flatten)]
        read: ReadArgs,
    },
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
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
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
                show_line(target, &done, done.line.as_ref(), done.mod_revision);
            }
            Self::Remove { line, change } => {
                let owner = change.owner.owner()?;
                let done = send!(carts.remove(&owner, line.into()), change);
                show_line(target, &done, done.line.as_ref(), done.mod_revision);
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
                );
            }
            Self::Get { owner, read } => {
                let get = carts.get(&owner.owner()?);
                let cart = get.consistency(read.consistency()).send().await?;
                show(target.form(), || cart_json(&cart), || cart_table(&cart));
            }
        }
        Ok(())
    }

    async fn add(self, target: &Target) -> Result<(), Failure> {
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
        show_line(target, &done, done.line.as_ref(), done.mod_revision);
        Ok(())
    }
}

fn price(text: &str) -> Result<(i64, String), String> {
    const EXPECTED: &str = "expected minor units and a currency, for example 1999:EUR";
    let (minor_units, currency) = text.split_once(':').ok_or(EXPECTED)?;
    let minor_units = minor_units.parse().map_err(|_| EXPECTED)?;
    Ok((minor_units, currency.to_owned()))
}

fn show_line<T>(target: &Target, done: &Reply<T>, line: Option<&v1::CartLine>, revision: u64) {
    let json = || {
        let fields = json!({ "line": line.map(cart_line), "mod_revision": revision });
        reply(done, fields)
    };
    show(target.form(), json, || {
        let mut table = line_table();
        table.add_rows(line.map(line_row));
        format!("{table}\ncart at revision {revision}")
    });
}

fn cart_json(cart: &Reply<v1::Cart>) -> Value {
    let lines: Vec<_> = cart.lines.iter().map(cart_line).collect();
    let fields = json!({
        "lines": lines,
        "create_revision": cart.create_revision,
        "mod_revision": cart.mod_revision,
    });
    reply(cart, json!({ "cart": fields }))
}

fn cart_table(cart: &v1::Cart) -> String {
    if cart.lines.is_empty() {
        return "the cart is empty".to_owned();
    }
    let mut table = line_table();
    table.add_rows(cart.lines.iter().map(line_row));
    format!("{table}\ncart at revision {}", cart.mod_revision)
}

fn line_table() -> comfy_table::Table {
    table(&["line", "sku", "quantity", "unit price", "attributes"])
}

fn line_row(line: &v1::CartLine) -> [String; 5] {
    let price = line.unit_price.as_ref();
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
        attributes.join(" "),
    ]
}
