//! Keys, counters, leases and transactions of the naive model.

use bytes::Bytes;
use prost::Message as _;

use super::{Model, Value, check};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::internal::txn_result::Result as Answer;
use crate::state::{
    Compare, Increment, KeyOperation, LeaseOperation, Operand, PutCondition, Rejection, Relation,
    Step, Subject, Txn,
};
use crate::types::{Key, LeaseId, Namespace, Revision};

#[derive(Clone)]
pub struct Lease {
    ttl: u64,
    pub deadline: u64,
}

impl Value {
    /// As callers see it.
    pub fn shown(&self) -> Bytes {
        self.counter
            .map_or(self.bytes.clone(), |number| number.to_string().into())
    }
}

impl Model {
    pub fn change_key(
        &mut self,
        ns: &Namespace,
        operation: KeyOperation,
    ) -> Result<Body, Rejection> {
        match operation {
            KeyOperation::Put {
                key,
                value,
                ttl,
                lease,
                condition,
            } => {
                let id = (ns.clone(), key);
                let old = self.keys.get(&id).cloned();
                let actual = Revision::new(old.as_ref().map_or(0, |it| it.modified));
                match condition {
                    PutCondition::IfRevision(asked) if asked != actual => {
                        return Err(Rejection::RevisionMismatch { actual });
                    }
                    PutCondition::IfAbsent if old.is_some() => {
                        return Err(Rejection::KeyExists { actual });
                    }
                    _ => {}
                }
                if let Some(lease) = lease {
                    self.lease(ns, lease)?;
                    let others = self
                        .leased(ns, lease)
                        .into_iter()
                        .filter(|key| *key != id.1);
                    if others.count() == limits::LEASE_KEYS {
                        return Err(Rejection::LeaseKeysLimit);
                    }
                }
                let modified = self.bump();
                let new = Value {
                    bytes: value.into_bytes(),
                    counter: None,
                    created: old.map_or(modified, |it| it.created),
                    modified,
                    deadline: ttl.map(|ttl| self.now + ttl.as_millis()),
                    lease,
                };
                let reply = pb::KeyPut {
                    create_revision: new.created,
                    mod_revision: modified,
                    deadline: new.deadline.unwrap_or(0),
                };
                self.keys.insert(id, new);
                Ok(Body::KeyPut(reply))
            }
            KeyOperation::Delete { key, if_revision } => {
                let id = (ns.clone(), key);
                let old = self.keys.get(&id).ok_or(Rejection::KeyNotFound)?;
                check(if_revision, old.modified)?;
                self.keys.remove(&id);
                self.bump();
                Ok(Body::KeyDeleted(pb::KeyDeleted {}))
            }
            KeyOperation::Increment(increment) => self.increment(ns, increment),
        }
    }

    fn increment(&mut self, ns: &Namespace, it: Increment) -> Result<Body, Rejection> {
        let id = (ns.clone(), it.key);
        let (actual, old) = match self.keys.get(&id) {
            Some(old) => (
                old.counter.ok_or(Rejection::NotACounter)?,
                Some(old.clone()),
            ),
            None => (it.initial, None),
        };
        let sum = i128::from(actual) + i128::from(it.delta);
        if sum < i128::from(it.bounds.min()) {
            return Err(Rejection::CounterBelowMin { actual });
        }
        if sum > i128::from(it.bounds.max()) {
            return Err(Rejection::CounterAboveMax { actual });
        }
        let value = i64::try_from(sum).expect("bounds are i64");
        let modified = self.bump();
        let old = old.unwrap_or(Value {
            bytes: Bytes::new(),
            counter: None,
            created: modified,
            modified,
            deadline: it.ttl.map(|ttl| self.now + ttl.as_millis()),
            lease: None,
        });
        let new = Value {
            counter: Some(value),
            modified,
            ..old
        };
        let reply = pb::KeyIncremented {
            value,
            create_revision: new.created,
            mod_revision: modified,
            deadline: new.deadline.unwrap_or(0),
        };
        self.keys.insert(id, new);
        Ok(Body::KeyIncremented(reply))
    }

    fn lease(&mut self, ns: &Namespace, id: LeaseId) -> Result<&mut Lease, Rejection> {
        self.leases
            .get_mut(&(ns.clone(), id))
            .ok_or(Rejection::LeaseNotFound)
    }

    fn leased(&self, ns: &Namespace, id: LeaseId) -> Vec<Key> {
        let leased = self.keys.iter();
        let leased = leased.filter(|((of, _), value)| of == ns && value.lease == Some(id));
        leased.map(|((_, key), _)| key.clone()).collect()
    }

