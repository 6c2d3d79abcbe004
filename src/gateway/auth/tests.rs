//! Tokens of every kind, good and bad.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::keys::{KeySet, Origin};
use super::*;
use crate::clock::Clock;
use crate::config::{JwtAlgorithm, KeyPlace};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Seconds since 1970.
const NOW: u64 = 1_800_000_000;
/// How far clocks may be apart.
const LEEWAY: u64 = 30;
pub(super) const ALL: [JwtAlgorithm; 4] = [
    JwtAlgorithm::Hs256,
    JwtAlgorithm::Rs256,
    JwtAlgorithm::Es256,
    JwtAlgorithm::EdDsa,
];
/// What a secret alone is for.
pub(super) const HMAC: [JwtAlgorithm; 1] = [JwtAlgorithm::Hs256];

// Keys that were made for these tests and stand nowhere else.
const EC_PRIVATE: &[u8] = include_bytes!("testdata/ec.private.pem");
const EC_PUBLIC: &str = include_str!("testdata/ec.public.pem");
const ED_PRIVATE: &[u8] = include_bytes!("testdata/ed.private.pem");
const ED_PUBLIC: &str = include_str!("testdata/ed.public.pem");
const RSA_PRIVATE: &[u8] = include_bytes!("testdata/rsa.private.pem");
const RSA_PUBLIC: &str = include_str!("testdata/rsa.public.pem");

struct Gate {
    verifier: Verifier,
    clock: Clock,
    _folder: tempfile::TempDir,
}

async fn gate(keys: &str, algorithms: &[JwtAlgorithm]) -> Gate {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, keys).expect("it can be written");
    let tokens = Tokens {
        keys: KeyPlace::File(file),
        max_age: Duration::from_secs(300),
        min_age: Duration::from_secs(10),
        algorithms: algorithms.to_vec(),
        audience: "shop".to_owned(),
        issuer: "issuer".to_owned(),
        leeway: Duration::from_secs(LEEWAY),
        namespace_claim: "namespace".to_owned(),
        scope_claim: "scope".to_owned(),
    };
    let clock = Clock::manual(NOW * 1000);
    let keyring = keyring(&tokens).await.expect("the keys are well formed");
    Gate {
        verifier: Verifier::new(keyring, tokens, clock.clone()),
        clock,
        _folder: folder,
    }
}

impl Gate {
    fn set_clock(&self, seconds: u64) {
        let Clock::Manual(hand) = &self.clock else {
            panic!("the clock of a test is a manual one");
        };
        hand.store(seconds * 1000, std::sync::atomic::Ordering::Relaxed);
    }

    async fn refusal(&self, token: &str) -> Refusal {
        let caller = self.verifier.caller(token).await;
        caller.map(|caller| format!("{caller:?}")).expect_err(token)
    }
}

fn claims() -> Value {
    json!({
        "iss": "issuer", "aud": "shop", "sub": "ada", "exp": NOW + 60,
        "scope": "cart:read key:write", "namespace": "eu",
    })
}

/// The claims with this in place of what is usual; `null` takes it away.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().expect("claims are an object");
    map.remove(name);
    if !value.is_null() {
        map.insert(name.to_owned(), value);
    }
    claims
}

/// A secret, as it stands in a set.
fn jwk(id: &str, secret: &str) -> Value {
    json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret), "kid": id})
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).expect("the key fits")
}

fn with_secret(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    signed(&Header::new(Algorithm::HS256), claims, &key)
}

/// A token with these parts, signed by nobody.
fn forged(header: &Value, claims: &Value, signature: &str) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

