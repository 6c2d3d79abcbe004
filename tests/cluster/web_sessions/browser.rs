//! A web server on loopback, and a browser that knows of one cookie.

use std::net::SocketAddr;

use axum::Router;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    _task: JoinSet<std::io::Result<()>>,
}

/// Serves on a free port.
pub async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("some port is free");
    let address = listener.local_addr().expect("it is bound");
    let mut task = JoinSet::new();
    task.spawn(async move { axum::serve(listener, router).await });
    Server {
        address,
        _task: task,
    }
}

/// Asks the servers in turn, as a load balancer would.
pub struct Browser {
    servers: Vec<SocketAddr>,
    turn: usize,
    cookie: Option<String>,
}

impl Browser {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            turn: 0,
            cookie: None,
        }
    }

    /// Another one, with a cookie that it got somewhere.
    pub fn with_cookie(&self, cookie: &str) -> Self {
        let mut other = Self::new(self.servers.clone());
        other.cookie = (!cookie.is_empty()).then(|| cookie.to_owned());
        other
    }

    pub fn cookie(&self) -> Option<String> {
        self.cookie.clone()
    }

    /// The answer to a request that succeeds.
    pub async fn json(&mut self, method: &str, path: &str) -> Value {
        self.json_as(method, path, None).await
    }

    pub async fn json_as(&mut self, method: &str, path: &str, key: Option<&str>) -> Value {
        let (status, body) = self.send(method, path, key).await;
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).expect("it answers JSON")
    }

    /// Status and body.
    pub async fn send(&mut self, method: &str, path: &str, key: Option<&str>) -> (u16, String) {
        let server = self.servers[self.turn % self.servers.len()];
        self.turn += 1;
        let line = |name: &str, value: Option<&str>| {
            value.map_or_else(String::new, |value| format!("{name}: {value}\r\n"))
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 0\r\n{}{}\r\n",
            line("cookie", self.cookie.as_deref()),
            line("idempotency-key", key),
        );
        let mut stream = TcpStream::connect(server).await.expect("it listens");
        let sent = stream.write_all(head.as_bytes()).await;
        sent.expect("it reads");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.expect("it answers and closes");
        self.take_in(&answer)
    }

    fn take_in(&mut self, answer: &str) -> (u16, String) {
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        for line in head.lines() {
            let Some(cookie) = line.strip_prefix("set-cookie: ") else {
                continue;
            };
            let pair = cookie.split(';').next().unwrap_or_default();
            // A cookie without a value is taken back.
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
        }
        (status.expect("a status"), body.to_owned())
    }
}
