//! What a line of a transcript asks for.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::proto::v1;
use crate::state::{
    CartAction, CartOperation, CartOwner, Compare, Fields, Identity, Increment, KeyOperation,
    LeaseOperation, LineRef, MergePolicy, NamespaceOperation, Operand, Operation, PutCondition,
    Relation, RequestHash, Rotation, SavePolicy, SessionOperation, Settings, Step, Subject, Txn,
};
use crate::types::{
    self, Attributes, Bounds, ClientAttributes, ClientId, CouponCode, HolderId, LeaseId, LineId,
    LogTime, Money, Note, OrderId, Quantity, RequestId, Revision, SessionHandle, Sku, StateVersion,
    TextMap, TokenHash, Ttl, UserId, Value,
};

/// One line's words.
pub struct Words<'a> {
    pub plain: Vec<&'a str>,
    pub options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub fn split(line: &'a str) -> Self {
        let (options, plain): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|word| word.contains('='));
        let options = options
            .into_iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        Self { plain, options }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.options
            .get(name)
            .map(|text| text.parse().expect("a number"))
    }

    fn ttl(&self, name: &str) -> Option<Ttl> {
        self.number(name).map(Ttl::from_millis)
    }

    fn if_revision(&self) -> Option<Revision> {
        self.number("if").map(Revision::new)
    }

    /// Every option `prefix.name=value`.
    fn map(&self, prefix: &str) -> BTreeMap<String, String> {
        let named = self.options.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((name.to_owned(), (*value).to_owned()))
        });
        named.collect()
    }

    fn user(&self) -> Option<UserId> {
        let user = self.options.get("user");
        user.map(|user| UserId::parse(*user).expect("short"))
    }

    fn client(&self) -> ClientAttributes {
        ClientAttributes::parse(self.map("client")).expect("small")
    }

    fn removed(&self) -> Vec<String> {
        let name = self.options.get("remove");
        name.map(|name| (*name).to_owned()).into_iter().collect()
    }

    fn fields(&self, prefix: &str) -> Fields {
        let fields = self
            .map(prefix)
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        Fields::parse(&fields.collect()).expect("small fields")
    }

    pub fn identity(&self) -> Identity {
        if let Some(id) = self.options.get("id") {
            return Identity::Request(RequestHash::of(&RequestId::parse(*id).expect("short")));
        }
        let Some(client) = self.options.get("client") else {
            return Identity::Anonymous;
        };
        let mut parts = client
            .split('/')
            .map(|part| part.parse::<u64>().expect("a number"));
        let mut next = || parts.next().expect("client=number/sequence/confirmed");
        Identity::Client {
            client: ClientId::new([u8::try_from(next()).expect("small"); 16]),
            sequence: next(),
            confirmed_below: next(),
        }
    }
}

/// `t7` is the token whose hash is all sevens, in ASCII.
pub fn token(word: &str) -> TokenHash {
    let nth = word
        .strip_prefix('t')
        .and_then(|digit| digit.bytes().next());
    TokenHash::new([nth.expect("t and a digit"); 32])
}

fn owner(word: &str) -> CartOwner {
    if word.starts_with('t') {
        CartOwner::Session(token(word))
    } else {
        CartOwner::User(UserId::parse(word).expect("short"))
    }
}

fn line(word: &str) -> LineRef {
    match word.strip_prefix('#') {
        Some(id) => LineRef::Id(LineId::new(id.parse().expect("a number"))),
        None => LineRef::Sku(Sku::parse(word).expect("short")),
    }
}

fn quantity(word: &str) -> Quantity {
    Quantity::parse(word.parse().expect("a number")).expect("in range")
}

