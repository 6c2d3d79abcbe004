//! Accounts of a shop: registration and log-in, for browsers that have a session already.
//!
//! ```text
//! form ─▶ stateless checks ─▶ attempts (store) ─▶ Argon2id (a thread of its own) ─▶ one transaction:
//!         address, password   device, or account   bounded in number              account if absent · rotation · cart ·
//!                             and network                                         the browser's mark
//! ```
//!
//! An account is a key, `accounts/` and the address, in the shop's namespace; the address is the user's id. What a form needs
//! beside what it says is derived from the browser's session token, a secret that only the browser has, and the form's own
//! nonce: the salt, the new session's token, the browser's mark and the request ids. So a form that is sent again, because its answer was
//! lost, is the same request at every front, and gets the same answer: under the same cookie, too.
//!
//! # Invariants
//! 1. Account, session and cart change in one transaction, or not at all.
//! 2. Whether there is an account or not, a log-in reads as much, hashes as much, and is refused in the same words.
//! 3. Attempts are counted before the password is looked at, good ones like bad ones, and in the store: whichever front is
//!    asked counts on. A form that is sent again is the same attempt, a limited number of times.
//! 4. Neither a password nor a token stands in a log, an error or a request id; what is derived from them cannot be turned
//!    back without the browser's session token.
//!
//! A registration tells that an address has an account: without mail, there is no other way to say why it failed.
//! Deliberately absent: mail, forgotten passwords, changes of address.

mod attempts;
mod credentials;
mod derived;
mod device;
mod hashing;
mod record;

use http::StatusCode;

pub use self::credentials::{Address, Password};
pub use self::derived::derive;
pub use self::hashing::Hashing;

use self::derived::Derived;
use self::hashing::{Cost, Salt};
use self::record::Account;
use super::problem::Problem;
use crate::client::{Client, Compare, Error, MergePolicy, RotateSession};
use crate::types::Revision;

/// The session's field that holds the user's address, for pages.
pub const ADDRESS_FIELD: &str = "address";

/// A form that was sent, by whom, and in which session.
pub struct Form<'a> {
    /// The shop's namespace.
    pub client: &'a Client,
    /// The browser's session, which becomes the user's.
    pub token: &'a str,
    /// Names the form: the same when it is sent again.
    pub nonce: &'a str,
    /// The mark that the browser shows, if it does.
    pub device: Option<&'a str>,
    /// The caller's network address, as attempts are counted by it.
    pub network: &'a str,
    /// The browser, for the list of devices.
    pub browser: &'a str,
    /// Who registers or logs in.
    pub address: &'a Address,
    /// The proof.
    pub password: &'a Password,
}

/// What a browser has once somebody is logged in.
pub struct LoggedIn {
    /// The new token of its session.
    pub token: String,
    /// Its mark.
    pub device: String,
}

impl Form<'_> {
    /// Creates the account and logs in.
    pub async fn register(&self, hashing: &Hashing) -> Result<LoggedIn, Problem> {
        self.password.check_strength(self.address)?;
        let device = attempts::count(self).await?;
        let derived = Derived::of(self, "registration");
        let device = device.mark(derived.device.clone());
        let cost = Cost::NOW;
        let hash = hashing
            .hash(self.password.clone(), derived.salt, cost)
            .await?;
        let account = Account::new(cost, derived.salt, hash).to_bytes();
        let key = record::key(self.address);
        let registered = self
            .client
            .txn()
            .compare(Compare::key(&key).is_absent())
            .then(self.client.keys().put(&key, account))
            .then(self.rotation(&derived))
            .then(device::keep(self.client, self.address, &device))
            .request_id(derived.request_id)
            .send()
            .await
            .map_err(refused)?;
        if !registered.succeeded {
            let detail = "there is an account for this address: log in";
            return Err(Problem::new(StatusCode::CONFLICT, "ACCOUNT_EXISTS", detail));
        }
        let token = derived.token;
        Ok(LoggedIn { token, device })
    }

    /// Logs in.
    pub async fn log_in(&self, hashing: &Hashing) -> Result<LoggedIn, Problem> {
        let device = attempts::count(self).await?;
        let key = record::key(self.address);
        let found = match self.client.keys().get(&key).send().await {
            Ok(found) => Some((Account::parse(&found.value.value)?, found.mod_revision)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        // Nobody's salt: the work is the same, and no password has this hash.
        let (cost, salt, expected) = match &found {
            Some((account, _)) => (account.cost(), account.salt()?, Some(account.hash()?)),
            None => (Cost::NOW, Salt::default(), None),
        };
        let hash = hashing.hash(self.password.clone(), salt, cost).await?;
        let (Some((_, revision)), true) = (found, hash.is(expected.as_ref())) else {
            return Err(wrong());
        };
        let derived = Derived::of(self, "log-in");
        let device = device.mark(derived.device.clone());
        let logged_in = self
            .client
            .txn()
            .compare(Compare::key(&key).mod_revision_is(Revision::new(revision)))
            .then(self.rotation(&derived))
            .then(device::keep(self.client, self.address, &device))
            .request_id(derived.request_id)
            .send()
            .await
            .map_err(refused)?;
        if logged_in.succeeded {
            let token = derived.token;
            Ok(LoggedIn { token, device })
        } else {
            Err(wrong())
        }
    }

    /// The browser's session under a new token, as the user's, with what the guest had in the cart.
    fn rotation(&self, derived: &Derived) -> RotateSession<'_> {
        let address = self.address.as_str();
        self.client
            .sessions()
            .rotate(self.token)
            .user(address)
            .new_token(&derived.token)
            .set(ADDRESS_FIELD, address.to_owned())
            .client("browser", self.browser)
            .client("network", self.network)
            .cart_merge(MergePolicy::Sum)
    }
}

/// The same words for an address that nobody has and for a password that is not its.
fn wrong() -> Problem {
    let detail = "the address or the password is wrong";
    Problem::new(StatusCode::FORBIDDEN, "WRONG_CREDENTIALS", detail)
}

fn refused(error: Error) -> Problem {
    if error.reason() == Some("SESSION_NOT_FOUND") {
        session_ended()
    } else {
        error.into()
    }
}

/// The browser's session is no more: it needs another.
pub fn session_ended() -> Problem {
    let detail = "the session has ended: begin another";
    Problem::new(StatusCode::CONFLICT, "SESSION_ENDED", detail)
}
