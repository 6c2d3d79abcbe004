//! The naive model: plain maps, everything scanned, nothing indexed, nothing batched. It sweeps without a bound,
//! so a script that is compared with it must not let more fall due at once than one entry sweeps.

mod carts;
mod keys;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::carts::{Cart, Order};
use self::keys::Lease;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::{Applied, Command, Identity, Operation, Rejection, RequestHash};
use crate::types::{ClientId, Fields, Key, LeaseId, Namespace, Revision, TokenHash, UserId};

#[derive(Clone)]
pub struct Session {
    pub user: String,
    pub fields: BTreeMap<String, Bytes>,
    pub created: u64,
    pub modified: u64,
    created_at: u64,
    seen: u64,
    idle: u64,
    pub absolute: u64,
    pub cart: Option<Cart>,
}

impl Session {
    pub fn due(&self) -> u64 {
        (self.seen + self.idle).min(self.absolute)
    }
}

#[derive(Clone)]
pub struct Value {
    bytes: Bytes,
    counter: Option<i64>,
    created: u64,
    pub modified: u64,
    pub deadline: Option<u64>,
    lease: Option<LeaseId>,
}

#[derive(Clone, Default)]
struct Client {
    confirmed: u64,
    replies: BTreeMap<u64, (u64, pb::Reply)>,
    used: u64,
}

#[derive(Clone, Default)]
pub struct Model {
    pub now: u64,
    pub revision: u64,
    pub sessions: BTreeMap<(Namespace, TokenHash), Session>,
    pub carts: BTreeMap<(Namespace, String), Cart>,
    pub orders: BTreeMap<(Namespace, String), Order>,
    pub keys: BTreeMap<(Namespace, Key), Value>,
    pub leases: BTreeMap<(Namespace, LeaseId), Lease>,
    /// While a transaction runs: the revision before it.
    transaction: Option<u64>,
    clients: BTreeMap<ClientId, Client>,
    requests: BTreeMap<(Namespace, RequestHash), (u64, pb::Reply, u64)>,
}

impl Model {
    pub fn session_revision(&self, ns: &Namespace, hash: TokenHash) -> u64 {
        self.sessions
            .get(&(ns.clone(), hash))
            .map_or(0, |it| it.modified)
    }

    pub fn key_revision(&self, ns: &Namespace, key: &Key) -> u64 {
        self.keys
            .get(&(ns.clone(), key.clone()))
            .map_or(0, |it| it.modified)
    }

