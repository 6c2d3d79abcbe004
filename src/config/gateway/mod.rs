//! What the gateway's flags mean: complete and consistent.

mod args;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::node::check_duration;
use super::{Error, Process};
use crate::limits;
use crate::types::Namespace;

pub use args::{GatewayArgs, JwtAlgorithm};

/// Everything that a gateway needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Members of the cluster.
    pub endpoints: Vec<String>,
    /// Where it accepts connections.
    pub listen: String,
    /// What answers call it.
    pub name: HeaderValue,
    /// For browsers.
    pub shop: Option<ShopConfig>,
    /// Whose tokens it takes.
    pub tokens: Tokens,
    /// What it does not let happen to itself.
    pub protection: Protection,
    /// The process.
    pub process: Process,
}

/// A shop for browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopConfig {
    /// Where everything of it is.
    pub namespace: String,
    /// How browsers reach it.
    pub cookies: CookieTransport,
}

/// What a browser may send a cookie over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieTransport {
    /// TLS, up to the load balancer.
    Tls,
    /// Anything: for demos.
    PlainHttp,
}

/// Which tokens are taken, and what is read out of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Where the keys are.
    pub keys: KeyPlace,
    /// How old known keys may become.
    pub max_age: Duration,
    /// Least time between two readings because of unknown keys.
    pub min_age: Duration,
    /// What tokens may be signed with; not empty.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Whom they must be meant for.
    pub audience: String,
    /// Whom they must come from.
    pub issuer: String,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// The claim that names the namespace.
    pub namespace_claim: String,
    /// The claim that lists scopes.
    pub scope_claim: String,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file.
    File(PathBuf),
    /// Behind a URL of the scheme `http` or `https`.
    Url(Uri),
}

/// Bounds of what callers can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Requests under way.
    pub max_requests: usize,
    /// Connections.
    pub max_connections: usize,
    /// Event streams.
    pub max_watches: usize,
    /// Requests a second of one user; `None` for any number.
    pub rate_per_user: Option<u32>,
    /// The same of one namespace.
    pub rate_per_namespace: Option<u32>,
    /// Refused tokens a second of one address.
    pub rate_of_refusals: Option<u32>,
    /// The caller's address stands in `X-Forwarded-For`.
    pub forwarded_for: bool,
    /// Origins whose pages may call.
    pub cors_origins: Vec<HeaderValue>,
    /// One request in all.
    pub request_timeout: Duration,
    /// The headers of one request, and an idle connection.
    pub header_timeout: Duration,
}

impl TryFrom<GatewayArgs> for GatewayConfig {
    type Error = Error;

    fn try_from(args: GatewayArgs) -> Result<Self, Error> {
        Ok(Self {
            tokens: tokens(&args)?,
            protection: protection(&args)?,
            name: name(&args)?,
            shop: shop(&args)?,
            process: Process::try_from(args.process)?,
            endpoints: args.endpoints,
            listen: args.listen,
        })
    }
}

fn name(args: &GatewayArgs) -> Result<HeaderValue, Error> {
    let name = args.name.as_ref().unwrap_or(&args.listen);
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(name).ok().filter(|_| is_plain);
    value.ok_or_else(|| Error::Malformed {
        flag: "--name",
        value: name.clone(),
        expected: "expected visible ASCII without spaces".to_owned(),
    })
}

fn shop(args: &GatewayArgs) -> Result<Option<ShopConfig>, Error> {
    let cookies = if args.cookies_over_http {
        if !is_loopback(&args.listen) {
            return Err(Error::Malformed {
                flag: "--cookies-over-http",
                value: args.listen.clone(),
                expected: "expected --listen to be a loopback address: elsewhere, who listens has everybody's session"
                    .to_owned(),
            });
        }
        CookieTransport::PlainHttp
    } else {
        CookieTransport::Tls
    };
    let Some(namespace) = &args.shop else {
        return Ok(None);
    };
    let parsed = Namespace::parse(namespace.clone()).map_err(|problem| Error::Malformed {
        flag: "--shop",
        value: namespace.clone(),
        expected: problem.to_string(),
    })?;
    Ok(Some(ShopConfig {
        namespace: parsed.as_str().to_owned(),
        cookies,
    }))
}

fn is_loopback(listen: &str) -> bool {
    let address = listen.parse::<SocketAddr>();
    listen.starts_with("localhost:") || address.is_ok_and(|address| address.ip().is_loopback())
}

