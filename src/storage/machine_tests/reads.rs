//! A view has exactly one revision, and no cache entry is older than what is committed.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::state::{Key as StateKey, KeyOperation, Record};

const KEYS: u64 = 8;

fn kv(key: u64) -> StateKey {
    let name = Key::parse(format!("k{key}")).expect("short");
    StateKey::Kv(Namespace::default(), name)
}

/// What a lookup answers, through the cache; one of many at a time answers the same.
fn looked_up(view: StateView<'_>, key: u64) -> Result<Option<Bytes>, Fault> {
    let found = view.get(&kv(key))?;
    let absent = kv(KEYS);
    let together = view.get_many(&[kv(key), absent, kv(key)])?;
    assert_eq!(together, [found.clone(), None, found.clone()]);
    Ok(found.map(|stored| match stored.record {
        Record::Kv(kv) => kv.value.clone(),
        other => panic!("{other:?}"),
    }))
}

/// What layers and database hold.
fn scanned(view: StateView<'_>, key: u64) -> Result<Option<Bytes>, Fault> {
    let start = kv(key).encode().to_vec();
    let mut end = start.clone();
    end.push(0);
    let mut found = None;
    view.scan(&KeyRange { start, end }, &mut |_, value| {
        let stored = crate::state::record::decode(&kv(key), Bytes::copy_from_slice(value))?;
        if let Record::Kv(kv) = stored.record {
            found = Some(kv.value.clone());
        }
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

pub(super) fn delete(index: u64, key: u64) -> Entry {
    let operation = Operation::Key(KeyOperation::Delete {
        key: Key::parse(format!("k{key}")).expect("short"),
        if_revision: None,
    });
    let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
    let stamp = LogTime::from_millis(1_000_000 + index);
    entry(
        index,
        EntryPayload::Normal(Proposal::new(stamp, vec![command])),
    )
}

/// With room for a few records only, so that it evicts all the time, and layers of a few, so that they are written all
/// the time.
fn small_cache(data: &Path) -> (Arc<LogDb>, Machine) {
    let log = open_log(data);
    let config = StateConfig {
        record_cache_bytes: 2048,
        layer_bytes: 2048,
        unwritten_bytes: 2048,
        ..StateConfig::default()
    };
    let machine =
        Machine::open(data, cluster(), ShardId::ZERO, log.clone(), config).expect("a new node");
    (log, machine)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_answers_what_the_database_holds(
        batches in prop::collection::vec(
            prop::collection::vec((0..KEYS, prop::option::of(any::<u8>())), 1..6),
            1..40,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let data = tempfile::tempdir().expect("a temporary directory");
        let (_log, mut machine) = small_cache(data.path());
        let state = machine.state();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    compare(&state);
                }
                compare(&state);
            });
            let mut index = 0;
            for batch in batches {
                let entries: Vec<_> = batch
                    .into_iter()
                    .map(|(key, value)| {
                        index += 1;
                        match value {
                            Some(value) => put(index, &format!("k{key}"), vec![value; 32].into()),
                            None => delete(index, key),
                        }
                    })
                    .collect();
                runtime.block_on(apply(&mut machine, entries));
                compare(&state);
            }
            done.store(true, Ordering::Release);
            reader.join().expect("no stale read");
        });
    }
}

fn compare(state: &StateDb) {
    state
        .view(|view| {
            for key in 0..KEYS {
                assert_eq!(looked_up(*view, key)?, scanned(*view, key)?, "key {key}");
            }
            Ok(())
        })
        .expect("readable");
}

/// Every batch writes its number under two keys; a reader must find the same one under both, and the revision
/// that belongs to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_sees_whole_batches_at_their_revision() {
    let mut node = Node::new();
    let state = node.machine.state();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (state, done) = (state.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                let (revision, (one, two)) = state
                    .view(|view| Ok((looked_up(*view, 1)?, scanned(*view, 2)?)))
                    .expect("readable");
                assert_eq!(one, two);
                let number = one.map_or(0, |bytes| {
                    u64::from_le_bytes(bytes[..].try_into().expect("8 bytes"))
                });
                assert_eq!(revision.get(), number * 2);
            }
        })
    };
    for number in 1..=500u64 {
        let value = Bytes::copy_from_slice(&number.to_le_bytes());
        let entries = [
            put(number * 2 - 1, "k1", value.clone()),
            put(number * 2, "k2", value),
        ];
        apply(&mut node.machine, entries).await;
    }
    done.store(true, Ordering::Release);
    reader.join().expect("no torn read");
}

#[tokio::test]
async fn what_is_published_follows_each_batch() {
    let mut node = Node::new();
    let state = node.machine.state();
    let applied = state.applied();
    assert_eq!(*applied.borrow(), AppliedAt::default());
    apply(
        &mut node.machine,
        [put(1, "a", Bytes::new()), put(2, "b", Bytes::new())],
    )
    .await;
    let expected = AppliedAt {
        revision: crate::types::Revision::new(2),
        log_index: 2,
        log_time: applied.borrow().log_time,
    };
    assert_eq!(*applied.borrow(), expected);
    assert_eq!(state.header().revision, 2);
}

/// A scan that memory goes on with behind a damaged block must not pass over what the block held.
#[tokio::test]
async fn what_is_behind_a_damaged_block_is_not_left_out() {
    const RECORDS: u64 = 300;
    let mut node = Node::new();
    // What does not shrink, so that there are many blocks.
    let mut random = fastrand::Rng::with_seed(7);
    let mut value = move || (0..400).map(|_| random.u8(..)).collect::<Bytes>();
    let stored = (1..=RECORDS).map(|index| put(index, &format!("k{index:04}"), value()));
    apply(&mut node.machine, stored.collect::<Vec<_>>()).await;
    build(&mut node.machine).await;
    let state = node.shard_dir().state(0);
    let tables = node.machine.state().database().live_files();
    // Of the records, not of the events, some of which are read when a node starts.
    let tables = tables.expect("readable").into_iter();
    let largest = tables
        .filter(|table| table.column_family_name == rocksdb::DEFAULT_COLUMN_FAMILY_NAME)
        .max_by_key(|table| table.size)
        .expect("there is one");
    let data = node.close().await;
    let table = state.join(largest.name.trim_start_matches('/'));
    let mut bytes = std::fs::read(&table).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    // A snapshot has the same table, and would be found damaged at once.
    std::fs::remove_file(&table).expect("removed");
    std::fs::write(&table, bytes).expect("written");

    let mut node = Node::at(data).expect("its ends are whole");
    apply(
        &mut node.machine,
        [put(RECORDS + 1, "z", Bytes::from_static(b"new"))],
    )
    .await;
    let key = |name: &str| {
        let name = Key::parse(name).expect("short");
        StateKey::Kv(Namespace::default(), name).encode().to_vec()
    };
    let range = KeyRange {
        start: key("a"),
        end: key("zz"),
    };
    let mut seen = 0;
    let scanned = node.machine.state().view(|view| {
        view.scan(&range, &mut |found, _| {
            seen += 1;
            Ok(if found == key("z") {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
    });
    assert!(
        scanned.is_err(),
        "{seen} of {} records were seen",
        RECORDS + 1
    );
}
