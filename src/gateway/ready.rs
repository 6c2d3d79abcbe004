//! Whether to send requests here: `/livez`, `/readyz`, and what is going on: `/metrics`.
//!
//! A gateway without a reachable node is not ready. One whose cluster has no leader is: no other front would know more,
//! and the answer says so better than an empty load balancer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::App;

/// Between two looks at the store, and how long one may take.
const PROBE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// What Prometheus asks for.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/readyz` goes by.
#[derive(Default)]
pub struct Readiness {
    reaches_store: AtomicBool,
    drains: AtomicBool,
}

impl Readiness {
    /// From now on no more requests should come.
    pub fn drain(&self) {
        self.drains.store(true, Ordering::Relaxed);
    }
}

impl App {
    /// Why no request should come; `None` if they may.
    fn unready(&self) -> Option<&'static str> {
        if self.readiness.drains.load(Ordering::Relaxed) {
            Some("shutting down")
        } else if self.keyring.known().keys.is_none() {
            Some("there are no keys to check tokens with yet")
        } else if !self.readiness.reaches_store.load(Ordering::Relaxed) {
            Some("no node of the store answers")
        } else {
            None
        }
    }

    /// Looks at the store now and then.
    pub(super) async fn probe(&self) {
        let client = self.client.timeout(PATIENCE);
        loop {
            let answered = client.cluster().members().await.is_ok();
            let before = self
                .readiness
                .reaches_store
                .swap(answered, Ordering::Relaxed);
            if before != answered {
                tracing::info!(answered, "the store");
            }
            tokio::time::sleep(PROBE).await;
        }
    }
}

/// They need no token: only the load balancer and whoever runs the gateway should reach them.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.unready() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, METRICS)], app.metrics.text()).into_response()
}
