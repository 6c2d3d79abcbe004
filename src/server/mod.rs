//! The composition root: services, readiness, drain.
//!
//! [`serve`] is the process: settings, log lines, threads, signals. [`serve_node`] is one node on one socket, until it is
//! told to stop or stops by itself; the caller owns the socket, so that tests choose their own.
//!
//! A shutdown goes: health says `NOT_SERVING` → leadership is handed over, while requests are still served → writes
//! are refused with `DRAINING` → the connections are told to go away → what is under way is finished, up to the
//! drain timeout → the node is closed.
//!
//! Deliberately absent: what a request means (`api`), and how nodes agree (`node`, `network`).

mod dispatch;
mod error;
mod health;
mod http2;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use error::Error;

use self::dispatch::Dispatch;
use self::health::Health;
use crate::api::{Api, Backend};
use crate::clock::Clock;
use crate::config::{NodeConfig, ServeArgs};
use crate::network::GreetingEndpoint;
use crate::node::{Node, Prepared, Settled, Stopped};
use crate::process;
use crate::proto;

/// After the last request was answered: longest wait for the connections to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// How long the process waits for databases to close and for tasks that a library left behind. Before a database is closed its
/// threads use what the process destroys as it exits, which would end in an abort and hide the exit code; and after a write
/// that failed `RocksDB` does not close within a second.
const END_GRACE: Duration = Duration::from_secs(10);
/// At most this part of the drain is spent on handing leadership over.
const TRANSFER_SHARE: u32 = 2;

/// A node's life, as the server sees it.
pub trait Served: Backend {
    /// Refuses writes from now on.
    fn start_drain(&self);

    /// Resolves with the reason when the node has stopped by itself.
    fn stopped(&self) -> impl Future<Output = Stopped> + Send;

    /// Ends the node.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

impl Served for Node {
    fn start_drain(&self) {
        Node::start_drain(self);
    }

