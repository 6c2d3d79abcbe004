//! What every request passes on its way to a route, and every answer on its way back.
//!
//! ```text
//! request ─▶ CORS, if it is on ─▶ id, span, metrics, headers ─▶ token, rates ─▶ places ─▶ time limit ─▶ route
//!                                 └─ observe ──────────────┘   └─ let_in ───────────────────────┘
//! ```
//!
//! All of that is one layer around the routes, because each of them costs a request more than what most of these steps do.
//!
//! Nothing under `/v1` is answered without a good token, not even that there is no such route.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::App;
use super::auth::{Caller, Refusal};
use super::problem::Problem;
use super::protect::{Class, Party, Shed, network, secure};

/// Names a request in logs, here and at the load balancer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller.
const REQUEST_ID_BYTES: usize = 64;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whoever is at the other end of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Closes the connection when it is cancelled.
    pub connection: CancellationToken,
}

impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        // Whoever reads requests has put it there.
        let peer = parts.extensions.get::<Self>().cloned();
        peer.ok_or_else(Problem::no_route)
    }
}

/// Gives a request its id and its span, and counts what became of it.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    // Neither path nor query: they may name users.
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let class = Class::of(&method, route);
    let answer = let_in(&app, class, request, next).instrument(span.clone());
    let mut response = answer.await;
    let (status, took) = (response.status(), started.elapsed());
    app.metrics.answered(&method, route, status, took);
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ?took, "answered"));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    secure(headers);
    response
}

/// The caller's, if it can stand in a log as it is.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(is_plain)
    };
    let own = headers.get(REQUEST_ID);
    own.filter(is_plain).cloned().unwrap_or_else(|| {
        let mut digits = [0; uuid::fmt::Simple::LENGTH];
        let drawn = uuid::Uuid::new_v4().simple().encode_lower(&mut digits);
        HeaderValue::from_str(drawn).expect("hexadecimal digits are visible ASCII")
    })
}

/// Lets nobody into `/v1` without a good token, or too often.
async fn let_in(app: &App, class: Class, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_guarded = path == "/v1" || path.starts_with("/v1/");
    if !is_guarded {
        return next.run(request).await;
    }
    let address = address(&request, app.protection.forwarded_for);
    let caller = match identify(app, address, bearer(request.headers())).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let party = Party::of(&caller);
    if !app.rates.take(&party) || !app.namespace_rates.take(&caller.namespace) {
        return limited(app).into_response();
    }
    request.extensions_mut().insert(caller);
    admitted(app, class, party, next.run(request)).await
}

async fn identify(
    app: &App,
    address: Option<IpAddr>,
    token: Result<&str, Refusal>,
) -> Result<Arc<Caller>, Problem> {
    let caller = match token {
        Ok(token) => match app.verifier.remembered(token) {
            Some(known) => known,
            // Whoever keeps trying bad tokens waits, whatever the next one is. Others with the same address go on, with
            // tokens that were good before.
            None if address.is_some_and(|address| !app.refusal_rates.has(&address)) => {
                return Err(limited(app));
            }
            None => app.verifier.caller(token).await,
        },
        Err(refusal) => Err(refusal),
    };
    caller.map_err(|refusal| {
        app.metrics.refused(refusal);
        tracing::debug!(reason = refusal.name(), "a token was refused");
        if let Some(address) = &address {
            app.refusal_rates.take(address);
        }
        Problem::unauthenticated()
    })
}

/// Whoever calls too often is told so.
fn limited(app: &App) -> Problem {
    app.metrics.limited();
    let detail = "too many requests of this caller, in a second or at a time: wait";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail).retryable()
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Absent)?;
    // Two of them would be read differently by whoever reads but one.
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let text = value.to_str().map_err(|_| Refusal::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(Refusal::Malformed)
    }
}

