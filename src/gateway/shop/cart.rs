//! The visitor's cart. Every change answers with all of it.

use serde::Deserialize;

use super::catalogue;
use super::view::View;
use super::visitor::Shopper;
use crate::client::LineRef;
use crate::gateway::problem::Problem;
use crate::gateway::routes::call::with;
use crate::gateway::routes::{Answer, At, Body};

/// Pieces to add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pieces {
    sku: String,
    quantity: i64,
}

/// A line's new quantity.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    quantity: i64,
}

/// Adds pieces, at the catalogue's price.
pub async fn add(shopper: Shopper, Body(pieces): Body<Pieces>) -> Result<Answer<View>, Problem> {
    let item = catalogue::find(&pieces.sku)?;
    let carts = shopper.visitor.client.carts();
    let add = carts.add(&shopper.owner(), item.sku, pieces.quantity);
    let add = add.unit_price(item.price_minor_units, catalogue::CURRENCY);
    let add = with!(add, request_id(shopper.request_id("add")));
    let added = add.send().await?;
    shopper.view(Some(added.revision)).await
}

/// Sets a line's quantity.
pub async fn set_quantity(
    shopper: Shopper,
    At(line): At<u64>,
    Body(body): Body<Quantity>,
) -> Result<Answer<View>, Problem> {
    let carts = shopper.visitor.client.carts();
    let set = carts.set_quantity(&shopper.owner(), LineRef::Id(line), body.quantity);
    let set = with!(set, request_id(shopper.request_id("set")));
    let set = set.send().await?;
    shopper.view(Some(set.revision)).await
}

/// Removes a line.
pub async fn remove(shopper: Shopper, At(line): At<u64>) -> Result<Answer<View>, Problem> {
    let carts = shopper.visitor.client.carts();
    let remove = carts.remove(&shopper.owner(), LineRef::Id(line));
    let remove = with!(remove, request_id(shopper.request_id("remove")));
    let removed = remove.send().await?;
    shopper.view(Some(removed.revision)).await
}
