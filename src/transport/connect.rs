//! Connections to nodes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::Coalescing;

/// Makes TCP connections that gather small writes and do not delay them, for an endpoint that brings its own time limit.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector,
    received: Option<Arc<AtomicU64>>,
}

impl Connector {
    /// A connector.
    #[must_use]
    pub fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Self {
            tcp,
            received: None,
        }
    }

    /// The bytes that come in over its connections are added up here.
    #[must_use]
    pub fn counting(received: Arc<AtomicU64>) -> Self {
        Self {
            received: Some(received),
            ..Self::new()
        }
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Coalescing<TcpStream>>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let connecting = self.tcp.call(address);
        let received = self.received.clone();
        Box::pin(async {
            let stream = connecting.await?.into_inner();
            let stream = match received {
                Some(received) => Coalescing::counting(stream, received),
                None => Coalescing::new(stream),
            };
            Ok(TokioIo::new(stream))
        })
    }
}
