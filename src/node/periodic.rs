//! What a node does again and again, until it ends.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Turns that are a period apart. The first is at once; after one that came late the next comes a period later, and none is made up for.
pub(super) struct Periodic {
    period: Interval,
    stop: CancellationToken,
}

impl Periodic {
    pub fn new(period: Duration, stop: CancellationToken) -> Self {
        let mut period = interval(period);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { period, stop }
    }

    /// Waits for the next turn. `false` when there will be none.
    pub async fn turn(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            _ = self.period.tick() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_one_after_the_other_until_the_end() {
        const PERIOD: Duration = Duration::from_secs(1);
        let stop = CancellationToken::new();
        let mut turns = Periodic::new(PERIOD, stop.clone());
        let began = Instant::now();
        assert!(turns.turn().await, "at once");
        assert_eq!(began.elapsed(), Duration::ZERO);
        advance(PERIOD * 5 / 2).await;
        assert!(turns.turn().await, "it is late");
        let late = began.elapsed();
        assert!(turns.turn().await);
        assert!(
            began.elapsed() >= late + PERIOD,
            "a period after the late one"
        );
        stop.cancel();
        advance(PERIOD * 2).await;
        assert!(!turns.turn().await, "the end comes first");
    }
}
