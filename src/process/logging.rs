//! Log lines on standard error, for people or for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, Logging};

/// Starts to write log lines. A process that writes them already, such as a test, goes on as it does.
pub(super) fn start_logging(logging: &Logging) {
    let filter = EnvFilter::new(&logging.filter);
    let lines = fmt()
        .with_env_filter(filter)
        // Colours are for people at a terminal; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match logging.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "log lines were started before");
    }
}
