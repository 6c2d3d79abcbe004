//! `/v1/watch`: what happens, as server-sent events.
//!
//! An event's `id` is a revision up to which everything was sent, so that a caller who comes back with it, to whichever
//! gateway, misses nothing: browsers do that by themselves, in `Last-Event-ID`. The last revision may be incomplete when
//! a connection breaks; what is sent of it again has the same `revision` and `position`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures::stream::{BoxStream, Stream, StreamExt as _};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Owner, User};
use super::call::{Asked, Call};
use super::cart_views::Cart;
use super::documented::{ReadProblems, SessionHeader};
use super::keys::Key;
use super::session_views::{Session, text};
use crate::client::{self, CartOwner, Watched};
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::front::Peer;
use crate::gateway::problem::Problem;
use crate::gateway::protect::Party;
use crate::proto::v1;
use crate::proto::v1::event::Record;
use crate::types::{Revision, TokenHash};

/// Where a stream goes on.
const LAST_EVENT_ID: &str = "last-event-id";
/// How often there is a word while nothing happens: more often than load balancers give up.
const PROGRESS: Duration = Duration::from_secs(5);

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// What to be told of; at least one of the three.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// Keys that begin so; empty for all. Scope `key:read`.
    keys: Option<String>,
    /// A cart: `me`, `user:` and an id, or `session`; `all` takes `cart:admin`. Scope `cart:read`.
    #[param(value_type = Option<String>)]
    carts: Option<Owner>,
    /// Sessions of a user: `me`, or `user:` and an id; `all` takes `session:admin`. Scope `session:read`.
    #[param(value_type = Option<String>)]
    sessions: Option<User>,
    /// The first revision to be told of; without, and without `Last-Event-ID`, from now on.
    from: Option<u64>,
}

/// One change of one record: the data of an event that is named after the record's kind.
#[derive(Serialize, ToSchema)]
pub struct Event {
    revision: u64,
    /// Its place among the events of its revision.
    position: u32,
    /// When, in Unix milliseconds.
    log_time_ms: u64,
    #[serde(rename = "type")]
    kind: EventKind,
    #[serde(flatten)]
    record: EventRecord,
}

/// What became of a record.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EventKind {
    Created,
    Updated,
    /// Its owner ended it.
    Deleted,
    /// Its time was over.
    Expired,
    /// It was ended without its holder's doing.
    Revoked,
}

/// The record as it is then; absent when it is gone.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EventRecord {
    Key {
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<Key>,
    },
    Cart {
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// SHA-256 of its session's token, in hexadecimal digits.
        #[serde(skip_serializing_if = "Option::is_none")]
        token_hash: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cart: Option<Box<Cart>>,
    },
    Session {
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// SHA-256 of its token, in hexadecimal digits.
        token_hash: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<Box<Session>>,
    },
    /// All of a user's sessions were ended, but for one at most.
    User {
        user_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        spared_token_hash: Option<String>,
    },
}

/// Whose records are told of. The store's filters are alternatives, and one of them covers both sessions and cart of a user:
/// so what comes is looked at again.
struct Wanted {
    keys: Option<String>,
    carts: Option<Carts>,
    sessions: Option<Sessions>,
}

enum Carts {
    All,
    One(CartOwner),
}

enum Sessions {
    All,
    Of(String),
}

impl Wanted {
    async fn new(call: &Call, query: &WatchQuery) -> Result<Self, Problem> {
        let mut wanted = Self {
            keys: None,
            carts: None,
            sessions: None,
        };
        if let Some(prefix) = &query.keys {
            call.allow(Scope::KeyRead)?;
            wanted.keys = Some(prefix.clone());
        }
        if let Some(owner) = &query.carts {
            call.allow(Scope::CartRead)?;
            wanted.carts = Some(if owner.is_all() {
                call.allow(Scope::CartAdmin)?;
                Carts::All
            } else {
                Carts::One(owner.resolve(call).await?)
            });
        }
        if let Some(user) = &query.sessions {
            call.allow(Scope::SessionRead)?;
            wanted.sessions = Some(if user.is_all() {
                call.allow(Scope::SessionAdmin)?;
                Sessions::All
            } else {
                Sessions::Of(user.resolve(call, Scope::SessionAdmin)?)
            });
        }
        if wanted.keys.is_none() && wanted.carts.is_none() && wanted.sessions.is_none() {
            call.allow_any()?;
            return Err(Problem::malformed(
                "name at least one of keys, carts and sessions",
            ));
        }
        Ok(wanted)
    }

