//! What went through this front, for the console: it draws rates and latencies from two looks at these counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde::Serialize;
use utoipa::ToSchema;

/// Upper bounds of the classes of durations, in microseconds; one more class has what took longer.
const BOUNDS_US: [u64; 16] = [
    250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 20_000, 50_000, 100_000, 250_000,
    1_000_000, 5_000_000,
];

/// Counters of what asks the store.
#[derive(Debug, Default)]
pub struct Traffic {
    reads: AtomicU64,
    writes: AtomicU64,
    durations: [AtomicU64; BOUNDS_US.len() + 1],
}

/// What they show.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TrafficSeen {
    /// Requests that read.
    reads: u64,
    /// Requests that write.
    writes: u64,
    /// Upper bounds of the classes of durations, in microseconds.
    bounds_us: Vec<u64>,
    /// Requests in each class; the last has what took longer than any bound.
    durations: Vec<u64>,
}

impl Traffic {
    /// Counts a request, unless it is about the front itself, or looks at this.
    pub fn answered(&self, method: &Method, route: &str, took: Duration) {
        let is_counted = route.starts_with("/v1/") || route.starts_with("/shop/api/");
        if !is_counted || route == "/v1/cluster" {
            return;
        }
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let kind = if is_read { &self.reads } else { &self.writes };
        kind.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.durations[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Up to now.
    pub fn seen(&self) -> TrafficSeen {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficSeen {
            reads: read(&self.reads),
            writes: read(&self.writes),
            bounds_us: BOUNDS_US.to_vec(),
            durations: self.durations.iter().map(read).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_the_store_is_counted_by_how_long_it_took() {
        let traffic = Traffic::default();
        let mut expected = traffic.seen();
        traffic.answered(&Method::GET, "/v1/keys/{key}", Duration::from_micros(250));
        traffic.answered(
            &Method::POST,
            "/shop/api/cart/lines",
            Duration::from_micros(251),
        );
        traffic.answered(&Method::PUT, "/v1/keys/{key}", Duration::from_secs(60));
        for route in ["/readyz", "/v1/cluster", "none", "/shop"] {
            traffic.answered(&Method::GET, route, Duration::ZERO);
        }
        expected.reads = 1;
        expected.writes = 2;
        expected.durations[0] = 1;
        expected.durations[1] = 1;
        expected.durations[BOUNDS_US.len()] = 1;
        assert_eq!(traffic.seen(), expected);
        assert!(BOUNDS_US.is_sorted());
    }
}
