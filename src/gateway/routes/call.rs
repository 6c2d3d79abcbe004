//! What is the same for every route: who calls, for which records, and under which conditions.
//!
//! | header of a request | means |
//! |---|---|
//! | `Authorization: Bearer …` | who calls |
//! | `X-Trolley-Session` | the token of the session that the request is about |
//! | `X-Trolley-Revision` | a read sees at least this revision; any node that has it may answer |
//! | `Idempotency-Key` | a later request with the same key, and otherwise the same, gets the first answer |
//! | `If-Match: "7"` | only if the record is at revision 7 |
//! | `If-None-Match: *` | only if there is no such record; `"7"`, of a read: only if it has another entity tag |

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::extract::{FromRequest, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::tag::Tag;
use crate::client::{Client, Consistency};
use crate::gateway::App;
use crate::gateway::auth::{Caller, Scope, Scopes};
use crate::gateway::problem::Problem;
use crate::limits;
use crate::types::Revision;

/// Names the session.
pub const SESSION: &str = "x-trolley-session";
/// What a read must see, and what an answer has seen.
pub const REVISION: &str = "x-trolley-revision";
/// Names a write.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One request.
pub struct Call {
    /// The store, as far as this caller's namespace goes.
    pub client: Client,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The namespace is the shop's, which keeps accounts under keys.
    pub has_no_keys: bool,
    /// The session's token, if one is named.
    pub session: Option<String>,
    /// Whether it is the caller's to use, once that was looked up.
    pub session_is_own: OnceCell<bool>,
    /// The write's request id, if it has one.
    pub request_id: Option<String>,
    /// The record must be at this revision.
    pub if_match: Option<Revision>,
    /// There must be no record, or none with these tags.
    pub if_none_match: Option<NoneMatch>,
}

/// `If-None-Match`.
#[derive(Debug, PartialEq, Eq)]
pub enum NoneMatch {
    /// `*`
    Any,
    /// Those that the caller has seen.
    Seen(Vec<Tag>),
}

impl Call {
    /// Refuses a caller who lacks a right, or asks for keys that are no caller's.
    pub fn allow(&self, scope: Scope) -> Result<(), Problem> {
        self.caller.allow(scope)?;
        if self.has_no_keys && matches!(scope, Scope::KeyRead | Scope::KeyWrite) {
            let detail = "the keys of this namespace are the shop's own";
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "KEYS_OF_THE_SHOP",
                detail,
            ));
        }
        Ok(())
    }

    /// Refuses a caller who may do nothing at all, where what it may do depends on what it asks for.
    pub fn allow_any(&self) -> Result<(), Problem> {
        if self.caller.scopes == Scopes::default() {
            return self.allow(Scope::KeyRead);
        }
        Ok(())
    }

    /// The condition of a write that must find a record.
    pub fn condition(&self) -> Result<Option<Revision>, Problem> {
        if self.if_none_match.is_some() {
            return Err(Problem::malformed("this request takes no If-None-Match"));
        }
        Ok(self.if_match)
    }

    /// A request without conditions says so, rather than to be done whether they hold or not.
    pub fn no_condition(&self) -> Result<(), Problem> {
        if self.condition()?.is_some() {
            return Err(Problem::malformed("this request takes no If-Match"));
        }
        Ok(())
    }

    /// The condition of a change to a cart. One that is not there yet is at revision 0.
    pub fn cart_condition(&self) -> Result<Option<Revision>, Problem> {
        match (self.if_match, self.if_absent()?) {
            (Some(_), true) => Err(Problem::malformed(
                "If-Match and If-None-Match exclude each other",
            )),
            (None, true) => Ok(Some(Revision::new(0))),
            (condition, false) => Ok(condition),
        }
    }

    /// A write that must not find a record; a list of revisions makes no sense there.
    pub fn if_absent(&self) -> Result<bool, Problem> {
        match self.if_none_match {
            None => Ok(false),
            Some(NoneMatch::Any) => Ok(true),
            Some(NoneMatch::Seen(_)) => {
                Err(Problem::malformed("a write takes If-None-Match: * only"))
            }
        }
    }

    /// What the caller has of the record that it reads. A read takes no other condition.
    pub fn seen(&self) -> Result<&[Tag], Problem> {
        if self.if_match.is_some() {
            return Err(Problem::malformed("a read takes no If-Match"));
        }
        match &self.if_none_match {
            None => Ok(&[]),
            Some(NoneMatch::Seen(seen)) => Ok(seen),
            Some(NoneMatch::Any) => Err(Problem::malformed(
                "a read takes If-None-Match with entity tags of earlier answers only",
            )),
        }
    }
}

