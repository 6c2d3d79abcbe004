//! Who visits: a browser with a session, or with none yet; and whether a request is a page's of ours.
//!
//! A request that changes something must come from this origin, as the browser itself says in `Sec-Fetch-Site` or
//! `Origin`, and it must show `X-CSRF-Token`, which only a page that may read our answers can know. That token is made of the
//! session's, so that there is nothing to store and it changes with the session.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{HOST, ORIGIN, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use crate::client::{CartOwner, Client, Reply};
use crate::gateway::accounts::{derive, session_ended};
use crate::gateway::problem::Problem;
use crate::gateway::protect::network;
use crate::gateway::routes::IDEMPOTENCY_KEY;
use crate::gateway::shop::Shop;
use crate::gateway::{App, front};
use crate::limits;
use crate::proto::v1;

const CSRF: &str = "x-csrf-token";
const FETCH_SITE: &str = "sec-fetch-site";
/// Where a session begins: there is none yet to make a token of.
const BEGIN: &str = "/session";

/// A browser.
#[derive(Clone)]
pub struct Visitor {
    /// The shop's part of the store.
    pub client: Client,
    /// Of the session, if the browser has one.
    pub token: Option<String>,
    /// The mark that it keeps, if it was logged in before.
    pub device: Option<String>,
    /// Where it comes from, as attempts are counted.
    pub network: String,
    /// What it says it is.
    pub browser: String,
    /// Names the request; the same if it is sent again.
    pub nonce: Option<String>,
}

/// A browser whose session lives.
pub struct Shopper {
    /// It.
    pub visitor: Visitor,
    /// Of the session.
    pub token: String,
    /// As it was read for this request.
    pub session: Reply<v1::Session>,
}

impl Visitor {
    /// The session's token; whether it lives is not asked.
    pub fn token(&self) -> Result<&str, Problem> {
        self.token.as_deref().ok_or_else(session_ended)
    }

    /// The form's name: long enough for nobody to find it.
    pub fn form_nonce(&self) -> Result<&str, Problem> {
        let nonce = self.nonce.as_deref();
        let nonce = nonce.filter(|nonce| nonce.len() >= limits::NONCE_MIN_BYTES);
        nonce.ok_or_else(|| {
            let least = limits::NONCE_MIN_BYTES;
            Problem::malformed(format!(
                "a form needs an {IDEMPOTENCY_KEY} of {least} bytes"
            ))
        })
    }
}

impl Shopper {
    /// Who is logged in.
    pub fn user(&self) -> Option<&str> {
        Some(self.session.user_id.as_str()).filter(|user| !user.is_empty())
    }

    /// The same, where a guest has no business.
    pub fn logged_in(&self) -> Result<&str, Problem> {
        self.user().ok_or_else(|| {
            let detail = "log in first";
            Problem::new(StatusCode::FORBIDDEN, "NOT_LOGGED_IN", detail)
        })
    }

    /// Whose cart it fills.
    pub fn owner(&self) -> CartOwner {
        match self.user() {
            Some(user) => CartOwner::User(user.to_owned()),
            None => CartOwner::Session(self.token.clone()),
        }
    }

    /// The id of this request, if it has a name.
    pub fn request_id(&self, what: &str) -> Option<String> {
        let nonce = self.visitor.nonce.as_deref()?;
        Some(derive(what, &[&self.token, nonce]))
    }
}

/// What a page must show for the session of this token.
pub fn csrf_token(token: &str) -> String {
    derive("csrf", &[token])
}

