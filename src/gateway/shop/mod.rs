//! A small shop for browsers: cookies, forms, pages, and a stream of what becomes of the cart.
//!
//! A browser holds one cookie, its session's token. Everything else is in the store: whose session it is, the cart, the
//! devices. So each request may go to another front, and a front that dies takes nothing along.
//!
//! # Invariants
//! 1. The token is in a cookie that scripts cannot read, and in no answer's body. It changes whenever somebody logs in.
//! 2. What changes anything comes from a page of this origin, and shows a token that is derived from the session's
//!    ([`visitor`]): another site's page can do neither.
//! 3. Prices are the [`catalogue`]'s, whatever a browser says.
//! 4. A request that is sent again under its `Idempotency-Key` is done once.
//! 5. A cart is ordered once, as its page showed it ([`orders`]).
//!
//! Deliberately absent: payment, whose place is between the freeze of a cart and its order; stock.

mod cart;
mod catalogue;
mod cookie;
mod devices;
mod entry;
mod events;
mod orders;
mod pages;
mod view;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use http::HeaderName;

use self::cookie::Cookies;
use super::accounts::Hashing;
use super::{App, front, routes};
use crate::client::Client;
use crate::config::ShopConfig;
use crate::types::Namespace;

/// Which front has answered.
const FRONT: HeaderName = HeaderName::from_static("x-trolley-front");

/// What requests of browsers share.
pub struct Shop {
    namespace: String,
    client: Client,
    hashing: Hashing,
    cookies: Cookies,
}

impl Shop {
    /// The shop in its namespace.
    pub fn new(client: &Client, hashing: Hashing, shop: &ShopConfig) -> Self {
        Self {
            namespace: shop.namespace.clone(),
            client: client.namespace(&shop.namespace),
            hashing,
            cookies: Cookies::new(shop.cookies),
        }
    }
}

impl Shop {
    /// Whether these are the shop's records. Among its keys are accounts, with what was made of their passwords.
    pub fn owns(&self, namespace: &Namespace) -> bool {
        namespace.as_str() == self.namespace
    }
}

/// All of the shop's routes.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let api = Router::new()
        .route("/catalogue", get(catalogue::get))
        .route("/session", get(entry::get).post(entry::begin))
        .route("/register", post(entry::register))
        .route("/log-in", post(entry::log_in))
        .route("/log-out", post(entry::log_out))
        .route("/log-out-everywhere", post(entry::log_out_everywhere))
        .route("/devices", get(devices::list))
        .route("/devices/{handle}", delete(devices::end))
        .route("/cart/lines", post(cart::add))
        .route(
            "/cart/lines/{line}",
            put(cart::set_quantity).delete(cart::remove),
        )
        .route("/orders", get(orders::list).post(orders::place))
        .route("/events", get(events::follow))
        .layer(from_fn_with_state(Arc::clone(app), visitor::protect))
        .layer(from_fn_with_state(Arc::clone(app), front::admit))
        .fallback(routes::none)
        .method_not_allowed_fallback(routes::no_method);
    Router::new()
        .nest("/shop/api", api)
        .merge(pages::routes())
        .layer(from_fn_with_state(Arc::clone(app), name_front))
}

async fn name_front(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(FRONT, app.name.clone());
    response
}
