//! What can be said of an address and a password without asking anybody.

use http::StatusCode;

use crate::gateway::problem::Problem;
use crate::limits;

/// Passwords that whoever guesses tries first, of those that are long enough.
const COMMON: [&str; 12] = [
    "1234567890",
    "0123456789",
    "1q2w3e4r5t",
    "qwertyuiop",
    "password12",
    "password123",
    "passwordpassword",
    "iloveyou123",
    "letmein123",
    "welcome123",
    "administrator",
    "correcthorsebatterystaple",
];
/// A password of fewer different characters is a pattern.
const DIFFERENT_CHARACTERS: usize = 5;
/// Longest part in front of the `@`, as mail has it.
const LOCAL_BYTES: usize = 64;

/// An e-mail address, in small letters. It is never written to: it has to look right and to be one text for one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// As somebody has typed it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let address = text.trim().to_ascii_lowercase();
        if is_address(&address) {
            return Ok(Self(address));
        }
        let detail = "an e-mail address is needed, such as ada@example.com";
        Err(invalid("INVALID_ADDRESS", detail))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn local(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let labels: Vec<&str> = domain.split('.').collect();
    let is_label = |label: &&str| {
        let is_plain = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && is_plain
    };
    text.len() <= limits::ADDRESS_BYTES
        && (1..=LOCAL_BYTES).contains(&local.len())
        && local.bytes().all(is_plain)
        && labels.len() >= 2
        && labels.iter().all(is_label)
}

/// A password, as it was typed. It has no `Debug`.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// One that is not too long to be hashed. How good it is matters only where it is chosen.
    pub fn parse(text: String) -> Result<Self, Problem> {
        let limit = limits::PASSWORD_BYTES;
        if text.len() <= limit {
            return Ok(Self(text));
        }
        let detail = format!("a password has at most {limit} bytes");
        Err(invalid("PASSWORD_TOO_LONG", &detail))
    }

    /// Refuses what is guessed easily.
    pub fn check_strength(&self, address: &Address) -> Result<(), Problem> {
        let least = limits::PASSWORD_MIN_CHARS;
        if self.0.chars().count() < least {
            let detail = format!("a password needs at least {least} characters");
            return Err(invalid("WEAK_PASSWORD", &detail));
        }
        let small = self.0.to_lowercase();
        let different: std::collections::BTreeSet<char> = small.chars().collect();
        let is_of_address = small.contains(address.as_str()) || small == address.local();
        if is_of_address
            || different.len() < DIFFERENT_CHARACTERS
            || COMMON.contains(&small.as_str())
        {
            let detail = "this password is among the first to be guessed: choose another";
            return Err(invalid("WEAK_PASSWORD", detail));
        }
        Ok(())
    }

    /// The secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn invalid(reason: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_has_one_address() {
        let of = |text| Address::parse(text).map(|address| address.0);
        assert_eq!(of(" Ada@Example.COM "), Ok("ada@example.com".to_owned()));
        let long = format!("{}@example.com", "a".repeat(LOCAL_BYTES + 1));
        for text in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "ada@example..com",
            "ada@exam ple.com",
            "ada@b@example.com",
            "a/b@example.com",
            "adä@example.com",
            &long,
        ] {
            let problem = of(text).expect_err(text);
            assert_eq!(problem.reason(), "INVALID_ADDRESS", "{text}");
        }
    }

    #[test]
    fn what_is_guessed_first_is_no_password() {
        let address = Address::parse("ada.lovelace@example.com").expect("it is one");
        let check = |text: &str| {
            let password = Password::parse(text.to_owned())?;
            password.check_strength(&address)
        };
        assert_eq!(check("tea at half past four"), Ok(()));
        for text in [
            "",
            "short",
            "aaaaaaaaaaaaaa",
            "abababababab",
            "Password123",
            "ada.lovelace",
            "x ada.lovelace@example.com",
        ] {
            let problem = check(text).expect_err(text);
            assert_eq!(problem.reason(), "WEAK_PASSWORD", "{text}");
        }
        let long = check(&"long ".repeat(limits::PASSWORD_BYTES)).expect_err("too long");
        assert_eq!(long.reason(), "PASSWORD_TOO_LONG");
    }
}