    pub fn change_lease(
        &mut self,
        ns: &Namespace,
        operation: LeaseOperation,
    ) -> Result<Body, Rejection> {
        let now = self.now;
        let body = match operation {
            LeaseOperation::Grant { ttl } => {
                let id = LeaseId::parse(self.next()).expect("not 0");
                let (ttl, deadline) = (ttl.as_millis(), now + ttl.as_millis());
                self.leases
                    .insert((ns.clone(), id), Lease { ttl, deadline });
                Body::LeaseGranted(pb::LeaseGranted {
                    lease: id.get(),
                    ttl,
                    deadline,
                })
            }
            LeaseOperation::KeepAlive { lease } => {
                let lease = self.lease(ns, lease)?;
                lease.deadline = now + lease.ttl;
                Body::LeaseRenewed(pb::LeaseRenewed {
                    ttl: lease.ttl,
                    deadline: lease.deadline,
                })
            }
            LeaseOperation::Revoke { lease } => {
                self.lease(ns, lease)?;
                let keys = self.leased(ns, lease);
                let deleted_keys = u32::try_from(keys.len()).expect("few keys");
                for key in keys {
                    self.keys.remove(&(ns.clone(), key));
                }
                self.leases.remove(&(ns.clone(), lease));
                Body::LeaseRevoked(pb::LeaseRevoked { deleted_keys })
            }
        };
        self.bump();
        Ok(body)
    }

    /// Works on itself and takes its former self back if an operation is refused.
    pub fn transact(&mut self, ns: &Namespace, txn: &Txn) -> Body {
        let succeeded = txn.compare().iter().all(|it| self.holds(ns, it));
        let before = self.clone();
        self.transaction = Some(self.revision);
        let mut results = Vec::new();
        for (index, step) in txn.branch(succeeded).iter().enumerate() {
            let answer = match step {
                Step::Write(operation) => match self.operate(ns, operation) {
                    Ok(Body::Rejected(rejected)) => Err(rejected),
                    Ok(body) => Ok(Answer::Reply(pb::Reply {
                        revision: 0,
                        body: Some(body),
                    })),
                    Err(rejection) => Err(rejection.to_stored()),
                },
                Step::Get(subject) => Ok(self.get(ns, subject)),
            };
            let answer = answer.and_then(|answer| {
                results.push(pb::TxnResult {
                    result: Some(answer),
                });
                let bytes: usize = results.iter().map(pb::TxnResult::encoded_len).sum();
                if bytes > limits::TXN_RESULT_BYTES {
                    return Err(Rejection::TxnResultLimit.to_stored());
                }
                Ok(())
            });
            if let Err(rejected) = answer {
                *self = before;
                return Body::TxnAborted(pb::TxnAborted {
                    succeeded,
                    index: u32::try_from(index).expect("few steps"),
                    rejected: Some(rejected),
                });
            }
        }
        self.transaction = None;
        Body::TxnDone(pb::TxnDone { succeeded, results })
    }

    fn get(&self, ns: &Namespace, subject: &Subject) -> Answer {
        let found = match subject {
            Subject::Key(key) => self.keys.get(&(ns.clone(), key.clone())).map(|it| {
                Answer::Key(pb::KvRecord {
                    value: it.bytes.clone(),
                    create_revision: it.created,
                    mod_revision: it.modified,
                    deadline: it.deadline.unwrap_or(0),
                    counter: it.counter,
                    lease: it.lease.map_or(0, LeaseId::get),
                    indexed_deadline: 0,
                })
            }),
            Subject::Session(token) => self.sessions.get(&(ns.clone(), *token)).map(|it| {
                Answer::Session(pb::SessionRecord {
                    user_id: it.user.clone(),
                    fields: it.fields.clone(),
                    create_revision: it.created,
                    mod_revision: it.modified,
                    created_at: it.created_at,
                    last_seen: it.seen,
                    idle_ttl: it.idle,
                    absolute_deadline: it.absolute,
                    indexed_deadline: 0,
                    has_cart: it.cart.is_some(),
                })
            }),
            Subject::Cart(owner) => self
                .cart(ns, owner)
                .map(|it| Answer::Cart(it.record(self.now))),
        };
        found.unwrap_or(Answer::Nothing(pb::NothingRead {}))
    }

    fn holds(&self, ns: &Namespace, compare: &Compare) -> bool {
        let (mut created, mut modified, mut key) = (0, 0, None);
        match compare.subject() {
            Subject::Key(name) => {
                key = self.keys.get(&(ns.clone(), name.clone()));
                if let Some(it) = key {
                    (created, modified) = (it.created, it.modified);
                }
            }
            Subject::Session(token) => {
                if let Some(it) = self.sessions.get(&(ns.clone(), *token)) {
                    (created, modified) = (it.created, it.modified);
                }
            }
            Subject::Cart(owner) => {
                if let Some(it) = self.cart(ns, owner) {
                    (created, modified) = (it.created, it.modified);
                }
            }
        }
        let order = match compare.operand() {
            Operand::Exists(exists) => Some((modified > 0).cmp(exists)),
            Operand::ModRevision(expected) => Some(modified.cmp(&expected.get())),
            Operand::CreateRevision(expected) => Some(created.cmp(&expected.get())),
            Operand::Value(expected) => key.map(|it| it.shown().cmp(expected.as_bytes())),
            Operand::Counter(expected) => key.and_then(|it| it.counter).map(|it| it.cmp(expected)),
        };
        match compare.relation() {
            Relation::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Relation::NotEqual => order.is_none_or(std::cmp::Ordering::is_ne),
            Relation::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Relation::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        }
    }
}
