//! A shop in axum: guests fill a cart, log in, and go on, whichever node of Trolley dies meanwhile.
//!
//! ```sh
//! scripts/cluster.sh up 3
//! export CARGO_TARGET_DIR=~/.cache/trolley/target
//! cargo run --release --locked --example shop -- 127.0.0.1:8080 127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403
//! curl -b jar -c jar -X POST http://127.0.0.1:8080/cart/mug            # a guest's cart
//! curl -b jar -c jar -X POST http://127.0.0.1:8080/login/ada           # which becomes ada's
//! scripts/cluster.sh kill leader
//! curl -b jar -c jar -X POST http://127.0.0.1:8080/cart/tea -H 'idempotency-key: 1'
//! curl -b jar http://127.0.0.1:8080/
//! ```
//!
//! Sessions are `tower-sessions`' with [`TrolleyStore`] behind them; carts are Trolley's own, changed by deltas. Every handler
//! may run in any process: there is nothing in memory that another one lacks.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use trolley::client::{CartOwner, Client, ClientConfig, MergePolicy};
use trolley::tower_sessions::TrolleyStore;

/// Under which a session holds who is logged in.
const USER: &str = "user";
/// Says that nobody is.
const GUEST: &str = "guest";
/// The caller's name for a request that it may repeat.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Of a token, enough to tell browsers apart.
const SCOPE_CHARS: usize = 16;
const IDLE: Duration = Duration::minutes(30);

/// The shop over a cluster.
pub fn router(client: Client) -> Router {
    let sessions = SessionManagerLayer::new(TrolleyStore::new(client.clone()))
        // On plain HTTP, for a demonstration. Leave it out behind TLS.
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(IDLE));
    Router::new()
        .route("/", get(show))
        .route("/cart/{sku}", post(add))
        .route("/login/{user}", post(login))
        .route("/logout", post(logout))
        .layer(sessions)
        .with_state(client)
}

/// What a handler could not do.
enum Failure {
    Session(tower_sessions::session::Error),
    Trolley(trolley::client::Error),
}

impl From<tower_sessions::session::Error> for Failure {
    fn from(error: tower_sessions::session::Error) -> Self {
        Self::Session(error)
    }
}

impl From<trolley::client::Error> for Failure {
    fn from(error: trolley::client::Error) -> Self {
        Self::Trolley(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (code, message) = match self {
            Self::Session(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Trolley(error) if error.is_invalid() => {
                (StatusCode::BAD_REQUEST, error.to_string())
            }
            Self::Trolley(error) if error.is_conflict() => {
                (StatusCode::CONFLICT, error.to_string())
            }
            Self::Trolley(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        (code, message).into_response()
    }
}

/// Whose cart it is: the user's, or the session's as long as nobody is logged in. `None` where there is not even a session.
async fn owner(session: &Session) -> Result<Option<CartOwner>, Failure> {
    if let Some(user) = session.get(USER).await? {
        return Ok(Some(CartOwner::User(user)));
    }
    Ok(session.id().as_ref().map(TrolleyStore::cart_owner))
}

async fn show(
    State(client): State<Client>,
    session: Session,
) -> Result<Json<serde_json::Value>, Failure> {
    let user: Option<String> = session.get(USER).await?;
    let lines = match owner(&session).await? {
        Some(owner) => client.carts().get(&owner).send().await?.value.lines,
        None => Vec::new(),
    };
    let lines = lines.iter();
    let cart: serde_json::Map<_, _> = lines
        .map(|line| (line.sku.clone(), json!(line.quantity)))
        .collect();
    Ok(Json(json!({ "user": user, "cart": cart })))
}

async fn add(
    State(client): State<Client>,
    session: Session,
    Path(sku): Path<String>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, Failure> {
    let owner = match owner(&session).await? {
        Some(owner) => owner,
        None => begin(&session).await?,
    };
    let mut add = client.carts().add(&owner, sku, 1);
    let key = headers.get(IDEMPOTENCY_KEY);
    if let (Some(key), Some(id)) = (key.and_then(|key| key.to_str().ok()), session.id()) {
        // A browser's keys are its own, and a request id is known to the whole namespace.
        let shopper: String = TrolleyStore::token(&id).chars().take(SCOPE_CHARS).collect();
        add = add.request_id(format!("{shopper}-{key}"));
    }
    let added = add.send().await?.value;
    Ok(Json(
        json!({ "quantity": added.line.map(|line| line.quantity) }),
    ))
}

/// A guest's session, saved at once, because its cart goes with it and so cannot come before it. A session that holds
/// nothing would not get a cookie.
async fn begin(session: &Session) -> Result<CartOwner, Failure> {
    session.insert(GUEST, true).await?;
    session.save().await?;
    let id = session.id().expect("a session that was saved has an id");
    Ok(TrolleyStore::cart_owner(&id))
}

/// A new cookie, so that nobody who planted the old one is logged in with it. The guest's cart becomes the user's first,
/// because the old session takes along what it has.
async fn login(
    State(client): State<Client>,
    session: Session,
    Path(user): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let theirs = CartOwner::User(user.clone());
    if let Some(guest @ CartOwner::Session(_)) = owner(&session).await? {
        let merge = client.carts().merge(&guest, &theirs, MergePolicy::Sum);
        merge.send().await?;
    }
    session.cycle_id().await?;
    session.remove::<bool>(GUEST).await?;
    session.insert(USER, &user).await?;
    Ok(Json(json!({ "user": user })))
}

async fn logout(session: Session) -> Result<StatusCode, Failure> {
    session.flush().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
#[allow(dead_code, reason = "a test that includes this file has no use for it")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(nodes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: shop LISTEN_ADDRESS NODE,NODE,...".into());
    };
    let client = Client::connect(ClientConfig::new(nodes.split(','))?)?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    axum::serve(listener, router(client)).await?;
    Ok(())
}