fn tokens(args: &GatewayArgs) -> Result<Tokens, Error> {
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let leeway_max = Duration::from_millis(limits::JWT_LEEWAY_MAX_MS);
    check_duration("--jwt-leeway", args.jwt_leeway, Duration::ZERO, leeway_max)?;
    check_duration("--jwt-keys-max-age", args.jwt_keys_max_age, SECOND, DAY)?;
    check_duration(
        "--jwt-keys-min-age",
        args.jwt_keys_min_age,
        SECOND / 10,
        DAY,
    )?;
    if args.jwt_algorithms.is_empty() {
        return Err(Error::Missing {
            flag: "--jwt-algorithms",
            hint: "name at least one of HS256, RS256, ES256 and EdDSA",
        });
    }
    Ok(Tokens {
        keys: key_place(args)?,
        max_age: args.jwt_keys_max_age,
        min_age: args.jwt_keys_min_age,
        algorithms: args.jwt_algorithms.clone(),
        audience: needed("--jwt-audience", args.jwt_audience.as_deref())?,
        issuer: needed("--jwt-issuer", args.jwt_issuer.as_deref())?,
        leeway: args.jwt_leeway,
        namespace_claim: claim("--jwt-namespace-claim", &args.jwt_namespace_claim)?,
        scope_claim: claim("--jwt-scope-claim", &args.jwt_scope_claim)?,
    })
}

fn needed(flag: &'static str, value: Option<&str>) -> Result<String, Error> {
    let value = value.filter(|value| !value.is_empty());
    value.map(str::to_owned).ok_or(Error::Missing {
        flag,
        hint: "a token that is meant for somebody else must not be taken",
    })
}

/// A claim of the caller's own choice. Those that say whether a token is good, and whose it is, are read for that alone: a
/// namespace or scopes would be looked for in vain, and everybody be in `default`.
fn claim(flag: &'static str, name: &str) -> Result<String, Error> {
    const TAKEN: [&str; 5] = ["iss", "sub", "aud", "exp", "nbf"];
    if TAKEN.contains(&name) {
        return Err(Error::Malformed {
            flag,
            value: name.to_owned(),
            expected: format!("expected another claim than {}", TAKEN.join(", ")),
        });
    }
    needed(flag, Some(name))
}

fn key_place(args: &GatewayArgs) -> Result<KeyPlace, Error> {
    if let Some(file) = &args.jwt_keys {
        return Ok(KeyPlace::File(file.clone()));
    }
    let Some(url) = &args.jwt_jwks_url else {
        return Err(Error::Missing {
            flag: "--jwt-keys",
            hint: "name a file with keys to check tokens with, or a URL with --jwt-jwks-url",
        });
    };
    let uri = url.parse::<Uri>().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    uri.map(KeyPlace::Url).ok_or_else(|| Error::Malformed {
        flag: "--jwt-jwks-url",
        value: url.clone(),
        expected: "expected http://… or https://…".to_owned(),
    })
}

fn protection(args: &GatewayArgs) -> Result<Protection, Error> {
    const MOST: usize = 1 << 20;
    let shortest = Duration::from_millis(100);
    let longest = Duration::from_millis(limits::REQUEST_DEADLINE_MS);
    check_duration("--request-timeout", args.request_timeout, shortest, longest)?;
    let longest = Duration::from_secs(3600);
    check_duration("--header-timeout", args.header_timeout, shortest, longest)?;
    let some = |rate| Some(rate).filter(|rate| *rate > 0);
    Ok(Protection {
        max_requests: count("--max-requests", args.max_requests, MOST)?,
        max_connections: count("--max-connections", args.max_connections, MOST)?,
        max_watches: count("--max-watches", args.max_watches, MOST)?,
        rate_per_user: some(args.rate_per_user),
        rate_per_namespace: some(args.rate_per_namespace),
        rate_of_refusals: some(args.rate_of_refusals),
        forwarded_for: args.forwarded_for,
        cors_origins: args
            .cors_origins
            .iter()
            .map(|origin| parse_origin(origin))
            .collect::<Result<_, _>>()?,
        request_timeout: args.request_timeout,
        header_timeout: args.header_timeout,
    })
}

fn count(flag: &'static str, number: usize, most: usize) -> Result<usize, Error> {
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(Error::OutOfRange {
        flag,
        actual: number.to_string(),
        min: "1".to_owned(),
        max: most.to_string(),
    })
}

/// A scheme, a host and perhaps a port, and nothing else: so browsers send it. `*` would let every page in.
fn parse_origin(text: &str) -> Result<HeaderValue, Error> {
    let malformed = || Error::Malformed {
        flag: "--cors-origins",
        value: text.to_owned(),
        expected: "expected origins as https://shop.example, without a path".to_owned(),
    };
    let uri: Uri = text.parse().map_err(|_| malformed())?;
    let parts = (uri.scheme_str(), uri.authority());
    let (Some(scheme), Some(authority)) = parts else {
        return Err(malformed());
    };
    if format!("{scheme}://{authority}") != text {
        return Err(malformed());
    }
    HeaderValue::from_str(text).map_err(|_| malformed())
}
