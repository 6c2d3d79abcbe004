//! What a violation stands on: the calls that touched the key, session or request it is about, and the faults around them.
//!
//! A run has tens of thousands of calls, and a person looks at a dozen. For linearizability the checker itself shortens the history,
//! see [`super::linearizability`]; for the other properties this is what is left of all that was recorded: lines of JSON as they are in
//! the record, in the order in which they were sent, with the faults among them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::record::Record;
use super::verdict::Verdict;
use super::workloads::sessions::Request;
use super::workloads::{bank, leases};

/// Where they go, below a run's directory.
pub const FOLDER: &str = "violations";
/// So many files at most.
const FILES: usize = 40;
/// A fault that ended this long before the first call still had its consequences.
const BEFORE_US: u64 = 5_000_000;

/// One line: when it began, and what.
type Line = (u64, Value);

/// What a record has about one thing, in order; faults of the same time among it.
#[must_use]
pub fn about(record: &Record, what: &str) -> Vec<Value> {
    let mut lines: Vec<Line> = Vec::new();
    registers(record, what, &mut lines);
    for entry in &record.adds {
        if entry.call.id == what || entry.call.sku == what {
            lines.push((entry.invoked_us, line("carts", entry)));
        }
    }
    for entry in &record.bankings {
        let is_about = match entry.call {
            bank::Banking::Transfer { from, to, .. } => {
                [from, to].into_iter().any(|it| bank::account(it) == what)
            }
            bank::Banking::Read => what.starts_with(bank::PREFIX),
        };
        if is_about {
            lines.push((entry.invoked_us, line("bank", entry)));
        }
    }
    for entry in &record.listings {
        if entry.call.parts.iter().any(|part| part.key == what) {
            lines.push((entry.invoked_us, line("lists", entry)));
        }
    }
    sessions(record, what, &mut lines);
    leases(record, what, &mut lines);
    for entry in &record.locks {
        if entry.call.lock() == what {
            lines.push((entry.invoked_us, line("locks", entry)));
        }
    }
    faults(record, &mut lines);
    lines.sort_by_key(|(at_us, _)| *at_us);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line(of: &str, entry: &impl Serialize) -> Value {
    json!({ of: serde_json::to_value(entry).unwrap_or_default() })
}

fn registers(record: &Record, what: &str, lines: &mut Vec<Line>) {
    let operations = record.history.by_key().get(what);
    for operation in operations.into_iter().flatten() {
        let at_us = |position: usize| record.history.at_us(position);
        let invoked_us = at_us(operation.invoked);
        let value = json!({ "registers": {
            "process": operation.process,
            "invoked_us": invoked_us,
            "returned_us": operation.returned.map(at_us),
            "call": operation.call,
            "outcome": operation.outcome,
        }});
        lines.push((invoked_us, value));
    }
    for look in record.looks.iter().filter(|look| look.call.key == what) {
        lines.push((look.invoked_us, line("looks", look)));
    }
    for (number, feed) in record.feeds.iter().enumerate() {
        for told in feed.events.iter().filter(|told| told.key == what) {
            lines.push((0, json!({ "watcher": number, "told": told })));
        }
    }
}

/// A session's own calls, those of the session that it was rotated from, and those that ended all of its user's.
fn sessions(record: &Record, what: &str, lines: &mut Vec<Line>) {
    let user = record.sessions.iter().find_map(|entry| match &entry.call {
        Request::Create { session, user, .. } if session == what => Some(user.as_str()),
        _ => None,
    });
    for entry in &record.sessions {
        let is_about = match &entry.call {
            Request::Create { session, .. }
            | Request::Read { session }
            | Request::Update { session, .. }
            | Request::Touch { session }
            | Request::Destroy { session } => session == what,
            Request::Rotate { session, into } => session == what || into == what,
            Request::RevokeAll { user: of } => user == Some(of),
        };
        if is_about {
            lines.push((entry.invoked_us, line("sessions", entry)));
        }
    }
}

/// A lease's own calls, and those of its keys; a key's own, and those of the leases that it was put with.
fn leases(record: &Record, what: &str, lines: &mut Vec<Line>) {
    let calls = || record.leases.iter().map(|entry| &entry.call);
    let of_key = calls().filter_map(|call| match call {
        leases::Request::Put { key, lease } if key == what => Some(lease.as_str()),
        _ => None,
    });
    let of_key: BTreeSet<&str> = of_key.collect();
    for entry in &record.leases {
        let names = entry.call.names();
        if names.contains(&Some(what)) || names[0].is_some_and(|lease| of_key.contains(lease)) {
            lines.push((entry.invoked_us, line("leases", entry)));
        }
    }
}

/// Those that held while any of these calls was under way, or shortly before.
fn faults(record: &Record, lines: &mut Vec<Line>) {
    let times = || lines.iter().map(|(at_us, _)| *at_us).filter(|it| *it > 0);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return;
    };
    let episodes = record.chronicle.episodes.iter();
    let around = episodes.filter(|it| it.ended_us + BEFORE_US > first && it.begun_us <= last);
    let around: Vec<Line> = around.map(|it| (it.begun_us, line("fault", it))).collect();
    lines.extend(around);
}

