//! The history of events over real files: the same as in memory, wherever it lies and whatever became of the node.

use super::equal::over_memory;
use super::*;
use crate::limits;
use crate::state::events::{Event, Page};
use crate::state::{Key, MemoryStore};

/// Longest wait for a compaction.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Every event from a revision on, read in pages of about so many bytes.
fn read_all(
    from: Revision,
    read: impl Fn(Revision) -> Result<Page, Fault>,
) -> (Vec<Event>, Revision) {
    let (mut all, mut next) = (Vec::new(), from);
    loop {
        match read(next).expect("no fault") {
            Page::Events { events, through } => {
                assert!(through >= next, "no progress");
                all.extend(events);
                next = through.next();
            }
            Page::CaughtUp { at, .. } => {
                assert_eq!(at.next(), next, "a gap at the end");
                return (all, at);
            }
            Page::Forgotten { oldest } => panic!("{next} is forgotten up to {oldest}"),
        }
    }
}

fn of(state: &StateDb, from: Revision, budget: usize) -> Vec<Event> {
    read_all(from, |next| state.events(next, budget)).0
}

fn of_memory(store: &MemoryStore, from: Revision) -> Vec<Event> {
    read_all(from, |next| store.events(next, usize::MAX)).0
}

#[tokio::test]
async fn events_are_the_same_in_layers_in_tables_and_in_memory() {
    let seed = 1;
    let entries = || (1..=super::equal::ENTRIES).map(|i| history(seed, i));
    let memory = over_memory(entries()).store;
    let mut node = Node::new();
    // Small layers: the older events are in tables by now, the newest in a layer, maybe some on their way.
    apply(&mut node.machine, entries()).await;
    let state = node.machine.state();
    let expected = of_memory(&memory, Revision::new(1));
    println!("{} events", expected.len());
    assert!(expected.len() > 1500, "{}", expected.len());
    let stored = stored_chunks(&state).len();
    assert!(stored > 1, "{stored} chunks are in the database");
    for budget in [1, 1000, usize::MAX] {
        assert_eq!(of(&state, Revision::new(1), budget), expected);
    }
    // From anywhere, also from within a chunk.
    for from in (1..state.header().revision).step_by(97) {
        let from = Revision::new(from);
        assert_eq!(of(&state, from, 5000), of_memory(&memory, from));
    }
    state.flush().expect("the disk works");
    assert_eq!(of(&state, Revision::new(1), usize::MAX), expected);
}

const LAST: u64 = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_while_layers_are_written_misses_nothing() {
    let mut node = Node::new();
    let state = node.machine.state();
    let reader = state.clone();
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn_blocking(move || {
        let (mut revisions, mut next) = (Vec::new(), Revision::new(1));
        while next <= Revision::new(LAST) {
            match reader.events(next, 3000).expect("no fault") {
                Page::Events { events, through } => {
                    revisions.extend(events.iter().map(|event| event.revision.get()));
                    next = through.next();
                }
                Page::CaughtUp { .. } => std::thread::yield_now(),
                Page::Forgotten { oldest } => panic!("forgotten up to {oldest}"),
            }
        }
        revisions
    });
    for index in 1..=LAST {
        let value = Bytes::from(vec![b'v'; 100]);
        apply(&mut node.machine, [put(index, "k", value)]).await;
    }
    let revisions = reading.join_next().await.expect("one task");
    let expected: Vec<_> = (1..=LAST).collect();
    assert_eq!(revisions.expect("no panic"), expected);
}

