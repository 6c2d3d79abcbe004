//! Keys behind a URL: introduced, withdrawn, and out of reach.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::gateway::{Caller, Gateway, SECRET, full_claims};
use crate::harness::{Cluster, eventually};

/// An issuer's key, from its seed.
struct Key {
    id: &'static str,
    private: EncodingKey,
    public: String,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let pem = match id {
            "old" => include_bytes!("testdata/old.private.pem").as_slice(),
            _ => include_bytes!("testdata/new.private.pem").as_slice(),
        };
        let public = match id {
            "old" => include_bytes!("testdata/old.public.der").as_slice(),
            _ => include_bytes!("testdata/new.public.der").as_slice(),
        };
        Self {
            id,
            private: EncodingKey::from_ed_pem(pem).expect("a key"),
            // The last 32 bytes are the key.
            public: URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]),
        }
    }

    fn caller(&self, gateway: &Gateway) -> Caller {
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        let claims = full_claims(json!({"scope": "key:read"}));
        gateway.caller(&encode(&header, &claims, &self.private).expect("it can sign"))
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.id, "x": self.public})
    }
}

/// Serves a key set, or nothing that is one.
struct Issuer {
    set: Arc<Mutex<Option<Value>>>,
    reads: Arc<Mutex<u64>>,
    url: String,
    _serving: JoinSet<()>,
}

impl Issuer {
    async fn start() -> Self {
        let set: Arc<Mutex<Option<Value>>> = Arc::default();
        let reads: Arc<Mutex<u64>> = Arc::default();
        let (shown, counted) = (Arc::clone(&set), Arc::clone(&reads));
        let answer = move || {
            *counted.lock().expect("nobody panics with it") += 1;
            let set = shown.lock().expect("nobody panics with it").clone();
            let status = match set {
                Some(_) => StatusCode::OK,
                None => StatusCode::INTERNAL_SERVER_ERROR,
            };
            std::future::ready((status, axum::Json(set)))
        };
        let router = Router::new().route("/jwks", get(answer));
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("it serves for ever");
        });
        Self {
            set,
            reads,
            url: format!("http://{address}/jwks"),
            _serving: serving,
        }
    }

    fn show(&self, keys: Option<&[&Key]>) {
        let set = keys.map(|keys| {
            let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
            json!({ "keys": keys })
        });
        *self.set.lock().expect("nobody panics with it") = set;
    }

    fn reads(&self) -> u64 {
        *self.reads.lock().expect("nobody panics with it")
    }
}

async fn status(caller: &Caller) -> u16 {
    caller.get("/v1/keys", &[]).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_introduced_and_withdrawn_and_outlive_their_issuer() {
    let cluster = Cluster::start(1, &[]).await;
    let issuer = Issuer::start().await;
    let (old, new) = (Key::new("old"), Key::new("new"));
    let flags = ["--jwt-jwks-url", &issuer.url, "--jwt-algorithms", "EdDSA"];
    let ages = ["--jwt-keys-min-age", "100ms", "--jwt-keys-max-age", "1s"];
    // Without an issuer it starts, and lets nobody in.
    let gateway = Gateway::spawn(&cluster, &[flags, ages].concat());
    let (with_old, with_new) = (old.caller(&gateway), new.caller(&gateway));
    eventually("a gateway that answers", async || {
        let live = with_old
            .try_send(http::Method::GET, "/livez", &[], None)
            .await;
        live.is_some_and(|live| live.status == 200)
    })
    .await;
    assert_eq!(with_old.get("/readyz", &[]).await.status, 503);
    assert_eq!(status(&with_old).await, 401);

    issuer.show(Some(&[&old]));
    eventually("the old key", async || status(&with_old).await == 200).await;
    assert_eq!(status(&with_new).await, 401);
    issuer.show(Some(&[&old, &new]));
    eventually("the new key", async || status(&with_new).await == 200).await;
    assert_eq!(status(&with_old).await, 200, "both are good for a while");
    issuer.show(None);
    let before = issuer.reads();
    eventually("a read that fails", async || issuer.reads() > before + 1).await;
    assert_eq!(
        (status(&with_old).await, status(&with_new).await),
        (200, 200)
    );
    issuer.show(Some(&[&new]));
    eventually("the old key's end", async || status(&with_old).await == 401).await;
    assert_eq!(status(&with_new).await, 200);
}

/// A gateway with them would let nobody in, or, worse, whoever knows a public key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_check_no_token_end_a_gateway_at_its_start() {
    let cluster = Cluster::start(1, &[]).await;
    let file = cluster.folder().join("keys");
    let text = file.display().to_string();
    let public = include_bytes!("testdata/old.public.der").as_slice();
    let table = [
        (SECRET.as_bytes(), "RS256,ES256,EdDSA", "HS256 alone"),
        (SECRET.as_bytes(), "RS256,HS256", "HS256 alone"),
        (public, "RS256,HS256", "no line of text"),
        (public, "HS256", "no line of text"),
    ];
    for (keys, algorithms, said) in table {
        std::fs::write(&file, keys).expect("the folder can be written");
        let flags = ["--jwt-keys", &text, "--jwt-algorithms", algorithms];
        let mut gateway = Gateway::spawn(&cluster, &flags);
        let exit = gateway.wait_for_exit().await;
        assert_eq!(exit.code(), Some(3), "{algorithms}: {}", gateway.log());
        assert!(gateway.log().contains(said), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_do_not_make_a_gateway_ask_without_end() {
    let cluster = Cluster::start(1, &[]).await;
    let issuer = Issuer::start().await;
    let (old, new) = (Key::new("old"), Key::new("new"));
    issuer.show(Some(&[&old]));
    let flags = ["--jwt-jwks-url", &issuer.url, "--jwt-algorithms", "EdDSA"];
    let ages = ["--jwt-keys-min-age", "1h", "--jwt-keys-max-age", "1h"];
    let gateway = Gateway::start_with_keys(&cluster, &[flags, ages].concat()).await;
    for _ in 0..50 {
        assert_eq!(status(&new.caller(&gateway)).await, 401);
    }
    assert_eq!(
        issuer.reads(),
        2,
        "once to begin with, and once for the unknown key"
    );
    assert_eq!(status(&old.caller(&gateway)).await, 200);
}
