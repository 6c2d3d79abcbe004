//! The stateless front: REST and JSON over HTTP for callers who show a JWT, on top of [`crate::client`].
//!
//! A gateway keeps nothing between requests that another one would need: whatever it knows is in the request or in the
//! store. So any number of them stand behind any load balancer, and each may be killed at any moment. What it does
//! remember (good tokens, rates, where the leader is) makes it faster or safer and nothing else.
//!
//! # One request's journey
//!
//! `serve` reads its head, within bounds. `front` gives it an id, asks `auth` whose token it shows, and `protect` whether
//! there is room. `routes` turn it into calls of the client, in the caller's own namespace, and what comes back into JSON
//! with the store's revision in its headers; a failure becomes a [`Problem`] in the one place that maps errors. What is
//! answered goes over the `wire`, as long as somebody takes it; event streams end in time (`streams`). The document of all
//! routes is made from the routes themselves (`openapi`).
//!
//! # Invariants
//! 1. Nothing under `/v1` is answered without a good token, and every route asks for its scope, as does every operation
//!    of a transaction.
//! 2. A caller's namespace comes from its token alone. It sees its own user's records only, and whatever is somebody
//!    else's looks like what is not there.
//! 3. Tokens, of either kind, stand in no log line, no path and no error.
//! 4. Whatever waits, queues or is remembered has a bound from [`crate::limits`] or the settings.
//!
//! Deliberately absent: TLS, which is the load balancer's; sessions of its own; caches of records.
//!
//! For browsers there is a `shop`, with `accounts`, if a gateway is told to have one.

mod accounts;
mod auth;
mod error;
mod front;
mod metrics;
mod openapi;
mod problem;
mod protect;
mod ready;
mod routes;
mod serve;
mod shop;
mod streams;
mod traffic;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use http::HeaderValue;
use tower_http::cors::CorsLayer;

pub use error::Error;
pub use problem::Problem;
pub use serve::{run, serve};

use self::accounts::Hashing;
use self::auth::{Keyring, Verifier};
use self::metrics::Metrics;
use self::protect::{Admission, Party, Rates};
use self::ready::Readiness;
use self::shop::Shop;
use self::streams::Streams;
use crate::client::{Client, ClientConfig};
use crate::clock::Clock;
use crate::config::{GatewayConfig, Protection};
use crate::types::Namespace;

/// Of what a request may take, the store's part: so its own answer comes before the gateway gives up.
const STORE_SHARE: f64 = 0.9;

/// Everything that requests share.
pub(crate) struct App {
    client: Client,
    keyring: Arc<Keyring>,
    verifier: Verifier,
    metrics: Metrics,
    admission: Admission,
    rates: Rates<Party>,
    namespace_rates: Rates<Namespace>,
    refusal_rates: Rates<IpAddr>,
    readiness: Readiness,
    streams: Streams,
    protection: Protection,
    /// What answers call this front.
    name: HeaderValue,
    /// For browsers, if it is wanted.
    shop: Option<Shop>,
}

impl App {
    async fn new(config: &GatewayConfig, clock: Clock) -> Result<Arc<Self>, Error> {
        let protection = config.protection.clone();
        let keyring = auth::keyring(&config.tokens).await?;
        let timeout = protection.request_timeout.mul_f64(STORE_SHARE);
        let client = ClientConfig::new(&config.endpoints)?.timeout(timeout);
        let client = Client::connect(client)?;
        let metrics = Metrics::new();
        let shop = config.shop.as_ref().map(|shop| {
            let hashing = Hashing::new(metrics.passwords_hashed.clone());
            Shop::new(&client, hashing, shop)
        });
        Ok(Arc::new(Self {
            client,
            verifier: Verifier::new(Arc::clone(&keyring), config.tokens.clone(), clock),
            keyring,
            streams: Streams::new(protection.max_watches, metrics.watches.clone()),
            metrics,
            admission: Admission::new(protection.max_requests),
            rates: Rates::new(protection.rate_per_user),
            namespace_rates: Rates::new(protection.rate_per_namespace),
            refusal_rates: Rates::new(protection.rate_of_refusals),
            readiness: Readiness::default(),
            protection,
            name: config.name.clone(),
            shop,
        }))
    }

    /// Every route, behind everything that a request passes.
    fn router(self: Arc<Self>) -> Router {
        let (api, document) = routes::api().split_for_parts();
        let api = api
            .fallback(routes::none)
            .method_not_allowed_fallback(routes::no_method);
        let shop = self.shop.is_some().then(|| shop::routes(&self));
        let router = api
            .merge(shop.unwrap_or_default())
            .merge(ready::routes())
            .merge(openapi::routes(document, &self))
            .layer(from_fn_with_state(Arc::clone(&self), front::observe));
        let router = match cors(&self.protection) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.with_state(self)
    }
}

/// Pages of these origins may call, with their own tokens: no cookie is sent.
fn cors(protection: &Protection) -> Option<CorsLayer> {
    const PREFLIGHT: Duration = Duration::from_secs(600);
    if protection.cors_origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(protection.cors_origins.clone())
        .allow_methods(routes::METHODS)
        .allow_headers(routes::request_headers())
        .expose_headers(routes::response_headers())
        .max_age(PREFLIGHT);
    Some(layer)
}
