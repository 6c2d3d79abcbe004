//! What clients know of log time: a write was stamped after it was sent, so whoever reads after its acknowledgement reads at that time
//! or later.
//!
//! While no write is acknowledged log time cannot be known to pass, and it does not where no majority takes entries. So what an
//! outage adds to the life of a session is not an allowance here: it is the time since the last write that was known to be applied.

use crate::torture::workloads::probes::Probes;

/// How far log time had come, seen by clients.
#[derive(Debug, Default)]
pub struct LogTime {
    /// When a write was acknowledged, and when the latest of those acknowledged by then had been sent.
    acknowledged: Vec<(u64, u64)>,
}

impl LogTime {
    /// As these writes show it.
    #[must_use]
    pub fn of(probes: &[Probes]) -> Self {
        let answered = probes
            .iter()
            .filter(|probe| probe.outcome.answer().is_some());
        let mut acknowledged: Vec<(u64, u64)> = answered
            .filter_map(|probe| Some((probe.returned_us?, probe.invoked_us)))
            .collect();
        acknowledged.sort_unstable();
        let mut latest = 0;
        for (_, sent) in &mut acknowledged {
            latest = latest.max(*sent);
            *sent = latest;
        }
        Self { acknowledged }
    }

    /// A time at or before which log time cannot be, for a linearizable read that was sent at this one.
    #[must_use]
    pub fn reached(&self, at_us: u64) -> u64 {
        let before = self
            .acknowledged
            .partition_point(|(returned, _)| *returned < at_us);
        before
            .checked_sub(1)
            .map_or(0, |last| self.acknowledged[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{lost, told};
    use super::*;

    #[test]
    fn it_is_when_the_latest_write_was_sent_that_was_acknowledged_before() {
        let probes = [
            told(10, 50, 0, ()),
            told(20, 30, 1, ()),
            lost(40, 45, 2),
            told(25, 90, 3, ()),
        ];
        let log_time = LogTime::of(&probes);
        let reached = [30, 31, 51, 1_000].map(|at_us| log_time.reached(at_us));
        assert_eq!(reached, [0, 20, 20, 25]);
    }
}
