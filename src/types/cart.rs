//! What a cart line is made of.

use std::collections::BTreeMap;

use super::Invalid;
use super::name::check_texts;
use crate::limits;

/// A line's number within its cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(u64);

impl LineId {
    /// A line id as it was stored or sent.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A stock-keeping unit: what is sold, as the shop names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

impl Sku {
    /// Neither empty nor too long.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() {
            return Err(Invalid::Empty { field: "sku" });
        }
        if text.len() > limits::SKU_BYTES {
            return Err(Invalid::TooLong {
                field: "sku",
                limit: limits::SKU_BYTES,
                actual: text.len(),
            });
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Pieces of one line: 1 to [`limits::QUANTITY_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u32);

impl Quantity {
    /// From a message's field.
    pub fn parse(quantity: i64) -> Result<Self, Invalid> {
        match u32::try_from(quantity) {
            Ok(pieces @ 1..=limits::QUANTITY_MAX) => Ok(Self(pieces)),
            _ => Err(Invalid::OutOfRange {
                field: "quantity",
                min: 1,
                max: i64::from(limits::QUANTITY_MAX),
                actual: quantity,
            }),
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The sum, unless it passes the limit.
    #[must_use]
    pub fn checked_add(self, more: Quantity) -> Option<Self> {
        let sum = self.0.checked_add(more.0)?;
        (sum <= limits::QUANTITY_MAX).then_some(Self(sum))
    }
}

/// An ISO 4217 currency that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// ISO 4217's active codes for money, without funds codes, metals and test codes.
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP \
BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF \
GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD \
LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR \
PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY \
TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

impl Currency {
    /// Three capital letters of the list.
    pub fn parse(code: &str) -> Result<Self, Invalid> {
        const UNKNOWN: Invalid = Invalid::Malformed {
            field: "currency",
            expected: "an ISO 4217 code in capitals, for example EUR",
        };
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_| UNKNOWN)?;
        if CURRENCIES.split(' ').any(|known| known == code) {
            Ok(Self(bytes))
        } else {
            Err(UNKNOWN)
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only listed codes are made, and they are ASCII")
    }
}

/// An amount in minor units of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    minor_units: i64,
    currency: Currency,
}

impl Money {
    /// Not negative, and at most [`limits::PRICE_MAX_MINOR_UNITS`].
    pub fn parse(minor_units: i64, currency: &str) -> Result<Self, Invalid> {
        let currency = Currency::parse(currency)?;
        if !(0..=limits::PRICE_MAX_MINOR_UNITS).contains(&minor_units) {
            return Err(Invalid::OutOfRange {
                field: "unit_price",
                min: 0,
                max: limits::PRICE_MAX_MINOR_UNITS,
                actual: minor_units,
            });
        }
        Ok(Self {
            minor_units,
            currency,
        })
    }

    /// The amount.
    #[must_use]
    pub fn minor_units(self) -> i64 {
        self.minor_units
    }

    /// The currency.
    #[must_use]
    pub fn currency(self) -> Currency {
        self.currency
    }
}

/// A line's attributes: size, colour, engraving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Checks count and total size.
    pub fn parse(attributes: BTreeMap<String, String>) -> Result<Self, Invalid> {
        check_texts(
            "attributes",
            "attribute name",
            &attributes,
            limits::LINE_ATTRIBUTES,
            limits::LINE_ATTRIBUTE_BYTES,
        )?;
        Ok(Self(attributes))
    }

    /// The map.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The map, owned.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}
