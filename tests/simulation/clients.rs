//! Clients: what they do, and what they hold the store to on the spot.
//!
//! | client | does | holds the store to |
//! |---|---|---|
//! | register | put, put on a revision, delete, read; few keys, unique values | a linearizable history, judged at the end |
//! | reader | reads registers, and waits for no write | the same history |
//! | cart | adds one piece after another, each retried under its identity | every piece counted once: each reply names the sum |
//! | session | creates, touches, destroys, tries to bring back | lives until destroyed, at its own revision everywhere, and never again |
//!
//! A client that gets no answer asks again under the same identity, sooner or later of another node. Some give up; then the
//! outcome is unknown for good. After the heal nobody gives up, so that every operation ends or the run fails.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use trolley::node::ReadMode;
use trolley::proto::internal as pb;
use trolley::proto::internal::reply::Body;
use trolley::state::{
    CartOperation, CartOwner, Command, Fields, Identity, KeyOperation, Operation, PutCondition,
    RequestHash, SessionOperation,
};
use trolley::torture::history::{Call, Condition, Outcome, Recorder};
use trolley::types::{
    Attributes, ClientAttributes, ClientId, Key, Namespace, Quantity, Revision, Sku, TokenHash,
    UserId, Value,
};

use xxhash_rust::xxh3::xxh3_128;

use crate::asks::{Answer, Ask, Query, Seen};
use crate::network::{CLIENTS, Request, Response, call};
use crate::world::World;

/// How long a client waits for an answer, in milliseconds: some are impatient, or all would wait for the same leader that was cut off.
const PATIENCE_MS: Range<u64> = 100..2500;
/// Registers.
const KEYS: u64 = 3;

/// What all clients share.
pub struct Shop {
    pub world: Arc<World>,
    pub recorder: Recorder,
    /// Faults are over: finish what is begun.
    pub healed: AtomicBool,
    /// Who was last said to lead.
    leader: AtomicU64,
    numbers: AtomicU64,
}

/// How a write ended.
enum Written {
    Reply(Box<pb::Reply>),
    NotApplied,
    Unknown,
}

impl Shop {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world,
            recorder: Recorder::new(),
            healed: AtomicBool::new(false),
            leader: AtomicU64::new(1),
            numbers: AtomicU64::new(0),
        })
    }

    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn count(&self, kind: &'static str) {
        self.world.ledger.count(kind);
    }

    fn any_node(&self) -> u64 {
        self.world.roster.any(&self.world)
    }

    pub async fn pause(&self, most_ms: u64) {
        sleep(Duration::from_millis(self.world.draw(1..most_ms))).await;
    }

    pub async fn ask(&self, node: u64, ask: Ask) -> Option<Answer> {
        let patience = Duration::from_millis(self.world.draw(PATIENCE_MS));
        match call(&self.world, CLIENTS, node, Request::Client(ask), patience).await? {
            Response::Client(answer) => Some(answer),
            _ => None,
        }
    }

    /// Writes, asking again as often as `attempts` says, and after the heal until there is an answer.
    async fn write(&self, command: &Command, attempts: u64) -> Written {
        let mut maybe_applied = false;
        let mut attempt = 0;
        loop {
            let leader = self.leader.load(Ordering::Relaxed);
            let node = if self.world.chance(80) {
                leader
            } else {
                self.any_node()
            };
            match self
                .ask(node, Ask::Propose(Box::new(command.clone())))
                .await
            {
                Some(Answer::Reply(reply)) => {
                    self.leader.store(node, Ordering::Relaxed);
                    return Written::Reply(reply);
                }
                Some(Answer::Refused(hint)) => {
                    let next = hint.unwrap_or_else(|| self.any_node());
                    self.leader.store(next, Ordering::Relaxed);
                }
                _ => {
                    maybe_applied = true;
                    self.leader.store(self.any_node(), Ordering::Relaxed);
                }
            }
            attempt += 1;
            if attempt >= attempts && !self.is_healed() {
                return if maybe_applied {
                    Written::Unknown
                } else {
                    Written::NotApplied
                };
            }
            self.pause(100).await;
        }
    }

    /// Reads; `None` where the node did not answer.
    async fn read(&self, mode: ReadMode, query: Query) -> Option<(Revision, Seen)> {
        match self.ask(self.any_node(), Ask::Read(mode, query)).await {
            Some(Answer::Seen(revision, seen)) => Some((revision, seen)),
            _ => None,
        }
    }

    pub fn fail(&self, check: &'static str, detail: String) {
        self.world.ledger.fail(check, detail);
    }

    fn request(&self) -> Identity {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&self.number().to_be_bytes());
        Identity::Request(RequestHash::new(hash))
    }
}

fn command(identity: Identity, operation: impl Into<Operation>) -> Command {
    Command::new(Namespace::default(), identity, operation)
}

