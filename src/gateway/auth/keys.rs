//! Keys that tokens are checked with, as they stand in a file or behind a URL.
//!
//! Each key has one algorithm, whatever a token says: so an RSA key can never be taken for the secret of an HMAC.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, OctetKeyParameters, PublicKeyUse,
};

use crate::config::JwtAlgorithm;
use crate::limits;

/// One key.
pub struct Key {
    /// Its name, `kid`. A key without one may be any token's.
    pub id: Option<String>,
    /// What it checks.
    pub algorithm: JwtAlgorithm,
    /// The key itself.
    pub material: DecodingKey,
}

/// All of them; there is at least one.
pub struct KeySet(Vec<Key>);

/// Whoever reads keys must know who could have written them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file of whoever runs the gateway: it may hold a secret.
    File,
    /// A URL: what stands there is public, and a secret there would be none.
    Url,
}

/// Why keys cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Too many bytes.
    #[error("it is larger than {} bytes", limits::JWT_KEY_SET_BYTES)]
    TooLarge,
    /// Too many keys.
    #[error("it has more than {} keys", limits::JWT_KEYS)]
    TooMany,
    /// It begins like a JWK set.
    #[error("it is not a JWK set: {0}")]
    NoSet(String),
    /// It begins like PEM.
    #[error("its PEM is not a public key for RS256 (of at least 2048 bits), ES256 or EdDSA")]
    BadPem,
    /// A secret that can be guessed.
    #[error("a secret has at least {} bytes", limits::JWT_SECRET_MIN_BYTES)]
    ShortSecret,
    /// Nothing that can be used.
    #[error("it has no key for RS256, ES256, EdDSA or HS256")]
    NoKeys,
}

impl KeySet {
    /// A JWK set, PEM, or (in a file) a secret.
    pub fn parse(bytes: &[u8], origin: Origin) -> Result<Self, BadKeys> {
        if bytes.len() > limits::JWT_KEY_SET_BYTES {
            return Err(BadKeys::TooLarge);
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
        let keys = if text.starts_with('{') {
            of_set(text, origin)?
        } else if origin == Origin::Url {
            return Err(BadKeys::NoSet("it does not begin with {".to_owned()));
        } else if text.contains("-----BEGIN") {
            of_pem(text)?
        } else {
            vec![of_secret(bytes.trim_ascii_end())?]
        };
        if keys.len() > limits::JWT_KEYS {
            return Err(BadKeys::TooMany);
        }
        if keys.is_empty() {
            return Err(BadKeys::NoKeys);
        }
        Ok(Self(keys))
    }

    /// Those which may have signed a token that says this of itself.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: JwtAlgorithm,
    ) -> impl Iterator<Item = &'a Key> {
        let is_candidate = move |key: &&Key| {
            let names_fit = match (&key.id, id) {
                (Some(own), Some(wanted)) => own == wanted,
                (None, _) | (_, None) => true,
            };
            names_fit && key.algorithm == algorithm
        };
        self.0.iter().filter(is_candidate)
    }
}

fn of_set(text: &str, origin: Origin) -> Result<Vec<Key>, BadKeys> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_str(text).map_err(|error| BadKeys::NoSet(error.to_string()))?;
    // An issuer has keys for other purposes too, of kinds that nobody here knows.
    let keys = set.keys.into_iter();
    Ok(keys.filter_map(|value| of_jwk(value, origin)).collect())
}

fn of_jwk(value: serde_json::Value, origin: Origin) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            (modulus.len() >= limits::JWT_RSA_MIN_BYTES).then_some(JwtAlgorithm::Rs256)
        }
        AlgorithmParameters::EllipticCurve(curve) => {
            (curve.curve == EllipticCurve::P256).then_some(JwtAlgorithm::Es256)
        }
        AlgorithmParameters::OctetKeyPair(pair) => {
            (pair.curve == EllipticCurve::Ed25519).then_some(JwtAlgorithm::EdDsa)
        }
        AlgorithmParameters::OctetKey(secret) => {
            (origin == Origin::File && is_long(secret)).then_some(JwtAlgorithm::Hs256)
        }
        _ => None,
    }?;
    let is_meant = jwk
        .common
        .key_algorithm
        .is_none_or(|meant| of_key_algorithm(meant) == Some(algorithm));
    let material = DecodingKey::from_jwk(&jwk).ok()?;
    (is_for_signatures && is_meant).then_some(Key {
        id: jwk.common.key_id,
        algorithm,
        material,
    })
}

fn is_long(secret: &OctetKeyParameters) -> bool {
    let decoded = URL_SAFE_NO_PAD.decode(&secret.value);
    decoded.is_ok_and(|bytes| bytes.len() >= limits::JWT_SECRET_MIN_BYTES)
}

fn of_key_algorithm(algorithm: KeyAlgorithm) -> Option<JwtAlgorithm> {
    match algorithm {
        KeyAlgorithm::HS256 => Some(JwtAlgorithm::Hs256),
        KeyAlgorithm::RS256 => Some(JwtAlgorithm::Rs256),
        KeyAlgorithm::ES256 => Some(JwtAlgorithm::Es256),
        KeyAlgorithm::EdDSA => Some(JwtAlgorithm::EdDsa),
        _ => None,
    }
}

