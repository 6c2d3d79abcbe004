//! Steps that are about counters, leases and transactions.

use super::{KINDS, Script, condition, pick};
use crate::state::{
    CartOperation, CartOwner, Command, Compare, Identity, Increment, KeyOperation, LeaseOperation,
    Operand, Operation, Relation, Step, Subject, Txn,
};
use crate::types::{Bounds, Key, LeaseId, Namespace, Revision, Ttl, Value};

impl Script {
    /// A lease of the namespace, if it has any; mostly one that lives.
    pub(super) fn lease(&self, ns: &Namespace, byte: u8) -> LeaseId {
        let live: Vec<_> = self.model.leases.keys().filter(|id| id.0 == *ns).collect();
        match live.get(usize::from(byte) % (live.len() + 1)) {
            Some(id) => id.1,
            None => LeaseId::parse(self.model.revision + 1).expect("not 0"),
        }
    }

    pub(super) fn key_operation(&self, kind: u8, ns: &Namespace, rest: [u8; 7]) -> Operation {
        let [a, b, c, d, ttl, ..] = rest;
        match kind {
            0 | 1 => Operation::Key(KeyOperation::Increment(Increment {
                key: key(a),
                delta: pick(&[1, -1, 3, -3, i64::MAX, i64::MIN], b),
                bounds: pick(
                    &[(None, None), (Some(0), None), (Some(0), Some(3))]
                        .map(|(min, max)| Bounds::parse(min, max).expect("ordered")),
                    c,
                ),
                initial: pick(&[0, 0, 2, i64::MAX], d),
                ttl: ttl
                    .is_multiple_of(2)
                    .then(|| Ttl::from_millis(pick(&[1, 20, 400], ttl))),
            })),
            2 | 3 => Operation::Lease(LeaseOperation::Grant {
                ttl: Ttl::from_millis(pick(&[1, 5, 20, 50, 400, 10_000], a)),
            }),
            4 => Operation::Lease(LeaseOperation::KeepAlive {
                lease: self.lease(ns, a),
            }),
            _ => Operation::Lease(LeaseOperation::Revoke {
                lease: self.lease(ns, a),
            }),
        }
    }

    /// A transaction that is refused at its last operation, after others that may have changed anything. The model
    /// does not see it.
    pub fn doomed(&self, step: super::Step) -> (Namespace, Command) {
        let [whose, rest @ ..] = step;
        let names = ["default", "n"].map(|name| Namespace::parse(name).expect("a valid name"));
        let namespace = pick(&names, whose);
        let mut bytes = Bytes::new(rest.split_first_chunk().expect("long enough").0.to_owned());
        let mut steps = self.branch(&namespace, whose % 8, &mut bytes);
        let last = Operation::Key(KeyOperation::Delete {
            key: Key::parse("never there").expect("short"),
            if_revision: None,
        });
        steps.push(Step::write(last).expect("it may stand there"));
        let txn = Txn::new(Vec::new(), steps, Vec::new()).expect("few");
        let operation = Operation::Txn(Box::new(txn));
        (
            namespace.clone(),
            Command::new(namespace, Identity::Anonymous, operation),
        )
    }

    pub(super) fn txn(&self, ns: &Namespace, rest: [u8; 7]) -> Txn {
        let mut bytes = Bytes::new(rest);
        let compares = (0..rest[0] % 3)
            .map(|_| self.compare(ns, &mut bytes))
            .collect();
        let then = self.branch(ns, rest[1] % 5, &mut bytes);
        let otherwise = self.branch(ns, rest[2] % 3, &mut bytes);
        Txn::new(compares, then, otherwise).expect("few")
    }

    /// One cart is frozen at most.
    fn branch(&self, ns: &Namespace, count: u8, bytes: &mut Bytes) -> Vec<Step> {
        let is_freeze = |step: &Step| {
            matches!(
                step,
                Step::Write(Operation::Cart(CartOperation::Freeze { .. }))
            )
        };
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..count {
            let step = self.step(ns, bytes);
            if !is_freeze(&step) || !steps.iter().any(is_freeze) {
                steps.push(step);
            }
        }
        steps
    }

    fn step(&self, ns: &Namespace, bytes: &mut Bytes) -> Step {
        let kind = bytes.next();
        if kind.is_multiple_of(4) {
            return Step::Get(self.subject(bytes));
        }
        let rest = std::array::from_fn(|_| bytes.next());
        // What may not stand in a transaction is left out.
        Step::write(self.operation(ns, kind % (KINDS - 1), rest))
            .unwrap_or(Step::Get(self.subject(bytes)))
    }

    fn compare(&self, ns: &Namespace, bytes: &mut Bytes) -> Compare {
        let subject = self.subject(bytes);
        let current = match &subject {
            Subject::Key(key) => self.model.key_revision(ns, key),
            Subject::Session(token) => self.model.session_revision(ns, *token),
            Subject::Cart(owner) => self.model.cart_revision(ns, owner),
        };
        let revision = condition(bytes.next(), current).unwrap_or(Revision::new(current));
        let operand = match bytes.next() % 5 {
            0 => Operand::Exists(current > 0),
            1 => Operand::CreateRevision(revision),
            2 if matches!(subject, Subject::Key(_)) => {
                Operand::Counter(pick(&[0, 1, 3], bytes.next()))
            }
            3 if matches!(subject, Subject::Key(_)) => {
                let value = pick(&[&b""[..], b"1", b"\x07\x07"], bytes.next());
                Operand::Value(Value::parse(value.into()).expect("short"))
            }
            _ => Operand::ModRevision(revision),
        };
        let relations = [
            Relation::Equal,
            Relation::Equal,
            Relation::NotEqual,
            Relation::Less,
            Relation::Greater,
        ];
        let relation = pick(&relations, bytes.next());
        let usual = Compare::new(subject.clone(), Relation::Equal, operand.clone());
        Compare::new(subject, relation, operand)
            .or(usual)
            .expect("everything can be equal")
    }

    fn subject(&self, bytes: &mut Bytes) -> Subject {
        let (kind, byte) = (bytes.next(), bytes.next());
        let user = || self.user(byte % 3);
        let token = self.token(byte);
        match kind % 4 {
            0 => Subject::Session(token),
            1 => Subject::Cart(CartOwner::Session(token)),
            2 => Subject::Cart(CartOwner::User(user())),
            _ => Subject::Key(key(byte)),
        }
    }
}

fn key(byte: u8) -> Key {
    Key::parse(format!("k{}", byte % 5)).expect("short")
}

/// As many bytes as are asked for, from a few.
struct Bytes(u64);

impl Bytes {
    fn new(seed: [u8; 7]) -> Self {
        Self(crate::state::fingerprint(&seed))
    }

    fn next(&mut self) -> u8 {
        self.0 = crate::state::fingerprint(&self.0.to_le_bytes());
        self.0.to_le_bytes()[0]
    }
}
