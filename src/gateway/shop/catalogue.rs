//! What there is to buy, and what it costs.

use axum::Json;
use http::StatusCode;
use serde::Serialize;

use crate::gateway::problem::Problem;

/// Of all prices.
pub const CURRENCY: &str = "EUR";

/// Something to buy.
#[derive(Debug, Serialize)]
pub struct Item {
    /// Names it.
    pub sku: &'static str,
    name: &'static str,
    words: &'static str,
    /// Of one piece, in cents.
    pub price_minor_units: i64,
}

static ITEMS: [Item; 8] = [
    item("MUG-01", "Mug", "Stoneware, 350 ml, glazed by hand", 1290),
    item("TEA-02", "Black tea", "Loose leaves, 250 g", 890),
    item("POT-03", "Teapot", "Cast iron, with a strainer", 4900),
    item("LAMP-04", "Reading lamp", "Brass, for late chapters", 6450),
    item("BOOK-05", "Notebook", "192 pages, dotted", 1150),
    item("PEN-06", "Fountain pen", "Medium nib, blue ink", 2400),
    item("RUG-07", "Blanket", "Merino wool, 130 by 180 cm", 7900),
    item("CLOCK-08", "Wall clock", "It agrees with the others", 3300),
];

const fn item(
    sku: &'static str,
    name: &'static str,
    words: &'static str,
    price_minor_units: i64,
) -> Item {
    Item {
        sku,
        name,
        words,
        price_minor_units,
    }
}

/// All of it.
#[derive(Serialize)]
pub struct Catalogue {
    currency: &'static str,
    items: &'static [Item],
}

/// All of it.
pub async fn get() -> Json<Catalogue> {
    Json(Catalogue {
        currency: CURRENCY,
        items: &ITEMS,
    })
}

/// One of them.
pub fn find(sku: &str) -> Result<&'static Item, Problem> {
    let found = ITEMS.iter().find(|item| item.sku == sku);
    let detail = "the shop has nothing of this name";
    found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "ITEM_NOT_FOUND", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_a_name_of_its_own_and_a_price() {
        for item in &ITEMS {
            let same = ITEMS.iter().filter(|other| other.sku == item.sku);
            assert_eq!(same.count(), 1, "{}", item.sku);
            assert_eq!(find(item.sku).expect("it is there").sku, item.sku);
            assert!(item.price_minor_units > 0, "{}", item.sku);
        }
        assert!(find("MUG").is_err());
    }
}
