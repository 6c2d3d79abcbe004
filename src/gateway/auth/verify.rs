//! Is this token good, and what does it say?
//!
//! What a caller is told is always the same; why a token was refused is known here and in metrics alone.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::keyring::{Keyring, Known};
use super::{Caller, Scopes};
use crate::clock::Clock;
use crate::config::{JwtAlgorithm, Tokens};
use crate::limits;
use crate::types::{Namespace, UserId};

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is none.
    Absent,
    /// It is no token.
    Malformed,
    /// Its algorithm is not allowed.
    Algorithm,
    /// No key fits it.
    Key,
    /// No key has signed it.
    Signature,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    Early,
    /// It is for somebody else.
    Audience,
    /// It is from somebody else.
    Issuer,
    /// It names no user.
    Subject,
    /// It names no namespace that could be one.
    Namespace,
    /// Its scopes are no words.
    Scopes,
}

impl Refusal {
    /// For metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Namespace => "namespace",
            Self::Scopes => "scopes",
        }
    }
}

/// Checks tokens.
pub struct Verifier {
    keyring: Arc<Keyring>,
    tokens: Tokens,
    clock: Clock,
    /// By the token's hash. What a signature costs is paid once per token and set of keys.
    good: Cache<[u8; 32], Arc<Good>>,
}

/// A token whose signature is good and whose claims fit, but for the time.
struct Good {
    /// Of the keys that said so.
    generation: u64,
    not_before: Option<f64>,
    caller: Arc<Caller>,
}

/// The claims of a token that matter here.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970; issuers may write fractions.
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    sub: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Verifier {
    pub fn new(keyring: Arc<Keyring>, tokens: Tokens, clock: Clock) -> Self {
        Self {
            keyring,
            tokens,
            clock,
            good: Cache::new(limits::JWT_REMEMBERED),
        }
    }

    /// Other keys from now on.
    #[cfg(test)]
    pub(super) fn use_keyring(&mut self, keyring: Arc<Keyring>) {
        self.keyring = keyring;
    }

    /// Whose token it is, if that is known without checking its signature.
    pub fn remembered(&self, token: &str) -> Option<Result<Arc<Caller>, Refusal>> {
        let good = self.good.get(&hash(token))?;
        let is_of_these_keys = good.generation == self.keyring.known().generation;
        is_of_these_keys.then(|| self.accept(&good))
    }

    /// Whose token it is.
    pub async fn caller(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        if token.len() > limits::JWT_BYTES {
            return Err(Refusal::Malformed);
        }
        if let Some(known) = self.remembered(token) {
            return known;
        }
        let good = Arc::new(self.verify(token).await?);
        self.good.insert(hash(token), Arc::clone(&good));
        self.accept(&good)
    }

    fn accept(&self, good: &Good) -> Result<Arc<Caller>, Refusal> {
        self.check_time(good)?;
        Ok(Arc::clone(&good.caller))
    }

    async fn verify(&self, token: &str) -> Result<Good, Refusal> {
        // A token that names no algorithm that there is, `none` among them, does not get past this.
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // Nothing is understood that a token may declare to be critical.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let algorithm = of_header(header.alg)
            .filter(|algorithm| self.tokens.algorithms.contains(algorithm))
            .ok_or(Refusal::Algorithm)?;
        let id = header.kid.as_deref();
        let Known {
            keys, generation, ..
        } = self.keyring.known_with(id, algorithm).await;
        let keys = keys.ok_or(Refusal::Key)?;
        let mut validation = Validation::new(header.alg);
        // These are checked below, against the one clock that there is.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let mut refusal = Refusal::Key;
        for key in keys.candidates(id, algorithm) {
            match decode::<Claims>(token, &key.material, &validation) {
                Ok(token) => return self.read(token.claims, generation),
                Err(_) => refusal = Refusal::Signature,
            }
        }
        Err(refusal)
    }

    /// What the claims of a token with a good signature say.
    fn read(&self, claims: Claims, generation: u64) -> Result<Good, Refusal> {
        let is_meant = match &claims.aud {
            Some(OneOrMany::One(audience)) => *audience == self.tokens.audience,
            Some(OneOrMany::Many(audiences)) => audiences.contains(&self.tokens.audience),
            None => false,
        };
        if !is_meant {
            return Err(Refusal::Audience);
        }
        if claims.iss.as_deref() != Some(&self.tokens.issuer) {
            return Err(Refusal::Issuer);
        }
        let user = claims.sub.ok_or(Refusal::Subject)?;
        let caller = Caller {
            namespace: namespace(claims.others.get(&self.tokens.namespace_claim))?,
            user: UserId::parse(user).map_err(|_| Refusal::Subject)?,
            scopes: scopes(claims.others.get(&self.tokens.scope_claim))?,
            expires: claims.exp.ok_or(Refusal::Expired)?,
        };
        Ok(Good {
            generation,
            not_before: claims.nbf,
            caller: Arc::new(caller),
        })
    }

    /// How long the caller's token is still good.
    pub fn remaining(&self, caller: &Caller) -> Duration {
        let left = caller.expires + self.tokens.leeway.as_secs_f64() - self.now();
        Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Seconds since 1970.
    fn now(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds since 1970 have 41 bits"
        )]
        let millis = self.clock.now().as_millis() as f64;
        millis / 1000.0
    }

    fn check_time(&self, good: &Good) -> Result<(), Refusal> {
        let (now, leeway) = (self.now(), self.tokens.leeway.as_secs_f64());
        if now - leeway >= good.caller.expires {
            return Err(Refusal::Expired);
        }
        if good.not_before.is_some_and(|early| now + leeway < early) {
            return Err(Refusal::Early);
        }
        Ok(())
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn of_header(algorithm: Algorithm) -> Option<JwtAlgorithm> {
    match algorithm {
        Algorithm::HS256 => Some(JwtAlgorithm::Hs256),
        Algorithm::RS256 => Some(JwtAlgorithm::Rs256),
        Algorithm::ES256 => Some(JwtAlgorithm::Es256),
        Algorithm::EdDSA => Some(JwtAlgorithm::EdDsa),
        _ => None,
    }
}

fn namespace(claim: Option<&Value>) -> Result<Namespace, Refusal> {
    match claim {
        None => Ok(Namespace::default()),
        // An empty one would be the default to the store, and is more likely somebody's mistake.
        Some(Value::String(name)) if !name.is_empty() => {
            Namespace::parse(name.as_str()).map_err(|_| Refusal::Namespace)
        }
        Some(_) => Err(Refusal::Namespace),
    }
}

fn scopes(claim: Option<&Value>) -> Result<Scopes, Refusal> {
    match claim {
        None => Ok(Scopes::default()),
        Some(Value::String(words)) => Ok(Scopes::of_words(words.split(' '))),
        Some(Value::Array(words)) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            Ok(Scopes::of_words(words.ok_or(Refusal::Scopes)?))
        }
        Some(_) => Err(Refusal::Scopes),
    }
}
