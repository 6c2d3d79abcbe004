//! Exactly-once: what is replayed, what is refused, what is forgotten.

use std::sync::Arc;

use prost::Message as _;

use super::{Machine, put, rejection, tick};
use crate::limits;
use crate::proto::internal as pb;
use crate::state::{
    Applied, Batch, Change, Changes, ClientWindow, Command, Fields, Identity, Key, KeyOperation,
    Operation, Record, Rejection, RequestHash, SessionOperation, Step, Store, Subject, Txn, apply,
    is_answered, record, seal,
};
use crate::types::{ClientAttributes, ClientId, LogTime, Namespace, RequestId, SessionToken, Ttl};

fn client() -> ClientId {
    ClientId::new([7; 16])
}

fn from_client(sequence: u64, confirmed_below: u64, operation: Operation) -> Command {
    let identity = Identity::Client {
        client: client(),
        sequence,
        confirmed_below,
    };
    Command::new(Namespace::default(), identity, operation)
}

fn request(id: &str) -> RequestId {
    RequestId::parse(id).expect("a short id")
}

fn window(machine: &Machine) -> Option<Arc<ClientWindow>> {
    let stored = machine
        .store
        .get(&Key::Client(client()))
        .expect("no fault")?;
    match stored.record {
        Record::Client(window) => Some(window),
        other => panic!("{other:?} under a client's key"),
    }
}

fn sequences(machine: &Machine) -> Vec<u64> {
    let window = window(machine).expect("the client has a window");
    window.sequences().collect()
}

/// What a full store goes by: a retry is let in, and something new is not.
#[test]
fn it_can_be_told_beforehand_that_a_command_was_answered() {
    let mut machine = Machine::default();
    let answered = |machine: &Machine, command: &Command| {
        is_answered(&machine.store, command).expect("no fault")
    };
    let hash = RequestHash::of(&request("r"));
    let identity = Identity::Request(hash);
    let once = Command::new(Namespace::default(), identity, put("k", "v", None));
    let first = from_client(3, 0, put("k", "w", None));
    let next = from_client(4, 0, put("k", "x", None));
    let confirming = from_client(5, 4, put("k", "y", None));
    let anonymous = Command::new(
        Namespace::default(),
        Identity::Anonymous,
        put("k", "v", None),
    );
    for (at, command) in (1..).zip([&once, &first, &confirming]) {
        assert!(!answered(&machine, command), "{command:?}");
        machine.apply(at, command);
        assert!(answered(&machine, command), "{command:?}");
    }
    // 3 was confirmed by 5, and will not be executed again; 4 was skipped.
    assert!(answered(&machine, &first));
    assert!(!answered(&machine, &next));
    machine.apply(4, &anonymous);
    assert!(!answered(&machine, &anonymous));
    // The window ends.
    machine.run(10 + limits::REPLY_WINDOW_MS, tick());
    assert!(!answered(&machine, &once));
    assert!(!answered(&machine, &first));
}

#[test]
fn a_retry_gets_the_first_reply_and_changes_nothing() {
    let identities = [
        Identity::Request(RequestHash::of(&request("r"))),
        Identity::Client {
            client: client(),
            sequence: 3,
            confirmed_below: 0,
        },
    ];
    for identity in identities {
        let of = |value| Command::new(Namespace::default(), identity, put("k", value, None));
        let mut machine = Machine::default();
        let first = machine.apply(1, &of("v"));
        machine.run(2, put("k", "later", None));
        let again = machine.apply(3, &of("v"));
        assert_eq!(
            again,
            Applied {
                replayed: true,
                ..first
            }
        );
        assert_eq!(machine.revision(), 2);
        let reused = machine.apply(4, &of("w")).reply;
        assert_eq!(rejection(&reused), Some(Rejection::RequestIdReused));
        assert!(
            machine.apply(5, &of("v")).replayed,
            "a refusal is not stored"
        );
        machine.check_invariants();
    }
}