/// Where the request comes from. What a caller writes into the header stands before what the load balancer adds.
pub fn address(request: &Request, forwarded: bool) -> Option<IpAddr> {
    if forwarded {
        let last = request.headers().get_all(FORWARDED_FOR).iter().next_back();
        let text = last.and_then(|value| value.to_str().ok());
        let entry = text.and_then(|text| text.rsplit(',').next());
        if let Some(address) = entry.and_then(|entry| entry.trim().parse().ok()) {
            return Some(address);
        }
    }
    let peer = request.extensions().get::<Peer>();
    peer.map(|peer| peer.address.ip())
}

/// The same places for what needs no token, and a rate for each network that it is asked from.
pub async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let party = Party::Network(network(address(&request, app.protection.forwarded_for)));
    if !app.rates.take(&party) {
        return limited(&app).into_response();
    }
    let route = request.extensions().get::<MatchedPath>();
    let class = Class::of(request.method(), route.map_or("none", MatchedPath::as_str));
    admitted(&app, class, party, next.run(request)).await
}

/// Refuses what there is no place for, and bounds how long the rest may take.
async fn admitted(
    app: &App,
    class: Class,
    party: Party,
    answer: impl Future<Output = Response>,
) -> Response {
    let _place = match app.admission.admit(class, Arc::new(party)) {
        Ok(place) => place,
        Err(Shed::Share) => return limited(app).into_response(),
        Err(Shed::All) => return overloaded(app, class).into_response(),
    };
    within(app.protection.request_timeout, answer).await
}

fn overloaded(app: &App, class: Class) -> Problem {
    app.metrics.shed(class);
    let detail = "this gateway has as many requests as it takes: wait, or use another";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail).retryable()
}

async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Response {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Problem::too_slow().into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::default();
        for (name, value) in headers {
            let headers = request.headers_mut();
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = Peer {
            address: ([10, 0, 0, 9], 4711).into(),
            connection: CancellationToken::new(),
        };
        request.extensions_mut().insert(peer);
        request
    }

    #[test]
    fn a_token_is_given_once_and_as_a_bearer() {
        let of = |headers: &[(&'static str, &'static str)]| {
            bearer(request(headers).headers()).map(str::to_owned)
        };
        assert_eq!(of(&[("authorization", "Bearer abc")]), Ok("abc".to_owned()));
        assert_eq!(of(&[("authorization", "bearer abc")]), Ok("abc".to_owned()));
        assert_eq!(of(&[]), Err(Refusal::Absent));
        for text in ["abc", "Basic abc", "Bearer"] {
            assert_eq!(
                of(&[("authorization", text)]),
                Err(Refusal::Malformed),
                "{text}"
            );
        }
        let twice = [
            ("authorization", "Bearer abc"),
            ("authorization", "Bearer abc"),
        ];
        assert_eq!(of(&twice), Err(Refusal::Malformed));
    }

    #[test]
    fn only_the_load_balancer_says_where_a_request_comes_from() {
        let of = |headers: &[(&'static str, &'static str)], forwarded| {
            address(&request(headers), forwarded).map(|ip| ip.to_string())
        };
        let spoofed = [("x-forwarded-for", "1.1.1.1, 2.2.2.2")];
        assert_eq!(of(&spoofed, false).as_deref(), Some("10.0.0.9"));
        assert_eq!(of(&spoofed, true).as_deref(), Some("2.2.2.2"));
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        assert_eq!(of(&lines, true).as_deref(), Some("2.2.2.2"));
        assert_eq!(
            of(&[("x-forwarded-for", "nonsense")], true).as_deref(),
            Some("10.0.0.9")
        );
        assert_eq!(of(&[], true).as_deref(), Some("10.0.0.9"));
    }

    #[test]
    fn an_id_that_cannot_stand_in_a_log_is_replaced() {
        let of = |id| request_id(request(&[("x-request-id", id)]).headers());
        assert_eq!(of("abc-1.2_3"), "abc-1.2_3");
        for id in ["", "a b", "a\u{7f}", "x=\"y\""] {
            let Ok(value) = HeaderValue::from_str(id) else {
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, value);
            assert_ne!(request_id(&headers), id, "{id:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
