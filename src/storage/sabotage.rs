//! What bugs of [`crate::planted`] do to a state database. In a build without them nothing here is called.

use std::time::Duration;

use prost::Message as _;
use rocksdb::{DB, WriteBatch};

use super::Error;
use super::committed::unlogged;
use crate::proto::internal as pb;
use crate::raft::LogId;
use crate::state::{Key, KeyRange};

/// How long the position is ahead of the records: a crash must be able to fall in between.
const AHEAD: Duration = Duration::from_secs(1);

/// Nobody knows any more what was answered.
pub(super) fn forget_replies(db: &DB) -> Result<(), Error> {
    let replies = KeyRange::replies();
    let mut batch = WriteBatch::new();
    batch.delete_range(replies.start, replies.end);
    write(db, batch)
}

/// Stores where the log was applied up to, a good while before what was applied.
pub(super) fn write_applied(db: &DB, applied: Option<LogId>) -> Result<(), Error> {
    let Some(applied) = applied.map(pb::LogId::from) else {
        return Ok(());
    };
    let mut batch = WriteBatch::new();
    batch.put(Key::RaftApplied.encode(), applied.encode_to_vec());
    write(db, batch)?;
    db.flush()
        .map_err(|e| Error::database("flush", db.path(), e))?;
    std::thread::sleep(AHEAD);
    Ok(())
}

fn write(db: &DB, batch: WriteBatch) -> Result<(), Error> {
    db.write_opt(batch, &unlogged())
        .map_err(|e| Error::database("write to", db.path(), e))
}
