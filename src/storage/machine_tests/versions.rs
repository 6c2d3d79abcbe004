//! Programs that know more than others of the rules that the state follows.

use super::*;

/// What the program of these tests knows.
pub(super) const KNOWN: u32 = StateVersion::NEWEST.get() + 1;

/// An entry that has the state follow `version`.
pub(super) fn raise(index: u64, version: u32) -> Entry {
    let operation = Operation::RaiseVersion(StateVersion::new(version));
    let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
    let stamp = LogTime::from_millis(1_000_000 + index);
    entry(
        index,
        EntryPayload::Normal(Proposal::new(stamp, vec![command])),
    )
}

#[tokio::test]
async fn an_older_program_opens_no_newer_state_and_changes_nothing() {
    let mut node = Node::new();
    let value = || Bytes::from_static(b"1");
    let entries = [put(1, "a", value()), raise(2, KNOWN), put(3, "b", value())];
    apply(&mut node.machine, entries).await;
    let before = dump(&node.machine.state());
    let data = node.close().await;
    let files = list_tree(&data.path().join("shards")).expect("readable");

    let log = open_log(data.path());
    let refused = open_with(data.path(), &log, StateVersion::NEWEST);
    let refused = refused.expect_err("it knows less");
    let found = match &refused {
        Error::StateVersion { found, newest, .. } => (found.get(), newest.get()),
        other => panic!("another error: {other}"),
    };
    assert_eq!(found, (KNOWN, KNOWN - 1));
    let message = refused.to_string();
    assert!(message.contains("run a newer one"), "{message}");
    log.shutdown().await;
    let after = list_tree(&data.path().join("shards")).expect("readable");
    let tables = |files: &BTreeMap<PathBuf, _>| {
        let names = files
            .keys()
            .filter(|it| it.extension().is_some_and(|it| it == "sst"));
        names.cloned().collect::<Vec<_>>()
    };
    assert_eq!(tables(&after), tables(&files));

    drop(log);
    let node = Node::at(data).expect("a program that knows it opens it");
    assert_eq!(dump(&node.machine.state()), before);
}

#[tokio::test]
async fn an_older_program_stops_where_the_state_was_told_to_follow_a_newer_one() {
    let value = || Bytes::from_static(b"1");
    let entries = || {
        [
            put(1, "a", value()),
            raise(2, KNOWN + 1),
            put(3, "b", value()),
        ]
    };
    let mut node = Node::new();
    let untouched = dump(&node.machine.state());
    let given = entries().map(|entry| Ok((entry, None)));
    let stopped = node.machine.apply(stream::iter(given)).await;
    let message = stopped.expect_err("it knows less").to_string();
    assert!(
        message.contains(&format!("version {}", KNOWN + 1)),
        "{message}"
    );
    assert_eq!(dump(&node.machine.state()), untouched);

    // A newer program goes on from the log.
    let data = node.close().await;
    let log = open_log(data.path());
    let mut machine = open_with(data.path(), &log, StateVersion::new(KNOWN + 1)).expect("it opens");
    apply(&mut machine, entries()).await;
    let header = machine.state().header();
    assert_eq!((header.version, header.revision), (KNOWN + 1, 2));
    drop(machine);
    log.shutdown().await;
}
