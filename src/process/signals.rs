//! SIGTERM and SIGINT ask for a graceful shutdown. SIGHUP asks for nothing: whoever sends it wants files to be read again, and there
//! are none; and a process that is to outlive its terminal does.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first signal that asks for it. The handlers are in place when this returns.
pub(super) fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Without a handler it would end the process at once, in the middle of whatever it does.
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let name = loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                Some(()) = hang_up.recv() => {
                    tracing::info!("SIGHUP changes nothing: there is nothing to read again");
                }
            }
        };
        tracing::info!(signal = name, "shutting down");
    })
}
