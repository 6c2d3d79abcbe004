//! Tests of the state machine as a whole. Each file is one kind of evidence.

mod carts;
mod events;
mod golden;
mod growth;
mod keys;
mod model;
mod properties;
mod replies;
mod sessions;
pub(crate) mod steps;
mod sweep;
mod txn;
mod version;
mod window;
mod wire;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::{
    Applied, Batch, Command, Identity, Key, KeyOperation, KeyRange, MemoryStore, Operation,
    PutCondition, Record, Rejection, Store, SweepHorizon, apply_all, digest,
};
use crate::types::{self, LeaseId, LogTime, Namespace, TokenHash, Ttl, UserId, Value};

/// A store with its horizon, fed one entry per batch.
#[derive(Default)]
struct Machine {
    store: MemoryStore,
    horizon: SweepHorizon,
}

impl Machine {
    fn apply(&mut self, stamp: u64, command: &Command) -> Applied {
        self.apply_batch(&[(stamp, command.clone())]).remove(0)
    }

    /// Entries of one command.
    fn apply_batch(&mut self, entries: &[(u64, Command)]) -> Vec<Applied> {
        let entries = entries.iter();
        self.apply_entries(entries.map(|(stamp, command)| (*stamp, std::slice::from_ref(command))))
    }

    fn apply_entry(&mut self, stamp: u64, commands: &[Command]) -> Vec<Applied> {
        self.apply_entries(std::iter::once((stamp, commands)))
    }

    fn apply_entries<'a>(
        &mut self,
        entries: impl Iterator<Item = (u64, &'a [Command])>,
    ) -> Vec<Applied> {
        let mut batch = Batch::new(&self.store, self.horizon);
        let mut applied = Vec::new();
        for (stamp, commands) in entries {
            let stamp = LogTime::from_millis(stamp);
            applied.extend(apply_all(&mut batch, stamp, commands).expect("no fault"));
        }
        let (changes, horizon) = batch.finish();
        let mut keys: Vec<_> = changes.writes.iter().map(|it| it.key.encode()).collect();
        keys.sort_unstable();
        assert!(keys.is_sorted_by(|a, b| a < b), "no key is written twice");
        self.store.commit(changes);
        self.horizon = horizon;
        applied
    }

    fn run(&mut self, stamp: u64, operation: impl Into<Operation>) -> pb::Reply {
        self.apply(stamp, &command(operation)).reply
    }

    fn revision(&self) -> u64 {
        self.store.header().revision
    }

    fn count(&self, of: impl Fn(&Key) -> bool) -> usize {
        let keys = self
            .store
            .iter()
            .map(|(key, _)| Key::decode(key).expect("a stored key"));
        keys.filter(of).count()
    }

    /// What must hold between any two batches.
    fn check_invariants(&self) {
        let header = self.store.header();
        let digest = digest::from_bytes(&header.digest).expect("16 bytes");
        assert_eq!(digest, digest::recompute(&self.store).expect("no fault"));
        self.check_index();
        self.check_leases();
    }

    /// The deadline index: the encoded key of each record that is in it, and when it is due there.
    fn indexed(&self) -> Vec<(Bytes, u64)> {
        let mut indexed = Vec::new();
        let range = KeyRange::deadlines_from(LogTime::default());
        let mut visit = |key: &[u8], _: &[u8]| {
            if let Key::Deadline(time, target) = Key::decode(key)? {
                indexed.push((target, time.as_millis()));
            }
            Ok(ControlFlow::Continue(()))
        };
        self.store.scan(&range, &mut visit).expect("no fault");
        indexed
    }

    fn deadlines_of_carts(&self) -> Vec<u64> {
        let carts = self.indexed().into_iter().filter(|(key, _)| {
            let key = Key::decode(key).expect("a stored key");
            matches!(key, Key::UserCart(..) | Key::SessionCart(..))
        });
        carts.map(|(_, time)| time).collect()
    }

    /// One index entry per record with a deadline, at or before it; the horizon before all of them.
    fn check_index(&self) {
        let mut indexed = self.indexed();
        let earliest = indexed.iter().map(|(_, time)| *time).min();
        let horizon = self
            .horizon
            .next_deadline()
            .map_or(u64::MAX, LogTime::as_millis);
        assert!(horizon <= earliest.unwrap_or(u64::MAX));
        let mut expected: Vec<_> = self
            .store
            .iter()
            .filter_map(|(key, _)| {
                let (at, deadline) = self.deadline(&Key::decode(key).expect("a stored key"))?;
                assert!(
                    at <= deadline,
                    "{key:?} is indexed at {at}, due at {deadline}"
                );
                Some((key.clone(), at))
            })
            .collect();
        expected.sort();
        indexed.sort();
        assert_eq!(indexed, expected);
        self.check_groups();
        self.check_roster();
    }

