//! The state follows newer rules when it is told to, and whoever does not know them stops.

use std::ops::ControlFlow;

use super::{command, put};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::store::Stored;
use crate::state::{
    Batch, Command, Fault, Key, KeyRange, MemoryStore, Operation, Store, SweepHorizon, apply_all,
};
use crate::types::{LogTime, StateVersion};

/// A store as a program has it that knows so much.
struct KnownUpTo(StateVersion, MemoryStore);

impl Store for KnownUpTo {
    fn header(&self) -> pb::StateHeader {
        self.1.header()
    }

    fn newest_version(&self) -> StateVersion {
        self.0
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        self.1.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        self.1.scan(range, visit)
    }
}

impl KnownUpTo {
    fn new(version: u32) -> Self {
        Self(StateVersion::new(version), MemoryStore::new())
    }

    fn apply(&mut self, commands: &[Command]) -> Result<Vec<pb::Reply>, Fault> {
        let mut batch = Batch::new(self, SweepHorizon::default());
        let applied = apply_all(&mut batch, LogTime::from_millis(5), commands)?;
        let (changes, _) = batch.finish();
        self.1.commit(changes);
        Ok(applied.into_iter().map(|applied| applied.reply).collect())
    }
}

fn raise(version: u32) -> Command {
    command(Operation::RaiseVersion(StateVersion::new(version)))
}

#[test]
fn it_is_raised_and_never_lowered() {
    let mut store = KnownUpTo::new(4);
    let replies = store.apply(&[command(put("a", "1", None))]);
    assert_eq!(replies.expect("known")[0].revision, 1);
    let before = store.header();
    assert_eq!(before.version, 0, "as it was before there were versions");
    for (to, then) in [(3, 3), (2, 3), (3, 3), (0, 3), (4, 4)] {
        let replies = store.apply(&[raise(to)]).expect("known");
        assert_eq!(replies[0].body, Some(Body::Ticked(pb::Ticked {})));
        assert_eq!(store.header().version, then, "raised to {to}");
    }
    let after = pb::StateHeader {
        version: before.version,
        ..store.header()
    };
    assert_eq!(after, before, "no record has changed");
    store.apply(&[command(put("a", "2", None))]).expect("known");
    assert_eq!(store.header().version, 4, "it stays");
}

#[test]
fn who_does_not_know_it_applies_nothing_of_the_batch() {
    let mut store = KnownUpTo::new(2);
    let entry = [command(put("a", "1", None)), raise(3)];
    let fault = store.apply(&entry).expect_err("it knows 2 at most");
    let known = match fault {
        Fault::UnknownVersion { version, newest } => (version.get(), newest.get()),
        other => panic!("another fault: {other}"),
    };
    assert_eq!(known, (3, 2));
    assert_eq!(store.header(), pb::StateHeader::default());
    assert_eq!(store.1, MemoryStore::new());
    // With a newer program the same entry is applied.
    store.0 = StateVersion::new(3);
    store.apply(&entry).expect("known now");
    let header = store.header();
    assert_eq!((header.version, header.revision), (3, 1));
}

#[test]
fn a_command_of_it_reads_as_it_was_written() {
    let written = raise(7);
    let read = Command::decode(written.encode()).expect("it decodes");
    assert_eq!(read, written);
}
