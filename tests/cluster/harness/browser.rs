//! A browser's half of the shop: it keeps its cookies, knows the page's CSRF token, and sends forms.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::DEADLINE;
use super::gateway::{Answer, Gateway};

/// What the shop's cookies are called over plain HTTP.
const COOKIE: &str = "trolley=";
const DEVICE: &str = "trolley-device=";
/// Flags of a gateway with a shop.
pub const SHOP: [&str; 3] = ["--shop", "shop", "--cookies-over-http"];

/// Somebody at a shop.
#[derive(Clone, Default)]
pub struct Browser {
    address: String,
    /// `name=value`; empty for none.
    pub cookie: String,
    /// The same of its mark.
    pub device: String,
    /// As the last answer had it.
    pub csrf: String,
}

impl Browser {
    /// A guest whose session has begun.
    pub async fn guest(gateway: &Gateway) -> Self {
        let mut browser = Self::default().at(gateway);
        browser.post("/session", json!({})).await.ok();
        assert!(browser.cookie.starts_with(COOKIE), "{}", browser.cookie);
        browser
    }

    /// The same at another front.
    pub fn at(&self, gateway: &Gateway) -> Self {
        Self {
            address: gateway.address().to_owned(),
            ..self.clone()
        }
    }

    /// The same with the mark of another.
    pub fn with_device(self, device: &str) -> Self {
        Self {
            device: device.to_owned(),
            ..self
        }
    }

    /// A name for a form that no other has.
    pub fn nonce() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("a-form-of-a-test-{number:08}")
    }

    /// Reads.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Value::Null).await
    }

    /// Sends a form of a name of its own.
    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.form(path, &Self::nonce(), body).await
    }

    /// Sends a form.
    pub async fn form(&mut self, path: &str, nonce: &str, body: Value) -> Answer {
        let headers = [("idempotency-key", nonce)];
        self.send(Method::POST, path, &headers, body).await
    }

    /// Registers, or logs in.
    pub async fn enter(&mut self, path: &str, address: &str, password: &str) -> Answer {
        let credentials = json!({ "address": address, "password": password });
        self.post(path, credentials).await
    }

    /// Any request, as a page of the shop sends it.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let origin = format!("http://{}", self.address);
        let csrf = self.csrf.clone();
        let own = [("origin", origin.as_str()), ("x-csrf-token", &csrf)];
        self.send_bare(method, path, &[&own, headers].concat(), body)
            .await
    }

    /// The same with the cookie, but without what a page adds.
    pub async fn send_bare(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let (head, body) = self.open(method, path, headers, body).await.into_parts();
        let bytes = body
            .collect()
            .await
            .expect("the answer is whole")
            .to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        };
        self.remember(&answer.headers, &answer.body);
        answer
    }

    fn remember(&mut self, headers: &HeaderMap, body: &Value) {
        for cookie in headers.get_all("set-cookie") {
            let text = cookie.to_str().expect("cookies are ASCII");
            let pair = text.split(';').next().unwrap_or_default();
            let kept = if pair.starts_with(DEVICE) {
                &mut self.device
            } else {
                &mut self.cookie
            };
            pair.clone_into(kept);
        }
        if let Some(csrf) = body["csrf"].as_str() {
            csrf.clone_into(&mut self.csrf);
        }
    }

    /// The stream of events.
    pub async fn follow(&self) -> Events {
        let response = self.open(Method::GET, "/events", &[], Value::Null).await;
        assert_eq!(response.status(), 200, "{response:?}");
        Events {
            body: response.into_body(),
            text: String::new(),
        }
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> http::Response<Incoming> {
        let uri = format!("http://{}/shop/api{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        let cookies = format!("{}; {}", self.cookie, self.device);
        for (name, value) in [&[("cookie", cookies.as_str())], headers].concat() {
            request = request.header(name, value);
        }
        let body = if body.is_null() {
            String::new()
        } else {
            request = request.header("content-type", "application/json");
            body.to_string()
        };
        let request = request.body(Full::from(body)).expect("it is well formed");
        let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        http.request(request).await.expect("the shop answers")
    }
}

/// Server-sent events, as they come.
pub struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// Waits for an event of this name whose data has this in it, and passes over the others.
    pub async fn wait_for(&mut self, name: &str, data: &str) {
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let event = self.next().await?;
                let is_named = event.lines().any(|line| line == format!("event: {name}"));
                if is_named && event.contains(data) {
                    return Some(());
                }
            }
        });
        let found = found.await.unwrap_or_default();
        assert!(found.is_some(), "no event {name} with {data}");
    }

    /// Waits until the stream is over.
    pub async fn wait_for_end(&mut self) {
        let ended = tokio::time::timeout(DEADLINE, async { while self.next().await.is_some() {} });
        ended.await.expect("the stream ends");
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text += &String::from_utf8_lossy(&data);
            }
        }
    }
}