    /// Each grouped reply is listed once where its deadline is, and whatever else is listed was answered again since.
    fn check_groups(&self) {
        let (mut listed, mut expected) = (Vec::new(), Vec::new());
        for (bytes, _) in self.store.iter() {
            match Key::decode(bytes).expect("a stored key") {
                key @ Key::RequestGroup(time, ..) => {
                    let Some(Record::RequestGroup(group)) = self.record(&key) else {
                        panic!("{key:?} has another record");
                    };
                    assert!(!group.requests.is_empty(), "{key:?}");
                    for request in &group.requests {
                        let key = Key::decode(request).expect("a stored key");
                        let Some(Record::Request(it)) = self.record(&key) else {
                            panic!("{key:?} is listed and not there");
                        };
                        if it.is_grouped && it.deadline == time.as_millis() {
                            listed.push(request.clone());
                        } else {
                            assert!(it.deadline > time.as_millis(), "{key:?}");
                        }
                    }
                }
                key @ Key::Request(..) => {
                    if let Some(Record::Request(it)) = self.record(&key)
                        && it.is_grouped
                    {
                        expected.push(bytes.clone());
                    }
                }
                _ => {}
            }
        }
        listed.sort();
        assert_eq!(listed, expected);
    }

    fn record(&self, key: &Key) -> Option<Record> {
        let stored = self.store.get(key).expect("no fault");
        stored.map(|stored| stored.record)
    }

    /// Each session of a user that was not ended has its entry, each entry its session, and each user's record counts them.
    fn check_roster(&self) {
        let (mut entries, mut expected) = (Vec::new(), Vec::new());
        let (mut users, mut counts) = (BTreeMap::new(), BTreeMap::<_, (u64, u64)>::new());
        for (key, _) in self.store.iter() {
            match Key::decode(key).expect("a stored key") {
                Key::UserSession(ns, user, birth, token) => {
                    entries.push((ns, user, birth, token));
                }
                Key::User(ns, user) => {
                    let key = Key::User(ns.clone(), user.clone());
                    let stored = self.store.get(&key).expect("no fault");
                    let Some(Record::User(it)) = stored.map(|stored| stored.record) else {
                        panic!("a user's key has another record");
                    };
                    users.insert((ns, user), it);
                }
                Key::Session(ns, token) => {
                    let key = Key::Session(ns.clone(), token);
                    let stored = self.store.get(&key).expect("no fault");
                    let Some(Record::Session(it)) = stored.map(|stored| stored.record) else {
                        panic!("a session's key has another record");
                    };
                    if it.birth != 0 {
                        let user = UserId::parse(it.user_id.as_str()).expect("valid");
                        expected.push((ns, user, it.birth, token));
                    }
                }
                _ => {}
            }
        }
        expected.sort();
        entries.sort();
        assert_eq!(entries, expected);
        for (ns, user, birth, _) in entries {
            let id = (ns, user);
            let record = users.get(&id).expect("a user with entries has a record");
            let revoked = birth < record.epoch && birth != record.kept;
            assert!(!revoked || birth >= record.swept_below);
            let (sessions, dead) = counts.entry(id).or_default();
            *sessions += u64::from(!revoked);
            *dead += u64::from(revoked);
        }
        for (id, record) in &users {
            let counted = counts.get(id).copied().unwrap_or_default();
            assert_eq!((record.sessions, record.revoked), counted, "{id:?}");
            assert_ne!(counted, (0, 0), "{id:?} is left over");
            assert!(record.revoked > 0 || record.indexed_deadline == 0, "{id:?}");
        }
    }

    /// The record of the lease that a key names.
    fn lease_of(&self, key: &Key, record: &pb::KvRecord) -> Option<Arc<pb::LeaseRecord>> {
        let Key::Kv(namespace, _) = key else {
            panic!("{key:?} is no key of the key space");
        };
        let lease = Key::Lease(namespace.clone(), LeaseId::optional(record.lease)?);
        match self.store.get(&lease).expect("no fault")?.record {
            Record::Lease(lease) => Some(lease),
            other => panic!("{other:?} is no lease"),
        }
    }