    fn filter(&self, watch: client::Watch) -> client::Watch {
        let watch = match &self.keys {
            Some(prefix) if prefix.is_empty() => watch.keys(),
            Some(prefix) => watch.key_prefix(prefix),
            None => watch,
        };
        let watch = match &self.carts {
            Some(Carts::All) => watch.carts(),
            Some(Carts::One(owner)) => watch.cart(owner),
            None => watch,
        };
        match &self.sessions {
            Some(Sessions::All) => watch.sessions(),
            Some(Sessions::Of(user)) => watch.user(user),
            None => watch,
        }
    }

    fn has(&self, record: &Record) -> bool {
        match record {
            Record::Key(event) => {
                let prefix = self.keys.as_deref();
                prefix.is_some_and(|prefix| event.key.starts_with(prefix))
            }
            Record::Cart(event) => match &self.carts {
                Some(Carts::All) => true,
                Some(Carts::One(owner)) => is_of(event, owner),
                None => false,
            },
            Record::Session(event) => self.has_sessions_of(&event.user_id),
            Record::User(event) => self.has_sessions_of(&event.user_id),
        }
    }

    fn has_sessions_of(&self, user: &str) -> bool {
        match &self.sessions {
            Some(Sessions::All) => true,
            Some(Sessions::Of(wanted)) => wanted == user,
            None => false,
        }
    }
}

fn is_of(event: &v1::CartEvent, owner: &CartOwner) -> bool {
    use v1::cart_event::Owner as Of;
    match (&event.owner, owner) {
        (Some(Of::UserId(user)), CartOwner::User(wanted)) => user == wanted,
        (Some(Of::TokenHash(hash)), CartOwner::Session(token)) => {
            TokenHash::of_text(token).as_bytes() == hash.as_ref()
        }
        _ => false,
    }
}

impl From<v1::EventType> for EventKind {
    fn from(kind: v1::EventType) -> Self {
        match kind {
            v1::EventType::Unspecified | v1::EventType::Updated => Self::Updated,
            v1::EventType::Created => Self::Created,
            v1::EventType::Deleted => Self::Deleted,
            v1::EventType::Expired => Self::Expired,
            v1::EventType::Revoked => Self::Revoked,
        }
    }
}

impl EventRecord {
    fn of(record: Record) -> Self {
        match record {
            Record::Key(event) => Self::Key {
                key: event.key,
                item: event.item.map(Key::from),
            },
            Record::Cart(event) => {
                use v1::cart_event::Owner as Of;
                let (user_id, token_hash) = match event.owner {
                    Some(Of::UserId(user)) => (Some(user), None),
                    Some(Of::TokenHash(hash)) => (None, Some(hex::encode(hash))),
                    None => (None, None),
                };
                Self::Cart {
                    user_id,
                    token_hash,
                    cart: event.cart.map(|cart| Box::new(cart.into())),
                }
            }
            Record::Session(event) => Self::Session {
                user_id: text(event.user_id),
                token_hash: hex::encode(&event.token_hash),
                session: event.session.map(|session| Box::new(session.into())),
            },
            Record::User(event) => Self::User {
                user_id: event.user_id,
                spared_token_hash: text(hex::encode(&event.spared_token_hash)),
            },
        }
    }

    /// The name of the event.
    fn name(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Cart { .. } => "cart",
            Self::Session { .. } => "session",
            Self::User { .. } => "user",
        }
    }
}

/// What is said, if anything, when the store says this.
fn tell(watched: Watched, wanted: &Wanted) -> Option<Sent> {
    match watched {
        Watched::Progress { revision, .. } => {
            let data = format!("{{\"revision\":{}}}", revision.get());
            Some(
                Sent::default()
                    .event("progress")
                    .id(revision.get().to_string())
                    .data(data),
            )
        }
        Watched::Event(event) => {
            let kind = event.r#type().into();
            let record = event.record.filter(|record| wanted.has(record))?;
            let record = EventRecord::of(record);
            let name = record.name();
            let event = Event {
                revision: event.revision,
                position: event.position,
                log_time_ms: event.log_time_ms,
                kind,
                record,
            };
            // Others of its revision may follow.
            let complete = event.revision.saturating_sub(1).to_string();
            let data = serde_json::json!(event).to_string();
            Some(Sent::default().event(name).id(complete).data(data))
        }
    }
}