    pub fn apply(&mut self, stamp: u64, command: &Command) -> Applied {
        self.now = self.now.max(stamp);
        self.expire();
        if let Some(applied) = self.known(command) {
            return applied;
        }
        let before = self.revision;
        let body = match self.operate(&command.namespace, &command.operation) {
            Ok(body) => body,
            Err(rejection) => {
                assert_eq!(self.revision, before);
                Body::Rejected(rejection.to_stored())
            }
        };
        let reply = self.reply(body);
        self.remember(command, &reply);
        Applied {
            reply,
            replayed: false,
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        let before = self.readable();
        self.sessions.retain(|_, session| session.due() > now);
        let is_live = |cart: &Cart| cart.deadline.is_none_or(|deadline| deadline > now);
        self.carts.retain(|_, cart| is_live(cart));
        for session in self.sessions.values_mut() {
            session.cart = session.cart.take().filter(is_live);
        }
        self.orders.retain(|_, order| order.until > now);
        self.keys
            .retain(|_, value| value.deadline.is_none_or(|deadline| deadline > now));
        self.leases.retain(|_, lease| lease.deadline > now);
        let leases = &self.leases;
        self.keys.retain(|(ns, _), value| {
            let lease = value.lease.map(|lease| (ns.clone(), lease));
            lease.is_none_or(|lease| leases.contains_key(&lease))
        });
        self.clients
            .retain(|_, client| client.used + limits::REPLY_WINDOW_MS > now);
        self.requests
            .retain(|_, (_, _, at)| *at + limits::REPLY_WINDOW_MS > now);
        if self.readable() < before {
            self.revision += 1;
        }
    }

    /// Records that a caller can read.
    fn readable(&self) -> usize {
        let in_sessions = self.sessions.values().filter(|it| it.cart.is_some());
        let carts = in_sessions.count() + self.carts.len();
        self.sessions.len() + carts + self.keys.len() + self.leases.len()
    }

    fn reply(&self, body: Body) -> pb::Reply {
        pb::Reply {
            revision: self.revision,
            body: Some(body),
        }
    }

    fn known(&mut self, command: &Command) -> Option<Applied> {
        let refused = |model: &Self, rejection: Rejection| {
            let reply = model.reply(Body::Rejected(rejection.to_stored()));
            Some(Applied {
                reply,
                replayed: false,
            })
        };
        let found = match command.identity {
            Identity::Anonymous => None,
            Identity::Request(hash) => self
                .requests
                .get(&(command.namespace.clone(), hash))
                .map(|(fingerprint, reply, _)| (*fingerprint, reply.clone())),
            Identity::Client {
                client,
                sequence,
                confirmed_below,
            } => {
                let client = self.clients.entry(client).or_default();
                client.used = self.now;
                client.confirmed = client.confirmed.max(confirmed_below);
                client.replies = client.replies.split_off(&client.confirmed);
                if sequence < client.confirmed {
                    return refused(self, Rejection::SequenceConfirmed);
                }
                let found = client.replies.get(&sequence).cloned();
                if found.is_none() && client.replies.len() == limits::CLIENT_WINDOW {
                    return refused(self, Rejection::ClientWindowFull);
                }
                found
            }
        };
        let (fingerprint, reply) = found?;
        if fingerprint == command.fingerprint {
            return Some(Applied {
                reply,
                replayed: true,
            });
        }
        refused(self, Rejection::RequestIdReused)
    }

    fn remember(&mut self, command: &Command, reply: &pb::Reply) {
        match command.identity {
            Identity::Anonymous => {}
            Identity::Request(hash) => {
                let kept = (command.fingerprint, reply.clone(), self.now);
                self.requests
                    .insert((command.namespace.clone(), hash), kept);
            }
            Identity::Client {
                client, sequence, ..
            } => {
                let kept = (command.fingerprint, reply.clone());
                self.clients
                    .entry(client)
                    .or_default()
                    .replies
                    .insert(sequence, kept);
            }
        }
    }

    /// The revision that a change makes.
    pub fn next(&self) -> u64 {
        self.transaction.unwrap_or(self.revision) + 1
    }

    pub fn bump(&mut self) -> u64 {
        self.revision = self.next();
        self.revision
    }

    fn operate(&mut self, ns: &Namespace, operation: &Operation) -> Result<Body, Rejection> {
        match operation.clone() {
            Operation::Key(operation) => self.change_key(ns, operation),
            Operation::Lease(operation) => self.change_lease(ns, operation),
            Operation::Txn(txn) => Ok(self.transact(ns, &txn)),
            Operation::Tick { .. } => Ok(Body::Ticked(pb::Ticked {})),
            Operation::Cart(operation) => self.change_cart(ns, &operation),
            _ => self.change_session(ns, operation),
        }
    }

    fn change_session(&mut self, ns: &Namespace, operation: &Operation) -> Result<Body, Rejection> {
        let (now, next) = (self.now, self.next());
        let body = match operation.clone() {
            Operation::SessionCreate {
                token,
                sealed_token,
                user,
                fields,
                idle_ttl,
                absolute_ttl,
            } => {
                if self.sessions.contains_key(&(ns.clone(), token)) {
                    return Err(Rejection::SessionExists);
                }
                let session = Session {
                    user: user.map_or(String::new(), UserId::into_string),
                    fields: fields.into_map(),
                    created: next,
                    modified: next,
                    created_at: now,
                    seen: now,
                    idle: idle_ttl.as_millis(),
                    absolute: now + absolute_ttl.as_millis(),
                    cart: None,
                };
                let created = pb::SessionCreated {
                    sealed_token,
                    token_hash: token.as_bytes().to_vec().into(),
                    created_at: session.created_at,
                    idle_ttl: session.idle,
                    idle_deadline: session.due(),
                    absolute_deadline: session.absolute,
                };
                self.sessions.insert((ns.clone(), token), session);
                Body::SessionCreated(created)
            }
            Operation::SessionUpdate {
                token,
                set,
                remove,
                if_revision,
            } => {
                let session = self.session(ns, token)?;
                check(if_revision, session.modified)?;
                let mut after = session.fields.clone();
                after.retain(|name, _| !remove.contains(name));
                after.extend(set.into_map());
                if after.len() > limits::SESSION_FIELDS {
                    return Err(Rejection::SessionFieldsLimit);
                }
                if Fields::size(&after) > limits::SESSION_BYTES {
                    return Err(Rejection::SessionBytesLimit);
                }
                session.fields = after;
                session.seen = now;
                session.modified = next;
                Body::SessionChanged(pb::SessionChanged {
                    mod_revision: next,
                    idle_deadline: session.due(),
                })
            }
            Operation::SessionTouch { token } => {
                let session = self.session(ns, token)?;
                session.seen = now;
                Body::SessionChanged(pb::SessionChanged {
                    mod_revision: session.modified,
                    idle_deadline: session.due(),
                })
            }
            Operation::SessionDestroy { token } => {
                self.session(ns, token)?;
                self.sessions.remove(&(ns.clone(), token));
                Body::SessionDestroyed(pb::SessionDestroyed {})
            }
            other => panic!("{other:?} is no session operation"),
        };
        self.bump();
        Ok(body)
    }

    pub fn session(&mut self, ns: &Namespace, token: TokenHash) -> Result<&mut Session, Rejection> {
        self.sessions
            .get_mut(&(ns.clone(), token))
            .ok_or(Rejection::SessionNotFound)
    }
}

pub fn check(if_revision: Option<Revision>, actual: u64) -> Result<(), Rejection> {
    let actual = Revision::new(actual);
    match if_revision {
        Some(asked) if asked != actual => Err(Rejection::RevisionMismatch { actual }),
        _ => Ok(()),
    }
}