    /// A lease that is there names exactly the keys that name it.
    fn check_leases(&self) {
        let (mut named, mut naming) = (Vec::new(), Vec::new());
        for (bytes, _) in self.store.iter() {
            let key = Key::decode(bytes).expect("a stored key");
            if matches!(key, Key::Header | Key::Events(_)) {
                continue;
            }
            let record = self
                .store
                .get(&key)
                .expect("no fault")
                .expect("just listed");
            match (&key, record.record) {
                (Key::Lease(namespace, id), Record::Lease(lease)) => {
                    let keys = lease.keys.iter();
                    named.extend(keys.map(|key| (namespace.clone(), *id, key.clone())));
                }
                (Key::Kv(namespace, name), Record::Kv(kv))
                    if self.lease_of(&key, &kv).is_some() =>
                {
                    let id = LeaseId::parse(kv.lease).expect("it names one");
                    naming.push((namespace.clone(), id, name.to_string()));
                }
                _ => {}
            }
        }
        named.sort();
        naming.sort();
        assert_eq!(named, naming);
    }

    /// Whether nothing else than the sweep would end the cart in time.
    fn outlives(&self, key: &Key, cart: &pb::CartRecord) -> bool {
        let Key::SessionCart(namespace, token) = key else {
            return true;
        };
        let session = Key::Session(namespace.clone(), *token);
        match self
            .store
            .get(&session)
            .expect("no fault")
            .map(|it| it.record)
        {
            Some(Record::Session(session)) => session.absolute_deadline > cart.deadline,
            other => panic!("{key:?} belongs to {other:?}"),
        }
    }

    /// Where a record is indexed and when it is due.
    fn deadline(&self, key: &Key) -> Option<(u64, u64)> {
        if matches!(key, Key::Header | Key::Events(_)) {
            return None;
        }
        match self.store.get(key).expect("no fault")?.record {
            Record::Session(it) if it.tombstone_until != 0 => {
                Some((it.indexed_deadline, it.tombstone_until))
            }
            Record::Session(it) => {
                let idle = it.last_seen + it.touch_interval + it.idle_ttl;
                Some((it.indexed_deadline, idle.min(it.absolute_deadline)))
            }
            Record::User(it) => {
                let at = it.indexed_deadline;
                (it.revoked > 0).then_some((at, at))
            }
            Record::Kv(it) if it.lease != 0 => {
                let own = it.deadline.checked_sub(1).map_or(u64::MAX, |_| it.deadline);
                // A key whose lease has ended waits for the sweep where it is.
                let lease = self
                    .lease_of(key, &it)
                    .map_or(it.indexed_deadline, |it| it.deadline);
                Some((it.indexed_deadline, own.min(lease)))
            }
            Record::Kv(it) => (it.deadline != 0).then_some((it.deadline, it.deadline)),
            Record::Lease(it) => Some((it.indexed_deadline, it.deadline)),
            Record::Client(it) => Some((it.indexed_deadline, it.deadline)),
            Record::Request(it) => (!it.is_grouped).then_some((it.deadline, it.deadline)),
            Record::RequestGroup(_) => {
                let Key::RequestGroup(deadline, ..) = key else {
                    panic!("{key:?} has a group's record");
                };
                Some((deadline.as_millis(), deadline.as_millis()))
            }
            Record::Cart(it) => {
                // One of an earlier version has none.
                let needed = it.deadline != 0 && self.outlives(key, &it);
                (needed || it.indexed_deadline != 0).then_some((it.indexed_deadline, it.deadline))
            }
            Record::Order(it) => Some((it.deadline, it.deadline)),
            Record::Settings(_) | Record::Index | Record::EventMarks(_) => None,
        }
    }
}

fn command(operation: impl Into<Operation>) -> Command {
    Command::new(Namespace::default(), Identity::Anonymous, operation)
}

fn command_in(namespace: Namespace, operation: Operation) -> Command {
    Command::new(namespace, Identity::Anonymous, operation)
}

fn tick() -> Operation {
    Operation::Tick {
        checkpoint: false,
        expect: None,
    }
}

fn name(text: &str) -> types::Key {
    types::Key::parse(text).expect("a valid key")
}

fn put(key: &str, value: &str, ttl: Option<u64>) -> Operation {
    Operation::Key(KeyOperation::Put {
        key: name(key),
        value: Value::parse(value.to_owned().into()).expect("a short value"),
        ttl: ttl.map(Ttl::from_millis),
        lease: None,
        condition: PutCondition::Always,
    })
}

fn token(nth: u8) -> TokenHash {
    TokenHash::new([nth; 32])
}

fn rejection(reply: &pb::Reply) -> Option<Rejection> {
    match &reply.body {
        Some(Body::Rejected(rejected)) => Rejection::from_stored(rejected),
        _ => None,
    }
}

/// What a session holds.
fn fields(session: &pb::SessionRecord) -> BTreeMap<String, Bytes> {
    let fields = session.fields.shared();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
