//! How often each of very many callers may call: token buckets in bounded memory.
//!
//! A bucket holds as many requests as may come in a second, and fills within one. The callers seen least are forgotten
//! when there are too many, and a forgotten bucket is full again: so whoever has very many names is not held back here.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::limits;

/// The rates of callers, each of whom may call so many times a second.
pub struct Rates<K> {
    /// `None`: any number.
    per_second: Option<f64>,
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    pub fn new(per_second: Option<u32>) -> Self {
        Self {
            per_second: per_second.map(f64::from),
            // The cache grows with what it holds.
            buckets: Cache::new(limits::RATES_REMEMBERED),
        }
    }

    /// Takes one request out of the caller's bucket, unless it is empty.
    pub fn take(&self, key: &K) -> bool {
        self.with(key, |bucket| {
            let has_one = bucket.left >= 1.0;
            if has_one {
                bucket.left -= 1.0;
            }
            has_one
        })
    }

    /// There is a request left; it stays there.
    pub fn has(&self, key: &K) -> bool {
        self.with(key, |bucket| bucket.left >= 1.0)
    }

    fn with(&self, key: &K, ask: impl FnOnce(&mut Bucket) -> bool) -> bool {
        let Some(rate) = self.per_second else {
            return true;
        };
        let now = Instant::now();
        let bucket = self.buckets.get(key).unwrap_or_else(|| {
            let bucket = Arc::new(Mutex::new(Bucket {
                left: rate,
                at: now,
            }));
            self.buckets.insert(key.clone(), Arc::clone(&bucket));
            bucket
        });
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + elapsed * rate).min(rate);
        bucket.at = now;
        ask(&mut bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let rates = Rates::new(Some(2));
        assert!(rates.take(&"ada") && rates.take(&"ada"));
        assert!(!rates.take(&"ada") && !rates.has(&"ada"));
        assert!(rates.take(&"bob"), "another's is full");
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(rates.has(&"ada"));
        assert!(rates.take(&"ada") && !rates.take(&"ada"));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(rates.take(&"ada") && rates.take(&"ada"));
        assert!(!rates.take(&"ada"), "it holds a second's worth");
    }

    #[test]
    fn without_a_rate_anything_goes() {
        let rates = Rates::new(None);
        assert!((0..10_000).all(|_| rates.take(&1)));
    }
}
