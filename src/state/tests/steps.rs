//! Random commands that often mean something: few names, short lives, revisions that are often right, retries.

mod aims;
mod carts;
mod keys;
mod sessions;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::model::Model;
use crate::limits;
use crate::state::{
    Applied, CartOperation, CartOwner, Command, Fields, Identity, KeyOperation, LineRef,
    NamespaceOperation, Operation, PutCondition, RequestHash,
};
use crate::types::{
    Attributes, ClientId, Key, LineId, Money, Namespace, Quantity, Revision, Sku, StateVersion,
    TokenHash, Ttl, UserId, Value,
};

/// Tokens that a script uses at a time: enough that some are free although the ended ones stay blocked.
pub const TOKENS: u8 = 8;

/// One random step, not yet a command: what it means depends on the steps before.
pub type Step = [u8; 10];

/// The first byte of a step is how much later it is. From this one on it is so much later that records come to their deadlines.
pub const FIRST_LULL: u8 = 252;

/// The place of the byte that says how large the fields of a session are.
pub const SIZE: usize = 6;

pub fn has_large_fields(step: &Step) -> bool {
    step[SIZE].is_multiple_of(16)
}

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), count)
}

/// Steps about two sessions and their carts: both are changed all the time, and the ends of both are moved.
pub fn sessions_with_carts(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    const CREATE: u8 = 0;
    const UPDATE: u8 = 2;
    const ADD: u8 = 6;
    const CLEAR: u8 = 11;
    const ROTATE: u8 = 31;
    const SETTINGS: u8 = 38;
    let kind = prop::sample::select(&[CREATE, UPDATE, UPDATE, ADD, ADD, CLEAR, ROTATE, SETTINGS]);
    // Of a session's cart, with an update that names both TTLs.
    let both = prop::sample::select(&[70_u8, 140, 210]);
    let step = (any::<[u8; 6]>(), kind, both);
    let step = step.prop_map(|([time, a, c, d, e, f], kind, b)| {
        [time % 252, 0, kind, a % 2, b, c, d, e, f, 0]
    });
    prop::collection::vec(step, count)
}

/// Kinds of operations; a transaction, made of the others, is the last.
const KINDS: u8 = 40;

/// Turns steps into commands, with the model's answer to each.
#[derive(Default)]
pub struct Script {
    pub model: Model,
    pub now: u64,
    /// Without operations that depend on revisions, see [`names_a_revision`].
    pub plain: bool,
    /// The first of the tokens that it uses. A long script moves on to others, for those that were used up stay so.
    pub first_token: u16,
    history: Vec<Command>,
    sequences: [u64; 2],
}

pub fn pick<T: Clone>(from: &[T], byte: u8) -> T {
    from[usize::from(byte) % from.len()].clone()
}

impl Script {
    /// The next entry: its stamp and command. The model has applied it.
    pub fn next(&mut self, step: Step) -> (u64, Command) {
        let (stamp, command, _) = self.answered(step);
        (stamp, command)
    }

    /// The same with what the model answered.
    pub fn answered(&mut self, step: Step) -> (u64, Command, Applied) {
        let [time, whose, kind, rest @ ..] = step;
        let later = match time {
            255 => limits::REPLY_WINDOW_MS,
            254 => limits::CART_TTL_EMPTY_DEFAULT_MS,
            253 => limits::CART_TTL_GUEST_DEFAULT_MS,
            FIRST_LULL => limits::CART_TTL_USER_DEFAULT_MS,
            _ => pick(&[0, 0, 0, 1, 1, 3, 7, 40], time),
        };
        self.now += later;
        // Now and then a stamp of a clock that runs behind.
        let stamp = if time % 16 == 9 {
            self.now.saturating_sub(20)
        } else {
            self.now
        };
        let retry = whose % 8 == 7 && !self.history.is_empty();
        let command = if retry {
            pick(&self.history, rest[0])
        } else {
            self.command(whose, kind, rest)
        };
        self.history.push(command.clone());
        let applied = self.model.apply(stamp, &command);
        (stamp, command, applied)
    }

    fn token(&self, byte: u8) -> TokenHash {
        let nth = self.first_token.wrapping_add(u16::from(byte % TOKENS));
        let [high, low] = nth.to_be_bytes();
        let mut hash = [low; 32];
        hash[31] ^= high;
        TokenHash::new(hash)
    }

    fn owner(&self, a: u8, b: u8) -> CartOwner {
        if b.is_multiple_of(2) {
            CartOwner::Session(self.token(a))
        } else {
            CartOwner::User(self.user(a % 3))
        }
    }

    /// Users and orders move on as well, if more slowly: carts that were merged and orders that were completed stay so.
    fn era(&self) -> u16 {
        self.first_token / 20
    }

    fn user(&self, nth: u8) -> UserId {
        UserId::parse(format!("u{}", self.era() + u16::from(nth))).expect("short")
    }

    fn command(&mut self, whose: u8, kind: u8, rest: [u8; 7]) -> Command {
        let names = ["default", "n"].map(|name| Namespace::parse(name).expect("a valid name"));
        let namespace = pick(&names, whose / 8);
        let identity = self.identity(whose, rest[6]);
        let mut operation = self
            .aimed(&namespace, kind, rest)
            .unwrap_or_else(|| self.operation(&namespace, kind, rest));
        if self.plain && names_a_revision(&operation) {
            operation = super::tick();
        }
        Command::new(namespace, identity, operation)
    }

