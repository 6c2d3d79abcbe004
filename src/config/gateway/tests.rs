//! Flags of `trolley gateway`, good and bad.

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Typed {
    #[command(flatten)]
    args: GatewayArgs,
}

const NEEDED: &[&str] = &[
    "--jwt-keys",
    "keys.json",
    "--jwt-audience",
    "shop",
    "--jwt-issuer",
    "https://id.example",
];

fn config(flags: &[&str]) -> Result<GatewayConfig, Error> {
    let typed = Typed::try_parse_from([&["gateway"], flags].concat());
    GatewayConfig::try_from(typed.expect("the flags are known").args)
}

fn with(flags: &[&str]) -> Result<GatewayConfig, Error> {
    config(&[NEEDED, flags].concat())
}

#[test]
fn what_is_needed_is_enough() {
    let config = with(&[]).expect("the defaults fit");
    let file = KeyPlace::File("keys.json".into());
    assert_eq!(config.tokens.keys, file);
    let algorithms = [
        JwtAlgorithm::Rs256,
        JwtAlgorithm::Es256,
        JwtAlgorithm::EdDsa,
    ];
    assert_eq!(
        config.tokens.algorithms, algorithms,
        "no secret unless asked for"
    );
    assert!(config.protection.cors_origins.is_empty());
    assert_eq!(config.protection.rate_per_namespace, None);
}

#[test]
fn each_setting_that_makes_no_sense_names_its_flag() {
    let table: &[(&[&str], &str)] = &[
        (&["--jwt-leeway", "10m"], "--jwt-leeway"),
        (&["--jwt-keys-max-age", "0s"], "--jwt-keys-max-age"),
        (&["--jwt-scope-claim", ""], "--jwt-scope-claim"),
        (&["--jwt-scope-claim", "aud"], "--jwt-scope-claim"),
        (&["--jwt-namespace-claim", "sub"], "--jwt-namespace-claim"),
        (&["--jwt-namespace-claim", "iss"], "--jwt-namespace-claim"),
        (&["--max-requests", "0"], "--max-requests"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--request-timeout", "1h"], "--request-timeout"),
        (&["--cors-origins", "*"], "--cors-origins"),
        (&["--cors-origins", "https://a.example/x"], "--cors-origins"),
        (&["--log-filter", "=="], "--log-filter"),
        (&["--name", "a b"], "--name"),
        (&["--shop", "no/namespace"], "--shop"),
        (
            &["--cookies-over-http", "--listen", "0.0.0.0:8080"],
            "--cookies-over-http",
        ),
        (
            &["--cookies-over-http", "--listen", "shop.example:8080"],
            "--cookies-over-http",
        ),
    ];
    for (flags, named) in table {
        let error = with(flags).expect_err("it makes no sense").to_string();
        assert!(error.contains(named), "{flags:?}: {error}");
    }
}

#[test]
fn a_shop_is_there_if_it_is_asked_for_and_its_cookies_need_tls() {
    assert_eq!(with(&[]).expect("the defaults fit").shop, None);
    let of = |flags: &[&str]| {
        let config = with(flags).expect("it fits");
        config.shop.expect("there is one")
    };
    assert_eq!(of(&["--shop", "tea"]).namespace, "tea");
    assert_eq!(of(&["--shop", "tea"]).cookies, CookieTransport::Tls);
    for listen in ["127.0.0.1:8080", "[::1]:8080", "localhost:8080"] {
        let flags = ["--shop", "tea", "--cookies-over-http", "--listen", listen];
        assert_eq!(of(&flags).cookies, CookieTransport::PlainHttp, "{listen}");
    }
}

#[test]
fn whose_tokens_are_taken_must_be_said() {
    for left_out in ["--jwt-keys", "--jwt-audience", "--jwt-issuer"] {
        let pairs = NEEDED.chunks(2).filter(|pair| pair[0] != left_out);
        let flags: Vec<_> = pairs.flatten().copied().collect();
        let error = config(&flags).expect_err("it is needed").to_string();
        assert!(error.contains(left_out), "{error}");
    }
}

#[test]
fn key_sets_are_fetched_over_http() {
    let of = |url| config(&[&["--jwt-jwks-url", url], &NEEDED[2..]].concat());
    assert!(of("https://id.example/jwks").is_ok());
    for url in ["id.example", "ftp://id.example/jwks", "/jwks", ""] {
        let error = of(url).expect_err("it is no such URL").to_string();
        assert!(error.contains("--jwt-jwks-url"), "{url}: {error}");
    }
}
