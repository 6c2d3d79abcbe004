//! What callers cannot do to a gateway.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use trolley::limits::HTTP_BODY_BYTES;

use crate::harness::gateway::{EVERYTHING, Gateway, token};
use crate::harness::system::memory_kb;
use crate::harness::{Cluster, eventually};

/// The head of a request that writes a key, with a body of so many bytes.
fn put_head(length: usize) -> String {
    let token = token(json!({ "scope": EVERYTHING }));
    format!(
        "PUT /v1/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Everything that a connection says until it is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(crate::harness::DEADLINE, read).await;
    // A connection that is reset says what it said before.
    read.expect("it is closed in time").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_headers_have_bounds() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", EVERYTHING);
    let large = put_head(3 << 20);
    let mut stream = TcpStream::connect(gateway.address())
        .await
        .expect("it listens");
    stream
        .write_all(large.as_bytes())
        .await
        .expect("it is taken");
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("BODY_TOO_LARGE"), "{answer}");
    // Nor is one taken that nobody has announced. All of it is read, so that the answer is not lost with the connection.
    let length = HTTP_BODY_BYTES + 1;
    let head = put_head(0).replace("content-length: 0", "transfer-encoding: chunked");
    let chunk = format!("{head}{length:x}\r\n{}", " ".repeat(length));
    let mut stream = TcpStream::connect(gateway.address())
        .await
        .expect("it listens");
    stream
        .write_all(chunk.as_bytes())
        .await
        .expect("it is taken");
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let beyond = json!({"value": "x".repeat((1 << 20) + 1)});
    let beyond = ada.put("/v1/keys/k", &[], beyond).await;
    assert_eq!(
        (beyond.status.as_u16(), beyond.reason()),
        (400, "FIELD_TOO_LONG")
    );
    let text = ada
        .send(
            http::Method::PUT,
            "/v1/keys/k",
            &[("content-type", "text/plain")],
            None,
        )
        .await;
    assert_eq!(
        (text.status.as_u16(), text.reason()),
        (415, "UNSUPPORTED_MEDIA_TYPE")
    );
    let typo = ada
        .put("/v1/keys/k", &[], json!({"value": "", "ttl": 7}))
        .await;
    assert_eq!((typo.status.as_u16(), typo.reason()), (400, "MALFORMED"));
    let wrong = ada.send(http::Method::POST, "/v1/keys/k", &[], None).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.reason()),
        (405, "METHOD_NOT_ALLOWED")
    );

    let before = memory_kb(gateway.pid());
    for flood in [
        format!("x: {}\r\n", "y".repeat(64 << 10)),
        "x: y\r\n".repeat(1000),
    ] {
        let mut stream = TcpStream::connect(gateway.address())
            .await
            .expect("it listens");
        let request = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{flood}");
        // It may be refused before it was written.
        stream.write_all(request.as_bytes()).await.ok();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:.100}");
    }
    let after = memory_kb(gateway.pid());
    assert!(
        after < before + (20 << 10),
        "{before} KiB became {after} KiB"
    );
}

/// Connections that say nothing, or begin to and never end.
async fn say_nothing(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for index in 0..count {
        let mut stream = TcpStream::connect(gateway.address())
            .await
            .expect("it listens");
        if index % 2 == 0 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nho")
                .await
                .expect("it is taken");
        }
        silent.push(stream);
    }
    silent
}

