//! Bugs that are put into the simulated disk and node, one at a time, to see that the checks find them.

/// A bug. Where `trolley::planted` has the same, the name is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The log is written and not synced.
    UnsyncedLog,
    /// A vote is given before it is synced.
    UnsyncedVote,
    /// A truncation takes one entry too many.
    TruncateOffByOne,
    /// A leader answers linearizable reads without asking anybody whether it still leads.
    LeaderReads,
    /// A follower answers linearizable reads from what it has.
    FollowerReads,
    /// A leader confirms linearizable reads by its own clock: nobody is asked for whom it votes.
    LeaseReads,
    /// Snapshots leave out the reply tables.
    ForgottenReplies,
    /// A snapshot says that the state is flushed, and it is not: the log is purged past it.
    PurgePastFlush,
    /// The state is flushed, and the position in the log with the flush after.
    AppliedApart,
    /// One node applies the commands of an entry in another order.
    ReorderedApply,
    /// Nobody tells another node of log time: a leader stamps with its wall clock.
    WallClockStamps,
    /// Whoever has lost its disk comes back empty, as the member that it was.
    EmptyDisk,
    /// The state follows new rules although not every member's program knows them.
    UnaskedVersions,
    /// Whoever is asked for its vote panics now and then, in the task that answers.
    PanickingVote,
}

/// Their names.
pub const ALL: [(&str, Bug); 14] = [
    ("unsynced-log", Bug::UnsyncedLog),
    ("unsynced-vote", Bug::UnsyncedVote),
    ("truncate-off-by-one", Bug::TruncateOffByOne),
    ("leader-reads", Bug::LeaderReads),
    ("follower-reads", Bug::FollowerReads),
    ("lease-reads", Bug::LeaseReads),
    ("forgotten-replies", Bug::ForgottenReplies),
    ("purge-past-flush", Bug::PurgePastFlush),
    ("applied-apart", Bug::AppliedApart),
    ("reordered-apply", Bug::ReorderedApply),
    ("wall-clock-stamps", Bug::WallClockStamps),
    ("empty-disk", Bug::EmptyDisk),
    ("unasked-versions", Bug::UnaskedVersions),
    ("panicking-vote", Bug::PanickingVote),
];

/// The bug of a name.
pub fn named(name: &str) -> Option<Bug> {
    ALL.into_iter()
        .find_map(|(known, bug)| (known == name).then_some(bug))
}
