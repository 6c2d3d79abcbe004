//! `trolley watch`: events, a line each, as they come.
//!
//! It goes on through failovers by itself and ends when it is interrupted, when nobody reads its output any more, or when the
//! events that follow are no longer kept.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use super::arguments::{Form, Target, revision};
use super::cart::cart_value;
use super::failure::Failure;
use super::input::Input;
use super::output::{self, Reader, key_value, one_line, readable, time};
use crate::client::{CartOwner, Client, Watch, Watched};
use crate::proto::v1::{self, EventType, cart_event::Owner, event::Record};
use crate::types::Revision;

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  trolley watch                                  everything that happens from now on
  trolley watch --user ada                       her sessions and her cart
  trolley watch --kind cart --key-prefix stock/  all carts, and some keys: whatever matches either of them
  trolley watch --from 1042 --json | jq .        from a revision on; a line of JSON for each event

Each event carries the whole record as it was at that revision. Ctrl-C ends the watch and says how to go on
without a gap. The nodes keep the events of about an hour; where they are gone already, the watch ends with
COMPACTED: then read what is there, and watch from the revision of that read on.";

/// What to be told of.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// From this revision on, whatever happened since [default: from now on]
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    from: Option<Revision>,
    /// All records of a kind
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Keys that begin so
    #[arg(long = "key-prefix", value_name = "PREFIX")]
    key_prefixes: Vec<String>,
    /// A user's sessions and cart
    #[arg(long = "user", value_name = "USER_ID")]
    users: Vec<String>,
    /// The cart of this user
    #[arg(long = "cart-of", value_name = "USER_ID")]
    carts_of: Vec<String>,
    /// The cart of the session with this token; - reads it from standard input
    #[arg(long, value_name = "TOKEN")]
    cart_of_session: Option<String>,
    /// Records of every namespace
    #[arg(long)]
    all_namespaces: bool,
    /// With --json: also print how far the watch is, so that a program can go on from there
    #[arg(long, requires = "json")]
    progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Session,
    Cart,
    Key,
}

impl WatchArgs {
    fn watch(self, client: &Client) -> Result<Watch, Failure> {
        let mut watch = client.watch();
        if let Some(from) = self.from {
            watch = watch.from(from);
        }
        if self.all_namespaces {
            watch = watch.all_namespaces();
        }
        for kind in self.kinds {
            watch = match kind {
                Kind::Session => watch.sessions(),
                Kind::Cart => watch.carts(),
                Kind::Key => watch.keys(),
            };
        }
        for prefix in self.key_prefixes {
            watch = watch.key_prefix(prefix);
        }
        for user in self.users {
            watch = watch.user(user);
        }
        for user in self.carts_of {
            watch = watch.cart(&CartOwner::User(user));
        }
        if self.cart_of_session.is_some() {
            let token = Input::default().token(self.cart_of_session)?;
            watch = watch.cart(&CartOwner::Session(token));
        }
        Ok(watch)
    }
}

pub(super) async fn run(args: WatchArgs, target: &Target) -> Result<ExitCode, Failure> {
    let mut lines = Lines {
        form: target.form(),
        of_all_namespaces: args.all_namespaces,
        with_progress: args.progress,
        next: args.from,
        is_told: false,
    };
    let client = target.connect()?;
    let watch = args.watch(&client)?;
    let ended = tokio::select! {
        ended = follow(watch, &mut lines) => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::Runtime),
    };
    client.close().await;
    lines.say_how_to_go_on();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Prints what comes until nobody reads it, or it is over.
