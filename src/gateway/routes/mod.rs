//! What can be asked for, one file per kind of record.
//!
//! `call` reads what every request has, `answer` writes what every answer has, `access` decides whose records a caller may
//! see, and `documented` is what the document says of all three.

mod access;
mod answer;
mod blob;
pub mod call;
mod cart_views;
mod carts;
mod checkout;
mod cluster;
mod documented;
mod keys;
mod session_views;
mod sessions;
mod tag;
mod transactions;
mod watch;

use std::sync::Arc;

use http::Method;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER,
};
use utoipa_axum::router::OpenApiRouter;

pub(super) use self::answer::Answer;
pub(super) use self::call::{Asked, Body, IDEMPOTENCY_KEY};
pub(super) use self::cart_views::Cart;
pub(super) use self::session_views::Devices;

pub use self::call::At;
pub use self::documented::schemas;

use super::App;
use super::problem::Problem;

/// Methods that a page of another origin may use.
pub const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// Headers that it may send.
pub fn request_headers() -> Vec<HeaderName> {
    let own = [call::SESSION, call::REVISION, call::IDEMPOTENCY_KEY];
    let standard = [AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH];
    own.map(HeaderName::from_static)
        .into_iter()
        .chain(standard)
        .collect()
}

/// Headers that it may read.
pub fn response_headers() -> Vec<HeaderName> {
    vec![HeaderName::from_static(call::REVISION), ETAG, RETRY_AFTER]
}

/// All of them.
pub fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(sessions::routes())
        .merge(carts::routes())
        .merge(checkout::routes())
        .merge(cluster::routes())
        .merge(keys::routes())
        .merge(transactions::routes())
        .merge(watch::routes())
}

/// There is no such route.
pub async fn none() -> Problem {
    Problem::no_route()
}

/// There is, for other methods.
pub async fn no_method() -> Problem {
    Problem::no_method()
}