impl Caller {
    /// Refuses a caller who lacks a right.
    pub fn allow(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.has(scope) {
            Ok(())
        } else {
            Err(Problem::forbidden(scope))
        }
    }
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        // Whoever stands in front of the routes has put it there; without, nobody is let in.
        let caller = parts.extensions.get::<Arc<Caller>>().cloned();
        let caller = caller.ok_or_else(Problem::unauthenticated)?;
        let headers = &parts.headers;
        let client = app.client.namespace(caller.namespace.as_str());
        // One that this gateway has not heard of may be another's newest, or nonsense that no node will ever reach: a
        // linearizable read sees the former, and does not wait for the latter.
        let client = match number(headers, REVISION)? {
            Some(revision) if revision <= client.revision() => {
                client.consistency(Consistency::AtLeast(revision))
            }
            Some(_) | None => client,
        };
        let shop = app.shop.as_ref();
        Ok(Self {
            client,
            has_no_keys: shop.is_some_and(|shop| shop.owns(&caller.namespace)),
            session: session(headers)?,
            session_is_own: OnceCell::new(),
            request_id: request_id(headers, &caller)?,
            if_match: if_match(headers)?,
            if_none_match: if_none_match(headers)?,
            caller,
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::malformed(format!(
            "{name} is given more than once"
        )));
    }
    let text = value.to_str().ok().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Problem::malformed(format!("{name} must be visible ASCII")))?;
    Ok(Some(text))
}

/// A text of that length may be a token; which ones are is the store's to say.
fn session(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let token = text(headers, SESSION)?;
    if token.is_some_and(|token| token.len() > limits::TOKEN_TEXT_BYTES) {
        return Err(Problem::malformed(format!(
            "{SESSION} is too long for a token"
        )));
    }
    Ok(token.map(str::to_owned))
}

pub fn number(headers: &HeaderMap, name: &str) -> Result<Option<Revision>, Problem> {
    let parse = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        // As the document has it, and as far as any store will ever count.
        let number = text.parse::<i64>().ok().filter(|_| is_plain);
        let number = number.and_then(|number| u64::try_from(number).ok());
        number
            .map(Revision::new)
            .ok_or_else(|| Problem::malformed(format!("{name} must be a revision, a number")))
    };
    text(headers, name)?.map(parse).transpose()
}

/// A key names a write of this user: another user's same key is another write, and finds out nothing.
fn request_id(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, Problem> {
    let Some(key) = text(headers, IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    if key.len() > limits::IDEMPOTENCY_KEY_BYTES {
        let limit = limits::IDEMPOTENCY_KEY_BYTES;
        return Err(Problem::malformed(format!(
            "{IDEMPOTENCY_KEY} is longer than {limit} bytes"
        )));
    }
    let user = caller.user.as_str();
    let mut hash = Sha256::new();
    // With its length in front, no user and key together are another user and key.
    hash.update((user.len() as u64).to_be_bytes());
    hash.update(user);
    hash.update(key);
    Ok(Some(URL_SAFE_NO_PAD.encode(hash.finalize())))
}

fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(text) = text(headers, IF_MATCH.as_str())? else {
        return Ok(None);
    };
    let tag = Tag::parse(text).ok_or_else(|| {
        Problem::malformed(
            "If-Match takes one entity tag as an earlier answer had it, such as \"7\"",
        )
    });
    tag.map(|tag| Some(tag.revision))
}

fn if_none_match(headers: &HeaderMap) -> Result<Option<NoneMatch>, Problem> {
    let Some(text) = text(headers, IF_NONE_MATCH.as_str())? else {
        return Ok(None);
    };
    if text.trim() == "*" {
        return Ok(Some(NoneMatch::Any));
    }
    // A cache compares weakly, and may list tags of others.
    let tags = text.split(',').map(str::trim);
    let seen = tags.filter_map(|text| Tag::parse(text.strip_prefix("W/").unwrap_or(text)));
    Ok(Some(NoneMatch::Seen(seen.collect())))
}

/// Passes options on to a request's builder: `with!(builder, option(value if there is one), …)`.
macro_rules! with {
    ($builder:expr $(, $option:ident($value:expr))* $(,)?) => {{
        let builder = $builder;
        $(let builder = match $value {
            Some(value) => builder.$option(value),
            None => builder,
        };)*
        builder
    }};
}
pub(in crate::gateway) use with;

/// Parts of the path.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, app).await;
        let refused = |rejection: PathRejection| Problem::malformed(rejection.body_text());
        path.map(|path| Self(path.0)).map_err(refused)
    }
}