/// A stream under way.
struct Following {
    events: BoxStream<'static, Result<Watched, client::Error>>,
    wanted: Wanted,
    ended: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Sent> {
        while !self.ended {
            match self.events.next().await {
                Some(Ok(watched)) => {
                    if let Some(sent) = tell(watched, &self.wanted) {
                        return Some(sent);
                    }
                }
                // It goes on by itself as soon as a node can be watched.
                Some(Err(error)) if error.is_retryable() => {}
                Some(Err(error)) => {
                    self.ended = true;
                    let problem = Problem::from(error).into_json();
                    return Some(Sent::default().event("problem").data(problem));
                }
                None => self.ended = true,
            }
        }
        None
    }

    fn stream(self) -> impl Stream<Item = Result<Sent, Infallible>> {
        futures::stream::unfold(self, |mut following| async move {
            let next = following.next().await?;
            Some((Ok(next), following))
        })
    }
}

/// Follow what happens, as server-sent events named `key`, `cart`, `session`, `user` and `progress`; the last is a
/// `problem` if the stream cannot go on. An event's `id` is a revision up to which everything was sent: come back with it
/// in `Last-Event-ID` to miss nothing.
#[utoipa::path(get, path = "/v1/watch", tag = "watch", operation_id = "watch",
    params(WatchQuery, SessionHeader,
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on behind this revision.")),
    responses((status = 200, body = Event, content_type = "text/event-stream"),
        (status = 410, description = "The events are no longer kept: read, then watch from there.",
            body = super::super::problem::ProblemDetails, content_type = "application/problem+json"), ReadProblems))]
async fn watch(
    State(app): State<Arc<App>>,
    peer: Peer,
    call: Call,
    Asked(query): Asked<WatchQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Problem> {
    let wanted = Wanted::new(&call, &query).await?;
    call.no_condition()?;
    let life = app.verifier.remaining(&call.caller);
    let open = app.streams.open(Party::of(&call.caller), &peer, life)?;
    let last = super::call::number(&headers, LAST_EVENT_ID)?;
    let behind_last = last.map(|last| last.get().saturating_add(1));
    let from = behind_last.or(query.from).map(Revision::new);
    let watch = wanted
        .filter(call.client.watch())
        .progress_interval(PROGRESS);
    let watch = match from {
        Some(revision) => watch.from(revision),
        None => watch,
    };
    let following = Following {
        events: watch.stream(),
        wanted,
        ended: false,
    };
    let told = open.carry(following.stream());
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(PROGRESS * 3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(carts: Option<Carts>, sessions: Option<Sessions>, keys: Option<&str>) -> Wanted {
        Wanted {
            keys: keys.map(str::to_owned),
            carts,
            sessions,
        }
    }

    fn cart_of(user: &str) -> Record {
        Record::Cart(v1::CartEvent {
            owner: Some(v1::cart_event::Owner::UserId(user.to_owned())),
            cart: None,
        })
    }

    fn session_of(user: &str) -> Record {
        Record::Session(v1::SessionEvent {
            user_id: user.to_owned(),
            ..Default::default()
        })
    }

    #[test]
    fn what_the_store_tells_beyond_what_was_asked_for_is_kept_back() {
        let ada = || CartOwner::User("ada".to_owned());
        // Its filter of a user's sessions brings the user's cart as well.
        let sessions = wanted(None, Some(Sessions::Of("ada".to_owned())), None);
        assert!(sessions.has(&session_of("ada")));
        assert!(!sessions.has(&cart_of("ada")) && !sessions.has(&session_of("bob")));
        let cart = wanted(Some(Carts::One(ada())), None, None);
        assert!(cart.has(&cart_of("ada")));
        assert!(!cart.has(&cart_of("bob")) && !cart.has(&session_of("ada")));
        let everybodys = wanted(Some(Carts::All), Some(Sessions::All), None);
        assert!(everybodys.has(&cart_of("bob")) && everybodys.has(&session_of("bob")));
        let key = |key: &str| {
            Record::Key(v1::KeyEvent {
                key: key.to_owned(),
                item: None,
            })
        };
        let stock = wanted(None, None, Some("stock/"));
        assert!(stock.has(&key("stock/tea")) && !stock.has(&key("price/tea")));
        assert!(!cart.has(&key("stock/tea")));
    }

    #[test]
    fn a_sessions_cart_is_known_by_its_tokens_hash() {
        let token = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let event = |token| v1::CartEvent {
            owner: Some(v1::cart_event::Owner::TokenHash(
                TokenHash::of_text(token).as_bytes().to_vec().into(),
            )),
            cart: None,
        };
        let owner = CartOwner::Session(token.to_owned());
        assert!(is_of(&event(token), &owner));
        assert!(!is_of(&event("BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"), &owner));
    }
}
