//! Keys that tokens are checked with, as they stand in a file or behind a URL.
//!
//! Each key has one algorithm, whatever a token says: so an RSA key can never be taken for the secret of an HMAC. A secret has no
//! form of its own, and anything might be one: so bytes are taken for a secret only where nothing else could be meant, and not
//! if they look like something that is public.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
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

/// All of them; there is at least one, and each is for an algorithm that is allowed.
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
    /// What has no form could be a public key of a form that is not known here.
    #[error(
        "it is neither a JWK set nor PEM, and is a secret only where --jwt-algorithms is HS256 alone; beside other algorithms, \
         a secret is a key of a JWK set: {{\"keys\":[{{\"kty\":\"oct\",\"k\":\"<base64url>\"}}]}}"
    )]
    SecretAmongOthers,
    /// Whoever wrote this meant no secret.
    #[error("it is {0}")]
    NoSecret(&'static str),
    /// Nothing that can be used.
    #[error("it has no key for an algorithm of --jwt-algorithms that this gateway can use")]
    NoKeys,
}

/// How things begin that are no secrets, and what to do with them.
const NO_SECRETS: [(&str, &str); 6] = [
    ("\u{feff}", "a text with a byte order mark: save it without"),
    ("[", "a JSON array: a JWK set is an object, {\"keys\":[…]}"),
    ("\"", "a JSON string: a secret stands in a file as it is"),
    ("<", "XML: write the key as PEM, or as a JWK set"),
    (
        "ssh-",
        "a public key of SSH: ssh-keygen -e -m PKCS8 writes it as PEM",
    ),
    (
        "ecdsa-",
        "a public key of SSH: ssh-keygen -e -m PKCS8 writes it as PEM",
    ),
];