/// Works on the registers until the heal.
pub async fn registers(shop: Arc<Shop>, process: u32) {
    // What this client saw last, to put on.
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    while !shop.is_healed() {
        let register = shop.world.draw(0..KEYS);
        let name = format!("r{register}");
        let key = Key::parse(name.as_str()).expect("a short name");
        let found = match shop.world.draw(0..10) {
            0..=4 => get(&shop, process, &name, key).await,
            5 => delete(&shop, process, &name, key).await,
            kind => {
                let condition = match seen.get(&register) {
                    Some(revision) if kind == 9 => {
                        PutCondition::IfRevision(Revision::new(*revision))
                    }
                    _ if kind == 8 => PutCondition::IfAbsent,
                    _ => PutCondition::Always,
                };
                put(&shop, process, &name, key, condition).await
            }
        };
        if let Some(revision) = found {
            seen.insert(register, revision);
        }
        shop.pause(40).await;
    }
}

/// Looks at the registers until the heal, and waits for no write meanwhile.
pub async fn readers(shop: Arc<Shop>, process: u32) {
    while !shop.is_healed() {
        let name = format!("r{}", shop.world.draw(0..KEYS));
        let key = Key::parse(name.as_str()).expect("a short name");
        get(&shop, process, &name, key).await;
        shop.pause(40).await;
    }
}

async fn get(shop: &Shop, process: u32, name: &str, key: Key) -> Option<u64> {
    let ticket = shop.recorder.invoke(process, name, Call::Get);
    let read = shop.read(ReadMode::Linearizable, Query::Key(key)).await;
    let (outcome, revision) = match read {
        Some((_, Seen::Key(Some((value, revision))))) => {
            let value = String::from_utf8_lossy(&value).into_owned();
            let found = Outcome::Found {
                value,
                revision: Some(revision),
            };
            shop.count("get");
            (found, Some(revision))
        }
        Some((_, Seen::Key(None))) => {
            shop.count("get");
            (Outcome::Absent, None)
        }
        _ => (Outcome::NotApplied, None),
    };
    shop.recorder.complete(ticket, outcome);
    revision
}

async fn put(
    shop: &Shop,
    process: u32,
    name: &str,
    key: Key,
    condition: PutCondition,
) -> Option<u64> {
    let value = format!("v{}", shop.number());
    let noted = match condition {
        PutCondition::Always => Condition::Always,
        PutCondition::IfAbsent => Condition::IfAbsent,
        PutCondition::IfRevision(revision) => Condition::IfRevision(revision.get()),
    };
    let put = command(
        shop.request(),
        Operation::Key(KeyOperation::Put {
            key,
            value: Value::parse(Bytes::from(value.clone())).expect("a short value"),
            ttl: None,
            lease: None,
            condition,
        }),
    );
    let call = Call::Put {
        value,
        condition: noted,
    };
    let ticket = shop.recorder.invoke(process, name, call);
    let (outcome, revision) = match shop.write(&put, 3).await {
        Written::Reply(reply) => {
            shop.count("put");
            match reply.body {
                Some(Body::KeyPut(put)) => {
                    let revision = Some(put.mod_revision);
                    (Outcome::Written { revision }, revision)
                }
                Some(Body::Rejected(_)) => (Outcome::Refused, None),
                other => {
                    shop.fail("replies", format!("a put was told {other:?}"));
                    (Outcome::Unknown, None)
                }
            }
        }
        Written::NotApplied => (Outcome::NotApplied, None),
        Written::Unknown => (Outcome::Unknown, None),
    };
    shop.recorder.complete(ticket, outcome);
    revision
}

async fn delete(shop: &Shop, process: u32, name: &str, key: Key) -> Option<u64> {
    let operation = KeyOperation::Delete {
        key,
        if_revision: None,
    };
    let delete = command(shop.request(), Operation::Key(operation));
    let call = Call::Delete {
        condition: Condition::Always,
    };
    let ticket = shop.recorder.invoke(process, name, call);
    let outcome = match shop.write(&delete, 3).await {
        Written::Reply(reply) => {
            shop.count("delete");
            match reply.body {
                Some(Body::KeyDeleted(_)) => Outcome::Deleted {
                    revision: Some(reply.revision),
                },
                Some(Body::Rejected(_)) => Outcome::Absent,
                other => {
                    shop.fail("replies", format!("a delete was told {other:?}"));
                    Outcome::Unknown
                }
            }
        }
        Written::NotApplied => Outcome::NotApplied,
        Written::Unknown => Outcome::Unknown,
    };
    shop.recorder.complete(ticket, outcome);
    None
}