/// Nobody has closed it, and it has been told nothing.
fn is_open(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0; 1]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_callers_hold_up_nobody() {
    let cluster = Cluster::start(1, &[]).await;
    // Who waits for one of the silent ones waits beyond the deadline of every test.
    let flags = ["--header-timeout", "10m", "--rate-per-user", "0"];
    let patient = Gateway::start(&cluster, &flags).await;
    let silent = say_nothing(&patient, 500).await;
    let ada = patient.user("ada", EVERYTHING);
    for _ in 0..100 {
        let answer = tokio::time::timeout(crate::harness::DEADLINE, ada.get("/v1/carts/me", &[]));
        answer.await.expect("she is not held up").ok();
    }
    assert!(silent.iter().all(is_open), "they were there all the time");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_callers_are_not_waited_for_without_end() {
    let cluster = Cluster::start(1, &[]).await;
    let flags = ["--header-timeout", "1s", "--request-timeout", "2s"];
    let gateway = Gateway::start(&cluster, &flags).await;
    for mut stream in say_nothing(&gateway, 20).await {
        rest(&mut stream).await;
    }

    // Nor is a body that never comes.
    let mut stream = TcpStream::connect(gateway.address())
        .await
        .expect("it listens");
    let head = format!("{}{{", put_head(100));
    stream
        .write_all(head.as_bytes())
        .await
        .expect("it is taken");
    let mut start = [0; 12];
    let answered = tokio::time::timeout(crate::harness::DEADLINE, stream.read_exact(&mut start));
    answered
        .await
        .expect("it is answered in time")
        .expect("it is answered");
    assert_eq!(&start, b"HTTP/1.1 408");
}

/// A request has its place while its body comes. One user's slow ones do not take those of all.
#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_one_caller_leave_room_for_others() {
    const SLOW: usize = 40;
    const PLACES: usize = 16;
    let cluster = Cluster::start(1, &[]).await;
    let places = PLACES.to_string();
    let flags = ["--max-requests", &places, "--request-timeout", "30s"];
    let gateway = Gateway::start(&cluster, &flags).await;
    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        let address = gateway.address().to_owned();
        slow.spawn(async move {
            let stream = TcpStream::connect(address).await;
            let mut stream = stream.expect("it listens");
            let head = format!("{}{{", put_head(100));
            let sent = stream.write_all(head.as_bytes()).await;
            sent.expect("it is taken");
            rest(&mut stream).await
        });
    }
    // What is refused at once, is: the others are waited for.
    for _ in 0..SLOW - PLACES / 8 {
        let refused = slow.join_next().await.expect("there are more");
        let refused = refused.expect("it does not panic");
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(refused.contains("RATE_LIMITED"), "{refused}");
    }
    let bob = gateway.user("bob", EVERYTHING);
    bob.put("/v1/keys/k", &[], json!({"value": "x"})).await.ok();
    let waited_for = slow.join_next().await.expect("there are more");
    let waited_for = waited_for.expect("it does not panic");
    assert!(waited_for.starts_with("HTTP/1.1 408"), "{waited_for}");
}

/// A caller with one connection, which is the only one that it may have.
struct Kept {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Carries the connection until the caller is gone.
    _carrying: JoinSet<hyper::Result<()>>,
}

impl Kept {
    async fn open(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address()).await;
        let io = TokioIo::new(stream.expect("it listens"));
        let (sender, connection) = http1::handshake(io).await.expect("nothing is said yet");
        let mut carrying = JoinSet::new();
        carrying.spawn(connection);
        Self {
            sender,
            _carrying: carrying,
        }
    }

    /// What it is answered, with 200.
    async fn get(&mut self, path: &str) -> String {
        let token = token(json!({ "scope": EVERYTHING }));
        let request = http::Request::get(path)
            .header("host", "x")
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::new())
            .expect("a request");
        self.sender.ready().await.expect("it is kept open");
        let answer = self
            .sender
            .send_request(request)
            .await
            .expect("it is answered");
        assert_eq!(answer.status(), 200, "{path}");
        let body = answer.into_body().collect().await.expect("all of it comes");
        String::from_utf8(body.to_bytes().into()).expect("text")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_closed_and_the_others_served() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--max-connections", "50"]).await;
    let mut ada = Kept::open(&gateway).await;
    ada.get("/v1/keys").await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let stream = TcpStream::connect(gateway.address()).await;
        open.push(stream.expect("it listens"));
    }
    ada.get("/v1/keys").await;
    // No fewer than 49 of the others fit beside her, for whoever asked before whether the gateway is ready may still be there.
    let mut refused = 0;
    eventually("connections that were refused", async || {
        let metrics = ada.get("/metrics").await;
        let name = "trolley_gateway_connections_refused_total ";
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix(name)?.parse().ok());
        refused = count.unwrap_or(0_u64);
        refused >= 51
    })
    .await;
    assert!(refused <= 52, "{refused} of 100 were refused");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_waits_and_nobody_else_does() {
    let cluster = Cluster::start(1, &[]).await;
    let flags = ["--rate-per-user", "5", "--rate-of-refusals", "1"];
    let gateway = Gateway::start(&cluster, &flags).await;
    let (ada, bob) = (
        gateway.user("ada", EVERYTHING),
        gateway.user("bob", EVERYTHING),
    );
    let mut limited = None;
    for _ in 0..50 {
        let answer = ada.get("/v1/carts/me", &[]).await;
        if answer.status == 429 {
            limited = Some(answer);
        }
    }
    let limited = limited.expect("fifty are more than five");
    assert_eq!(limited.reason(), "RATE_LIMITED");
    assert_eq!(limited.header("retry-after"), "1");
    bob.get("/v1/carts/me", &[]).await.ok();
    let guesser = gateway.caller("guess");
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(guesser.get("/v1/carts/me", &[]).await.status.as_u16());
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses[1..].contains(&429), "{statuses:?}");
    // Whoever was let in before is, from the same address too.
    bob.get("/v1/carts/me", &[]).await.ok();
}

