//! Orders: what the visitor's cart held, taken out of it once.
//!
//! ```text
//! click ─▶ freeze the cart, as the page showed it ─▶ one transaction: what was frozen leaves the cart, the order is kept
//! ```
//!
//! Where a shop takes money it would do so between the two. An order is known by the revision of its freeze, so it is the same
//! for whoever comes after it: the form that was sent again because its answer was lost, and the window beside it.
//!
//! An order is a key, `orders/`, the user's address, and a number by which the newest is the first of a list. It is kept for as
//! long as the store remembers that the order was completed.
//!
//! # Invariants
//! 1. What is ordered is what the page showed, or nothing.
//! 2. The cart loses what was ordered in the transaction that keeps the order.
//! 3. A freeze ends in one order at most, however often and through however many fronts it is asked for.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::catalogue::CURRENCY;
use super::visitor::Shopper;
use crate::client::{Compare, Error, FrozenCart};
use crate::gateway::problem::Problem;
use crate::gateway::routes::call::with;
use crate::gateway::routes::{Answer, Asked, Body};
use crate::limits;
use crate::proto::v1;
use crate::types::Revision;

const PREFIX: &str = "orders/";
const FORMAT: u32 = 1;
/// Who freezes carts here.
const HOLDER: &str = "shop";
/// Far more than the transaction takes, and little for whoever waits for a cart whose front and browser both died.
const LEASE: Duration = Duration::from_secs(30);
const KEPT: Duration = Duration::from_millis(limits::ORDER_TTL_MS);
/// Orders of one page.
const PAGE: u32 = 20;

/// What a page orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// The revision of the cart that it shows.
    mod_revision: u64,
}

/// An order, as it is stored and as pages have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    format: u32,
    /// For people. No other order of the shop has it.
    number: u64,
    /// In the store's time, Unix milliseconds.
    placed_ms: u64,
    lines: Vec<OrderLine>,
    currency: String,
    total_minor_units: i64,
}

/// What was bought of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OrderLine {
    sku: String,
    quantity: u32,
    total_minor_units: i64,
}

/// Some orders, the newest first.
#[derive(Serialize)]
pub struct Orders {
    orders: Vec<Order>,
    /// Where older ones begin; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    cursor: Option<String>,
}

/// Orders what is in the cart.
pub async fn place(shopper: Shopper, Body(form): Body<Form>) -> Result<Answer<Order>, Problem> {
    let user = shopper.logged_in()?;
    // Without a name, a form that is sent again would find another cart than the page showed.
    shopper.visitor.form_nonce()?;
    let (client, owner) = (&shopper.visitor.client, shopper.owner());
    let shown = Revision::new(form.mod_revision);
    let freeze = client.carts().freeze(&owner, HOLDER);
    let freeze = freeze.lease(LEASE).if_revision(shown);
    let freeze = with!(freeze, request_id(shopper.request_id("order")));
    let frozen = freeze.send().await.map_err(refused)?.value;
    let order = Order::of(&frozen);
    let key = key(user, frozen.freeze_revision);
    let complete =
        client
            .carts()
            .complete_order(&owner, HOLDER, frozen.freeze_revision, order.id());
    let placed = client
        .txn()
        .compare(Compare::key(&key).is_absent())
        .then(complete)
        .then(client.keys().put(&key, order.to_bytes()).ttl(KEPT))
        .send()
        .await
        .map_err(refused)?;
    if placed.succeeded {
        return Ok(Answer::of(placed, |_| order).created());
    }
    // Somebody else has ended this freeze: the same form, or the window beside it.
    let known = client.keys().get(&key).send().await?;
    let order = Order::parse(&known.value.value)?;
    Ok(Answer::of(known, |_| order).created())
}

/// What the visitor has ordered.
pub async fn list(shopper: Shopper, Asked(query): Asked<Query>) -> Result<Answer<Orders>, Problem> {
    let prefix = prefix(shopper.logged_in()?);
    let list = shopper.visitor.client.keys().list();
    let list = list.prefix(prefix).limit(PAGE);
    let mut page = with!(list, cursor(query.cursor)).send().await?;
    let items = std::mem::take(&mut page.value.items);
    let orders = items.iter().map(|item| Order::parse(&item.value));
    let orders = orders.collect::<Result<_, _>>()?;
    Ok(Answer::of(page, |page| Orders {
        orders,
        next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()),
    }))
}

