//! Random commands that often mean something: few names, short lives, revisions that are often right, retries.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::model::{Model, Session};
use super::token;
use crate::limits;
use crate::proto::v1;
use crate::state::{
    Applied, CartOwner, Command, Identity, LineRef, MergePolicy, NamespaceOperation, Operation,
    PutCondition, RequestHash, Rotation, SavePolicy, SessionOperation, Settings,
};
use crate::types::{
    Attributes, ClientAttributes, ClientId, Fields, Key, LineId, LogTime, Money, Namespace,
    Quantity, Revision, SessionHandle, Sku, Ttl, UserId, Value,
};

/// Tokens that scripts use: enough that some are free although the ended ones stay blocked.
pub const TOKENS: u8 = 8;

/// One random step, not yet a command: what it means depends on the steps before.
pub type Step = [u8; 10];

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), count)
}

/// Turns steps into commands, with the model's answer to each.
#[derive(Default)]
pub struct Script {
    pub model: Model,
    pub now: u64,
    history: Vec<Command>,
    sequences: [u64; 2],
}

fn pick<T: Clone>(from: &[T], byte: u8) -> T {
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
        let later = if time == 255 {
            limits::REPLY_WINDOW_MS
        } else {
            pick(&[0, 0, 0, 1, 1, 3, 7, 40], time)
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

    fn command(&mut self, whose: u8, kind: u8, rest: [u8; 7]) -> Command {
        let names = ["default", "n"].map(|name| Namespace::parse(name).expect("a valid name"));
        let namespace = pick(&names, whose / 8);
        let identity = self.identity(whose, rest[6]);
        let operation = self.operation(&namespace, kind, rest);
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
    fn operation(&self, ns: &Namespace, kind: u8, [a, b, c, d, e, f, _]: [u8; 7]) -> Operation {
        let hash = token(a % TOKENS);
        let owner = if b.is_multiple_of(2) {
            CartOwner::Session(hash)
        } else {
            CartOwner::User(UserId::parse(format!("u{}", a % 3)).expect("short"))
        };
        let sku = || Sku::parse(format!("s{}", c % 3)).expect("short");
        let key = || Key::parse(format!("k{}", a % 5)).expect("short");
        let quantity = || Quantity::parse(pick(&[1, 2, 3, 999_999], d)).expect("in range");
        let line = || match e % 4 {
            0 => LineRef::Sku(sku()),
            n => LineRef::Id(LineId::new(n.into())),
        };
        match kind % 26 {
            0..=5 | 16..=23 => self.session(ns, kind % 26, [a, b, c, d, e, f]).into(),
            24 => NamespaceOperation::Set {
                settings: settings(c, d, e),
                if_revision: condition(f, self.model.settings_revision(ns)),
            }
            .into(),
            6..=8 => Operation::CartAdd {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                sku: sku(),
                quantity: quantity(),
                unit_price: price(e),
                attributes: attributes(e),
            },
            9 => Operation::CartSetQuantity {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                line: line(),
                quantity: quantity(),
            },
            10 => Operation::CartRemove {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
                line: line(),
            },
            11 => Operation::CartClear {
                if_revision: condition(f, self.model.cart_revision(ns, &owner)),
                owner,
            },
            12 | 13 => Operation::KeyPut {
                condition: match condition(f, self.model.key_revision(ns, &key())) {
                    Some(revision) => PutCondition::IfRevision(revision),
                    None if f % 8 == 4 => PutCondition::IfAbsent,
                    None => PutCondition::Always,
                },
                key: key(),
                value: Value::parse(vec![c; usize::from(d % 4)].into()).expect("short"),
                ttl: b.is_multiple_of(2).then(|| ttl(e)),
            },
            14 => Operation::KeyDelete {
                if_revision: condition(f, self.model.key_revision(ns, &key())),
                key: key(),
            },
            _ => Operation::Tick {
                checkpoint: a.is_multiple_of(2),
                expect: None,
            },
        }
    }

    #[allow(
        clippy::many_single_char_names,
        reason = "random bytes have no better names"
    )]
    fn session(&self, ns: &Namespace, kind: u8, [a, b, c, d, e, f]: [u8; 6]) -> SessionOperation {
        let hash = token(a % TOKENS);
        let user = |byte: u8| UserId::parse(format!("u{}", byte % 2)).expect("short");
        let given = |byte: u8| (!byte.is_multiple_of(4)).then(|| ttl(byte));
        match kind {
            0 | 1 | 16 => SessionOperation::Create {
                token: hash,
                sealed_token: Bytes::copy_from_slice(&[c]),
                user: (b % 3 > 0).then(|| user(b)),
                fields: fields(c, d),
                client: client(d),
                idle_ttl: given(e),
                absolute_ttl: given(f),
            },
            17 | 18 => SessionOperation::Rotate(Box::new(Rotation {
                token: hash,
                new_token: token(b % TOKENS),
                sealed_token: Bytes::copy_from_slice(&[c]),
                user: (c % 3 > 0).then(|| user(c)),
                set: fields(c, d),
                remove: (0..e % 3).map(|n| format!("f{n}")).collect(),
                idle_ttl: given(e),
                absolute_ttl: given(f),
                client: client(d),
                cart_merge: pick(
                    &[
                        MergePolicy::Sum,
                        MergePolicy::Max,
                        MergePolicy::KeepTarget,
                        MergePolicy::KeepSource,
                        MergePolicy::SourceIfTargetEmpty,
                    ],
                    f,
                ),
            })),
            19 | 20 => {
                let current = self.model.session_revision(ns, hash);
                // A base that was right at some time, or never.
                let base = fields(e, d);
                SessionOperation::Save {
                    token: hash,
                    loaded: condition(f, current).unwrap_or(Revision::new(current)),
                    base: (b % 3 > 0).then(|| self.model.loaded(ns, hash, base, b)),
                    fields: fields(c, d),
                    policy: pick(&[SavePolicy::FailOnConflict, SavePolicy::LastWriterWins], b),
                }
            }
            21 | 22 => {
                let user = user(b);
                let theirs = self.model.sessions_of(ns, user.as_str());
                let token = (!theirs.is_empty()).then(|| pick(&theirs, c));
                let session = token.and_then(|token| self.model.sessions.get(&(ns.clone(), token)));
                let handle = session.and_then(Session::handle);
                let absent = SessionHandle::new(u64::from(d), LogTime::from_millis(e.into()));
                SessionOperation::End {
                    user,
                    handle: handle.unwrap_or(absent),
                }
            }
            23 => SessionOperation::RevokeAll {
                user: user(b),
                except: c.is_multiple_of(2).then(|| {
                    let theirs = self.model.sessions_of(ns, user(b).as_str());
                    theirs.get(usize::from(d) % 4).copied().unwrap_or(hash)
                }),
            },
            2 | 3 => SessionOperation::Update {
                token: hash,
                set: fields(c, d),
                remove: (0..e % 3).map(|n| format!("f{n}")).collect(),
                if_revision: condition(f, self.model.session_revision(ns, hash)),
            },
            4 => SessionOperation::Touch { token: hash },
            _ => SessionOperation::Destroy { token: hash },
        }
    }
}