fn session(words: &Words<'_>) -> SessionOperation {
    let at = |nth: usize| words.plain[nth + 2];
    match words.plain[1] {
        "create" => SessionOperation::Create {
            token: token(at(0)),
            sealed_token: Bytes::from_static(b"sealed"),
            user: words.user(),
            fields: words.fields("set"),
            client: words.client(),
            idle_ttl: words.ttl("idle"),
            absolute_ttl: words.ttl("absolute"),
        },
        "rotate" => SessionOperation::Rotate(Box::new(Rotation {
            token: token(at(0)),
            new_token: token(at(1)),
            sealed_token: Bytes::from_static(b"sealed"),
            user: words.user(),
            set: words.fields("set"),
            remove: words.removed(),
            idle_ttl: words.ttl("idle"),
            absolute_ttl: words.ttl("absolute"),
            client: words.client(),
            cart_merge: policy(words.options.get("merge").copied().unwrap_or("sum")),
        })),
        "update" => SessionOperation::Update {
            token: token(at(0)),
            set: words.fields("set"),
            remove: words.removed(),
            idle_ttl: words.ttl("idle"),
            absolute_ttl: words.ttl("absolute"),
            if_revision: words.if_revision(),
        },
        "save" => SessionOperation::Save {
            token: token(at(0)),
            loaded: Revision::new(words.number("loaded").expect("loaded=")),
            base: (!words.options.contains_key("blind")).then(|| words.fields("base")),
            fields: words.fields("set"),
            policy: if words.options.contains_key("last-writer-wins") {
                SavePolicy::LastWriterWins
            } else {
                SavePolicy::FailOnConflict
            },
        },
        "touch" => SessionOperation::Touch {
            token: token(at(0)),
        },
        "destroy" => SessionOperation::Destroy {
            token: token(at(0)),
        },
        // A handle as the listing shows it: birth/created.
        "end" => {
            let (birth, at_time) = at(1).split_once('/').expect("birth/created");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let created_at = LogTime::from_millis(number(at_time));
            SessionOperation::End {
                user: UserId::parse(at(0)).expect("short"),
                handle: SessionHandle::new(number(birth), created_at),
            }
        }
        "revoke-all" => SessionOperation::RevokeAll {
            user: UserId::parse(at(0)).expect("short"),
            except: words.options.get("except").map(|word| token(word)),
        },
        other => panic!("no verb {other}"),
    }
}

fn policy(word: &str) -> MergePolicy {
    match word {
        "sum" => MergePolicy::Sum,
        "max" => MergePolicy::Max,
        "keep-target" => MergePolicy::KeepTarget,
        "keep-source" => MergePolicy::KeepSource,
        "source-if-target-empty" => MergePolicy::SourceIfTargetEmpty,
        other => panic!("no policy {other}"),
    }
}

fn settings(words: &Words<'_>) -> Settings {
    let signed = |name| words.number(name).map(u64::cast_signed);
    let small = |name| {
        let number = words.number(name);
        number.map(|number| u32::try_from(number).expect("small"))
    };
    let policy = match words.options.get("beyond").copied() {
        None => v1::SessionLimitPolicy::Unspecified,
        Some("reject") => v1::SessionLimitPolicy::RejectNewest,
        Some("end") => v1::SessionLimitPolicy::EndOldest,
        Some(other) => panic!("no policy {other}"),
    };
    let idle_ttl = v1::TtlSettings {
        min_ms: signed("idle-min"),
        default_ms: signed("idle"),
        max_ms: signed("idle-max"),
    };
    let session = v1::SessionSettings {
        max_fields: small("fields"),
        max_bytes: words.number("bytes"),
        max_per_user: small("per-user"),
        limit_policy: policy.into(),
        idle_ttl: Some(idle_ttl),
        absolute_ttl: None,
        touch_interval_ms: signed("touch-interval"),
    };
    let cart = v1::CartSettings {
        empty_ttl_ms: signed("cart-empty"),
        guest_ttl_ms: signed("cart-guest"),
        user_ttl_ms: signed("cart-user"),
    };
    // Each kind of record by itself.
    let is_of_carts = cart != v1::CartSettings::default();
    let settings = v1::NamespaceSettings {
        session: (!is_of_carts).then_some(session),
        cart: is_of_carts.then_some(cart),
    };
    Settings::parse(Some(settings)).expect("valid settings")
}

fn lease(word: &str) -> LeaseId {
    LeaseId::parse(word.parse().expect("a number")).expect("not 0")
}

/// `COMPARE, COMPARE ? OPERATION; OPERATION : OPERATION; OPERATION`, any of it empty.
pub fn txn(text: &str) -> Txn {
    let (compares, branches) = text.split_once('?').expect("a question mark");
    let (then, otherwise) = branches.split_once(" : ").unwrap_or((branches, ""));
    let compares = pieces(compares, ',').map(compare).collect();
    let branch = |text| pieces(text, ';').map(step).collect();
    Txn::new(compares, branch(then), branch(otherwise)).expect("few")
}

fn pieces(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let pieces = text.split(separator).map(str::trim);
    pieces.filter(|piece| !piece.is_empty())
}

