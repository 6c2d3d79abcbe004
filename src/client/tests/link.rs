//! A link against servers that speak HTTP/2 and misbehave.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::ConnectError;
use tonic::body::Body;
use tower::Service as _;

use super::PATIENCE;
use crate::client::link::{Link, Settings};

const PATH: &str = "/a.Service/Method";

/// A server, and how often somebody connected to it.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves each connection with `serve`, which also learns how many came before.
    async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("some port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let connections = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&connections);
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }

    fn link(&self) -> Link {
        link(&self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn link(address: &str) -> Link {
    let settings = Settings {
        connect: PATIENCE,
        ping: Duration::from_millis(100),
        stream_window: 1 << 20,
        connection_window: 1 << 20,
    };
    Link::new(address.parse().expect("it names a host"), settings)
}

/// Answers up to `calls` of one connection with what they brought, and closes it.
async fn echo(stream: TcpStream, calls: usize) {
    let mut connection = h2::server::handshake(stream).await.expect("a client");
    let mut answering = JoinSet::new();
    for _ in 0..calls {
        let Some(Ok((request, mut respond))) = connection.accept().await else {
            return;
        };
        assert_eq!(request.uri().path(), PATH);
        let mut brought = request.into_body();
        answering.spawn(async move {
            let answer = respond.send_response(Response::new(()), false);
            let mut stream = answer.expect("it is open");
            while let Some(Ok(data)) = brought.data().await {
                stream.send_data(data, false).expect("it is open");
            }
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            stream.send_trailers(trailers).expect("it is open");
        });
    }
    connection.graceful_shutdown();
    while connection.accept().await.is_some() {}
}

/// A body of some frames.
struct Frames(Vec<&'static [u8]>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(next.map(|data| Ok(Frame::data(Bytes::from_static(data)))))
    }
}

/// What one call brought back: its data, and its trailers.
async fn call(
    link: &Link,
    frames: &[&'static [u8]],
) -> Result<(Vec<u8>, HeaderMap), Box<dyn std::error::Error + Send + Sync>> {
    let body = Body::new(Frames(frames.to_vec()));
    let request = Request::post(PATH).body(body).expect("it is well formed");
    let response = timeout(PATIENCE, link.clone().call(request)).await?;
    let mut body = response?.into_body();
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(other) => trailers = other.into_trailers().expect("the other kind"),
        }
    }
    Ok((data, trailers))
}

#[tokio::test]
async fn a_call_brings_back_data_and_trailers() {
    let server = Server::start(|stream, _| echo(stream, usize::MAX)).await;
    let link = server.link();
    let bodies: [&[&[u8]]; 3] = [&[], &[b"one"], &[b"one", b"", b"two"]];
    for frames in bodies {
        let (data, trailers) = call(&link, frames).await.expect("it is served");
        assert_eq!(data, frames.concat());
        assert_eq!(trailers["grpc-status"], "0");
    }
}

#[tokio::test]
async fn calls_that_come_together_share_one_connection() {
    let server = Server::start(|stream, _| echo(stream, usize::MAX)).await;
    let link = server.link();
    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let link = link.clone();
        calls.spawn(async move { call(&link, &[b"mine"]).await.expect("it is served").0 });
    }
    for data in calls.join_all().await {
        assert_eq!(data, b"mine");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_made_again() {
    let server = Server::start(|stream, _| echo(stream, 1)).await;
    let link = server.link();
    let deadline = Instant::now() + PATIENCE;
    while server.connections() < 4 {
        assert!(Instant::now() < deadline, "no other connection in time");
        if let Err(error) = call(&link, &[b"mine"]).await {
            // It may be sent before the end of the connection is known. Then it is not said that it was not.
            assert!(!error.is::<ConnectError>(), "{error}");
        }
    }
}

/// What HTTP/2 refuses on this side, a connection that cannot take it or a header that must not be, never left.
#[tokio::test]
async fn what_http2_does_not_take_was_not_sent() {
    let server = Server::start(|stream, _| echo(stream, usize::MAX)).await;
    let link = server.link();
    let request = Request::post(PATH)
        .header("connection", "close")
        .body(Body::empty())
        .expect("it is well formed");
    let error = link.clone().call(request).await;
    let error = error.expect_err("HTTP/2 has no such header");
    assert!(error.is::<ConnectError>(), "{error}");
    let (data, _) = call(&link, &[b"mine"]).await.expect("the next is served");
    assert_eq!((data.as_slice(), server.connections()), (&b"mine"[..], 1));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("some port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let link = link(&address);
    for _ in 0..2 {
        let error = call(&link, &[b"mine"]).await.expect_err("nobody serves it");
        assert!(error.is::<ConnectError>(), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn who_answers_no_ping_is_given_up() {
    // The first connection is accepted and never read.
    let server = Server::start(|stream, earlier| async move {
        if earlier == 0 {
            std::future::pending::<()>().await;
        }
        echo(stream, usize::MAX).await;
    })
    .await;
    let link = server.link();
    let error = call(&link, &[b"mine"]).await.expect_err("nobody reads it");
    assert!(!error.is::<ConnectError>(), "it was sent: {error}");
    assert!(
        !error.is::<tokio::time::error::Elapsed>(),
        "it waits for ever"
    );
    let (data, _) = call(&link, &[b"mine"]).await.expect("the next is served");
    assert_eq!(data, b"mine");
}