impl KeySet {
    /// A JWK set, PEM, or (in a file, for HS256 alone) a secret. Keys for algorithms that are not allowed are left out.
    pub fn parse(bytes: &[u8], origin: Origin, allowed: &[JwtAlgorithm]) -> Result<Self, BadKeys> {
        if bytes.len() > limits::JWT_KEY_SET_BYTES {
            return Err(BadKeys::TooLarge);
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
        let mut keys = if text.starts_with('{') {
            of_set(text, origin)?
        } else if origin == Origin::Url {
            return Err(BadKeys::NoSet("it does not begin with {".to_owned()));
        } else if text.contains("-----BEGIN") {
            of_pem(text)?
        } else {
            vec![of_secret(bytes.trim_ascii_end(), allowed)?]
        };
        if keys.len() > limits::JWT_KEYS {
            return Err(BadKeys::TooMany);
        }
        keys.retain(|key| allowed.contains(&key.algorithm));
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

fn of_secret(secret: &[u8], allowed: &[JwtAlgorithm]) -> Result<Key, BadKeys> {
    if let Some(meant) = no_secret(secret) {
        return Err(BadKeys::NoSecret(meant));
    }
    if allowed.iter().any(|other| *other != JwtAlgorithm::Hs256) {
        return Err(BadKeys::SecretAmongOthers);
    }
    if secret.len() < limits::JWT_SECRET_MIN_BYTES {
        return Err(BadKeys::ShortSecret);
    }
    Ok(Key {
        id: None,
        algorithm: JwtAlgorithm::Hs256,
        material: DecodingKey::from_secret(secret),
    })
}

/// What these bytes are more likely to be than a secret.
fn no_secret(bytes: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| !text.contains(char::is_control));
    let Some(text) = text else {
        return Some(
            "no line of text: openssl pkey -pubin -inform DER writes a public key as PEM; for a secret, write down its bytes in \
             hexadecimal digits, and sign with those",
        );
    };
    if STANDARD.decode(text).is_ok_and(|bytes| is_der(&bytes)) {
        return Some("a key in base64, as it stands between the lines of PEM: put those around it");
    }
    let begins = |(start, _): &&(&str, &'static str)| text.starts_with(start);
    NO_SECRETS.iter().find(begins).map(|(_, meant)| *meant)
}

/// A sequence that is as long as it says, as keys in DER are.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x82, high, low, rest @ ..] => {
            usize::from(u16::from_be_bytes([*high, *low])) == rest.len()
        }
        [0x30, 0x81, length, rest @ ..] | [0x30, length @ ..=0x7f, rest @ ..] => {
            usize::from(*length) == rest.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALL, HMAC};
    use super::*;
    use serde_json::json;

    const POINT: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(text: &str, origin: Origin) -> Result<Vec<(Option<String>, JwtAlgorithm)>, BadKeys> {
        parse_for(&ALL, text.as_bytes(), origin)
    }

    fn parse_for(
        allowed: &[JwtAlgorithm],
        bytes: &[u8],
        origin: Origin,
    ) -> Result<Vec<(Option<String>, JwtAlgorithm)>, BadKeys> {
        let set = KeySet::parse(bytes, origin, allowed)?;
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
        let of = |text: &str, origin| parse_for(&HMAC, text.as_bytes(), origin);
        let keys = of(&format!("{SECRET}\n"), Origin::File).expect("it is long enough");
        assert_eq!(keys, [(None, JwtAlgorithm::Hs256)]);
        assert!(of(SECRET, Origin::Url).is_err());
        assert_eq!(of(&SECRET[1..], Origin::File), Err(BadKeys::ShortSecret));
    }

    #[test]
    fn bytes_are_no_secret_where_something_else_may_be_meant() {
        let of = |allowed: &[JwtAlgorithm], bytes: &[u8]| {
            parse_for(allowed, bytes, Origin::File).expect_err("it is refused")
        };
        let secret = SECRET.as_bytes();
        assert_eq!(of(&ALL, secret), BadKeys::SecretAmongOthers);
        assert_eq!(of(&ALL[1..], secret), BadKeys::SecretAmongOthers);
        // What is public would be a secret that everybody knows.
        let pem = include_str!("testdata/rsa.public.pem");
        let base64: String = pem.lines().filter(|line| !line.contains("---")).collect();
        let der = STANDARD.decode(&base64).expect("it is base64");
        let short = include_str!("testdata/ed.public.pem");
        let short = short.lines().nth(1).expect("it has one line of base64");
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": POINT}]}).to_string();
        let marked = format!("\u{feff}{set}");
        let array = format!("[{set}]");
        let utf16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let latin1 = [b"# cl\xe9\n", pem.as_bytes()].concat();
        let ssh = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVzdCBlc3QgZXN0IGVzdCBlc3Q ada@example";
        let looks: [&[u8]; 9] = [
            &der,
            base64.as_bytes(),
            short.as_bytes(),
            marked.as_bytes(),
            array.as_bytes(),
            &utf16,
            &latin1,
            ssh,
            b"<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>",
        ];
        for bytes in looks {
            for allowed in [&HMAC[..], &ALL] {
                let refused = of(allowed, bytes);
                let text = String::from_utf8_lossy(bytes);
                assert!(matches!(refused, BadKeys::NoSecret(_)), "{text}: {refused}");
            }
        }
    }

    #[test]
    fn keys_that_no_token_may_be_signed_with_are_none() {
        let secret = URL_SAFE_NO_PAD.encode(SECRET);
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": POINT, "kid": "a"},
            {"kty": "oct", "k": secret, "kid": "b"},
        ]});
        let set = set.to_string();
        let of = |allowed| parse_for(allowed, set.as_bytes(), Origin::File);
        let signed = (Some("a".to_owned()), JwtAlgorithm::EdDsa);
        let shared = (Some("b".to_owned()), JwtAlgorithm::Hs256);
        assert_eq!(of(&ALL), Ok(vec![signed.clone(), shared.clone()]));
        assert_eq!(of(&[JwtAlgorithm::EdDsa]), Ok(vec![signed]));
        assert_eq!(of(&HMAC), Ok(vec![shared]));
        assert_eq!(of(&[JwtAlgorithm::Rs256]), Err(BadKeys::NoKeys));
        let pem = include_bytes!("testdata/ec.public.pem");
        let refused = parse_for(&HMAC, pem, Origin::File);
        assert_eq!(refused, Err(BadKeys::NoKeys));
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
