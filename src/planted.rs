//! Bugs that are put in on purpose, one at a time, to see whether `trolley-torture` finds them.
//!
//! Only a build with the feature `planted-bugs` has any, and it has the one that the environment variable `PLANTED_BUG`
//! names when the process starts. In every other build [`has`] is `false` before the program runs.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The log is written and not synced, once it has [`SYNCED_GROUPS`].
    UnsyncedLog,
    /// A leader answers linearizable reads without asking anybody whether it still leads.
    LeaderReads,
    /// A follower answers linearizable reads from what it has.
    FollowerReads,
    /// Nobody looks into the reply tables.
    ForgottenReplies,
    /// A leader stamps entries with its wall clock.
    WallClockStamps,
    /// The client sends a write whose outcome is unknown again, under a new identity.
    NewIdOnRetry,
    /// A write to the log that fails is said to have succeeded.
    SwallowedError,
    /// Now and then an event is not told of.
    LostEvents,
    /// A vote is written and not synced.
    UnsyncedVote,
    /// The log is recovered up to its first damaged record, as `RocksDB` does by default, and nobody asks whether that is all of it.
    DefaultRecovery,
    /// A snapshot says that it covers what is applied, and what is in memory alone is not written first: the log that the state
    /// needs is purged.
    EarlyPurge,
    /// A truncation of the log takes one entry too many from the disk.
    TruncateOffByOne,
    /// A snapshot that is installed has no replies.
    RepliesNotInSnapshots,
    /// Where the log was applied up to is stored a moment before what was applied.
    AppliedApart,
    /// A restarted node does not go on from the log time that it wrote down.
    ForgottenTime,
    /// A touch is acknowledged and moves no deadline.
    LostTouches,
    /// A session that is rotated begins with no fields.
    ForgottenFields,
    /// A token that the server draws goes into the log as it is.
    UnsealedTokens,
    /// A lease that is kept alive ends when it would have ended without.
    LostKeepAlives,
    /// A key that has a lease is given away again to who wants it only if it is absent.
    SharedLocks,
    /// A key that is put with another lease ends with the first one, too.
    ForgottenMoves,
}

/// So many groups of a log are synced even with [`Bug::UnsyncedLog`]: without any, there is no cluster to come back to, and nothing to
/// count of what it has lost.
pub const SYNCED_GROUPS: u64 = 100;

/// Whether this process has it.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn has(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("PLANTED_BUG").ok()?;
        ALL.into_iter()
            .find_map(|(known, bug)| (known == name).then_some(bug))
    });
    *planted == Some(bug)
}

/// Whether this process has it: no.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn has(_: Bug) -> bool {
    false
}

/// Their names in the environment.
pub const ALL: [(&str, Bug); 21] = [
    ("unsynced-log", Bug::UnsyncedLog),
    ("leader-reads", Bug::LeaderReads),
    ("follower-reads", Bug::FollowerReads),
    ("forgotten-replies", Bug::ForgottenReplies),
    ("wall-clock-stamps", Bug::WallClockStamps),
    ("new-id-on-retry", Bug::NewIdOnRetry),
    ("swallowed-error", Bug::SwallowedError),
    ("lost-events", Bug::LostEvents),
    ("unsynced-vote", Bug::UnsyncedVote),
    ("default-recovery", Bug::DefaultRecovery),
    ("early-purge", Bug::EarlyPurge),
    ("truncate-off-by-one", Bug::TruncateOffByOne),
    ("replies-not-in-snapshots", Bug::RepliesNotInSnapshots),
    ("applied-apart", Bug::AppliedApart),
    ("forgotten-time", Bug::ForgottenTime),
    ("lost-touches", Bug::LostTouches),
    ("forgotten-fields", Bug::ForgottenFields),
    ("unsealed-tokens", Bug::UnsealedTokens),
    ("lost-keep-alives", Bug::LostKeepAlives),
    ("shared-locks", Bug::SharedLocks),
    ("forgotten-moves", Bug::ForgottenMoves),
];