fn step(text: &str) -> Step {
    if let Some(of) = text.strip_prefix("get ") {
        return Step::Get(subject(of));
    }
    let text = format!("0 {text}");
    Step::write(operation(&Words::split(&text))).expect("it may stand there")
}

fn subject(text: &str) -> Subject {
    match text.split_once(' ').expect("a kind and a name") {
        ("key", name) => Subject::Key(types::Key::parse(name).expect("short")),
        ("session", name) => Subject::Session(token(name)),
        ("cart", name) => Subject::Cart(owner(name)),
        (other, _) => panic!("no kind {other}"),
    }
}

/// `key stock counter greater 1`, `cart ada exists`, `session t1 mod is 5`.
fn compare(text: &str) -> Compare {
    let words: Vec<_> = text.split_whitespace().collect();
    let relation = match words.get(3) {
        None | Some(&"is") => Relation::Equal,
        Some(&"not") => Relation::NotEqual,
        Some(&"less") => Relation::Less,
        Some(&"greater") => Relation::Greater,
        Some(other) => panic!("no relation {other}"),
    };
    let revision = || Revision::new(words[4].parse().expect("a number"));
    let operand = match words[2] {
        "exists" => Operand::Exists(true),
        "absent" => Operand::Exists(false),
        "mod" => Operand::ModRevision(revision()),
        "create" => Operand::CreateRevision(revision()),
        "counter" => Operand::Counter(words[4].parse().expect("a number")),
        "value" => Operand::Value(Value::parse(words[4].to_owned().into()).expect("short")),
        other => panic!("nothing is compared with {other}"),
    };
    let subject = subject(&format!("{} {}", words[0], words[1]));
    Compare::new(subject, relation, operand).expect("they fit")
}

#[allow(clippy::too_many_lines, reason = "a verb after the other")]
pub fn operation(words: &Words<'_>) -> Operation {
    let at = |nth: usize| words.plain[nth + 2];
    match words.plain[1] {
        "create" | "rotate" | "update" | "save" | "touch" | "destroy" | "end" | "revoke-all" => {
            session(words).into()
        }
        "settings" => NamespaceOperation::Set {
            settings: settings(words),
            if_revision: words.if_revision(),
        }
        .into(),
        "add" => Operation::Cart(CartOperation::Add {
            owner: owner(at(0)),
            sku: Sku::parse(at(1)).expect("short"),
            quantity: quantity(at(2)),
            unit_price: words.options.get("price").map(|price| {
                let (amount, currency) = price.split_once(':').expect("amount:currency");
                Money::parse(amount.parse().expect("a number"), currency).expect("in range")
            }),
            attributes: Attributes::parse(words.map("with")).expect("small"),
            if_revision: words.if_revision(),
        }),
        "quantity" => Operation::Cart(CartOperation::SetQuantity {
            owner: owner(at(0)),
            line: line(at(1)),
            quantity: quantity(at(2)),
            if_revision: words.if_revision(),
        }),
        "remove" => Operation::Cart(CartOperation::Remove {
            owner: owner(at(0)),
            line: line(at(1)),
            if_revision: words.if_revision(),
        }),
        "clear" => Operation::Cart(CartOperation::Clear {
            owner: owner(at(0)),
            if_revision: words.if_revision(),
        }),
        "apply" | "merge" | "freeze" | "release" | "order" => {
            Operation::Cart(cart_operation(words))
        }
        "raise" => {
            Operation::RaiseVersion(StateVersion::new(at(0).parse().expect("a number of rules")))
        }
        "put" => Operation::Key(KeyOperation::Put {
            key: types::Key::parse(at(0)).expect("short"),
            value: Value::parse(at(1).to_owned().into()).expect("short"),
            ttl: words.ttl("ttl"),
            lease: words.number("lease").and_then(LeaseId::optional),
            condition: match words.if_revision() {
                Some(revision) => PutCondition::IfRevision(revision),
                None if words.options.contains_key("absent") => PutCondition::IfAbsent,
                None => PutCondition::Always,
            },
        }),
        "delete" => Operation::Key(KeyOperation::Delete {
            key: types::Key::parse(at(0)).expect("short"),
            if_revision: words.if_revision(),
        }),
        "incr" => Operation::Key(KeyOperation::Increment(Increment {
            key: types::Key::parse(at(0)).expect("short"),
            delta: at(1).parse().expect("a number"),
            bounds: {
                let bound = |name| {
                    words
                        .options
                        .get(name)
                        .map(|it| it.parse().expect("a number"))
                };
                Bounds::parse(bound("min"), bound("max")).expect("ordered")
            },
            initial: words
                .options
                .get("initial")
                .map_or(0, |it| it.parse().expect("a number")),
            ttl: words.ttl("ttl"),
        })),
        "grant" => Operation::Lease(LeaseOperation::Grant {
            ttl: words.ttl("ttl").expect("ttl="),
        }),
        "keep-alive" => Operation::Lease(LeaseOperation::KeepAlive {
            lease: lease(at(0)),
        }),
        "revoke" => Operation::Lease(LeaseOperation::Revoke {
            lease: lease(at(0)),
        }),
        "tick" => Operation::Tick {
            checkpoint: words.options.contains_key("checkpoint"),
            expect: None,
        },
        other => panic!("no verb {other}"),
    }
}

