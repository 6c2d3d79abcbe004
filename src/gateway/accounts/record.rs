//! An account as it is stored: JSON under the key `accounts/` and the address.
//!
//! | field | holds |
//! |---|---|
//! | `format` | 1: Argon2id, version 1.3, one lane |
//! | `memory_kib`, `passes` | what the hash cost |
//! | `salt`, `hash` | base64url, 16 and 32 bytes |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Address;
use super::hashing::{Cost, Hash, Salt};
use crate::gateway::problem::Problem;

const PREFIX: &str = "accounts/";
const FORMAT: u32 = 1;

/// The key of an address's account.
pub fn key(address: &Address) -> String {
    format!("{PREFIX}{}", address.as_str())
}

/// An account.
#[derive(Serialize, Deserialize)]
pub struct Account {
    format: u32,
    memory_kib: u32,
    passes: u32,
    salt: String,
    hash: String,
}

impl Account {
    pub fn new(cost: Cost, salt: Salt, hash: Hash) -> Self {
        Self {
            format: FORMAT,
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            salt: URL_SAFE_NO_PAD.encode(salt),
            hash: URL_SAFE_NO_PAD.encode(hash.0),
        }
    }

    /// As it was stored, by this or an earlier gateway.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let account = serde_json::from_slice::<Self>(bytes).map_err(|_| unreadable())?;
        if account.format == FORMAT {
            Ok(account)
        } else {
            Err(unreadable())
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    pub fn cost(&self) -> Cost {
        Cost {
            memory_kib: self.memory_kib,
            passes: self.passes,
        }
    }

    pub fn salt(&self) -> Result<Salt, Problem> {
        decode(&self.salt)
    }

    pub fn hash(&self) -> Result<Hash, Problem> {
        decode(&self.hash).map(Hash)
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
    bytes.try_into().map_err(|_| unreadable())
}

fn unreadable() -> Problem {
    tracing::error!("an account's record cannot be read");
    let detail = "the account cannot be read; whoever runs the shop finds the reason in the log";
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "ACCOUNT_UNREADABLE",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accounts of this format are stored somewhere.
    const STORED: &str = concat!(
        r#"{"format":1,"hash":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI","#,
        r#""memory_kib":19456,"passes":2,"salt":"AQEBAQEBAQEBAQEBAQEBAQ"}"#
    );

    #[test]
    fn yesterdays_account_is_read_today() {
        let account = Account::parse(STORED.as_bytes()).expect("it is readable");
        let cost = Cost {
            memory_kib: 19_456,
            passes: 2,
        };
        assert_eq!(account.cost(), cost);
        assert_eq!(account.salt(), Ok([1; 16]));
        assert_eq!(account.hash().map(|hash| hash.0), Ok([2; 32]));
        let again = Account::new(cost, [1; 16], Hash([2; 32])).to_bytes();
        assert_eq!(String::from_utf8_lossy(&again), STORED);
    }

    #[test]
    fn what_is_no_account_is_said_to_be_none() {
        for text in ["", "{}", "7", &STORED.replace(":1,", ":2,")] {
            assert!(Account::parse(text.as_bytes()).is_err(), "{text}");
        }
        let short = STORED.replace("AQEBAQ\"", "\"");
        assert!(
            Account::parse(short.as_bytes())
                .expect("JSON")
                .salt()
                .is_err()
        );
    }
}
