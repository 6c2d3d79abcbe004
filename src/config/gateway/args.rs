//! `trolley gateway`: its flags as they are typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::switch::switch;
use crate::config::{DEFAULT_ENDPOINTS, ProcessArgs};

/// A way to sign tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: one secret signs and checks.
    #[value(name = "HS256")]
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    #[value(name = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519.
    #[value(name = "EdDSA")]
    EdDsa,
}

/// Runs a gateway: REST and JSON over HTTP, for callers who show a JWT.
///
/// It keeps nothing, on disk or between requests, so any number of them may stand behind any load balancer. It needs the
/// cluster's endpoints, keys to check tokens with, and whom those tokens come from and are meant for.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// Any of the cluster's members, separated by commas; the others are found.
    #[arg(
        long,
        env = "TROLLEY_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = DEFAULT_ENDPOINTS
    )]
    pub endpoints: Vec<String>,

    /// Address to accept connections on. TLS is the load balancer's.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: String,

    /// File with the keys that tokens are checked with: a JWK set, a public key as PEM, or, where --jwt-algorithms is HS256
    /// alone, a secret of at least 32 bytes. It is read again now and then, and when a token names a key that is not in it.
    #[arg(
        long,
        env = "TROLLEY_JWT_KEYS",
        value_name = "FILE",
        conflicts_with = "jwt_jwks_url"
    )]
    pub jwt_keys: Option<PathBuf>,

    /// The same at a URL, which serves a JWK set. While it cannot be reached the keys that are known stay valid.
    #[arg(long, env = "TROLLEY_JWT_JWKS_URL", value_name = "URL")]
    pub jwt_jwks_url: Option<String>,

    /// How old the known keys may become before they are read again.
    #[arg(long, env = "TROLLEY_JWT_KEYS_MAX_AGE", value_name = "DURATION", default_value = "5m",
          value_parser = humantime::parse_duration)]
    pub jwt_keys_max_age: Duration,

    /// Least time between two readings that unknown keys cause.
    #[arg(long, env = "TROLLEY_JWT_KEYS_MIN_AGE", value_name = "DURATION", default_value = "10s",
          value_parser = humantime::parse_duration)]
    pub jwt_keys_min_age: Duration,

    /// Algorithms that tokens may be signed with, separated by commas.
    #[arg(
        long,
        env = "TROLLEY_JWT_ALGORITHMS",
        value_name = "ALG,…",
        value_delimiter = ',',
        default_value = "RS256,ES256,EdDSA",
        value_enum
    )]
    pub jwt_algorithms: Vec<JwtAlgorithm>,

    /// Whom tokens must be meant for (`aud`).
    #[arg(long, env = "TROLLEY_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,

    /// Whom tokens must come from (`iss`).
    #[arg(long, env = "TROLLEY_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,

    /// How far the issuer's clock and this one may be apart.
    #[arg(long, env = "TROLLEY_JWT_LEEWAY", value_name = "DURATION", default_value = "30s",
          value_parser = humantime::parse_duration)]
    pub jwt_leeway: Duration,

    /// The claim that names the namespace; a token without it is about the namespace `default`.
    #[arg(
        long,
        env = "TROLLEY_JWT_NAMESPACE_CLAIM",
        value_name = "CLAIM",
        default_value = "namespace"
    )]
    pub jwt_namespace_claim: String,

    /// The claim that lists what the caller may do: words separated by spaces, or an array of them.
    #[arg(
        long,
        env = "TROLLEY_JWT_SCOPE_CLAIM",
        value_name = "CLAIM",
        default_value = "scope"
    )]
    pub jwt_scope_claim: String,

    /// Serve a shop for browsers at /shop, and a console at /console: accounts, sessions and carts are in this namespace,
    /// which should be the shop's alone.
    #[arg(long, env = "TROLLEY_GATEWAY_SHOP", value_name = "NAMESPACE")]
    pub shop: Option<String>,

    /// Let browsers send the shop's cookie without TLS: only for a demo, on a loopback address.
    #[arg(long, env = "TROLLEY_GATEWAY_COOKIES_OVER_HTTP", value_parser = switch)]
    pub cookies_over_http: bool,

    /// What the shop's answers call this gateway [default: the address that it listens on].
    #[arg(long, env = "TROLLEY_GATEWAY_NAME", value_name = "NAME")]
    pub name: Option<String>,

    /// Requests under way at which the last of them are refused: those that matter less are refused earlier, and those of one
    /// user, or of one network address without a token, at an eighth.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_MAX_REQUESTS",
        value_name = "N",
        default_value_t = 1024
    )]
    pub max_requests: usize,

    /// Connections that are served at a time; more are closed at once.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 16_384
    )]
    pub max_connections: usize,

    /// Event streams at a time, of which one user, or one network address without a token, has an eighth.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_MAX_WATCHES",
        value_name = "N",
        default_value_t = 1024
    )]
    pub max_watches: usize,

    /// Requests a second of one user, of which as many may come at once; 0 for any number.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_RATE_PER_USER",
        value_name = "N",
        default_value_t = 200
    )]
    pub rate_per_user: u32,

    /// Requests a second of one namespace, of which as many may come at once; 0 for any number.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_RATE_PER_NAMESPACE",
        value_name = "N",
        default_value_t = 0
    )]
    pub rate_per_namespace: u32,

    /// Refused tokens a second of one address, of which as many may come at once; 0 for any number.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_RATE_OF_REFUSALS",
        value_name = "N",
        default_value_t = 20
    )]
    pub rate_of_refusals: u32,

    /// Take the caller's address from the last entry of X-Forwarded-For: only behind a load balancer that writes it.
    #[arg(long, env = "TROLLEY_GATEWAY_FORWARDED_FOR", value_parser = switch)]
    pub forwarded_for: bool,

    /// Origins whose pages may call the API from a browser, separated by commas; none by default.
    #[arg(
        long,
        env = "TROLLEY_GATEWAY_CORS_ORIGINS",
        value_name = "ORIGIN,…",
        value_delimiter = ','
    )]
    pub cors_origins: Vec<String>,

    /// How long one request may take in all.
    #[arg(long, env = "TROLLEY_GATEWAY_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// How long the headers of a request may take to arrive, how long a connection may be idle, and how long a caller may take
    /// nothing of its answer.
    #[arg(long, env = "TROLLEY_GATEWAY_HEADER_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = humantime::parse_duration)]
    pub header_timeout: Duration,

    /// Of any serving process.
    #[command(flatten)]
    pub process: ProcessArgs,
}
