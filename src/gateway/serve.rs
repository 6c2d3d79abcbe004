//! The composition root: settings, threads, the socket, and the end.
//!
//! A connection has a bound on the size and the number of its headers and on the time that they may take, so that whoever
//! sends them slowly, or never, holds nothing but a socket; how many of those there are is bounded as well. So has whoever does
//! not take what is answered (`wire`).
//!
//! A shutdown goes: `/readyz` says no, and for a moment everything goes on, so that load balancers notice → no more
//! connections are taken, those that wait for a request are closed, event streams end → what is under way is finished, up
//! to the drain timeout.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::front::Peer;
use super::wire::Wire;
use super::{App, Error};
use crate::clock::Clock;
use crate::config::{GatewayArgs, GatewayConfig};
use crate::limits;
use crate::process;

/// How long a load balancer may take to notice that the gateway is going. At most a part of the drain.
const NOTICE: Duration = Duration::from_secs(1);
const NOTICE_SHARE: u32 = 4;
/// Without a file descriptor left, the next connection cannot be taken either.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the process waits for threads that a library left behind.
const END_GRACE: Duration = Duration::from_secs(1);

/// Runs `trolley gateway`: returns when it was shut down by a signal, or could not start.
pub fn serve(args: GatewayArgs) -> Result<(), Error> {
    let config = GatewayConfig::try_from(args)?;
    process::run(
        &config.process,
        "gateway",
        &config.listen,
        END_GRACE,
        async |listener, shutdown| {
            process::give_back_freed_memory();
            run(listener, &config, Clock::System, shutdown).await
        },
    )
}

/// Serves on a socket until `shutdown` resolves and everything under way is finished.
pub async fn run(
    listener: TcpListener,
    config: &GatewayConfig,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let app = App::new(config, clock).await?;
    let mut tasks = JoinSet::new();
    let (probing, reading) = (Arc::clone(&app), Arc::clone(&app));
    tasks.spawn(async move { probing.probe().await });
    tasks.spawn(async move { reading.keyring.keep_young().await });
    let connections = Connections::new(Arc::clone(&app));
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving");
    }
    let notice = NOTICE.min(config.process.drain_timeout / NOTICE_SHARE);
    let going = async {
        shutdown.await;
        app.readiness.drain();
        tokio::time::sleep(notice).await;
    };
    tokio::select! {
        () = connections.accept(&listener) => {}
        () = going => {}
    }
    drop(listener);
    app.streams.end();
    connections.finish(config.process.drain_timeout).await;
    tasks.shutdown().await;
    app.client.clone().close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Connections, from their beginning to their end.
struct Connections {
    app: Arc<App>,
    router: Router,
    room: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tasks: TaskTracker,
}

impl Connections {
    fn new(app: Arc<App>) -> Self {
        Self {
            router: Arc::clone(&app).router(),
            room: Arc::new(Semaphore::new(app.protection.max_connections)),
            app,
            graceful: GracefulShutdown::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes connections, for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, address: SocketAddr) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            self.app.metrics.connections_refused.inc();
            return;
        };
        // Answers are small and are waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
            return;
        }
        let router = self.router.clone();
        let peer = Peer {
            address,
            connection: CancellationToken::new(),
        };
        let closed = peer.connection.clone().cancelled_owned();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let answer = router.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        // Where nothing moves, a connection is idle.
        let patience = self.app.protection.header_timeout;
        let wire = Wire::new(stream, patience);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(limits::HTTP_HEADER_BYTES)
            .max_headers(limits::HTTP_HEADERS)
            .serve_connection(TokioIo::new(wire), service);
        let connection = self.graceful.watch(connection);
        let app = Arc::clone(&self.app);
        self.tasks.spawn(async move {
            let _counted = Counted::new(app, place);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                },
                () = closed => tracing::debug!("a connection was closed that nobody reads"),
            }
        });
    }

    /// Ends connections when they have answered; cuts off what has not in time.
    async fn finish(self, patience: Duration) {
        self.tasks.close();
        let finished = async {
            self.graceful.shutdown().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(patience, finished).await.is_err() {
            tracing::warn!(?patience, "requests were cut off: the drain timeout passed");
        }
    }
}

/// Keeps a connection's place, and counts it, until it is dropped.
struct Counted {
    app: Arc<App>,
    _place: OwnedSemaphorePermit,
}

impl Counted {
    fn new(app: Arc<App>, place: OwnedSemaphorePermit) -> Self {
        app.metrics.connections.inc();
        Self { app, _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
    }
}