/// Refuses what no page of ours has sent.
pub async fn protect(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let Some(shop) = &app.shop else {
        return Problem::no_route().into_response();
    };
    let visitor = match visitor(&app, shop, &request) {
        Ok(visitor) => visitor,
        Err(problem) => return problem.into_response(),
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && let Err(problem) = check(&request, visitor.token.as_deref()) {
        return problem.into_response();
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

fn visitor(app: &App, shop: &Shop, request: &Request) -> Result<Visitor, Problem> {
    let headers = request.headers();
    let address = front::address(request, app.protection.forwarded_for);
    Ok(Visitor {
        client: shop.client.clone(),
        token: shop.cookies.session(headers),
        device: shop.cookies.device(headers),
        network: network(address),
        browser: browser(headers),
        nonce: nonce(headers)?,
    })
}

fn browser(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    let text = text.filter(|text| !text.is_empty()).unwrap_or("unknown");
    text.chars().take(limits::BROWSER_BYTES).collect()
}

fn nonce(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let nonce = value.to_str().ok();
    let nonce = nonce.filter(|nonce| (1..=limits::IDEMPOTENCY_KEY_BYTES).contains(&nonce.len()));
    let malformed = || Problem::malformed(format!("{IDEMPOTENCY_KEY} must be visible ASCII"));
    nonce
        .map(|nonce| Some(nonce.to_owned()))
        .ok_or_else(malformed)
}

fn check(request: &Request, token: Option<&str>) -> Result<(), Problem> {
    let headers = request.headers();
    if !is_same_origin(headers) {
        let detail = "the request does not come from a page of this shop";
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "FOREIGN_ORIGIN",
            detail,
        ));
    }
    if request.uri().path() == BEGIN {
        return Ok(());
    }
    let shown = headers.get(CSRF).map(http::HeaderValue::as_bytes);
    // Without a session there is nothing to protect: the route says so.
    let expected = csrf_token(token.ok_or_else(session_ended)?);
    if shown == Some(expected.as_bytes()) {
        return Ok(());
    }
    let detail = "the request does not show the session's CSRF token";
    Err(Problem::new(StatusCode::FORBIDDEN, "CSRF_TOKEN", detail))
}

/// Whatever the browser says must say so, and it must say something.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE);
    let origin = headers.get(ORIGIN);
    let is_same_site = site.is_none_or(|site| site == "same-origin");
    let is_ours = origin.is_none_or(|origin| is_host(origin.as_bytes(), headers));
    is_same_site && is_ours && (site.is_some() || origin.is_some())
}

fn is_host(origin: &[u8], headers: &HeaderMap) -> bool {
    let authority = [&b"https://"[..], b"http://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(*scheme));
    authority.is_some() && authority == headers.get(HOST).map(http::HeaderValue::as_bytes)
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        let visitor = parts.extensions.get::<Self>().cloned();
        visitor.ok_or_else(Problem::no_route)
    }
}

impl FromRequestParts<Arc<App>> for Shopper {
    type Rejection = Problem;

    /// Reads the session, and says that it was seen.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let visitor = Visitor::from_request_parts(parts, app).await?;
        let token = visitor.token()?.to_owned();
        let session = visitor.client.sessions().get(&token).touch().send().await;
        let session = session.map_err(|error| {
            if error.is_not_found() {
                session_ended()
            } else {
                error.into()
            }
        })?;
        Ok(Self {
            visitor,
            token,
            session,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri(path).header(HOST, "shop.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("it is well formed")
    }

    fn reason(path: &str, headers: &[(&str, &str)], token: Option<&str>) -> Option<String> {
        let checked = check(&request(path, headers), token);
        checked.err().map(|problem| problem.reason().to_owned())
    }

    #[test]
    fn only_pages_of_this_origin_change_anything() {
        let csrf = csrf_token(TOKEN);
        let of = |headers: &[(&str, &str)]| {
            let headers = [headers, &[(CSRF, csrf.as_str())]].concat();
            reason("/cart/lines", &headers, Some(TOKEN))
        };
        let ours = ("origin", "https://shop.example");
        assert_eq!(of(&[(FETCH_SITE, "same-origin")]), None);
        assert_eq!(of(&[ours]), None);
        assert_eq!(of(&[ours, (FETCH_SITE, "same-origin")]), None);
        for foreign in [
            &[][..],
            &[(FETCH_SITE, "cross-site")],
            &[(FETCH_SITE, "same-site")],
            &[(FETCH_SITE, "none")],
            &[ours, (FETCH_SITE, "cross-site")],
            &[("origin", "null")],
            &[("origin", "https://shop.example.evil.example")],
            &[
                ("origin", "https://evil.example"),
                (FETCH_SITE, "same-origin"),
            ],
            &[("origin", "ftp://shop.example")],
        ] {
            assert_eq!(
                of(foreign).as_deref(),
                Some("FOREIGN_ORIGIN"),
                "{foreign:?}"
            );
        }
    }

    #[test]
    fn the_token_of_another_session_is_none() {
        let ours = ("origin", "https://shop.example");
        let other = csrf_token("BBBBBBBBBBBBBBBBBBBBBBBB");
        let of = |shown: &str| reason("/cart/lines", &[ours, (CSRF, shown)], Some(TOKEN));
        assert_eq!(of(&csrf_token(TOKEN)), None);
        for shown in [&other, "", TOKEN] {
            assert_eq!(of(shown).as_deref(), Some("CSRF_TOKEN"), "{shown}");
        }
        let without = reason("/cart/lines", &[ours], Some(TOKEN));
        assert_eq!(without.as_deref(), Some("CSRF_TOKEN"));
        let no_session = reason("/cart/lines", &[ours, (CSRF, &other)], None);
        assert_eq!(no_session.as_deref(), Some("SESSION_ENDED"));
        assert_eq!(reason(BEGIN, &[ours], None), None);
        assert_eq!(reason(BEGIN, &[], None).as_deref(), Some("FOREIGN_ORIGIN"));
    }
}