#[tokio::test]
async fn each_algorithm_is_taken_with_its_own_key_where_it_is_allowed() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    let ec = EncodingKey::from_ec_pem(EC_PRIVATE).expect("a key");
    let ed = EncodingKey::from_ed_pem(ED_PRIVATE).expect("a key");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let set = json!({"keys": [jwk("secret", SECRET)]}).to_string();
    let table = [
        (JwtAlgorithm::Hs256, Algorithm::HS256, secret, set.as_str()),
        (JwtAlgorithm::Rs256, Algorithm::RS256, rsa, RSA_PUBLIC),
        (JwtAlgorithm::Es256, Algorithm::ES256, ec, EC_PUBLIC),
        (JwtAlgorithm::EdDsa, Algorithm::EdDSA, ed, ED_PUBLIC),
    ];
    for (ours, algorithm, private, public) in &table {
        let token = signed(&Header::new(*algorithm), &claims(), private);
        let caller = gate(public, &[*ours]).await.verifier.caller(&token).await;
        let caller = caller.expect("it is good");
        assert_eq!(caller.user.as_str(), "ada");
        assert_eq!(caller.namespace.as_str(), "eu");
        assert_eq!(caller.scopes, Scopes::of_words(["cart:read", "key:write"]));
        for (other, _, _, foreign) in &table {
            if other != ours {
                let without_key = gate(foreign, &ALL).await;
                assert_eq!(without_key.refusal(&token).await, Refusal::Key);
                let forbidding = gate(foreign, &[*other]).await;
                assert_eq!(forbidding.refusal(&token).await, Refusal::Algorithm);
            }
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    // Whoever knows the public key could sign with it, if the token were to choose the algorithm.
    let key = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let token = signed(&Header::new(Algorithm::HS256), &claims(), &key);
    let gate = gate(RSA_PUBLIC, &ALL).await;
    assert_eq!(gate.refusal(&token).await, Refusal::Key);
}

#[tokio::test]
async fn what_is_no_signed_token_is_refused() {
    let gate = gate(SECRET, &HMAC).await;
    let good = with_secret(&claims());
    assert!(gate.verifier.caller(&good).await.is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let none = json!({"alg": "none", "typ": "JWT"});
    let hs256 = json!({"alg": "HS256"});
    let critical = json!({"alg": "HS256", "crit": ["exp"]});
    let longer = format!("{good}{}", "A".repeat(crate::limits::JWT_BYTES));
    let table = [
        (String::new(), Refusal::Malformed),
        ("a.b.c".to_owned(), Refusal::Malformed),
        (format!("{}.{}", parts[0], parts[1]), Refusal::Malformed),
        (forged(&none, &claims(), ""), Refusal::Malformed),
        (
            forged(&json!({"alg": "NONE"}), &claims(), parts[2]),
            Refusal::Malformed,
        ),
        (
            forged(&json!({"alg": "HS512"}), &claims(), parts[2]),
            Refusal::Algorithm,
        ),
        (forged(&hs256, &claims(), ""), Refusal::Signature),
        (forged(&hs256, &claims(), parts[2]), Refusal::Signature),
        (forged(&critical, &claims(), parts[2]), Refusal::Malformed),
        (format!("{}.{}.", parts[0], parts[1]), Refusal::Signature),
        (longer, Refusal::Malformed),
    ];
    for (token, refusal) in table {
        assert_eq!(gate.refusal(&token).await, refusal, "{token:.80}");
    }
    let header = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = signed(&header, &claims(), &key);
    assert_eq!(
        gate.refusal(&token).await,
        Refusal::Malformed,
        "well signed"
    );
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused() {
    let gate = gate(SECRET, &HMAC).await;
    let table = [
        ("exp", Value::Null, Refusal::Expired),
        ("exp", json!(NOW - LEEWAY), Refusal::Expired),
        ("exp", json!(0), Refusal::Expired),
        ("nbf", json!(NOW + LEEWAY + 1), Refusal::Early),
        ("aud", Value::Null, Refusal::Audience),
        ("aud", json!("other"), Refusal::Audience),
        ("aud", json!(["other", "another"]), Refusal::Audience),
        ("iss", Value::Null, Refusal::Issuer),
        ("iss", json!("other"), Refusal::Issuer),
        ("sub", Value::Null, Refusal::Subject),
        ("sub", json!(""), Refusal::Subject),
        ("sub", json!("x".repeat(1000)), Refusal::Subject),
        ("namespace", json!("a b"), Refusal::Namespace),
        ("namespace", json!(""), Refusal::Namespace),
        ("namespace", json!(7), Refusal::Namespace),
        ("scope", json!(7), Refusal::Scopes),
        ("scope", json!([7]), Refusal::Scopes),
        // What is no claim set at all does not get as far.
        ("exp", json!("tomorrow"), Refusal::Signature),
        ("sub", json!(7), Refusal::Signature),
    ];
    for (name, value, refusal) in table {
        let token = with_secret(&claims_with(name, value.clone()));
        assert_eq!(gate.refusal(&token).await, refusal, "{name} {value}");
    }
}

#[tokio::test]
async fn claims_that_issuers_write_differently_are_understood() {
    let gate = gate(SECRET, &HMAC).await;
    let take = async |name, value: Value| {
        let token = with_secret(&claims_with(name, value.clone()));
        let caller = gate.verifier.caller(&token).await;
        caller.unwrap_or_else(|refusal| panic!("{name} {value}: {refusal:?}"))
    };
    take("aud", json!(["other", "shop"])).await;
    take("exp", json!(1_800_000_000.5)).await;
    take("nbf", json!(NOW + LEEWAY)).await;
    take("exp", json!(NOW - LEEWAY + 1)).await;
    let listed = take("scope", json!(["key:read", "openid"])).await;
    assert_eq!(listed.scopes, Scopes::of_words(["key:read"]));
    assert_eq!(take("scope", Value::Null).await.scopes, Scopes::default());
    let nowhere = take("namespace", Value::Null).await;
    assert_eq!(nowhere.namespace, Namespace::default());
}

#[tokio::test]
async fn a_token_that_was_good_is_not_good_for_ever() {
    let gate = gate(SECRET, &HMAC).await;
    let token = with_secret(&claims());
    assert!(gate.verifier.caller(&token).await.is_ok());
    gate.set_clock(NOW + 60 + LEEWAY);
    assert_eq!(gate.refusal(&token).await, Refusal::Expired);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_tokens_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, SECRET).expect("it can be written");
    let mut gate = gate(SECRET, &HMAC).await;
    let source = source::Source::new(KeyPlace::File(file.clone()), &HMAC);
    let source = source.expect("a file needs nothing");
    let keyring = Keyring::new(source, Duration::from_secs(300), Duration::ZERO);
    let keyring = Arc::new(keyring);
    keyring.read().await.expect("it is a secret");
    gate.verifier.use_keyring(Arc::clone(&keyring));
    let token = with_secret(&claims());
    assert!(gate.verifier.caller(&token).await.is_ok());
    std::fs::write(&file, SECRET.to_uppercase()).expect("it can be written");
    keyring.read().await.expect("it is a secret");
    assert_eq!(gate.refusal(&token).await, Refusal::Signature);
}

#[tokio::test]
async fn a_token_may_name_its_key() {
    let set = json!({"keys": [jwk("old", &SECRET.to_uppercase()), jwk("new", SECRET)]});
    assert!(KeySet::parse(set.to_string().as_bytes(), Origin::File, &ALL).is_ok());
    let gate = gate(&set.to_string(), &ALL).await;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let named = |id: Option<&str>| {
        let header = Header {
            kid: id.map(str::to_owned),
            ..Header::new(Algorithm::HS256)
        };
        signed(&header, &claims(), &key)
    };
    assert!(gate.verifier.caller(&named(Some("new"))).await.is_ok());
    assert!(
        gate.verifier.caller(&named(None)).await.is_ok(),
        "each key is tried"
    );
    assert_eq!(gate.refusal(&named(Some("old"))).await, Refusal::Signature);
    assert_eq!(gate.refusal(&named(Some("other"))).await, Refusal::Key);
}
