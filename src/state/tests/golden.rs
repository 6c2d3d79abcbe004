//! Golden transcripts: commands and what they answered, as text that a person can review. Set `TROLLEY_GOLDEN=write`
//! to write them anew, then read the difference.
//!
//! A line that begins with `>` is an entry: a stamp, a verb, its arguments, and `name=value` options. `#` comments.
//! `> dump` shows the whole state, `> devices` lists a user's sessions, `> read` reads one. What follows a line is what it answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

use super::Machine;
use crate::proto::{internal as pb, v1};
use crate::state::{
    CartOwner, Command, Identity, Key, LineRef, MergePolicy, NamespaceOperation, Operation,
    PutCondition, Record, Rejection, RequestHash, Rotation, SavePolicy, SessionOperation, Settings,
    Store, query,
};
use crate::types::{
    self, Attributes, ClientAttributes, ClientId, Fields, LineId, LogTime, Money, Namespace,
    Quantity, RequestId, Revision, SessionHandle, Sku, TokenHash, Ttl, UserId, Value,
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
            cart_merge: match words.options.get("merge").copied() {
                None | Some("sum") => MergePolicy::Sum,
                Some("max") => MergePolicy::Max,
                Some("keep-target") => MergePolicy::KeepTarget,
                Some("keep-source") => MergePolicy::KeepSource,
                Some("source-if-target-empty") => MergePolicy::SourceIfTargetEmpty,
                Some(other) => panic!("no policy {other}"),
            },
        })),
        "update" => SessionOperation::Update {
            token: token(at(0)),
            set: words.fields("set"),
            remove: words.removed(),
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
    let settings = v1::NamespaceSettings {
        session: Some(session),
    };
    Settings::parse(Some(settings)).expect("valid settings")
}

/// A user's devices, as a listing shows them.
fn devices(machine: &Machine, words: &Words<'_>, out: &mut String) {
    let user = UserId::parse(words.plain[1]).expect("short");
    let namespace = Namespace::default();
    let page = query::user_sessions(&machine.store, &namespace, &user, 100, 0);
    let page = page.expect("no fault");
    for (_, session) in &page.items {
        let handle = query::session_handle(session).expect("it is a user's");
        let (birth, created) = (handle.birth(), handle.created_at());
        let deadline = query::session_idle_deadline(session);
        let (seen, client) = (session.last_seen, &session.client);
        writeln!(
            out,
            "  {birth}/{created} last seen {seen}, until {deadline}, {client:?}"
        )
        .expect("a string takes it");
    }
    if page.items.is_empty() {
        writeln!(out, "  none").expect("a string takes it");
    }
}

/// A session, as it is read.
fn read(machine: &Machine, words: &Words<'_>, out: &mut String) {
    let namespace = Namespace::default();
    let found = query::session(&machine.store, &namespace, &token(words.plain[1]));
    let text = match found.expect("no fault") {
        None => "none".to_owned(),
        Some(it) => format!(
            "{} at {}: {:?}",
            if it.user_id.is_empty() {
                "(guest)"
            } else {
                &it.user_id
            },
            it.mod_revision,
            it.fields
        ),
    };
    writeln!(out, "  {text}").expect("a string takes it");
}

fn operation(words: &Words<'_>) -> Operation {
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
    match words.plain[0] {
        "devices" => return devices(machine, &words, out),
        "read" => return read(machine, &words, out),
        _ => {}
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
        Record::Client(window) => format!(
            "confirmed_below {} deadline {} indexed {}{}",
            window.confirmed_below,
            window.deadline,
            window.indexed_deadline,
            window.replies.iter().map(reply).collect::<String>(),
        ),
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
fn logins() {
    replay("logins.txt");
}

#[test]
fn saves() {
    replay("saves.txt");
}

#[test]
fn namespaces() {
    replay("namespaces.txt");
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