#[test]
fn a_rejection_is_replayed_too() {
    let delete = Operation::Key(KeyOperation::Delete {
        key: super::name("k"),
        if_revision: None,
    });
    let mut machine = Machine::default();
    let first = machine.apply(1, &from_client(1, 0, delete.clone()));
    assert_eq!(rejection(&first.reply), Some(Rejection::KeyNotFound));
    machine.run(2, put("k", "v", None));
    let again = machine.apply(3, &from_client(1, 0, delete));
    assert_eq!(
        again,
        Applied {
            replayed: true,
            ..first
        }
    );
}

#[test]
fn a_reply_is_forgotten_when_its_window_ends_and_not_before() {
    let end = 1 + limits::REPLY_WINDOW_MS;
    let identity = Identity::Request(RequestHash::of(&request("r")));
    let command = Command::new(Namespace::default(), identity, put("k", "v", None));
    let mut machine = Machine::default();
    machine.apply(1, &command);
    assert!(machine.apply(end - 1, &command).replayed);
    assert!(!machine.apply(end, &command).replayed);
    machine.check_invariants();
    assert_eq!(machine.count(|key| matches!(key, Key::Request(..))), 1);
}

fn asked(nth: usize) -> Command {
    let hash = RequestHash::of(&request(&format!("r{nth}")));
    let namespace = ["default", "n"][nth % 2];
    let namespace = Namespace::parse(namespace).expect("a valid name");
    Command::new(namespace, Identity::Request(hash), put("k", "v", None))
}

fn replies_kept(machine: &Machine) -> usize {
    machine.count(|key| matches!(key, Key::Request(..)))
}

fn groups_kept(machine: &Machine) -> usize {
    machine.count(|key| matches!(key, Key::RequestGroup(..)))
}

#[test]
fn what_one_entry_answers_has_one_place_among_the_deadlines_and_ends_together() {
    let end = 1 + limits::REPLY_WINDOW_MS;
    let commands: Vec<_> = (0..5).map(asked).collect();
    let mut machine = Machine::default();
    machine.apply_entry(1, &commands);
    machine.check_invariants();
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (5, 1));
    assert_eq!(machine.count(|key| matches!(key, Key::Deadline(..))), 1);
    for again in machine.apply_entry(end - 1, &commands) {
        assert!(again.replayed);
    }
    // Replays make no other place.
    assert_eq!(machine.count(|key| matches!(key, Key::Deadline(..))), 1);
    let revision = machine.revision();
    machine.run(end, tick());
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (0, 0));
    assert_eq!(machine.revision(), revision);
    assert_eq!(machine.horizon.next_deadline(), None);
}

#[test]
fn two_entries_of_one_moment_have_a_group_each() {
    let commands: Vec<_> = (0..6).map(asked).collect();
    let mut machine = Machine::default();
    let (first, second) = commands.split_at(3);
    machine.apply_entries([(1, first), (1, second)].into_iter());
    machine.check_invariants();
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (6, 2));
    machine.run(1 + limits::REPLY_WINDOW_MS, tick());
    machine.check_invariants();
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (0, 0));
}

/// A group larger than what an entry sweeps ends over several, and what is asked again in between is answered anew and ends
/// at its own time.
#[test]
fn a_large_group_is_swept_a_little_at_a_time() {
    const ONE: usize = limits::SWEEP_PER_ENTRY;
    let end = 1 + limits::REPLY_WINDOW_MS;
    let total = 2 * ONE + 9;
    let commands: Vec<_> = (0..total).map(asked).collect();
    let mut machine = Machine::default();
    machine.apply_entry(1, &commands);
    machine.run(end, tick());
    machine.check_invariants();
    assert_eq!(
        (replies_kept(&machine), groups_kept(&machine)),
        (total - ONE, 1)
    );
    // Those at the end of the group are over and were not swept: one entry asks one of them again, another asks two.
    let (last, two) = commands[total - 3..].split_last().expect("three");
    assert!(!machine.apply(end, last).replayed);
    machine.check_invariants();
    for applied in machine.apply_entry(end, two) {
        assert!(!applied.replayed);
    }
    machine.check_invariants();
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (3, 1));
    for again in machine.apply_entry(2 * end - 2, &commands[total - 3..]) {
        assert!(again.replayed);
    }
    machine.run(2 * end - 1, tick());
    machine.check_invariants();
    assert_eq!((replies_kept(&machine), groups_kept(&machine)), (0, 0));
    assert_eq!(machine.horizon.next_deadline(), None);
}

