//! What is printed: tables for people, JSON for programs.
//!
//! A reader that closes the pipe early is no error, so that `trolley kv list | head` is quiet. Whatever else keeps output from being
//! written is one: a script must not take a half-written file for the whole.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

use super::arguments::Form;
use super::failure::{Failure, Recourse};
use crate::client::{Outcome, Reply};
use crate::proto::v1;

/// Whether somebody reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// As far as is known.
    There,
    /// Nobody does any more.
    Gone,
}

/// Prints bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> Result<Reader, Failure> {
    write_to(&mut std::io::stdout().lock(), bytes)
}

fn write_to(output: &mut impl Write, bytes: &[u8]) -> Result<Reader, Failure> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(Reader::There),
        // See the module's documentation.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// Prints text for a program, or of our own making, and ends the line.
pub(super) fn line(line: &str) -> Result<Reader, Failure> {
    raw(format!("{line}\n").as_bytes())
}

/// Prints text for a person, in which names and values are other people's, and ends the line.
pub(super) fn people(text: &str) -> Result<Reader, Failure> {
    line(&harmless(text))
}

/// Tells a person something beside the output, on standard error.
pub(super) fn note(note: &str) {
    // There is nowhere left to complain to.
    writeln!(std::io::stderr(), "{note}").ok();
}

/// Prints whichever form is asked for.
pub(super) fn show(
    form: Form,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let shown = match form {
        Form::Json => line(&json().to_string()),
        Form::People => people(&text()),
    };
    shown.map(drop)
}

/// Prints why a verb failed, to standard error, and what a person can do.
pub(super) fn failure(form: Form, recourse: Recourse, failure: &Failure) {
    note(&match form {
        Form::Json => failure_json(failure).to_string(),
        Form::People => harmless(&failure_text(recourse, failure)),
    });
}

/// Prints why a node did not start, unless its log says so: settings are refused before there is a log.
pub(super) fn unlogged(verb: &str, error: &crate::config::Error) {
    // There is nowhere left to complain to.
    writeln!(std::io::stderr(), "trolley {verb}: {error}").ok();
}

fn failure_text(recourse: Recourse, failure: &Failure) -> String {
    match failure.client() {
        Some(error) if error.is_retryable() || error.outcome() == Outcome::Unknown => {
            let advice = recourse.advice(error.outcome());
            format!("error: {failure}\n{advice}")
        }
        _ => format!("error: {failure}"),
    }
}

fn failure_json(failure: &Failure) -> Value {
    let mut error = json!({ "message": failure.to_string(), "exit_code": failure.exit_code() });
    if let Some(client) = failure.client() {
        error["outcome"] = match client.outcome() {
            Outcome::NotApplied => "not_applied".into(),
            Outcome::Unknown => "unknown".into(),
        };
        if let Some(rejected) = client.rejected() {
            error["code"] = i32::from(rejected.code).into();
            error["reason"] = rejected.reason.clone().into();
            error["metadata"] = json!(rejected.metadata);
        }
    }
    json!({ "error": error })
}

// ---- messages as JSON, with the protos' names ---------------------------------------------------------------

/// A response: its fields, and a header of what a reply tells.
pub(super) fn reply<T>(reply: &Reply<T>, mut fields: Value) -> Value {
    fields["header"] = json!({
        "node_id": reply.node_id,
        "revision": reply.revision.get(),
        "replayed": reply.replayed,
    });
    fields
}

/// Text where it is text; otherwise an object, so that nothing is lost.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

pub(super) fn session(session: &v1::Session) -> Value {
    let fields: BTreeMap<_, _> = session.fields.iter().map(|(k, v)| (k, bytes(v))).collect();
    json!({
        "user_id": session.user_id,
        "fields": fields,
        "create_revision": session.create_revision,
        "mod_revision": session.mod_revision,
        "created_at_ms": session.created_at_ms,
        "last_seen_ms": session.last_seen_ms,
        "idle_deadline_ms": session.idle_deadline_ms,
        "absolute_deadline_ms": session.absolute_deadline_ms,
        "idle_ttl_ms": session.idle_ttl_ms,
        "client": session.client,
        "handle": session.handle,
        "touch_interval_ms": session.touch_interval_ms,
    })
}

pub(super) fn money(money: &v1::Money) -> Value {
    json!({ "minor_units": money.minor_units, "currency": money.currency })
}

pub(super) fn cart_line(line: &v1::CartLine) -> Value {
    let price = line.unit_price.as_ref().map(money);
    json!({
        "line_id": line.line_id,
        "sku": line.sku,
        "quantity": line.quantity,
        "unit_price": price,
        "attributes": line.attributes,
        "total_minor_units": line.total_minor_units,
    })
}

