//! The actions of `trolley cart update`, as they are typed: one argument each, a verb and its words.

use crate::proto::v1::cart_action::Action;
use crate::proto::v1::cart_line_ref::Line;
use crate::proto::v1::{
    AddLineAction, CartLineRef, ClearLinesAction, Money, MoveLineAction, RemoveLineAction,
    SetLineQuantityAction, StringList, StringMap,
};

use super::arguments::pair;
use super::cart::price;

/// What `trolley cart update --help` says of them.
pub(super) const HELP: &str = "\
Actions, each one argument, so quote it. LINE is a SKU, or # and a line's number:
  add SKU [QUANTITY] [MINOR_UNITS:CURRENCY] [NAME=VALUE…]
  set LINE QUANTITY
  remove LINE
  move LINE INDEX            the first place is 0
  clear
  note TEXT                  nothing removes it
  coupon CODE                remove-coupon CODE
  attribute NAME=VALUE       remove-attribute NAME
  shipping NAME=VALUE; …     the whole address; nothing removes it
  billing NAME=VALUE; …

Example:
  trolley cart update --user alice 'add SKU-1 2 1999:EUR' 'move SKU-1 0' 'note Ring twice' \\
    'shipping name=Alice Ash; city=Bern'";

/// Parses one action.
pub(super) fn action(text: &str) -> Result<Action, String> {
    let (verb, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    match verb {
        "add" => add(rest),
        "set" => {
            let (line, quantity) = two(rest, "set LINE QUANTITY")?;
            Ok(Action::SetQuantity(SetLineQuantityAction {
                line: Some(self::line(line)?),
                quantity: number(quantity)?,
            }))
        }
        "remove" => Ok(Action::Remove(RemoveLineAction {
            line: Some(line(one(rest, "remove LINE")?)?),
        })),
        "move" => {
            let (line, index) = two(rest, "move LINE INDEX")?;
            Ok(Action::Move(MoveLineAction {
                line: Some(self::line(line)?),
                index: number(index)?,
            }))
        }
        "clear" if rest.is_empty() => Ok(Action::Clear(ClearLinesAction {})),
        "clear" => Err("expected: clear".to_owned()),
        "note" => Ok(Action::SetNote(rest.to_owned())),
        "coupon" => Ok(Action::AddCouponCode(one(rest, "coupon CODE")?.to_owned())),
        "remove-coupon" => {
            let code = one(rest, "remove-coupon CODE")?;
            Ok(Action::RemoveCouponCode(code.to_owned()))
        }
        "attribute" => Ok(Action::SetAttributes(StringMap {
            entries: [pair(rest)?].into(),
        })),
        "remove-attribute" => Ok(Action::RemoveAttributes(StringList {
            values: vec![one(rest, "remove-attribute NAME")?.to_owned()],
        })),
        "shipping" => Ok(Action::SetShippingAddress(address(rest)?)),
        "billing" => Ok(Action::SetBillingAddress(address(rest)?)),
        other => Err(format!(
            "{other:?} is no action; see trolley cart update --help"
        )),
    }
}

fn add(words: &str) -> Result<Action, String> {
    let mut words = words.split_whitespace().peekable();
    let sku = words.next().ok_or("expected: add SKU [QUANTITY] …")?;
    let mut add = AddLineAction {
        sku: sku.to_owned(),
        quantity: 1,
        ..AddLineAction::default()
    };
    if let Some(quantity) = words.next_if(|word| word.parse::<i64>().is_ok()) {
        add.quantity = number(quantity)?;
    }
    if let Some(word) = words.next_if(|word| !word.contains('=')) {
        let (minor_units, currency) = price(word)?;
        add.unit_price = Some(Money {
            minor_units,
            currency,
        });
    }
    add.attributes = words.map(pair).collect::<Result<_, _>>()?;
    Ok(Action::Add(add))
}

fn line(word: &str) -> Result<CartLineRef, String> {
    let line = match word.strip_prefix('#') {
        Some(id) => Line::LineId(number(id)?),
        None => Line::Sku(word.to_owned()),
    };
    Ok(CartLineRef { line: Some(line) })
}

fn address(text: &str) -> Result<StringMap, String> {
    let fields = text.split(';').map(str::trim);
    let fields = fields.filter(|field| !field.is_empty());
    Ok(StringMap {
        entries: fields.map(pair).collect::<Result<_, _>>()?,
    })
}

fn one<'t>(words: &'t str, expected: &str) -> Result<&'t str, String> {
    match words.split_whitespace().collect::<Vec<_>>()[..] {
        [word] => Ok(word),
        _ => Err(format!("expected: {expected}")),
    }
}

fn two<'t>(words: &'t str, expected: &str) -> Result<(&'t str, &'t str), String> {
    match words.split_whitespace().collect::<Vec<_>>()[..] {
        [first, second] => Ok((first, second)),
        _ => Err(format!("expected: {expected}")),
    }
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is no number that fits here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_as_they_are_typed() {
        let add = |quantity, price: Option<(i64, &str)>, attributes: &[(&str, &str)]| {
            Action::Add(AddLineAction {
                sku: "SKU-1".to_owned(),
                quantity,
                unit_price: price.map(|(minor_units, currency)| Money {
                    minor_units,
                    currency: currency.to_owned(),
                }),
                attributes: attributes
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            })
        };
        let cases = [
            ("add SKU-1", add(1, None, &[])),
            ("add SKU-1 -2", add(-2, None, &[])),
            (
                " add  SKU-1 2 1999:EUR size=L",
                add(2, Some((1999, "EUR")), &[("size", "L")]),
            ),
            ("add SKU-1 size=L", add(1, None, &[("size", "L")])),
            (
                "note  Ring twice ",
                Action::SetNote("Ring twice".to_owned()),
            ),
            ("note", Action::SetNote(String::new())),
            (
                "move #7 0",
                Action::Move(MoveLineAction {
                    line: Some(CartLineRef {
                        line: Some(Line::LineId(7)),
                    }),
                    index: 0,
                }),
            ),
            (
                "shipping name=Alice Ash; city=Bern;",
                Action::SetShippingAddress(StringMap {
                    entries: [
                        ("name".to_owned(), "Alice Ash".to_owned()),
                        ("city".to_owned(), "Bern".to_owned()),
                    ]
                    .into(),
                }),
            ),
            ("billing", Action::SetBillingAddress(StringMap::default())),
        ];
        for (text, expected) in cases {
            assert_eq!(action(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_action_is_refused() {
        let cases = [
            "",
            "fill",
            "add",
            "add SKU 1 EUR",
            "set SKU",
            "set SKU many",
            "move SKU -1",
            "clear all",
            "remove a b",
            "attribute size",
            "remove #x",
            "coupon",
            "shipping Bern",
        ];
        for text in cases {
            assert!(action(text).is_err(), "{text:?}");
        }
    }
}
