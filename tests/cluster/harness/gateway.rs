//! A gateway: a process in front of a cluster, whoever signs its tokens, and whoever calls it.

use std::fs::{self, OpenOptions};
use std::process::{Command, ExitStatus, Stdio};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::process::Process;
use super::{Cluster, DEADLINE, eventually, unused_port};

const EVENT_STREAM: &str = "text/event-stream";

/// What the tokens of tests are signed with.
pub const SECRET: &str = "a secret that every test of a gateway knows";
/// Whom they are for, and from.
pub const AUDIENCE: &str = "shop";
pub const ISSUER: &str = "https://issuer.example";
/// Every right.
pub const EVERYTHING: &str =
    "cart:read cart:write cart:admin session:read session:write session:admin key:read key:write";

/// Long after any test.
const NEVER: u64 = 4_000_000_000;

/// A gateway that runs.
pub struct Gateway {
    address: String,
    arguments: Vec<String>,
    process: Process,
}

impl Gateway {
    /// Starts one with these flags beside the necessary ones, and waits until it is ready.
    pub async fn start(cluster: &Cluster, flags: &[&str]) -> Self {
        let keys = cluster.folder().join("gateway-secret");
        fs::write(&keys, SECRET).expect("the folder can be written");
        let keys = keys.display().to_string();
        let own = ["--jwt-keys", &keys, "--jwt-algorithms", "HS256"];
        Self::start_with_keys(cluster, &[&own, flags].concat()).await
    }

    /// The same, with flags that say where keys are.
    pub async fn start_with_keys(cluster: &Cluster, flags: &[&str]) -> Self {
        let gateway = Self::spawn(cluster, flags);
        gateway.wait_until_ready().await;
        gateway
    }

    /// The same without waiting.
    pub fn spawn(cluster: &Cluster, flags: &[&str]) -> Self {
        let port = unused_port();
        let address = format!("127.0.0.1:{port}");
        let log = cluster.folder().join(format!("gateway-{port}.log"));
        let endpoints = cluster.endpoints().join(",");
        let own = [
            ["gateway", "--listen", &address],
            ["--endpoints", &endpoints, "--jwt-audience"],
            [AUDIENCE, "--jwt-issuer", ISSUER],
        ];
        let own = own.as_flattened().iter();
        let arguments = own.chain(&["--log-filter", "trolley=debug"]).chain(flags);
        let mut gateway = Self {
            arguments: arguments.map(ToString::to_string).collect(),
            process: Process::new(format!("gateway {address}"), log),
            address,
        };
        gateway.spawn_again();
        gateway
    }

    /// Starts one that has ended, at the same address, without waiting.
    fn spawn_again(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.process.log());
        let mut command = Command::new(env!("CARGO_BIN_EXE_trolley"));
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be written"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TROLLEY_") {
                command.env_remove(name);
            }
        }
        // Tests ask as fast as they can, and guess a lot; those of rates say so themselves.
        command.env("TROLLEY_GATEWAY_RATE_PER_USER", "0");
        command.env("TROLLEY_GATEWAY_RATE_OF_REFUSALS", "0");
        self.process.start(&mut command);
    }

    /// Starts one that has ended, at the same address, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.spawn_again();
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&self) {
        let caller = self.caller("");
        eventually("a gateway that is ready", async || {
            let ready = caller.try_send(Method::GET, "/readyz", &[], None).await;
            ready.is_some_and(|ready| ready.status == StatusCode::OK)
        })
        .await;
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.process.log()).expect("it was made")
    }

    /// Somebody who shows this token; nobody in particular if it is empty.
    pub fn caller(&self, token: &str) -> Caller {
        Caller::of(&self.address, token)
    }

    /// A user with these scopes, in the namespace `default`.
    pub fn user(&self, user: &str, scopes: &str) -> Caller {
        self.caller(&token(json!({ "sub": user, "scope": scopes })))
    }

    /// A connection that asks for this, so many times, and reads nothing of the answers, for which it has little room.
    pub async fn ask_and_read_nothing(&self, path: &str, token: &str, times: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("it can be small");
        let address = self.address.parse().expect("an address");
        let mut stream = socket.connect(address).await.expect("it listens");
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n");
        let request = format!("{head}authorization: Bearer {token}\r\n\r\n");
        let asked = stream.write_all(request.repeat(times).as_bytes()).await;
        asked.expect("it is taken");
        stream
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: it takes connections, as far as the kernel does that for it, and answers nothing.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.process.signal("TERM");
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit().await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let end = self.process.log_end();
            println!(
                "--- the end of the log of gateway {} ---\n{end}",
                self.address
            );
        }
    }
}

