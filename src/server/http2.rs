//! The transport's limits, all explicit: tonic sets none of its own.

use std::io;
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::limits;
use crate::transport::Coalescing;

/// A connection that is silent for so long is asked for a sign of life.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// It is closed if none comes.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// A stream may be ahead of its reader by this much: an exchange frame, or a batch of log entries, never waits for
/// a window update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// All streams of one connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Larger frames cost less per byte, and still let heartbeats in between.
const FRAME_BYTES: u32 = 64 << 10;

/// A server with every limit set.
pub(super) fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .http2_max_header_list_size(limits::HTTP2_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(limits::HTTP2_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(limits::HTTP2_PENDING_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
}

/// Accepted connections.
pub(super) fn incoming(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Coalescing<TcpStream>>> {
    TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(TCP_KEEPALIVE))
        .map_ok(Coalescing::new)
}