/// One cart, one piece at a time; gives up on none.
pub async fn cart(shop: Arc<Shop>, number: u8) {
    let user = UserId::parse(format!("user-{number}")).expect("a short name");
    let client = ClientId::new([number; 16]);
    let mut pieces = 0;
    while !shop.is_healed() {
        pieces += 1;
        let identity = if number.is_multiple_of(2) {
            Identity::Client {
                client,
                sequence: pieces,
                confirmed_below: pieces,
            }
        } else {
            shop.request()
        };
        let add = CartOperation::Add {
            owner: CartOwner::User(user.clone()),
            sku: Sku::parse("sku").expect("a short name"),
            quantity: Quantity::parse(1).expect("one"),
            unit_price: None,
            attributes: Attributes::default(),
            if_revision: None,
        };
        let add = command(identity, Operation::Cart(add));
        let Written::Reply(reply) = shop.write(&add, u64::MAX).await else {
            return shop.fail("liveness", format!("cart {number}: an add had no end"));
        };
        shop.count("add");
        let line = match &reply.body {
            Some(Body::CartLineChanged(changed)) => changed.line.as_ref(),
            _ => None,
        };
        if line.map(|line| u64::from(line.quantity)) != Some(pieces) {
            let detail = format!("cart {number}: add {pieces} was told {:?}", reply.body);
            return shop.fail("exactly once", detail);
        }
        let at_least = ReadMode::AtLeast(Revision::new(reply.revision));
        for mode in [ReadMode::Linearizable, at_least] {
            if shop.world.chance(20)
                && let Some((_, seen)) = shop.read(mode, Query::Cart(user.clone())).await
                && seen != Seen::Cart(pieces)
            {
                let detail = format!("cart {number}: {mode:?} read {seen:?}, not {pieces}");
                return shop.fail("read your writes", detail);
            }
        }
        shop.pause(60).await;
    }
}

/// One session after the other.
pub async fn sessions(shop: Arc<Shop>) {
    while !shop.is_healed() {
        if session(&shop).await.is_none() {
            return;
        }
        shop.pause(60).await;
    }
}

/// `None` after a violation.
async fn session(shop: &Shop) -> Option<()> {
    let number = shop.number();
    let half = xxh3_128(&number.to_be_bytes()).to_be_bytes();
    let token = TokenHash::new([half, half].concat().try_into().expect("twice 16 bytes"));
    let create = SessionOperation::Create {
        token,
        sealed_token: Bytes::new(),
        user: None,
        fields: Fields::default(),
        client: ClientAttributes::default(),
        idle_ttl: None,
        absolute_ttl: None,
    };
    let created = change(shop, number, create, |body| {
        matches!(body, Body::SessionCreated(_))
    })
    .await?;
    for _ in 0..shop.world.draw(0..4) {
        expect(shop, number, token, created, true).await?;
        if shop.world.chance(40) {
            let touch = SessionOperation::Touch { token };
            change(shop, number, touch, |body| {
                matches!(body, Body::SessionChanged(_))
            })
            .await?;
        }
    }
    let destroy = SessionOperation::Destroy { token };
    let destroyed = change(shop, number, destroy, |body| {
        matches!(body, Body::SessionDestroyed(_))
    })
    .await?;
    expect(shop, number, token, destroyed, false).await?;
    if shop.world.chance(50) {
        let touch = SessionOperation::Touch { token };
        change(shop, number, touch, |body| {
            matches!(body, Body::Rejected(_))
        })
        .await?;
        expect(shop, number, token, destroyed, false).await?;
    }
    Some(())
}

/// Changes a session, and says at which revision.
async fn change(
    shop: &Shop,
    number: u64,
    operation: SessionOperation,
    is_right: fn(&Body) -> bool,
) -> Option<u64> {
    let what = format!("{operation:?}");
    let change = command(shop.request(), operation);
    let Written::Reply(reply) = shop.write(&change, u64::MAX).await else {
        shop.fail("liveness", format!("session {number}: {what} had no end"));
        return None;
    };
    shop.count("session");
    if reply.body.as_ref().is_some_and(is_right) {
        Some(reply.revision)
    } else {
        let detail = format!("session {number}: {what} was told {:?}", reply.body);
        shop.fail("sessions", detail);
        None
    }
}

/// Whoever looks, now or at this revision, finds the session living or not.
async fn expect(
    shop: &Shop,
    number: u64,
    token: TokenHash,
    revision: u64,
    lives: bool,
) -> Option<()> {
    let at_least = ReadMode::AtLeast(Revision::new(revision));
    for mode in [ReadMode::Linearizable, at_least] {
        if shop.world.chance(50)
            && let Some((at, seen)) = shop.read(mode, Query::Session(token)).await
        {
            shop.count("look");
            if seen != Seen::Session(lives) {
                let detail =
                    format!("session {number}: {mode:?} read {seen:?} at {at}, not {lives}");
                shop.fail("sessions", detail);
                return None;
            }
        }
    }
    Some(())
}
