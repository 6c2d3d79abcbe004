//! How often somebody may try: counters in the store, which end by themselves.
//!
//! A stranger can guess, and must not be able to keep the owner out by guessing. So a browser that was logged in before, which
//! it shows by its mark ([`device`](super::device)), has a counter of its own at that account, that nobody else can use up. All
//! others share: one counter for the account from one network address, a larger one for the account from anywhere, and one for
//! everything that comes from the address.
//!
//! A window begins with its first attempt. All counters of an attempt go up in one transaction, or none does, and a form that is
//! sent again is counted once. One with another password is another attempt, whatever it says of itself.
//!
//! A form that is sent again guesses nothing new, but its password is hashed each time. So each form has a counter of its own for
//! that, which lasts as long as the store knows the form: what anybody can have hashed is a multiple of the attempts.

use std::time::Duration;

use http::StatusCode;

use super::device::{self, Device};
use super::{Form, derive};
use crate::client::{Client, Compare, Error};
use crate::gateway::problem::Problem;
use crate::limits;

/// Counts this form's attempt, unless there were too many, and says who it was counted for.
pub async fn count(form: &Form<'_>) -> Result<Device, Problem> {
    let (address, network) = (form.address.as_str(), form.network);
    let window = Duration::from_millis(limits::ATTEMPTS_WINDOW_MS);
    let counter = |of: String, most| {
        let counter = form.client.keys().increment(format!("attempts/{of}"), 1);
        counter.max(most).ttl(window)
    };
    // A browser that shows none is none: no mark is empty.
    let mark = form.device.unwrap_or_default();
    let name = device::name(form.address, mark);
    // The token is a secret of the browser's: of the password, nothing can be read out of this.
    let parts = [
        form.token,
        form.nonce,
        address,
        form.password.expose(),
        mark,
    ];
    let id = derive("attempt", &parts);
    let attempt = form
        .client
        .txn()
        .compare(Compare::key(device::key(&name)).exists())
        .then(counter(
            format!("device/{name}"),
            limits::ATTEMPTS_PER_DEVICE,
        ))
        .otherwise(counter(
            format!("account-network/{address}/{network}"),
            limits::ATTEMPTS_PER_ACCOUNT_AND_NETWORK,
        ))
        .otherwise(counter(
            format!("account/{address}"),
            limits::ATTEMPTS_PER_ACCOUNT,
        ))
        .otherwise(counter(
            format!("network/{network}"),
            limits::ATTEMPTS_PER_NETWORK,
        ))
        .request_id(&id)
        .send()
        .await
        .map_err(refused)?;
    if attempt.replayed {
        count_again(form.client, &id).await?;
    }
    Ok(if attempt.succeeded {
        Device::Known(mark.to_owned())
    } else {
        Device::Unknown
    })
}

/// Counts that the form of this attempt was sent again, unless it was too often.
async fn count_again(client: &Client, id: &str) -> Result<(), Problem> {
    let again = client.keys().increment(format!("attempts/again/{id}"), 1);
    let again = again.max(limits::ATTEMPTS_SENT_AGAIN);
    let again = again.ttl(Duration::from_millis(limits::REPLY_WINDOW_MS));
    again.send().await.map(|_| ()).map_err(refused)
}

fn refused(error: Error) -> Problem {
    if error.reason() == Some("COUNTER_ABOVE_MAX") {
        too_many()
    } else {
        error.into()
    }
}

fn too_many() -> Problem {
    let minutes = limits::ATTEMPTS_WINDOW_MS / 60_000;
    let detail = format!("too many attempts: wait {minutes} minutes");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", detail)
}