#[test]
fn a_group_that_lists_a_reply_that_is_not_there_is_damage() {
    let commands: Vec<_> = (0..3).map(asked).collect();
    let mut machine = Machine::default();
    machine.apply_entry(1, &commands);
    let hash = RequestHash::of(&request("r1"));
    let key = Key::Request(Namespace::parse("n").expect("a valid name"), hash);
    machine.store.commit(Changes {
        writes: vec![Change { key, value: None }],
        header: machine.store.header(),
        ..Changes::default()
    });
    let mut batch = Batch::new(&machine.store, machine.horizon);
    let end = LogTime::from_millis(1 + limits::REPLY_WINDOW_MS);
    let fault = apply(&mut batch, end, &super::command(tick())).expect_err("damaged");
    assert!(fault.to_string().contains("a group of requests"), "{fault}");
}

#[test]
fn sweeping_replies_alone_is_no_revision() {
    let mut machine = Machine::default();
    machine.apply(1, &from_client(1, 0, put("k", "v", None)));
    let identity = Identity::Request(RequestHash::of(&request("r")));
    machine.apply(
        1,
        &Command::new(Namespace::default(), identity, put("k", "v", None)),
    );
    machine.run(1 + limits::REPLY_WINDOW_MS, tick());
    assert_eq!(machine.revision(), 2);
    assert_eq!(
        machine.count(|key| matches!(key, Key::Client(_) | Key::Request(..))),
        0
    );
    assert!(machine.horizon.next_deadline().is_none());
}

#[test]
fn confirmed_replies_are_forgotten_for_good() {
    let mut machine = Machine::default();
    for sequence in [1, 2, 5, 4, 3] {
        machine.apply(1, &from_client(sequence, 0, put("k", "v", None)));
    }
    assert_eq!(sequences(&machine), [1, 2, 3, 4, 5]);
    machine.apply(1, &from_client(6, 4, put("k", "v", None)));
    assert_eq!(sequences(&machine), [4, 5, 6]);
    let late = machine
        .apply(1, &from_client(3, 0, put("k", "v", None)))
        .reply;
    assert_eq!(rejection(&late), Some(Rejection::SequenceConfirmed));
    assert_eq!(machine.revision(), 6);
    assert_eq!(sequences(&machine), [4, 5, 6]);
}

#[test]
fn a_client_that_confirms_nothing_is_refused_until_it_does() {
    let mut machine = Machine::default();
    let full = u64::try_from(limits::CLIENT_WINDOW).expect("a small limit");
    let entries: Vec<_> = (0..full)
        .map(|n| (1, from_client(n, 0, put("k", "v", None))))
        .collect();
    machine.apply_batch(&entries);
    let revision = machine.revision();
    let refused = machine
        .apply(2, &from_client(full, 0, put("k", "v", None)))
        .reply;
    assert_eq!(rejection(&refused), Some(Rejection::ClientWindowFull));
    assert!(
        machine
            .apply(2, &from_client(7, 0, put("k", "v", None)))
            .replayed
    );
    assert_eq!(machine.revision(), revision);
    let taken = machine
        .apply(3, &from_client(full, 1, put("k", "v", None)))
        .reply;
    assert_eq!(rejection(&taken), None);
    machine.check_invariants();
}

