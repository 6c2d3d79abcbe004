//! Golden transcripts: commands and what they answered, as text that a person can review. Set `TROLLEY_GOLDEN=write`
//! to write them anew, then read the difference.
//!
//! A line that begins with `>` is an entry: a stamp, a verb, its arguments, and `name=value` options. `#` comments.
//! `> dump` shows the whole state, `> devices` lists a user's sessions, `> read` reads one, `> events 3` tells what happened
//! from revision 3 on. What follows a line is what it answered.

mod words;

use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;

use self::words::{Words, operation, token, txn};
use super::Machine;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::internal::txn_aborted::Refusal;
use crate::proto::internal::txn_result::Result;
use crate::state::events::Page;
use crate::state::{Command, Key, Operation, Record, Rejection, Store, query, record};
use crate::types::{Namespace, Revision, UserId};

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
    if let ["events", from] = words.plain[..] {
        return tell_events(machine, from.parse().expect("a revision"), out);
    }
    match words.plain[0] {
        "devices" => return devices(machine, &words, out),
        "read" => return read(machine, &words, out),
        _ => {}
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
            super::fields(&it)
        ),
    };
    writeln!(out, "  {text}").expect("a string takes it");
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
                    Result::Session(session) => show_session(session),
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
            let refusal = match aborted.refusal.as_ref().expect("why it was aborted") {
                Refusal::Rejected(rejected) => refusal(rejected),
                conflict @ Refusal::SaveConflict(_) => format!("{conflict:?}"),
            };
            format!(
                "TxnAborted {}[{}] {refusal}",
                branch(aborted.succeeded),
                aborted.index
            )
        }
        body => format!("{body:?}"),
    }
}

/// A session with its fields as a reader wants them: by name.
fn show_session(session: &pb::SessionRecord) -> String {
    let fields = super::fields(session);
    let rest = pb::SessionRecord {
        fields: pb::PackedFields::default(),
        ..session.clone()
    };
    format!("Session({rest:?})").replacen("fields: []", &format!("fields: {fields:?}"), 1)
}

fn refusal(rejected: &pb::Rejected) -> String {
    let rejection = Rejection::from_stored(rejected).expect("a rejection of this version");
    let action = rejected.action.map(|nth| format!("action {nth}: "));
    format!("{}{rejection:?}", action.unwrap_or_default())
}

fn dump(machine: &Machine, out: &mut String) {
    let header = machine.store.header();
    let digest = hex::encode(&header.digest);
    let (revision, time) = (header.revision, header.log_time);
    writeln!(out, "  revision {revision} time {time} digest {digest}").expect("a string takes it");
    for (bytes, _) in machine.store.iter() {
        let key = Key::decode(bytes).expect("a stored key");
        // Events have a verb of their own.
        if !matches!(key, Key::Header | Key::Events(_) | Key::EventMarks) {
            writeln!(out, "  {}", describe(machine, &key)).expect("a string takes it");
        }
    }
}

/// What happened from a revision on.
fn tell_events(machine: &Machine, from: u64, out: &mut String) {
    let from = Revision::new(from);
    let page = machine.store.events(from, usize::MAX).expect("no fault");
    let Page::Events { events, .. } = page else {
        return writeln!(out, "  {page:?}").expect("a string takes it");
    };
    for event in events {
        let place = format!("@{}.{}", event.revision, event.position);
        let (time, name) = (event.log_time, name(&event.key));
        writeln!(out, "  {place} at {time} {name}\n    {:?}", event.change)
            .expect("a string takes it");
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
        Record::Session(session) => show_session(&session),
        record => format!("{record:?}"),
    };
    format!("{}\n    {record}", name(key))
}

fn name(key: &Key) -> String {
    match key {
        Key::Request(namespace, hash) => {
            format!("Request({namespace:?}, {})", hex::encode(hash.as_bytes()))
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
fn terms() {
    replay("terms.txt");
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
fn cart_updates() {
    replay("cart_updates.txt");
}

#[test]
fn cart_merges() {
    replay("cart_merges.txt");
}

#[test]
fn second_version() {
    replay("second_version.txt");
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

#[test]
fn what_happened() {
    replay("events.txt");
}