/// What is done to whole carts.
fn cart_operation(words: &Words<'_>) -> CartOperation {
    let at = |nth: usize| words.plain[nth + 2];
    let holder = |word: &str| HolderId::parse(word).expect("short");
    match words.plain[1] {
        "apply" => CartOperation::Update {
            owner: owner(at(0)),
            actions: words.plain[3..]
                .join(" ")
                .split(';')
                .map(|action| cart_action(&action.split_whitespace().collect::<Vec<_>>()))
                .collect(),
            if_revision: words.if_revision(),
        },
        "merge" => CartOperation::Merge {
            source: owner(at(0)),
            target: owner(at(1)),
            policy: policy(at(2)),
            if_source_revision: None,
            if_target_revision: words.if_revision(),
        },
        "freeze" => CartOperation::Freeze {
            owner: owner(at(0)),
            holder: holder(at(1)),
            lease: words.ttl("lease").expect("lease="),
            if_revision: words.if_revision(),
        },
        "release" => CartOperation::Release {
            owner: owner(at(0)),
            holder: holder(at(1)),
        },
        "order" => CartOperation::CompleteOrder {
            owner: owner(at(0)),
            holder: holder(at(1)),
            revision: Revision::new(words.number("revision").expect("revision=")),
            order: OrderId::parse(at(2)).expect("short"),
        },
        other => panic!("no verb {other}"),
    }
}

fn cart_action(words: &[&str]) -> CartAction {
    match *words {
        ["add", sku, pieces] => CartAction::Add {
            sku: Sku::parse(sku).expect("short"),
            quantity: quantity(pieces),
            unit_price: None,
            attributes: Attributes::default(),
        },
        ["add", sku, pieces, price] => {
            let (amount, currency) = price.split_once(':').expect("amount:currency");
            let amount = amount.parse().expect("a number");
            CartAction::Add {
                sku: Sku::parse(sku).expect("short"),
                quantity: quantity(pieces),
                unit_price: Some(Money::parse(amount, currency).expect("in range")),
                attributes: Attributes::default(),
            }
        }
        ["quantity", which, pieces] => CartAction::SetQuantity {
            line: line(which),
            quantity: quantity(pieces),
        },
        ["remove", which] => CartAction::Remove { line: line(which) },
        ["move", which, index] => CartAction::Move {
            line: line(which),
            index: index.parse().expect("a number"),
        },
        ["clear"] => CartAction::Clear,
        ["note", ref text @ ..] => CartAction::SetNote(Note::parse(text.join(" ")).expect("short")),
        ["coupon", code] => CartAction::AddCouponCode(CouponCode::parse(code).expect("short")),
        ["remove-coupon", code] => {
            CartAction::RemoveCouponCode(CouponCode::parse(code).expect("short"))
        }
        ["attribute", name, value] => CartAction::SetAttributes(map(name, value)),
        ["remove-attribute", name] => CartAction::RemoveAttributes(vec![name.to_owned()]),
        ["shipping", name, value] => CartAction::SetShippingAddress(map(name, value)),
        ["billing", name, value] => CartAction::SetBillingAddress(map(name, value)),
        ref other => panic!("no action {other:?}"),
    }
}

fn map(name: &str, value: &str) -> TextMap {
    let entries = [(name.to_owned(), value.to_owned())];
    TextMap::parse("attributes", entries.into()).expect("small")
}