/// Of a key that holds nearly as much as a transaction may answer.
fn large_read() -> Operation {
    let get = Step::Get(Subject::Key(super::name("large")));
    let txn = Txn::new(Vec::new(), vec![get], Vec::new()).expect("one operation");
    Operation::Txn(Box::new(txn))
}

/// Machines that hold that key: one takes entry by entry, the other all of them at once.
struct Pair {
    single: Machine,
    batched: Machine,
    entries: Vec<(u64, Command)>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            single: Machine::default(),
            batched: Machine::default(),
            entries: Vec::new(),
        };
        let value = "v".repeat(limits::TXN_RESULT_BYTES - 1000);
        let refusal = pair.take(&from_client(1, 1, put("large", &value, None)));
        assert_eq!(refusal, None);
        pair
    }

    fn take(&mut self, command: &Command) -> Option<Rejection> {
        self.entries.push((1, command.clone()));
        rejection(&self.single.apply(1, command).reply)
    }

    /// Sends reads from a sequence on until one is refused, which is returned.
    fn fill(&mut self, first: u64, confirmed_below: u64) -> u64 {
        let mut sequences = first..;
        let refused = sequences.find(|sequence| {
            let read = from_client(*sequence, confirmed_below, large_read());
            let refusal = self.take(&read);
            assert!(matches!(refusal, None | Some(Rejection::ClientWindowFull)));
            refusal.is_some()
        });
        refused.expect("the sequences do not end")
    }

    fn stored_bytes(&self) -> usize {
        window(&self.single).expect("it has one").encoded_len()
    }

    /// Where a batch ends makes no difference to who is refused.
    fn check(mut self) {
        self.batched.apply_batch(&self.entries);
        assert_eq!(self.batched.store.snapshot(), self.single.store.snapshot());
        self.single.check_invariants();
    }
}

/// The bound, and the last two replies.
const FULL_BYTES: usize = limits::CLIENT_WINDOW_BYTES + 2 * limits::TXN_RESULT_BYTES + 100;

#[test]
fn a_client_with_large_replies_is_refused_by_their_bytes_until_it_confirms() {
    let mut pair = Pair::new();
    let full = pair.fill(3, 2);
    assert!(full < 60, "{full} replies of 64 KiB");
    let stored = pair.stored_bytes();
    assert!(
        (limits::CLIENT_WINDOW_BYTES..FULL_BYTES).contains(&stored),
        "{stored}"
    );
    let revision = pair.single.revision();
    let refusal = pair.take(&from_client(full, 2, put("k", "v", None)));
    assert_eq!(refusal, Some(Rejection::ClientWindowFull));
    assert_eq!(pair.single.revision(), revision, "it was not executed");

    // What was answered is answered again, and small confirmations make room for small writes.
    let again = pair.single.apply(1, &from_client(3, 2, large_read()));
    assert!(again.replayed);
    let taken = pair.take(&from_client(full, 6, put("k", "v", None)));
    assert_eq!(taken, None);
    assert!(pair.stored_bytes() < stored);
    pair.check();
}

/// Replies above the lowest sequence cannot be confirmed before it is answered: if it had to wait for them, it would wait
/// for ever.
#[test]
fn the_lowest_sequence_is_taken_however_full_the_window_is() {
    let mut pair = Pair::new();
    let full = pair.fill(3, 2);
    assert_eq!(pair.take(&from_client(2, 2, large_read())), None);
    let stored = pair.stored_bytes();
    assert!(stored < FULL_BYTES, "{stored}");
    let refusal = pair.take(&from_client(full, 2, put("k", "v", None)));
    assert_eq!(refusal, Some(Rejection::ClientWindowFull));
    let taken = pair.take(&from_client(full, full, put("k", "v", None)));
    assert_eq!(taken, None);
    assert_eq!(sequences(&pair.single), [full]);
    pair.check();
}

