//! Where the user is logged in.

use super::visitor::Shopper;
use crate::gateway::problem::Problem;
use crate::gateway::routes::call::with;
use crate::gateway::routes::{Answer, At, Devices};

/// All of the user's sessions, oldest first.
pub async fn list(shopper: Shopper) -> Result<Answer<Devices>, Problem> {
    let user = shopper.logged_in()?;
    let list = shopper.visitor.client.sessions().list(user);
    let page = list.current(&shopper.token).send().await?;
    Ok(Answer::of(page, Devices::from))
}

/// Logs out one of them.
pub async fn end(shopper: Shopper, At(handle): At<String>) -> Result<Answer<()>, Problem> {
    let user = shopper.logged_in()?;
    let end = shopper.visitor.client.sessions().end(user, handle);
    let end = with!(end, request_id(shopper.request_id("end-device")));
    Ok(Answer::done(end.send().await?))
}