    fn stopped(&self) -> impl Future<Output = Stopped> + Send {
        Node::stopped(self)
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        Node::close(self)
    }
}

/// Serves a node until `shutdown` resolves and everything under way is finished, or until the node stops by itself.
///
/// `peers` are the services that other nodes call; `end_peers` is cancelled when their streams must end.
pub async fn serve_node<N: Served>(
    listener: TcpListener,
    node: N,
    peers: Routes,
    end_peers: CancellationToken,
    config: &NodeConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let api = Api::new(node.clone());
    let (health, dispatch) = dispatch(&api, peers, config.message_bytes).await?;
    let go_away = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(http2::server().serve_with_incoming_shutdown(
        dispatch,
        http2::incoming(listener),
        go_away.clone().cancelled_owned(),
    ));
    let mut following = JoinSet::new();
    following.spawn(health.clone().follow(node.clone(), health::PROBE_PERIOD));

    let stopped = tokio::select! {
        ended = serving.join_next() => Some(accepting_ended(ended)),
        reason = node.stopped() => Some(reason.into()),
        () = shutdown => None,
    };
    following.shutdown().await;
    health.not_serving().await;
    if let Some(error) = stopped {
        end_peers.cancel();
        node.close().await;
        return Err(error);
    }

    let deadline = Instant::now() + config.process.drain_timeout;
    hand_over(&node, config.process.drain_timeout).await;
    node.start_drain();
    go_away.cancel();
    if timeout_at(deadline, api.finish()).await.is_err() {
        tracing::warn!(timeout = ?config.process.drain_timeout, "requests were cut off: the drain timeout passed");
    }
    end_peers.cancel();
    // It ends when the last connection has sent its answers and closed.
    let closed = timeout(CLOSE_GRACE, serving.join_next()).await;
    tracing::debug!(all_connections_closed = closed.is_ok(), "drained");
    serving.shutdown().await;
    node.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// What the end of the accept loop means while nobody asked for it.
fn accepting_ended(ended: Option<Result<Result<(), tonic::transport::Error>, JoinError>>) -> Error {
    match ended {
        Some(Ok(Err(error))) => Error::Transport(error),
        Some(Err(error)) => Error::Stopped(format!("the server's task failed: {error}")),
        Some(Ok(Ok(()))) | None => Error::Stopped("the server ended by itself".to_owned()),
    }
}

/// Every service on the socket.
async fn dispatch<N: Served>(
    api: &Api<N>,
    peers: Routes,
    message_bytes: usize,
) -> Result<(Health, Dispatch<N>), Error> {
    let (health, health_service) = Health::new().await;
    let services = api.services(message_bytes);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let others = peers
        .add_service(services.lease)
        .add_service(services.txn)
        .add_service(services.namespace)
        .add_service(services.cluster)
        .add_service(services.exchange)
        .add_service(services.hipstershop)
        .add_service(services.oteldemo)
        .add_service(services.watch)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(Error::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(Error::Reflection)?);
    let dispatch = Dispatch::new(services.session, services.cart, services.kv, others);
    Ok((health, dispatch))
}

/// Hands leadership over, if this node has it and somebody can take it.
async fn hand_over<N: Served>(node: &N, drain_timeout: Duration) {
    let members = node.members();
    let voters = members.iter().filter(|member| member.voter).count();
    if !node.leadership().is_leader() || voters < 2 {
        return;
    }
    let deadline = Instant::now() + drain_timeout / TRANSFER_SHARE;
    match node.transfer_leader(None, deadline).await {
        Ok(()) => tracing::info!("leadership handed over"),
        Err(error) => {
            tracing::warn!(%error, "leadership was not handed over; an election will follow");
        }
    }
}

/// Opens the node of a data directory and serves it. `clock` is its wall clock.
pub async fn run(
    listener: TcpListener,
    config: NodeConfig,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut shutdown = pin!(shutdown);
    let config = Arc::new(config);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node_id.get(),
        listen = config.listen,
        advertise = config.advertise,
        data_dir = %config.data_dir.display(),
        "starting"
    );
    let prepared = Prepared::open(Arc::clone(&config), clock).await?;
    let listener = listener.into_std().map_err(Error::Runtime)?;
    let settled = tokio::select! {
        settled = settle(&prepared, &listener) => settled?,
        () = &mut shutdown => return Ok(()),
    };
    let started = prepared.start_settled(settled).await?;
    let peers = Routes::new(started.raft.service()).add_service(started.peers.service());
    let listener = TcpListener::from_std(listener).map_err(Error::Runtime)?;
    serve_node(
        listener,
        started.node,
        peers,
        started.end_peers,
        &config,
        shutdown,
    )
    .await
}

/// Answers greetings on the node's own socket until it is known which cluster the node belongs to.
async fn settle(
    prepared: &Prepared,
    listener: &std::net::TcpListener,
) -> Result<Option<Settled>, Error> {
    if !prepared.is_unborn() {
        return Ok(None);
    }
    let listener = listener
        .try_clone()
        .and_then(TcpListener::from_std)
        .map_err(Error::Runtime)?;
    let done = CancellationToken::new();
    let greetings = http2::server()
        .add_service(GreetingEndpoint::new(prepared.clone()).service())
        .serve_with_incoming_shutdown(http2::incoming(listener), done.clone().cancelled_owned());
    let mut serving = JoinSet::new();
    serving.spawn(greetings);
    let settled = prepared.settle().await?;
    done.cancel();
    // Peers keep their connections open: what they asked was answered, so these are cut.
    serving.shutdown().await;
    Ok(settled)
}

/// Runs `trolley serve`: returns when the node was shut down by a signal, or failed.
pub fn serve(args: ServeArgs) -> Result<(), Error> {
    let config = NodeConfig::try_from(args)?;
    let (process, address) = (config.process.clone(), config.listen.clone());
    process::run(
        &process,
        "trolley",
        &address,
        END_GRACE,
        async |listener, shutdown| run(listener, config, Clock::System, shutdown).await,
    )
}

#[cfg(test)]
mod tests;
