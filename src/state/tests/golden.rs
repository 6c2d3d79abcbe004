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
use crate::state::{
    CartOwner, Command, Identity, Key, LineRef, Operation, PutCondition, Record, Rejection,
    RequestHash, Store, record,
};
use crate::types::{
    self, Attributes, ClientId, Fields, LineId, Money, Namespace, Quantity, RequestId, Revision,
    Sku, TokenHash, Ttl, UserId, Value,
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
        "add" => Operation::CartAdd {
            owner: owner(at(0)),
            sku: Sku::parse(at(1)).expect("short"),
            quantity: quantity(at(2)),
            unit_price: words.options.get("price").map(|price| {
                let (amount, currency) = price.split_once(':').expect("amount:currency");
                Money::parse(amount.parse().expect("a number"), currency).expect("in range")
            }),
            attributes: Attributes::parse(words.map("with")).expect("small"),
            if_revision: words.if_revision(),
        },
        "quantity" => Operation::CartSetQuantity {
            owner: owner(at(0)),
            line: line(at(1)),
            quantity: quantity(at(2)),
            if_revision: words.if_revision(),
        },
        "remove" => Operation::CartRemove {
            owner: owner(at(0)),
            line: line(at(1)),
            if_revision: words.if_revision(),
        },
        "clear" => Operation::CartClear {
            owner: owner(at(0)),
            if_revision: words.if_revision(),
        },
        "put" => Operation::KeyPut {
            key: types::Key::parse(at(0)).expect("short"),
            value: Value::parse(at(1).to_owned().into()).expect("short"),
            ttl: words.ttl("ttl"),
            condition: match words.if_revision() {
                Some(revision) => PutCondition::IfRevision(revision),
                None if words.options.contains_key("absent") => PutCondition::IfAbsent,
                None => PutCondition::Always,
            },
        },
        "delete" => Operation::KeyDelete {
            key: types::Key::parse(at(0)).expect("short"),
            if_revision: words.if_revision(),
        },
        "tick" => Operation::Tick {
            checkpoint: words.options.contains_key("checkpoint"),
            expect: None,
        },
        other => panic!("no verb {other}"),
    }
}

fn execute(machine: &mut Machine, entry: &str, out: &mut String) {
    let words = Words::split(entry);
    if words.plain == ["dump"] {
        return dump(machine, out);
    }
    let stamp = words.plain[0].parse().expect("a stamp");
    let namespace = words.options.get("namespace").copied().unwrap_or_default();
    let namespace = Namespace::parse(namespace).expect("a valid name");
    let command = Command::new(namespace, words.identity(), operation(&words));
    let applied = machine.apply(stamp, &command);
    machine.check_invariants();
    let again = if applied.replayed { " replayed" } else { "" };
    let rejection =
        super::rejection(&applied.reply).map(|rejection: Rejection| format!("{rejection:?}"));
    let body = applied.reply.body.expect("every reply has a body");
    let body = rejection.unwrap_or_else(|| format!("{body:?}"));
    writeln!(out, "  @{}{again} {body}", applied.reply.revision).expect("a string takes it");
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
fn keys() {
    replay("keys.txt");
}

#[test]
fn replays() {
    replay("replays.txt");
}

#[test]
fn expiry() {
    replay("expiry.txt");
}