/// Writes a file for each violation that is about one thing; how many there are.
pub fn write(record: &Record, verdict: &Verdict, run: &Path) -> io::Result<usize> {
    let mut written = 0;
    for (check, violation) in verdict.violations() {
        if violation.about.is_empty() || written == FILES {
            continue;
        }
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut text = json!({
            "property": check, "violation": violation.what, "at_us": violation.at_us,
        })
        .to_string();
        text.push('\n');
        for line in about(record, &violation.about) {
            writeln!(text, "{line}").expect("a string takes all");
        }
        written += 1;
        fs::write(folder.join(format!("{written:02}.jsonl")), text)?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::faults::{Episode, Kind, Proof};
    use crate::torture::tape::{Entry, Outcome};
    use crate::torture::workloads::carts::{Add, Added};

    fn add(id: &str, invoked_us: u64, quantity: u64) -> Entry<Add, Added> {
        Entry {
            process: 0,
            invoked_us,
            returned_us: Some(invoked_us + 1),
            call: Add {
                id: id.to_owned(),
                cart: "ada".to_owned(),
                sku: format!("sku of {id}"),
            },
            outcome: Outcome::Answered(Added {
                quantity,
                revision: 1,
            }),
        }
    }

    fn fault(begun_us: u64) -> Episode {
        Episode {
            kind: Kind::KillLeader,
            nodes: vec![1],
            leader: 1,
            begun_us,
            ended_us: begun_us + 10,
            proof: Proof::Proven("seen".to_owned()),
        }
    }

    #[test]
    fn what_is_left_is_what_the_violation_is_about_with_the_faults_around_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = crate::torture::testing::empty_record();
        record.about.workloads = vec!["carts".to_owned()];
        // The second answer to one request differs from the first.
        record.adds = vec![add("a", 50_000_000, 1), add("b", 50_000_001, 1)];
        record.adds.push(add("a", 60_000_000, 2));
        record.chronicle.episodes = vec![fault(1_000), fault(55_000_000), fault(90_000_000)];
        let verdict = Verdict::of(&record);
        let written = write(&record, &verdict, folder.path()).expect("it can be written");
        assert!(written > 0);
        let text = fs::read_to_string(folder.path().join(FOLDER).join("01.jsonl"));
        let text = text.expect("there is a file");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["property"], "exactly once");
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1]["carts"]["call"]["id"], "a");
        assert_eq!(lines[2]["fault"]["begun_us"], 55_000_000);
        assert_eq!(lines[3]["carts"]["outcome"]["answered"]["quantity"], 2);
    }

    #[test]
    fn of_a_key_its_leases_are_told_and_of_a_lease_its_keys() {
        use leases::Request;
        let mut record = crate::torture::testing::empty_record();
        let text = str::to_owned;
        let calls = [
            Request::Grant {
                lease: text("lease-1"),
                ttl_ms: 1,
            },
            Request::Put {
                key: text("leases/a"),
                lease: text("lease-1"),
            },
            Request::KeepAlive {
                lease: text("lease-1"),
            },
            Request::Revoke {
                lease: text("lease-2"),
            },
            Request::Read {
                key: text("leases/a"),
            },
            Request::Delete {
                key: text("leases/b"),
            },
        ];
        record.leases = (1..)
            .zip(calls)
            .map(|(invoked_us, call)| Entry {
                process: 0,
                invoked_us,
                returned_us: None,
                call,
                outcome: Outcome::Unknown,
            })
            .collect();
        let told = |what| {
            let lines = about(&record, what).into_iter();
            let times = lines.map(|line| line["leases"]["invoked_us"].as_u64());
            times.flatten().collect::<Vec<_>>()
        };
        assert_eq!(told("leases/a"), [1, 2, 3, 5]);
        assert_eq!(told("lease-1"), [1, 2, 3]);
        assert_eq!(told("leases/b"), [6]);
    }
}
