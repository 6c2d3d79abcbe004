//! What a form needs and does not say: made of the browser's session token, a secret, and of the form's nonce.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Form;
use super::hashing::Salt;

/// Everything that must be the same when a form is sent again.
pub struct Derived {
    /// Of a new account's password. Two forms never have the same.
    pub salt: Salt,
    /// Of the session after it. Whoever knows the old token and not the nonce, as one who planted it in the browser, does
    /// not know it.
    pub token: String,
    /// Of the browser, from then on, if it was not known.
    pub device: String,
    /// Of the transaction. Nobody else can ask for its answer.
    pub request_id: String,
}

impl Derived {
    /// For one kind of form.
    pub fn of(form: &Form<'_>, kind: &str) -> Self {
        let made = |what| hash(what, &[kind, form.token, form.nonce]);
        let salt = made("salt").first_chunk().copied();
        Self {
            salt: salt.expect("SHA-256 has more bytes than a salt"),
            token: URL_SAFE_NO_PAD.encode(made("token")),
            device: URL_SAFE_NO_PAD.encode(made("device")),
            request_id: URL_SAFE_NO_PAD.encode(made("request")),
        }
    }
}

/// A name for these parts together, as short as a request id, that tells nothing of them.
pub fn derive(what: &str, parts: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(hash(what, parts))
}

/// With its length in front of each part, no other parts have the same hash.
fn hash(what: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&[what], parts].concat() {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::types::SessionToken;

    #[test]
    fn other_parts_make_other_names() {
        let name = derive("csrf", &["ab", "c"]);
        assert_eq!(name, derive("csrf", &["ab", "c"]));
        for other in [
            derive("csrf", &["a", "bc"]),
            derive("csrf", &["abc"]),
            derive("request", &["ab", "c"]),
        ] {
            assert_ne!(name, other);
        }
        assert!(name.len() <= limits::REQUEST_ID_BYTES, "{name}");
        assert!(SessionToken::parse(&name).is_ok(), "{name}");
    }
}