/// One public key after the other.
fn of_pem(text: &str) -> Result<Vec<Key>, BadKeys> {
    const END: &str = "-----END";
    let mut keys = Vec::new();
    for block in text.split_inclusive(END) {
        let Some(begin) = block.find("-----BEGIN") else {
            continue;
        };
        let block = &block[begin..];
        let label = block.split("-----").nth(1).unwrap_or_default();
        let label = label.trim_start_matches("BEGIN ");
        // A private key would be taken as well, and has no business here.
        if !label.ends_with("PUBLIC KEY") {
            return Err(BadKeys::BadPem);
        }
        let whole = format!("{block} {label}-----\n");
        keys.push(of_public_key(whole.as_bytes()).ok_or(BadKeys::BadPem)?);
    }
    Ok(keys)
}

fn of_public_key(pem: &[u8]) -> Option<Key> {
    let is_long = |key: &DecodingKey| {
        let der = key.try_get_as_bytes();
        der.is_ok_and(|der| der.len() >= limits::JWT_RSA_MIN_BYTES)
    };
    let (algorithm, material) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        (JwtAlgorithm::Rs256, Some(key).filter(is_long)?)
    } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        (JwtAlgorithm::Es256, key)
    } else {
        (JwtAlgorithm::EdDsa, DecodingKey::from_ed_pem(pem).ok()?)
    };
    Some(Key {
        id: None,
        algorithm,
        material,
    })
}

fn of_secret(secret: &[u8]) -> Result<Key, BadKeys> {
    if secret.len() < limits::JWT_SECRET_MIN_BYTES {
        return Err(BadKeys::ShortSecret);
    }
    Ok(Key {
        id: None,
        algorithm: JwtAlgorithm::Hs256,
        material: DecodingKey::from_secret(secret),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POINT: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(text: &str, origin: Origin) -> Result<Vec<(Option<String>, JwtAlgorithm)>, BadKeys> {
        let set = KeySet::parse(text.as_bytes(), origin)?;
        let keys = set.0.into_iter();
        Ok(keys.map(|key| (key.id, key.algorithm)).collect())
    }

    #[test]
    fn a_set_keeps_the_keys_that_it_can_use() {
        let secret = URL_SAFE_NO_PAD.encode(SECRET);
        let set = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": POINT, "y": POINT, "kid": "a"},
            {"kty": "EC", "crv": "P-384", "x": POINT, "y": POINT, "kid": "other curve"},
            {"kty": "EC", "crv": "P-256", "x": POINT, "y": POINT, "kid": "encryption", "use": "enc"},
            {"kty": "OKP", "crv": "Ed25519", "x": POINT, "kid": "b", "alg": "EdDSA", "use": "sig"},
            {"kty": "OKP", "crv": "Ed25519", "x": POINT, "kid": "other algorithm", "alg": "ES256"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
            {"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB"},
            {"kty": "oct", "k": secret, "kid": "c"},
            {"kty": "oct", "k": "c2hvcnQ", "kid": "short secret"},
            {"kty": "quantum", "kid": "unheard of"},
        ]})
        .to_string();
        let of_url = [
            (Some("a".to_owned()), JwtAlgorithm::Es256),
            (Some("b".to_owned()), JwtAlgorithm::EdDsa),
            (None, JwtAlgorithm::Rs256),
        ];
        assert_eq!(parse(&set, Origin::Url).expect("it has keys"), of_url);
        let with_secret = [&of_url[..], &[(Some("c".to_owned()), JwtAlgorithm::Hs256)]].concat();
        assert_eq!(parse(&set, Origin::File).expect("it has keys"), with_secret);
    }

    #[test]
    fn a_secret_is_a_secret_in_a_file_alone() {
        let keys = parse(&format!("{SECRET}\n"), Origin::File).expect("it is long enough");
        assert_eq!(keys, [(None, JwtAlgorithm::Hs256)]);
        assert!(parse(SECRET, Origin::Url).is_err());
        assert_eq!(parse(&SECRET[1..], Origin::File), Err(BadKeys::ShortSecret));
    }

    #[test]
    fn pem_is_of_public_keys() {
        let public = "-----BEGIN PUBLIC KEY-----\n\
             MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\n\
             q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n\
             -----END PUBLIC KEY-----\n";
        let two = [public, public].concat();
        let keys = parse(&two, Origin::File).expect("both are public keys");
        assert_eq!(
            keys,
            [(None, JwtAlgorithm::Es256), (None, JwtAlgorithm::Es256)]
        );
        let private = public.replace("PUBLIC", "PRIVATE");
        assert_eq!(parse(&private, Origin::File), Err(BadKeys::BadPem));
        let damaged = public.replace("MFkw", "AAAA");
        assert_eq!(parse(&damaged, Origin::File), Err(BadKeys::BadPem));
    }

    #[test]
    fn what_has_no_key_is_refused() {
        let set = |keys| json!({ "keys": keys }).to_string();
        assert_eq!(parse(&set(json!([])), Origin::Url), Err(BadKeys::NoKeys));
        assert!(matches!(parse("{}", Origin::Url), Err(BadKeys::NoSet(_))));
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": POINT});
        let many = set(vec![key; limits::JWT_KEYS + 1].into());
        assert_eq!(parse(&many, Origin::Url), Err(BadKeys::TooMany));
        let large = " ".repeat(limits::JWT_KEY_SET_BYTES + 1);
        assert_eq!(parse(&large, Origin::File), Err(BadKeys::TooLarge));
    }
}
