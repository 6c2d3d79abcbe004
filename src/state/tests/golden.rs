//! Golden transcripts: commands and what they answered, as text that a person can review. Set `TROLLEY_GOLDEN=write`
//! to write them anew, then read the difference.
//!
//! A line that begins with `>` is an entry: a stamp, a verb, its arguments, and `name=value` options. `#` comments.
//! `> dump` shows the whole state. What follows a line is what it answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

use super::Machine;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::internal::txn_result::Result;
use crate::state::{
    CartAction, CartOperation, CartOwner, Command, Compare, Identity, Increment, Key, KeyOperation,
    LeaseOperation, LineRef, MergePolicy, Operand, Operation, PutCondition, Record, Rejection,
    Relation, RequestHash, Step, Store, Subject, Txn, record,
};
use crate::types::{
    self, Attributes, Bounds, ClientId, CouponCode, Fields, HolderId, LeaseId, LineId, Money,
    Namespace, Note, OrderId, Quantity, RequestId, Revision, Sku, TextMap, TokenHash, Ttl, UserId,
    Value,
};

/// One line's words.
struct Words<'a> {
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn split(line: &'a str) -> Self {
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

    fn fields(&self) -> Fields {
        let fields = self
            .map("set")
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        Fields::parse(fields.collect()).expect("small fields")
    }

    fn identity(&self) -> Identity {
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
fn token(word: &str) -> TokenHash {
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

fn lease(word: &str) -> LeaseId {
    LeaseId::parse(word.parse().expect("a number")).expect("not 0")
}

/// `COMPARE, COMPARE ? OPERATION; OPERATION : OPERATION; OPERATION`, any of it empty.
fn txn(text: &str) -> Txn {
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
fn operation(words: &Words<'_>) -> Operation {
    let at = |nth: usize| words.plain[nth + 2];
    match words.plain[1] {
        "create" => Operation::SessionCreate {
            token: token(at(0)),
            sealed_token: Bytes::from_static(b"sealed"),
            user: words
                .options
                .get("user")
                .map(|user| UserId::parse(*user).expect("short")),
            fields: words.fields(),
            idle_ttl: words.ttl("idle").expect("idle="),
            absolute_ttl: words.ttl("absolute").expect("absolute="),
        },
        "update" => Operation::SessionUpdate {
            token: token(at(0)),
            set: words.fields(),
            remove: words
                .options
                .get("remove")
                .map(|name| (*name).to_owned())
                .into_iter()
                .collect(),
            if_revision: words.if_revision(),
        },
        "touch" => Operation::SessionTouch {
            token: token(at(0)),
        },
        "destroy" => Operation::SessionDestroy {
            token: token(at(0)),
        },
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
            policy: match at(2) {
                "sum" => MergePolicy::Sum,
                "max" => MergePolicy::Max,
                "keep-target" => MergePolicy::KeepTarget,
                "keep-source" => MergePolicy::KeepSource,
                "source-if-target-empty" => MergePolicy::SourceIfTargetEmpty,
                other => panic!("no policy {other}"),
            },
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

fn execute(machine: &mut Machine, entry: &str, out: &mut String) {
    // What a transaction consists of comes after its own words.
    let (entry, parts) = match entry.split_once(" txn ") {
        Some((stamp, parts)) => (format!("{stamp} txn"), Some(parts)),
        None => (entry.to_owned(), None),
    };
    let words = Words::split(&entry);
    if words.plain == ["dump"] {
        return dump(machine, out);
    }
    let stamp = words.plain[0].parse().expect("a stamp");
    let namespace = words.options.get("namespace").copied().unwrap_or_default();
    let namespace = Namespace::parse(namespace).expect("a valid name");
    let operation = match parts {
        Some(parts) => Operation::Txn(Box::new(txn(parts))),
        None => operation(&words),
    };
    let command = Command::new(namespace, words.identity(), operation);
    let applied = machine.apply(stamp, &command);
    machine.check_invariants();
    let again = if applied.replayed { " replayed" } else { "" };
    let body = answer(&applied.reply.body.expect("every reply has a body"));
    writeln!(out, "  @{}{again} {body}", applied.reply.revision).expect("a string takes it");
}

/// A transaction's answer has a line for each operation.
fn answer(body: &Body) -> String {
    let branch = |succeeded| if succeeded { "then" } else { "otherwise" };
    match body {
        Body::Rejected(rejected) => refusal(rejected),
        Body::TxnDone(done) => {
            let lines = done.results.iter().enumerate().map(|(nth, result)| {
                let result = match result.result.as_ref().expect("every step has a result") {
                    Result::Reply(reply) => format!("{:?}", reply.body.as_ref().expect("a body")),
                    read => format!("{read:?}"),
                };
                format!("\n    {}[{nth}] {result}", branch(done.succeeded))
            });
            format!(
                "TxnDone {}{}",
                branch(done.succeeded),
                lines.collect::<String>()
            )
        }
        Body::TxnAborted(aborted) => {
            let refusal = refusal(aborted.rejected.as_ref().expect("why it was aborted"));
            format!(
                "TxnAborted {}[{}] {refusal}",
                branch(aborted.succeeded),
                aborted.index
            )
        }
        body => format!("{body:?}"),
    }
}

fn refusal(rejected: &pb::Rejected) -> String {
    let rejection = Rejection::from_stored(rejected).expect("a rejection of this version");
    let action = rejected.action.map(|nth| format!("action {nth}: "));
    format!("{}{rejection:?}", action.unwrap_or_default())
}

fn dump(machine: &Machine, out: &mut String) {
    let header = machine.store.header();
    let digest = super::hex(&header.digest);
    let (revision, time) = (header.revision, header.log_time);
    writeln!(out, "  revision {revision} time {time} digest {digest}").expect("a string takes it");
    for (bytes, _) in machine.store.iter() {
        let key = Key::decode(bytes).expect("a stored key");
        if key != Key::Header {
            writeln!(out, "  {}", describe(machine, &key)).expect("a string takes it");
        }
    }
}

fn describe(machine: &Machine, key: &Key) -> String {
    if let Key::Deadline(time, target) = key {
        let target = Key::decode(target).expect("a stored key");
        return format!("Deadline {time} {}", name(&target));
    }
    let stored = machine
        .store
        .get(key)
        .expect("no fault")
        .expect("just listed");
    let record = match stored.record {
        Record::Client(_) => {
            let value = record::encode(&stored.record);
            let window = pb::ClientWindow::decode(value).expect("just encoded");
            format!(
                "confirmed_below {} deadline {} indexed {}{}",
                window.confirmed_below,
                window.deadline,
                window.indexed_deadline,
                window.replies.iter().map(reply).collect::<String>(),
            )
        }
        Record::Request(request) => format!(
            "deadline {}{}",
            request.deadline,
            request.reply.iter().map(reply).collect::<String>(),
        ),
        record => format!("{record:?}"),
    };
    format!("{}\n    {record}", name(key))
}

fn name(key: &Key) -> String {
    match key {
        Key::Request(namespace, hash) => {
            format!("Request({namespace:?}, {})", super::hex(hash.as_bytes()))
        }
        key => format!("{key:?}"),
    }
}

fn reply(stored: &pb::StoredReply) -> String {
    let reply = pb::Reply::decode(stored.reply.clone()).expect("a stored reply");
    let (sequence, fingerprint) = (stored.sequence, stored.fingerprint);
    format!("\n    sequence {sequence} fingerprint {fingerprint:016x} {reply:?}")
}

fn replay(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/state/golden")
        .join(name);
    let golden = std::fs::read_to_string(&path).expect("the transcript is beside the code");
    let mut machine = Machine::default();
    let mut out = String::new();
    for line in golden.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").expect("a string takes it");
        if let Some(entry) = line.strip_prefix("> ") {
            execute(&mut machine, entry, &mut out);
        }
    }
    if std::env::var("TROLLEY_GOLDEN").is_ok_and(|mode| mode == "write") {
        return std::fs::write(&path, &out).expect("the transcript can be written");
    }
    for (nth, (got, expected)) in out.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, expected, "{name}, line {}", nth + 1);
    }
    assert_eq!(out.len(), golden.len(), "{name} has more or fewer lines");
}

#[test]
fn sessions() {
    replay("sessions.txt");
}

#[test]
fn carts() {
    replay("carts.txt");
}

#[test]
fn cart_updates() {
    replay("cart_updates.txt");
}

#[test]
fn cart_merges() {
    replay("cart_merges.txt");
}

#[test]
fn cart_orders() {
    replay("cart_orders.txt");
}

#[test]
fn cart_expiry() {
    replay("cart_expiry.txt");
}

#[test]
fn keys() {
    replay("keys.txt");
}

#[test]
fn stock() {
    replay("stock.txt");
}

#[test]
fn leases() {
    replay("leases.txt");
}

#[test]
fn transactions() {
    replay("transactions.txt");
}

#[test]
fn replays() {
    replay("replays.txt");
}

#[test]
fn expiry() {
    replay("expiry.txt");
}