#[test]
fn a_window_stays_as_small_as_its_client_keeps_it() {
    let mut machine = Machine::default();
    for chunk in 0..20u64 {
        let entry = |n: u64| (1, from_client(n, n.saturating_sub(8), put("k", "v", None)));
        let entries: Vec<_> = (chunk * 500..(chunk + 1) * 500).map(entry).collect();
        machine.apply_batch(&entries);
        assert!(sequences(&machine).len() <= 9);
    }
    machine.check_invariants();
}

#[test]
fn a_window_lives_on_while_it_is_used() {
    let mut machine = Machine::default();
    let half = limits::REPLY_WINDOW_MS / 2;
    for nth in 0..6 {
        machine.apply(half * nth, &from_client(nth, 0, put("k", "v", None)));
        machine.check_invariants();
    }
    assert_eq!(sequences(&machine), [0, 1, 2, 3, 4, 5]);
    let after = half * 5 + limits::REPLY_WINDOW_MS;
    assert!(
        !machine
            .apply(after, &from_client(0, 0, put("k", "v", None)))
            .replayed
    );
    assert_eq!(sequences(&machine), [0]);
}

#[test]
fn a_drawn_token_is_in_no_stored_byte_and_in_every_replay() {
    let namespace = Namespace::default();
    let drawn = SessionToken::draw(0).expect("the system has randomness");
    let command = Command::with_fingerprint(
        namespace.clone(),
        Identity::Request(RequestHash::of(&request("a random request id"))),
        1,
        SessionOperation::Create {
            token: drawn.hash(),
            sealed_token: seal::seal(&namespace, &request("a random request id"), &drawn),
            user: None,
            fields: Fields::default(),
            client: ClientAttributes::default(),
            idle_ttl: Some(Ttl::from_millis(10)),
            absolute_ttl: Some(Ttl::from_millis(10)),
        },
    );
    let mut machine = Machine::default();
    machine.apply(1, &command);
    let Some(pb::reply::Body::SessionCreated(created)) = machine.apply(2, &command).reply.body
    else {
        panic!("the replay has the first reply");
    };
    let opened = seal::open(
        &namespace,
        &request("a random request id"),
        &drawn.hash(),
        &created.sealed_token,
    );
    assert!(opened.is_some_and(|opened| opened == drawn));
    let mut bytes = machine.store.snapshot();
    bytes.extend_from_slice(&command.encode());
    let text = drawn.expose();
    for secret in [drawn.expose_bytes(), text.as_bytes()] {
        for piece in secret.windows(8) {
            assert!(!bytes.windows(8).any(|stored| stored == piece));
        }
    }
}

/// Yesterday's replies are known tomorrow.
#[test]
fn reply_tables_on_disk_stay_what_they_are() {
    const WINDOW: &str = "0801120f08021103000000000000001a02080418052006";
    const REQUEST: &str = "0a0d1103000000000000001a0208041005";
    let reply = pb::Reply {
        revision: 4,
        body: None,
    };
    let stored = |sequence| pb::StoredReply {
        sequence,
        fingerprint: 3,
        reply: reply.encode_to_vec().into(),
    };
    let window = pb::ClientWindow {
        confirmed_below: 1,
        replies: vec![stored(2)],
        deadline: 5,
        indexed_deadline: 6,
    };
    let hash = RequestHash::of(&request("r"));
    let request = pb::RequestRecord {
        reply: Some(stored(0)),
        deadline: 5,
        is_grouped: false,
    };
    let fixtures = [
        (Key::Client(client()), window.encode_to_vec(), WINDOW),
        (
            Key::Request(Namespace::default(), hash),
            request.encode_to_vec(),
            REQUEST,
        ),
    ];
    for (key, bytes, fixture) in fixtures {
        assert_eq!(hex::encode(&bytes), fixture);
        let opened = record::decode(&key, bytes.into()).expect("own bytes");
        assert_eq!(hex::encode(record::encode(&opened.record)), fixture);
    }
}