pub(super) fn key_value(item: &v1::KeyValue) -> Value {
    json!({
        "key": item.key,
        "value": bytes(&item.value),
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "deadline_ms": item.deadline_ms,
        "counter": item.counter,
        "lease_id": item.lease_id,
    })
}

// ---- messages for people ------------------------------------------------------------------------------------

/// An empty table in the house's style.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// A two-column table of names and values.
pub(super) fn sheet(rows: impl IntoIterator<Item = (String, String)>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    table.to_string()
}

/// A value as people read it; what is no text is only counted.
pub(super) fn readable(value: &Bytes) -> String {
    const LONGEST: usize = 200;
    match std::str::from_utf8(value) {
        Ok(text)
            if text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t') =>
        {
            format!("({} bytes)", value.len())
        }
        Ok(text) if text.chars().count() > LONGEST => {
            let beginning: String = text.chars().take(LONGEST).collect();
            format!("{beginning}… ({} bytes)", value.len())
        }
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes)", value.len()),
    }
}

/// Text for a terminal: names and values are other people's, and none of them may move the cursor.
fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        _ if c.is_control() => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    text.chars().map(shown).collect()
}

/// The same, where a line is a line.
pub(super) fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// A span of time as people write it: in days at most, for months and years differ in length.
pub(super) fn span(time: Duration) -> String {
    const DAY_S: u64 = 24 * 3600;
    let days = time.as_secs() / DAY_S;
    let rest = Duration::new(time.as_secs() % DAY_S, time.subsec_nanos());
    match (days, rest) {
        (0, rest) => humantime::format_duration(rest).to_string(),
        (days, Duration::ZERO) => format!("{days}d"),
        (days, rest) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

/// A point of log time as people read it.
pub(super) fn time(millis: u64) -> String {
    if millis == 0 {
        return "never".to_owned();
    }
    let since = Duration::from_millis(millis);
    match std::time::UNIX_EPOCH.checked_add(since) {
        Some(time) if millis < 253_402_300_800_000 => {
            humantime::format_rfc3339_seconds(time).to_string()
        }
        _ => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client;

    #[test]
    fn values_are_shown_without_harm_to_a_terminal() {
        assert_eq!(readable(&Bytes::from_static(b"hello")), "hello");
        assert_eq!(readable(&Bytes::from_static(b"\x1b[2J")), "(4 bytes)");
        assert_eq!(readable(&Bytes::from_static(&[0xff])), "(1 bytes)");
        assert_eq!(
            harmless("a\x1b[2J\nb\t\u{9b}c"),
            "a\u{fffd}[2J\nb\t\u{fffd}c"
        );
        assert_eq!(one_line("a\nb\r"), "a b\u{fffd}");
        assert!(readable(&Bytes::from(vec![b'a'; 1000])).ends_with("… (1000 bytes)"));
    }

    /// A place that cannot be written to, for this reason.
    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn what_cannot_be_written_is_a_failure_unless_nobody_reads() {
        let write = |kind| write_to(&mut Refusing(kind), b"x");
        assert!(matches!(write(ErrorKind::BrokenPipe), Ok(Reader::Gone)));
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            assert!(matches!(write(kind), Err(Failure::Output(_))), "{kind}");
        }
        let mut written = Vec::new();
        assert!(matches!(write_to(&mut written, b"x"), Ok(Reader::There)));
        assert_eq!(written, b"x");
    }

    #[test]
    fn advice_names_only_what_the_verb_has() {
        let unknown = client::Error::Deadline {
            outcome: Outcome::Unknown,
            problem: String::new(),
        };
        let unknown = Failure::Client(unknown);
        let of_write = failure_text(Recourse::Records, &unknown);
        assert!(of_write.contains("--request-id"), "{of_write}");
        let of_cluster = failure_text(Recourse::Cluster, &unknown);
        assert!(!of_cluster.contains("--request-id"), "{of_cluster}");
        assert!(of_cluster.contains("cluster status"), "{of_cluster}");
    }

    #[test]
    fn a_span_of_time_is_shown_as_it_was_set() {
        let day = Duration::from_secs(24 * 3600);
        for (shown, time) in [
            ("180d", day * 180),
            ("3650d", day * 3650),
            ("1d 12h", day * 3 / 2),
            ("23h 59m", Duration::from_secs(86_340)),
            ("1m 30s", Duration::from_secs(90)),
            ("30d 1ms", day * 30 + Duration::from_millis(1)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(span(time), shown);
            assert_eq!(humantime::parse_duration(shown), Ok(time), "{shown}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive_json() {
        assert_eq!(bytes(b"a"), json!("a"));
        assert_eq!(bytes(&[0xff]), json!({ "base64": "/w==" }));
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(time(0), "never");
        assert_eq!(time(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
    }
}