/// An address has no `/`: nobody's orders stand among another's.
fn prefix(user: &str) -> String {
    format!("{PREFIX}{user}/")
}

fn key(user: &str, freeze: Revision) -> String {
    format!("{}{:020}", prefix(user), u64::MAX - freeze.get())
}

/// What the store says of a cart that was frozen in vain, as far as a page has to act upon it.
fn refused(error: Error) -> Problem {
    match error.reason() {
        Some("REVISION_MISMATCH" | "CART_NOT_FROZEN") => {
            let detail =
                "the cart is not the one that the page showed: look at it, and order again";
            Problem::new(StatusCode::CONFLICT, "CART_CHANGED", detail)
        }
        _ => error.into(),
    }
}

impl Order {
    fn of(frozen: &FrozenCart) -> Self {
        let lines = frozen.snapshot.lines.iter().map(OrderLine::of);
        let subtotal = frozen.snapshot.subtotal.as_ref();
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        Self {
            format: FORMAT,
            number: frozen.freeze_revision.get(),
            placed_ms: frozen.deadline_ms.saturating_sub(lease),
            lines: lines.collect(),
            currency: subtotal
                .map_or(CURRENCY, |money| &money.currency)
                .to_owned(),
            total_minor_units: subtotal.map_or(0, |money| money.minor_units),
        }
    }

    /// For the store: a revision of a store is used once.
    fn id(&self) -> String {
        format!("{HOLDER}-{}", self.number)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let order = serde_json::from_slice::<Self>(bytes).ok();
        let order = order.filter(|order| order.format == FORMAT);
        order.ok_or_else(|| {
            tracing::error!("an order's record cannot be read");
            let detail =
                "an order cannot be read; whoever runs the shop finds the reason in the log";
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ORDER_UNREADABLE",
                detail,
            )
        })
    }

    fn to_bytes(&self) -> Bytes {
        serde_json::json!(self).to_string().into()
    }
}

impl OrderLine {
    fn of(line: &v1::CartLine) -> Self {
        Self {
            sku: line.sku.clone(),
            quantity: line.quantity,
            total_minor_units: line.total_minor_units,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Orders of this format are stored somewhere.
    const STORED: &str = concat!(
        r#"{"currency":"EUR","format":1,"lines":[{"quantity":2,"sku":"MUG-01","total_minor_units":2580}],"#,
        r#""number":7,"placed_ms":70000,"total_minor_units":2580}"#
    );

    fn frozen() -> FrozenCart {
        let money = |minor_units| v1::Money {
            minor_units,
            currency: CURRENCY.to_owned(),
        };
        let line = v1::CartLine {
            line_id: 3,
            sku: "MUG-01".to_owned(),
            quantity: 2,
            unit_price: Some(money(1290)),
            total_minor_units: 2580,
            ..Default::default()
        };
        FrozenCart {
            freeze_revision: Revision::new(7),
            deadline_ms: 100_000,
            snapshot: v1::Cart {
                lines: vec![line],
                subtotal: Some(money(2580)),
                ..Default::default()
            },
        }
    }

    #[test]
    fn yesterdays_order_is_read_today() {
        let order = Order::parse(STORED.as_bytes()).expect("it is readable");
        assert_eq!(order, Order::of(&frozen()));
        assert_eq!(String::from_utf8_lossy(&order.to_bytes()), STORED);
        for text in ["", "{}", "7", &STORED.replace("format\":1", "format\":2")] {
            let problem = Order::parse(text.as_bytes()).expect_err(text);
            assert_eq!(problem.reason(), "ORDER_UNREADABLE", "{text}");
        }
    }

    #[test]
    fn the_newest_order_comes_first_and_nobody_elses() {
        let keys =
            [9, 10, 1_000_000].map(|revision| key("ada@example.com", Revision::new(revision)));
        assert!(keys.is_sorted_by(|older, newer| older > newer), "{keys:?}");
        assert!(
            keys.iter()
                .all(|key| key.starts_with(&prefix("ada@example.com")))
        );
        assert!(
            !key("ada@example.com.au", Revision::new(9)).starts_with(&prefix("ada@example.com"))
        );
        let id = Order::of(&frozen()).id();
        assert!(id.len() <= limits::ORDER_ID_BYTES, "{id}");
    }
}
