//! What `/metrics` shows, in the text form of Prometheus.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::auth::Refusal;
use super::protect::Class;
use super::traffic::Traffic;

/// Upper bounds of the classes of durations, in seconds.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// Routes are few and fixed; paths are not, and stand in no label.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    answers: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
    refusals: Family<Reason, Counter>,
    shed: Family<Reason, Counter>,
    limited: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were closed because there were too many.
    pub connections_refused: Counter,
    /// Event streams that are open.
    pub watches: Gauge,
    /// Passwords that were hashed.
    pub passwords_hashed: Counter,
    /// The same as the console shows it.
    pub traffic: Traffic,
}

/// A metric that shares what it counts with its clones.
trait Registered {
    fn register(&self, registry: &mut Registry, name: &str, help: &str);
}

impl<M: Metric + Clone> Registered for M {
    fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.clone());
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("trolley_gateway");
        let durations: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            answers: Family::default(),
            durations: Family::new_with_constructor(durations),
            refusals: Family::default(),
            shed: Family::default(),
            limited: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            watches: Gauge::default(),
            passwords_hashed: Counter::default(),
            traffic: Traffic::default(),
            registry: Registry::default(),
        };
        let mut register =
            |name, help, metric: &dyn Registered| metric.register(&mut registry, name, help);
        register("requests", "Requests that were answered", &metrics.answers);
        register(
            "request_seconds",
            "From a request's head to its answer's",
            &metrics.durations,
        );
        register(
            "tokens_refused",
            "Tokens that were refused",
            &metrics.refusals,
        );
        register(
            "shed",
            "Requests that found no place, by class",
            &metrics.shed,
        );
        register(
            "rate_limited",
            "Requests of callers who called too often",
            &metrics.limited,
        );
        register(
            "connections",
            "Connections that are open",
            &metrics.connections,
        );
        register(
            "connections_refused",
            "Connections beyond the most",
            &metrics.connections_refused,
        );
        register("watches", "Event streams that are open", &metrics.watches);
        register(
            "passwords_hashed",
            "Passwords that were hashed",
            &metrics.passwords_hashed,
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// A request was answered.
    pub fn answered(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        self.traffic.answered(method, route, took);
        let answered = Answered {
            method: known(method),
            route: route.to_owned(),
            status: status.as_u16(),
        };
        self.answers.get_or_create(&answered).inc();
        let route = Route {
            route: route.to_owned(),
        };
        self.durations
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    /// A token was refused.
    pub fn refused(&self, refusal: Refusal) {
        let reason = refusal.name();
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    /// A request found no place.
    pub fn shed(&self, class: Class) {
        let reason = class.name();
        self.shed.get_or_create(&Reason { reason }).inc();
    }

    /// A caller called too often.
    pub fn limited(&self) {
        self.limited.inc();
    }

    /// All of it, as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

/// Anybody may invent methods, and each would be a label.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::new();
        let invented = Method::from_bytes(b"BREW").expect("a token");
        let took = Duration::from_millis(3);
        metrics.answered(&Method::GET, "/v1/keys/{key}", StatusCode::OK, took);
        metrics.answered(&invented, "none", StatusCode::METHOD_NOT_ALLOWED, took);
        metrics.refused(Refusal::Expired);
        metrics.shed(Class::Touch);
        let text = metrics.text();
        for line in [
            r#"trolley_gateway_requests_total{method="GET",route="/v1/keys/{key}",status="200"} 1"#,
            r#"trolley_gateway_requests_total{method="other",route="none",status="405"} 1"#,
            r#"trolley_gateway_tokens_refused_total{reason="expired"} 1"#,
            r#"trolley_gateway_shed_total{reason="touch"} 1"#,
            r#"trolley_gateway_request_seconds_bucket{le="0.005",route="/v1/keys/{key}"} 1"#,
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }
}
