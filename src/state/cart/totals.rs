//! What a cart comes to.
//!
//! The total of one line always fits its number: `limits` asserts it. A subtotal may not, and then the change that would
//! make it so is refused. So a read never fails; a cart that was written before that was checked reads as the most that
//! can be told.

use crate::proto::v1;
use crate::state::Rejection;

/// Quantity times unit price; 0 without a price.
#[must_use]
pub fn line_total(line: &v1::CartLine) -> i64 {
    let price = line
        .unit_price
        .as_ref()
        .map_or(0, |price| price.minor_units);
    total(price, line.quantity)
}

fn total(price: i64, quantity: u32) -> i64 {
    price.saturating_mul(i64::from(quantity))
}

/// The sum of the lines' totals; `None` where no line has a price.
#[must_use]
pub fn subtotal(lines: &[v1::CartLine]) -> Option<v1::Money> {
    let price = currency(lines)?;
    Some(v1::Money {
        minor_units: sum(lines.iter().map(line_total)).unwrap_or(i64::MAX),
        currency: price.to_owned(),
    })
}

/// The sum of the lines' quantities.
#[must_use]
pub fn total_quantity(lines: &[v1::CartLine]) -> u64 {
    let quantities = lines.iter().map(|line| u64::from(line.quantity));
    quantities.fold(0, u64::saturating_add)
}

/// The one currency of a cart's prices.
pub(super) fn currency(lines: &[v1::CartLine]) -> Option<&str> {
    let price = lines.iter().find_map(|line| line.unit_price.as_ref())?;
    Some(&price.currency)
}

/// Checks the subtotal of lines as they are.
pub(super) fn check(lines: &[v1::CartLine]) -> Result<(), Rejection> {
    let subtotal = sum(lines.iter().map(line_total));
    subtotal.map(drop).ok_or(Rejection::CartTotalLimit)
}

/// Checks the subtotal of lines of which one, at a place or behind the others, is about to have this quantity and price.
pub(super) fn check_change(
    lines: &[v1::CartLine],
    at: Option<usize>,
    quantity: u32,
    price: i64,
) -> Result<(), Rejection> {
    let others = lines.iter().enumerate();
    let others = others.filter(|(place, _)| Some(*place) != at);
    let others = others.map(|(_, line)| line_total(line));
    let subtotal = sum(others.chain([total(price, quantity)]));
    subtotal.map(drop).ok_or(Rejection::CartTotalLimit)
}

fn sum(totals: impl IntoIterator<Item = i64>) -> Option<i64> {
    totals.into_iter().try_fold(0, i64::checked_add)
}
