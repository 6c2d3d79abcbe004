//! The naive model: plain maps, everything scanned, nothing indexed, nothing batched. It sweeps without a bound,
//! so a script that is compared with it must not let more fall due at once than one entry sweeps.

mod carts;
mod keys;
mod merges;
mod sessions;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use self::carts::{Cart, Order};
use self::keys::Lease;
use self::sessions::User;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::v1;
use crate::state::{
    Applied, Command, Fields, Identity, NamespaceOperation, Operation, Rejection, RequestHash,
};
use crate::types::{ClientId, Key, LeaseId, Namespace, Revision, TokenHash};

pub use self::sessions::Session;

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

impl Client {
    /// Of its replies, as they are stored.
    fn bytes(&self) -> usize {
        let replies = self.replies.iter();
        let replies = replies.map(|(sequence, (fingerprint, reply))| pb::StoredReply {
            sequence: *sequence,
            fingerprint: *fingerprint,
            reply: reply.encode_to_vec().into(),
        });
        let window = pb::ClientWindow {
            replies: replies.collect(),
            ..pb::ClientWindow::default()
        };
        window.encoded_len()
    }
}

#[derive(Clone, Default)]
pub struct Model {
    /// Of the rules, 0 and 1 for the first.
    pub version: u32,
    pub now: u64,
    pub revision: u64,
    pub sessions: BTreeMap<(Namespace, TokenHash), Session>,
    /// Sessions that were ended, and until when nobody may have their token.
    pub ended: BTreeMap<(Namespace, TokenHash), u64>,
    users: BTreeMap<(Namespace, String), User>,
    pub settings: BTreeMap<Namespace, (v1::NamespaceSettings, u64)>,
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

    pub fn settings_revision(&self, ns: &Namespace) -> u64 {
        self.settings.get(ns).map_or(0, |(_, modified)| *modified)
    }

    /// What a caller may have loaded: the session as it is, or as somebody else changed it since.
    pub fn loaded(&self, ns: &Namespace, hash: TokenHash, other: Fields, byte: u8) -> Fields {
        let session = self.sessions.get(&(ns.clone(), hash));
        match session {
            Some(session) if byte.is_multiple_of(2) => {
                Fields::parse(&session.fields).expect("stored")
            }
            _ => other,
        }
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
        self.forget_users();
        let is_live = |cart: &Cart| cart.deadline > now;
        self.carts.retain(|_, cart| is_live(cart));
        for session in self.sessions.values_mut() {
            session.cart = session.cart.take().filter(is_live);
        }
        self.orders.retain(|_, order| order.until > now);
        self.ended.retain(|_, until| *until > now);
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
                let is_full = client.replies.len() >= limits::CLIENT_WINDOW
                    || client.bytes() >= limits::CLIENT_WINDOW_BYTES;
                if found.is_none() && is_full && sequence != client.confirmed {
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
            Operation::RaiseVersion(version) => {
                self.version = self.version.max(version.get());
                Ok(Body::Ticked(pb::Ticked {}))
            }
            Operation::Tick { .. } => Ok(Body::Ticked(pb::Ticked {})),
            Operation::Cart(operation) => self.change_cart(ns, &operation),
            Operation::Namespace(NamespaceOperation::Set {
                settings,
                if_revision,
            }) => {
                let old = self.settings.get(ns).copied().unwrap_or_default();
                check(if_revision, old.1)?;
                let modified = self.bump();
                let new = settings.into_message();
                let settings = v1::NamespaceSettings {
                    session: new.session.or(old.0.session),
                    cart: new.cart.or(old.0.cart),
                };
                self.settings.insert(ns.clone(), (settings, modified));
                Ok(Body::NamespaceChanged(pb::NamespaceChanged {
                    mod_revision: modified,
                }))
            }
            Operation::Session(operation) => self.change_session(ns, operation),
        }
    }
}

pub fn check(if_revision: Option<Revision>, actual: u64) -> Result<(), Rejection> {
    let actual = Revision::new(actual);
    match if_revision {
        Some(asked) if asked != actual => Err(Rejection::RevisionMismatch { actual }),
        _ => Ok(()),
    }
}
