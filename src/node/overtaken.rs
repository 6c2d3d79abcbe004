//! A log that still holds what applied entries have taken the place of.
//!
//! The state is flushed by itself, and may be ahead of the log after a power cut: it had applied what others had synced. Where the
//! log merely ends too early, openraft purges it up to the state and goes on behind it. But where the power also took the truncation
//! that came before those entries, what they had replaced is there again, and openraft takes the log for corrupted. Nothing is: what
//! lies at the index of an applied entry and is another one was never committed, nor was anything behind it, and what lies before it
//! is in the state.

use std::io;

use openraft::storage::{RaftLogStorage, RaftStateMachine};

use crate::raft::{LogId, TypeConfig};

/// Drops such a log, up to its end; openraft goes on behind what is applied. Before openraft is started.
pub async fn drop_overtaken<L, M>(log: &mut L, machine: &mut M) -> io::Result<()>
where
    L: RaftLogStorage<TypeConfig>,
    M: RaftStateMachine<TypeConfig>,
{
    let (applied, _) = machine.applied_state().await?;
    let held = log.get_log_state().await?;
    let Some(applied) = applied.filter(|applied| is_overtaken(held.last_log_id, *applied)) else {
        return Ok(());
    };
    tracing::warn!(
        %applied,
        last = ?held.last_log_id,
        "the log holds entries that others have taken the place of, and is dropped up to what is applied"
    );
    log.truncate_after(held.last_purged_log_id).await?;
    log.purge(applied).await
}

/// Whether a log that ends with `last` holds another entry at the index of the applied one.
fn is_overtaken(last: Option<LogId>, applied: LogId) -> bool {
    last.is_some_and(|last| last < applied && last.index >= applied.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Vote;

    #[test]
    fn only_a_log_of_an_earlier_leader_that_reaches_as_far_is_overtaken() {
        let id = |term, index| LogId::new(Vote::new_committed(term, 1).leader_id, index);
        for (last, applied, expected) in [
            (None, id(2, 12), false),
            (Some(id(1, 11)), id(2, 12), false),
            (Some(id(1, 12)), id(2, 12), true),
            (Some(id(1, 20)), id(2, 12), true),
            (Some(id(2, 11)), id(2, 12), false),
            (Some(id(2, 20)), id(2, 12), false),
            (Some(id(3, 20)), id(2, 12), false),
        ] {
            assert_eq!(is_overtaken(last, applied), expected, "{last:?} {applied}");
        }
    }
}
