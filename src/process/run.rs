//! One process: its log lines, its threads, its socket, and its end.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;

use super::files::raise_file_limit;
use super::listen::{ListenError, listen};
use super::logging::start_logging;
use super::signals::shutdown_signal;
use crate::config::Process;

/// Why a process ended.
pub trait End: std::error::Error + From<ListenError> {
    /// The system refused threads or signals.
    fn refused(error: io::Error) -> Self;

    /// What the process says with its exit code.
    fn exit_code(&self) -> u8;
}

/// Listens on an address and serves there until the first signal, or until `serve` fails. What ended it is the last line of its
/// log. Threads that are not done then, a library's, are waited for no longer than `grace`.
pub fn run<E: End>(
    process: &Process,
    name: &'static str,
    address: &str,
    grace: Duration,
    serve: impl AsyncFnOnce(TcpListener, BoxFuture<'static, ()>) -> Result<(), E>,
) -> Result<(), E> {
    start_logging(&process.logging);
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(process.worker_threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(E::refused)?;
    let outcome = runtime.block_on(async {
        let shutdown = shutdown_signal().map_err(E::refused)?;
        serve(listen(address).await?, Box::pin(shutdown)).await
    });
    if let Err(error) = &outcome {
        tracing::error!(exit_code = error.exit_code(), %error, "stopped");
    }
    runtime.shutdown_timeout(grace);
    outcome
}