#[tokio::test]
async fn events_survive_a_crash_a_snapshot_and_an_install() {
    let seed = 7;
    let mut whole = Node::new();
    apply(&mut whole.machine, (1..=2000).map(|i| history(seed, i))).await;
    let expected = of(&whole.machine.state(), Revision::new(1), usize::MAX);

    let mut node = Node::new();
    apply(&mut node.machine, (1..=1200).map(|i| history(seed, i))).await;
    let built = build(&mut node.machine).await;
    apply(&mut node.machine, (1201..=2000).map(|i| history(seed, i))).await;
    let mut crashed = Node::at(node.crashed()).expect("it opens");
    let (applied, _) = crashed.machine.applied_state().await.expect("readable");
    let applied = applied.expect("a snapshot came before").index;
    let rest = (applied + 1..=2000).map(|i| history(seed, i));
    apply(&mut crashed.machine, rest).await;
    let state = crashed.machine.state();
    assert_eq!(of(&state, Revision::new(1), 4000), expected);

    let mut other = Node::new();
    apply(&mut other.machine, (1..=10).map(|i| history(seed, i))).await;
    let received = super::snapshots::receive(&built.snapshot, &other.shard_dir());
    let state = other.machine.state();
    let jumps = state.feed().jumps();
    let installed = other.machine.install_snapshot(&built.meta, received).await;
    installed.expect("installed");
    assert!(state.feed().jumps() > jumps);
    apply(&mut other.machine, (1201..=2000).map(|i| history(seed, i))).await;
    assert_eq!(of(&state, Revision::new(1), usize::MAX), expected);
}

/// Events are written on their own, so that a crash may leave the database with some of revisions that its records have not
/// come to.
#[tokio::test]
async fn events_ahead_of_the_records_are_made_again() {
    let seed = 3;
    let mut whole = Node::new();
    apply(&mut whole.machine, (1..=600).map(|i| history(seed, i))).await;
    let expected = of(&whole.machine.state(), Revision::new(1), usize::MAX);

    let mut node = Node::new();
    apply(&mut node.machine, (1..=400).map(|i| history(seed, i))).await;
    let state = node.machine.state();
    state.persist().expect("the disk works");
    let durable = Revision::new(state.header().revision);
    for index in 401..=500 {
        apply(&mut node.machine, [history(seed, index)]).await;
    }
    state.flush_events().expect("the disk works");
    let db = state.database();
    let events = crate::storage::event_db::family(&db);
    db.flush_cf(events).expect("the disk works");
    drop((db, state));

    let mut crashed = Node::at(node.crashed()).expect("it opens");
    let state = crashed.machine.state();
    assert_eq!(Revision::new(state.header().revision), durable);
    let (applied, _) = crashed.machine.applied_state().await.expect("readable");
    assert_eq!(applied, Some(log_id(400)));
    let durable_key = Key::encode_events(durable);
    assert!(
        chunks(&state)
            .iter()
            .all(|(key, _)| key[..] <= durable_key[..])
    );
    apply(&mut crashed.machine, (401..=600).map(|i| history(seed, i))).await;
    assert_eq!(of(&state, Revision::new(1), usize::MAX), expected);
    state.flush().expect("the disk works");
    assert_eq!(of(&state, Revision::new(1), usize::MAX), expected);
}

#[tokio::test]
async fn what_is_forgotten_is_gone_from_the_disk() {
    let mut node = Node::new();
    let size = limits::VALUE_BYTES;
    let most = limits::EVENT_HISTORY_BYTES / u64::try_from(size).expect("small");
    let count = most + most / 4;
    for index in 1..=count {
        let value = Bytes::from(vec![0; size]);
        apply(&mut node.machine, [put(index, "k", value)]).await;
    }
    let state = node.machine.state();
    let oldest = events::oldest(&state.header());
    assert!(oldest > Revision::new(1), "nothing was forgotten");
    let page = state.events(Revision::new(1), 1).expect("no fault");
    assert_eq!(page, Page::Forgotten { oldest });
    let kept = of(&state, oldest, size).len();
    assert_eq!(
        u64::try_from(kept).expect("small"),
        count + 1 - oldest.get()
    );
    // Files go whole, and once a compaction has taken them off level 0: what is kept and three files more may stay.
    let most = limits::EVENT_HISTORY_BYTES
        + 3 * StateConfig::default().database.state_write_buffer_bytes as u64;
    let began = std::time::Instant::now();
    loop {
        state.persist().expect("the disk works");
        let stored = chunks(&state);
        assert!(
            stored
                .iter()
                .any(|(key, _)| key[..] > Key::encode_events(oldest)[..])
        );
        let bytes: usize = stored.iter().map(|(_, chunk)| chunk.len()).sum();
        if u64::try_from(bytes).expect("small") <= most {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{bytes} bytes of events stay, {most} may"
        );
    }
    assert_eq!(of(&state, oldest, size).len(), kept);
}