async fn follow(watch: Watch, lines: &mut Lines) -> Result<(), Failure> {
    let mut stream = watch.stream();
    loop {
        match stream.try_next().await {
            Ok(Some(watched)) => {
                if lines.print(&watched)? == Reader::Gone {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            // Whoever was told once waits for the cluster to come back.
            Err(error) if lines.is_told && error.is_retryable() => {
                output::note(&format!("waiting: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is printed, and how far that goes.
struct Lines {
    form: Form,
    of_all_namespaces: bool,
    with_progress: bool,
    /// Where to go on.
    next: Option<Revision>,
    /// A node has answered.
    is_told: bool,
}

impl Lines {
    /// Says whether somebody still reads.
    fn print(&mut self, watched: &Watched) -> Result<Reader, Failure> {
        self.is_told = true;
        let line = match (watched, self.form) {
            (Watched::Event(event), Form::Json) => event_json(event).to_string(),
            (Watched::Event(event), Form::People) => self.people(event),
            (
                Watched::Progress {
                    revision,
                    log_time_ms,
                },
                _,
            ) => {
                self.next = Some(revision.next());
                if !self.with_progress {
                    return Ok(Reader::There);
                }
                let progress = revision.get();
                json!({ "progress_revision": progress, "log_time_ms": log_time_ms }).to_string()
            }
        };
        output::line(&line)
    }

    fn people(&self, event: &v1::Event) -> String {
        let line = event_text(event);
        if self.of_all_namespaces {
            format!("{line} [{}]", event.namespace)
        } else {
            line
        }
    }

    /// Programs are told by `--progress`.
    fn say_how_to_go_on(&self) {
        if let (Form::People, Some(next)) = (self.form, self.next) {
            output::note(&format!("to go on from here: --from {next}"));
        }
    }
}

// ---- for people ---------------------------------------------------------------------------------------------

fn event_text(event: &v1::Event) -> String {
    let what = match &event.record {
        Some(Record::Session(session)) => session_text(session),
        Some(Record::Cart(cart)) => cart_text(cart),
        Some(Record::Key(key)) => key_text(key),
        Some(Record::User(user)) => user_text(user),
        None => "something that this version does not know".to_owned(),
    };
    let verb = match event.r#type() {
        EventType::Created => "created",
        EventType::Updated => "updated",
        EventType::Deleted => "deleted",
        EventType::Expired => "expired",
        EventType::Revoked => "revoked",
        EventType::Unspecified => "changed",
    };
    let at = time(event.log_time_ms);
    one_line(&format!("{} {at} {verb} {what}", event.revision))
}

fn session_text(event: &v1::SessionEvent) -> String {
    let user = if event.user_id.is_empty() {
        "a guest"
    } else {
        &event.user_id
    };
    let name = format!("session {} of {user}", hash(&event.token_hash));
    let Some(session) = &event.session else {
        return name;
    };
    let mut fields: Vec<_> = session.fields.iter().collect();
    fields.sort_unstable();
    let fields = fields
        .into_iter()
        .map(|(field, value)| format!(" {field}={}", readable(value)));
    format!("{name}:{}", fields.collect::<String>())
}

fn cart_text(event: &v1::CartEvent) -> String {
    let owner = match &event.owner {
        Some(Owner::UserId(user)) => user.clone(),
        Some(Owner::TokenHash(token)) => format!("session {}", hash(token)),
        None => "nobody".to_owned(),
    };
    let name = format!("cart of {owner}");
    let Some(cart) = &event.cart else {
        return name;
    };
    let lines = cart
        .lines
        .iter()
        .map(|line| format!("{} × {}", line.quantity, line.sku));
    let lines = lines.collect::<Vec<_>>().join(", ");
    if lines.is_empty() {
        return format!("{name}: empty");
    }
    format!("{name}: {lines}")
}

fn key_text(event: &v1::KeyEvent) -> String {
    match &event.item {
        Some(item) => format!("key {} = {}", event.key, readable(&item.value)),
        None => format!("key {}", event.key),
    }
}

fn user_text(event: &v1::UserEvent) -> String {
    let all = format!("all sessions of {}", event.user_id);
    if event.spared_token_hash.is_empty() {
        return all;
    }
    format!("{all} but {}", hash(&event.spared_token_hash))
}

/// As a session's token is written.
fn hash(hash: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(hash)
}

// ---- for programs -------------------------------------------------------------------------------------------

fn event_json(event: &v1::Event) -> Value {
    let mut json = json!({
        "revision": event.revision,
        "position": event.position,
        "log_time_ms": event.log_time_ms,
        "namespace": event.namespace,
        "type": event.r#type().as_str_name(),
    });
    match &event.record {
        Some(Record::Session(session)) => {
            json["session"] = json!({
                "token_hash": hash(&session.token_hash),
                "user_id": session.user_id,
                "session": session.session.as_ref().map(output::session),
            });
        }
        Some(Record::Cart(event)) => {
            json["cart"] = json!({ "cart": event.cart.as_ref().map(cart_value) });
            match &event.owner {
                Some(Owner::UserId(user)) => json["cart"]["user_id"] = user.as_str().into(),
                Some(Owner::TokenHash(token)) => json["cart"]["token_hash"] = hash(token).into(),
                None => {}
            }
        }
        Some(Record::User(event)) => {
            json["user"] = json!({
                "user_id": event.user_id,
                "spared_token_hash": hash(&event.spared_token_hash),
            });
        }
        Some(Record::Key(event)) => {
            json["key"] = json!({ "key": event.key, "item": event.item.as_ref().map(key_value) });
        }
        None => {}
    }
    json
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(event_type: EventType, record: Record) -> v1::Event {
        v1::Event {
            revision: 7,
            position: 1,
            log_time_ms: 1_000,
            namespace: "shop".to_owned(),
            r#type: event_type.into(),
            record: Some(record),
        }
    }

    fn key(value: Option<&'static str>) -> Record {
        let item = value.map(|value| v1::KeyValue {
            key: "greeting".to_owned(),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: 3,
            mod_revision: 7,
            ..v1::KeyValue::default()
        });
        Record::Key(v1::KeyEvent {
            key: "greeting".to_owned(),
            item,
        })
    }

    fn session(session: Option<v1::Session>) -> Record {
        Record::Session(v1::SessionEvent {
            token_hash: Bytes::from_static(&[0xfb; 3]),
            user_id: "ada".to_owned(),
            session,
        })
    }

    fn cart_of(owner: Owner, lines: &[(&str, u32)]) -> Record {
        let line = |(sku, quantity): &(&str, u32)| v1::CartLine {
            sku: (*sku).to_owned(),
            quantity: *quantity,
            ..v1::CartLine::default()
        };
        Record::Cart(v1::CartEvent {
            owner: Some(owner),
            cart: Some(v1::Cart {
                lines: lines.iter().map(line).collect(),
                ..v1::Cart::default()
            }),
        })
    }

    #[test]
    fn people_read_a_line_for_each_event() {
        let fields = [("theme", "dark"), ("a", "1\n2")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.into()));
        let known = v1::Session {
            fields: fields.into(),
            ..v1::Session::default()
        };
        let ada = Owner::UserId("ada".to_owned());
        let guest = Owner::TokenHash(Bytes::from_static(&[0xfb; 3]));
        let table = [
            (
                event(EventType::Created, key(Some("hello"))),
                "created key greeting = hello",
            ),
            (event(EventType::Expired, key(None)), "expired key greeting"),
            (
                event(EventType::Updated, session(Some(known))),
                "updated session -_v7 of ada: a=1 2 theme=dark",
            ),
            (
                event(EventType::Revoked, session(None)),
                "revoked session -_v7 of ada",
            ),
            (
                event(EventType::Updated, cart_of(ada, &[("mug", 2), ("tea", 1)])),
                "updated cart of ada: 2 × mug, 1 × tea",
            ),
            (
                event(EventType::Updated, cart_of(guest, &[])),
                "updated cart of session -_v7: empty",
            ),
        ];
        for (event, expected) in table {
            let expected = format!("7 1970-01-01T00:00:01Z {expected}");
            assert_eq!(event_text(&event), expected);
        }
    }

    #[test]
    fn programs_get_the_protos_names() {
        let told = event(EventType::Updated, key(Some("hello")));
        let expected = json!({
            "revision": 7, "position": 1, "log_time_ms": 1000, "namespace": "shop",
            "type": "EVENT_TYPE_UPDATED",
            "key": { "key": "greeting", "item": {
                "key": "greeting", "value": "hello",
                "create_revision": 3, "mod_revision": 7, "deadline_ms": 0,
                "counter": null, "lease_id": 0,
            }},
        });
        assert_eq!(event_json(&told), expected);
        let gone = event_json(&event(EventType::Deleted, session(None)));
        let expected = json!({ "token_hash": "-_v7", "user_id": "ada", "session": null });
        assert_eq!(gone["session"], expected);
        let ada = Owner::UserId("ada".to_owned());
        let filled = event_json(&event(EventType::Created, cart_of(ada, &[("mug", 2)])));
        assert_eq!(filled["cart"]["user_id"], "ada");
        assert_eq!(filled["cart"]["cart"]["lines"][0]["quantity"], 2);
    }

    #[test]
    fn how_to_go_on_is_where_the_last_progress_was() {
        let mut lines = Lines {
            form: Form::People,
            of_all_namespaces: true,
            with_progress: false,
            next: None,
            is_told: false,
        };
        let told = event(EventType::Deleted, key(None));
        assert!(lines.people(&told).ends_with("deleted key greeting [shop]"));
        let progress = Watched::Progress {
            revision: Revision::new(7),
            log_time_ms: 1,
        };
        assert!(matches!(lines.print(&progress), Ok(Reader::There)));
        assert_eq!(lines.next, Some(Revision::new(8)));
    }
}