    fn identity(&mut self, whose: u8, byte: u8) -> Identity {
        match whose % 8 {
            0..=2 => Identity::Anonymous,
            3 => Identity::Request(RequestHash::new([byte % 8; 16])),
            _ => {
                let nth = usize::from(whose / 16 % 2);
                let next = self.sequences[nth];
                self.sequences[nth] += 1;
                Identity::Client {
                    client: ClientId::new([whose / 16 % 2; 16]),
                    // Mostly ascending, sometimes late or again.
                    sequence: next.saturating_sub(u64::from(pick(&[0u8, 0, 0, 0, 1, 2, 5], byte))),
                    confirmed_below: next.saturating_sub(u64::from(byte % 8)),
                }
            }
        }
    }

    #[allow(
        clippy::many_single_char_names,
        reason = "random bytes have no better names"
    )]
    fn operation(&self, ns: &Namespace, kind: u8, rest: [u8; 7]) -> Operation {
        let [a, b, c, d, e, f, _] = rest;
        let owner = self.owner(a, b);
        let sku = || Sku::parse(format!("s{}", c % 3)).expect("short");
        let key = || Key::parse(format!("k{}", a % 5)).expect("short");
        let quantity = || Quantity::parse(pick(&[1, 2, 3, 999_999], d)).expect("in range");
        let line = || match e % 4 {
            0 => LineRef::Sku(sku()),
            n => LineRef::Id(LineId::new(n.into())),
        };
        match kind % KINDS {
            kind @ (0..=5 | 30..=37) => self.session(ns, kind, rest).into(),
            6..=8 => Operation::Cart(CartOperation::Add {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                sku: sku(),
                quantity: quantity(),
                unit_price: price(e),
                attributes: attributes(e),
            }),
            9 => Operation::Cart(CartOperation::SetQuantity {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                line: line(),
                quantity: quantity(),
            }),
            10 => Operation::Cart(CartOperation::Remove {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                line: line(),
            }),
            11 => Operation::Cart(CartOperation::Clear {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
            }),
            12 | 13 => Operation::Key(KeyOperation::Put {
                lease: (d % 8 > 4).then(|| self.lease(ns, c)),
                condition: match condition(f, self.model.key_revision(ns, &key())) {
                    Some(revision) => PutCondition::IfRevision(revision),
                    None if f % 8 == 4 => PutCondition::IfAbsent,
                    None => PutCondition::Always,
                },
                key: key(),
                value: Value::parse(vec![c; usize::from(d % 4)].into()).expect("short"),
                ttl: b.is_multiple_of(2).then(|| ttl(e)),
            }),
            14 => Operation::Key(KeyOperation::Delete {
                if_revision: condition(f, self.model.key_revision(ns, &key())),
                key: key(),
            }),
            15 if b % 32 == 0 => Operation::RaiseVersion(StateVersion::NEWEST),
            15 => Operation::Tick {
                checkpoint: a.is_multiple_of(2),
                expect: None,
            },
            kind @ 16..=21 => self.key_operation(kind - 16, ns, rest),
            kind @ 22..=29 => Operation::Cart(self.cart(ns, kind - 22, rest)),
            38 => self.settings(ns, rest).into(),
            _ => Operation::Txn(Box::new(self.txn(ns, rest))),
        }
    }
}

/// What an operation does depends on revisions, and so on what was swept when.
fn names_a_revision(operation: &Operation) -> bool {
    match operation {
        // A lease's id is a revision.
        Operation::Txn(_) | Operation::Lease(_) => true,
        Operation::Session(operation) => sessions::names_a_revision(operation),
        Operation::Namespace(NamespaceOperation::Set { if_revision, .. })
        | Operation::Key(KeyOperation::Delete { if_revision, .. }) => if_revision.is_some(),
        Operation::Key(KeyOperation::Increment(_))
        | Operation::Tick { .. }
        | Operation::RaiseVersion(_) => false,
        Operation::Cart(operation) => carts::names_a_revision(operation),
        Operation::Key(KeyOperation::Put {
            condition, lease, ..
        }) => lease.is_some() || matches!(condition, PutCondition::IfRevision(_)),
    }
}

/// No condition, the right one, the one of an absent record, a wrong one.
pub fn condition(byte: u8, current: u64) -> Option<Revision> {
    match byte % 8 {
        0 => Some(Revision::new(current)),
        1 => Some(Revision::new(0)),
        2 => Some(Revision::new(current + 1)),
        _ => None,
    }
}

fn ttl(byte: u8) -> Ttl {
    Ttl::from_millis(pick(&[1, 5, 20, 50, 400, 10_000, limits::TTL_MAX_MS], byte))
}

pub fn price(byte: u8) -> Option<Money> {
    match byte % 8 {
        0 => Some(Money::parse(100, "USD").expect("in range")),
        1..=3 => Some(Money::parse(byte.into(), "EUR").expect("in range")),
        _ => None,
    }
}

pub fn attributes(byte: u8) -> Attributes {
    let large = byte
        .is_multiple_of(3)
        .then(|| ("size".to_owned(), "XL".to_owned()));
    Attributes::parse(large.into_iter().collect()).expect("small")
}

/// Up to two fields, none of them empty; large ones sometimes, so that three of them pass the limit.
fn fields(c: u8, d: u8) -> Fields {
    let value = |n: u8| {
        let large = d.is_multiple_of(16);
        let len = if large {
            limits::SESSION_BYTES / 3
        } else {
            usize::from(n) + 1
        };
        Bytes::from(vec![d; len])
    };
    let fields: BTreeMap<_, _> = (0..c % 3)
        .map(|n| (format!("f{}", n.wrapping_add(c) % 5), value(n)))
        .collect();
    Fields::parse(&fields).expect("two fields stay below the limit")
}