/// The largest file of the pages that show the document.
const BUNDLE: &str = "/docs/swagger-ui-bundle.js";

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_pages_and_never_reads_them_costs_little() {
    const READERS: usize = 100;
    // More than there is room for in between.
    const TIMES: usize = 16;
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--header-timeout", "10m"]).await;
    let stranger = gateway.caller("");
    let bundle = stranger.get(BUNDLE, &[]).await.ok();
    let before = memory_kb(gateway.pid());
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(gateway.ask_and_read_nothing(BUNDLE, "", TIMES).await);
    }
    eventually("answers that wait for readers", async || {
        let metrics = stranger.get("/metrics", &[]).await.ok().text;
        let name =
            "trolley_gateway_requests_total{method=\"GET\",route=\"/docs/{file}\",status=\"200\"} ";
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix(name)?.parse().ok());
        count.unwrap_or(0) > 2 * READERS
    })
    .await;
    let taken = memory_kb(gateway.pid()).saturating_sub(before);
    let copies = (READERS * bundle.text.len()) as u64 >> 10;
    assert!(
        taken < copies / 4,
        "{taken} KiB, and {copies} KiB would be copies"
    );
    drop(readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_pages_too_often_waits() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--rate-per-user", "5"]).await;
    let stranger = gateway.caller("");
    for path in [BUNDLE, "/docs", "/openapi.json"] {
        let mut last = stranger.get(path, &[]).await;
        for _ in 0..50 {
            if last.status == 429 {
                break;
            }
            last = stranger.get(path, &[]).await;
        }
        assert_eq!((last.status.as_u16(), last.reason()), (429, "RATE_LIMITED"));
    }
    // Users have rates of their own.
    gateway
        .user("ada", EVERYTHING)
        .get("/v1/carts/me", &[])
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_call_only_if_they_are_named() {
    let cluster = Cluster::start(1, &[]).await;
    let shop = "https://shop.example";
    let (closed, open) = (
        Gateway::start(&cluster, &[]).await,
        Gateway::start(&cluster, &["--cors-origins", shop]).await,
    );
    for (gateway, origin, allowed) in [
        (&closed, shop, false),
        (&open, shop, true),
        (&open, "https://x.example", false),
    ] {
        let headers = [("origin", origin), ("access-control-request-method", "PUT")];
        let preflight = gateway.caller("");
        let preflight = preflight
            .send(http::Method::OPTIONS, "/v1/keys/k", &headers, None)
            .await;
        let allows = preflight.headers.get("access-control-allow-origin");
        assert_eq!(allows.is_some(), allowed, "{origin}: {preflight:?}");
        let read = gateway
            .user("ada", EVERYTHING)
            .get("/v1/keys", &headers[..1])
            .await;
        let allows = read.headers.get("access-control-allow-origin");
        assert_eq!(allows.is_some(), allowed, "{origin}: {read:?}");
        assert!(
            read.headers
                .get("access-control-allow-credentials")
                .is_none()
        );
    }
}