/// The query.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, app).await;
        let refused = |rejection: QueryRejection| Problem::malformed(rejection.body_text());
        query.map(|query| Self(query.0)).map_err(refused)
    }
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        // Whoever says so beforehand need not send it.
        let announced = http_body::Body::size_hint(request.body()).lower();
        if announced > limits::HTTP_BODY_BYTES as u64 {
            return Err(too_large());
        }
        DefaultBodyLimit::max(limits::HTTP_BODY_BYTES).apply(&mut request);
        // Less than the whole request may take, so that whoever sends slowly is told that, and not that the store is slow.
        let patience = app.protection.request_timeout / 2;
        let body = axum::Json::<T>::from_request(request, app);
        let body = tokio::time::timeout(patience, body).await;
        let body = body.map_err(|_| {
            let detail = "the body took too long to arrive";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", detail).retryable()
        })?;
        body.map(|body| Self(body.0))
            .map_err(|rejection| bad_body(&rejection))
    }
}

fn too_large() -> Problem {
    let limit = limits::HTTP_BODY_BYTES;
    let detail = format!("the body is longer than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail)
}

fn bad_body(rejection: &JsonRejection) -> Problem {
    let status = rejection.status();
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let detail = "the body must be JSON, with Content-Type: application/json";
            Problem::new(status, "UNSUPPORTED_MEDIA_TYPE", detail)
        }
        _ => Problem::malformed(rejection.body_text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Namespace, UserId};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header's value"));
        }
        headers
    }

    fn caller(user: &str) -> Caller {
        Caller {
            namespace: Namespace::default(),
            user: UserId::parse(user).expect("a user"),
            scopes: Scopes::default(),
            expires: 0.0,
        }
    }

    #[test]
    fn a_condition_is_one_revision_in_quotes() {
        let of = |text| if_match(&headers(&[("if-match", text)]));
        assert_eq!(of("\"7\""), Ok(Some(Revision::new(7))));
        // Of a frozen cart: it is compared by the revision.
        assert_eq!(of("\"7.1700000000000\""), Ok(Some(Revision::new(7))));
        for text in [
            "7",
            "*",
            "W/\"7\"",
            "\"7\", \"8\"",
            "\"-7\"",
            "\"+7\"",
            "\"\"",
            "\"x\"",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
        let twice = headers(&[("if-match", "\"7\""), ("if-match", "\"7\"")]);
        assert!(if_match(&twice).is_err());
    }

    #[test]
    fn a_cache_may_name_several() {
        let of = |text| if_none_match(&headers(&[("if-none-match", text)]));
        assert_eq!(of("*"), Ok(Some(NoneMatch::Any)));
        let seen = vec![Revision::new(7).into(), Revision::new(8).into()];
        assert_eq!(
            of("\"7\", W/\"8\", \"abc\""),
            Ok(Some(NoneMatch::Seen(seen)))
        );
    }

    #[test]
    fn one_key_of_two_users_names_two_writes() {
        let of = |user, key| request_id(&headers(&[(IDEMPOTENCY_KEY, key)]), &caller(user));
        let id = of("ada", "order-1").expect("it is short enough");
        assert_eq!(of("ada", "order-1"), Ok(id.clone()));
        let id = id.expect("one was given");
        assert!(id.len() <= limits::REQUEST_ID_BYTES, "{id}");
        for (user, key) in [("bob", "order-1"), ("ada", "order-2"), ("adao", "rder-1")] {
            assert_ne!(of(user, key).expect("it is short enough"), Some(id.clone()));
        }
        let long = "k".repeat(limits::IDEMPOTENCY_KEY_BYTES + 1);
        assert!(of("ada", &long).is_err());
    }

    #[test]
    fn a_text_that_is_too_long_is_no_sessions_token() {
        let longest = "A".repeat(limits::TOKEN_TEXT_BYTES);
        let of = |text: &str| session(&headers(&[(SESSION, text)]));
        assert_eq!(of(&longest), Ok(Some(longest.clone())));
        assert!(of(&format!("{longest}A")).is_err());
        assert_eq!(session(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_revision_is_a_plain_number() {
        let of = |text| number(&headers(&[(REVISION, text)]), REVISION);
        assert_eq!(of("7"), Ok(Some(Revision::new(7))));
        for text in ["-1", "+7", "7.0", "x", "99999999999999999999"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
