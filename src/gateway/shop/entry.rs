//! Coming and going: a guest's session, registration, log-in, and both ways out.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use http::header::SET_COOKIE;
use serde::Deserialize;

use super::Shop;
use super::view::{View, view};
use super::visitor::{Shopper, Visitor};
use crate::client::Error;
use crate::gateway::App;
use crate::gateway::accounts::{Address, Form, LoggedIn, Password};
use crate::gateway::problem::Problem;
use crate::gateway::routes::{Answer, Body};

/// Who somebody says to be. It has no `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    address: String,
    password: String,
}

fn shop(app: &App) -> Result<&Shop, Problem> {
    app.shop.as_ref().ok_or_else(Problem::no_route)
}

/// The visitor.
pub async fn get(shopper: Shopper) -> Result<Answer<View>, Problem> {
    shopper.view(None).await
}

/// The same; a guest's session begins if there is none.
pub async fn begin(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Response, Problem> {
    let sessions = visitor.client.sessions();
    if let Some(token) = &visitor.token {
        match sessions.get(token).touch().send().await {
            Ok(session) => {
                let user = Some(session.user_id.as_str()).filter(|user| !user.is_empty());
                let answer = view(&visitor.client, token, user, None).await?;
                return Ok(answer.into_response());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let create = sessions.create().client("browser", &visitor.browser);
    let created = create.client("network", &visitor.network).send().await?;
    let answer = view(
        &visitor.client,
        &created.token,
        None,
        Some(created.revision),
    )
    .await?;
    let cookie = shop(&app)?.cookies.keep(&created.token);
    Ok(([(SET_COOKIE, cookie)], answer).into_response())
}

/// Creates an account and logs in.
pub async fn register(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Problem> {
    enter(&app, &visitor, credentials, async |form: Form<'_>| {
        form.register(&shop(&app)?.hashing).await
    })
    .await
}

/// Logs in.
pub async fn log_in(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Problem> {
    enter(&app, &visitor, credentials, async |form: Form<'_>| {
        form.log_in(&shop(&app)?.hashing).await
    })
    .await
}

async fn enter(
    app: &App,
    visitor: &Visitor,
    credentials: Credentials,
    way: impl AsyncFnOnce(Form<'_>) -> Result<LoggedIn, Problem>,
) -> Result<Response, Problem> {
    let address = Address::parse(&credentials.address)?;
    let password = Password::parse(credentials.password)?;
    let form = Form {
        client: &visitor.client,
        token: visitor.token()?,
        nonce: visitor.form_nonce()?,
        device: visitor.device.as_deref(),
        network: &visitor.network,
        browser: &visitor.browser,
        address: &address,
        password: &password,
    };
    let LoggedIn { token, device } = way(form).await?;
    let answer = view(&visitor.client, &token, Some(address.as_str()), None).await?;
    let cookies = &shop(app)?.cookies;
    let cookies = [cookies.keep(&token), cookies.keep_device(&device)];
    let cookies = AppendHeaders(cookies.map(|cookie| (SET_COOKIE, cookie)));
    Ok((cookies, answer).into_response())
}

/// Ends this session.
pub async fn log_out(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Response, Problem> {
    let ended = visitor
        .client
        .sessions()
        .destroy(visitor.token()?)
        .send()
        .await;
    gone(&app, ended.map(|_| ()))
}

/// Ends all of the user's.
pub async fn log_out_everywhere(
    State(app): State<Arc<App>>,
    shopper: Shopper,
) -> Result<Response, Problem> {
    let user = shopper.logged_in()?;
    let revoke = shopper.visitor.client.sessions().revoke_all(user);
    gone(&app, revoke.send().await.map(|_| ()))
}

/// A session that is gone already is what was asked for.
fn gone(app: &App, ended: Result<(), Error>) -> Result<Response, Problem> {
    match ended {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let cookie = shop(app)?.cookies.forget();
    Ok(([(SET_COOKIE, cookie)], http::StatusCode::NO_CONTENT).into_response())
}