/// No condition, the right one, the one of an absent record, a wrong one.
fn condition(byte: u8, current: u64) -> Option<Revision> {
    match byte % 8 {
        0 => Some(Revision::new(current)),
        1 => Some(Revision::new(0)),
        2 => Some(Revision::new(current + 1)),
        _ => None,
    }
}

fn ttl(byte: u8) -> Ttl {
    Ttl::from_millis(pick(&[1, 5, 20, 50, 400, 10_000], byte))
}

fn client(byte: u8) -> ClientAttributes {
    let device = byte
        .is_multiple_of(3)
        .then(|| ("device".to_owned(), format!("d{}", byte % 2)));
    ClientAttributes::parse(device.into_iter().collect()).expect("small")
}

fn settings(c: u8, d: u8, e: u8) -> Settings {
    let policies = [
        v1::SessionLimitPolicy::RejectNewest,
        v1::SessionLimitPolicy::EndOldest,
        v1::SessionLimitPolicy::Unspecified,
    ];
    let range = v1::TtlSettings {
        min_ms: Some(5),
        default_ms: Some(20),
        max_ms: Some(400),
    };
    let session = v1::SessionSettings {
        max_fields: pick(&[None, None, Some(2), Some(4)], c),
        max_bytes: pick(&[None, None, Some(200)], d),
        max_per_user: pick(&[None, Some(1), Some(2), Some(3)], d),
        limit_policy: pick(&policies, e).into(),
        idle_ttl: pick(&[None, Some(range)], c / 4),
        absolute_ttl: None,
        touch_interval_ms: pick(&[None, Some(0), Some(3)], e / 4),
    };
    let settings = v1::NamespaceSettings {
        session: Some(session),
    };
    Settings::parse(Some(settings)).expect("every one of them is valid")
}

fn price(byte: u8) -> Option<Money> {
    match byte % 8 {
        0 => Some(Money::parse(100, "USD").expect("in range")),
        1..=3 => Some(Money::parse(byte.into(), "EUR").expect("in range")),
        _ => None,
    }
}

fn attributes(byte: u8) -> Attributes {
    let large = byte
        .is_multiple_of(3)
        .then(|| ("size".to_owned(), "XL".to_owned()));
    Attributes::parse(large.into_iter().collect()).expect("small")
}

/// Up to three fields; a large one sometimes, so that three of them pass the limit.
fn fields(c: u8, d: u8) -> Fields {
    let value = |n: u8| {
        let large = d.is_multiple_of(16);
        let len = if large {
            limits::SESSION_BYTES / 3
        } else {
            usize::from(n)
        };
        Bytes::from(vec![d; len])
    };
    let fields: BTreeMap<_, _> = (0..c % 3)
        .map(|n| (format!("f{}", n.wrapping_add(c) % 5), value(n)))
        .collect();
    Fields::parse(fields).expect("two fields stay below the limit")
}