/// A token with these claims beside, or instead of, the usual ones; `null` takes one away.
pub fn token(claims: Value) -> String {
    token_of(claims, SECRET)
}

/// The same, signed with another secret.
pub fn token_of(claims: Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    let header = Header::new(Algorithm::HS256);
    encode(&header, &full_claims(claims), &key).expect("a secret signs everything")
}

/// The claims of a good token, with these beside or instead of the usual ones.
pub fn full_claims(claims: Value) -> Value {
    let mut full = json!({ "sub": "ada", "aud": AUDIENCE, "iss": ISSUER, "exp": NEVER });
    let all = full.as_object_mut().expect("claims are an object");
    let Value::Object(claims) = claims else {
        panic!("claims are an object");
    };
    all.extend(claims);
    all.retain(|_, value| !value.is_null());
    full
}

/// Somebody who calls a gateway.
#[derive(Clone)]
pub struct Caller {
    address: String,
    token: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// What a gateway answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `null` if it is no JSON.
    pub body: Value,
    /// As it is.
    pub text: String,
}

impl Answer {
    /// A header's text.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.to_str().expect("headers of a gateway are ASCII")
    }

    /// The reason of a problem.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// The same, after checking that it was done.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.is_success(), "{self:?}");
        self
    }
}

impl Caller {
    /// One who calls this address and shows this token.
    pub fn of(address: &str, token: &str) -> Self {
        Self {
            address: address.to_owned(),
            token: token.to_owned(),
            http: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The same at another gateway.
    pub fn at(&self, gateway: &Gateway) -> Self {
        Self {
            address: gateway.address.clone(),
            ..self.clone()
        }
    }

    /// GET.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send(Method::POST, path, headers, Some(body)).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send(Method::PUT, path, headers, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::DELETE, path, headers, None).await
    }

    /// Any request, which is answered.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let answer = self.try_send(method.clone(), path, headers, body).await;
        answer.unwrap_or_else(|| panic!("{method} {path} was not answered"))
    }

    /// Any request; `None` if it is not answered.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<Answer> {
        let response = self.begin(method, path, headers, body).await?;
        let (head, body) = response.into_parts();
        let kind = head.headers.get("content-type");
        let is_stream = kind.is_some_and(|kind| kind == EVENT_STREAM);
        // A stream has no end.
        let bytes = if is_stream {
            Bytes::new()
        } else {
            body.collect().await.ok()?.to_bytes()
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(Answer {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Follows events.
    pub async fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = self.begin(Method::GET, path, headers, None).await;
        let response = response.expect("it is answered");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], EVENT_STREAM);
        Events {
            body: response.into_body(),
            read: String::new(),
        }
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<http::Response<Incoming>> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::from(body)).expect("it is well formed");
        self.http.request(request).await.ok()
    }
}

/// What is followed.
pub struct Events {
    body: Incoming,
    read: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl Events {
    /// The next one that is no progress; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.next_of_all().await?;
            if event.name != "progress" {
                return Some(event);
            }
        }
    }

    /// The next one, whatever it is.
    pub async fn next_of_all(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let value = lines.find_map(|line| line.strip_prefix(name));
                    value.map(str::trim).unwrap_or_default().to_owned()
                };
                let found = Event {
                    name: field("event:"),
                    id: field("id:"),
                    data: serde_json::from_str(&field("data:")).unwrap_or_default(),
                };
                let rest = rest.to_owned();
                self.read = rest;
                // A comment that keeps the connection alive.
                if !found.name.is_empty() {
                    return Some(found);
                }
                continue;
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            let frame = frame.expect("something is said in time")?.ok()?;
            let data = frame.into_data().unwrap_or_default();
            self.read
                .push_str(std::str::from_utf8(&data).expect("events are text"));
        }
    }
}
