//! Why a gateway could not be run, and what the process says with its exit code.

use std::io;

use super::auth::ReadError;
use crate::client;
use crate::config;
use crate::process::{End, ListenError};

/// A gateway that cannot start.
///
/// | exit code | meaning |
/// |---|---|
/// | 1 | the system refused threads, signals or randomness |
/// | 2 | settings |
/// | 3 | the keys cannot be read, or are none |
/// | 4 | the address: in use, or not this machine's |
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The keys to check tokens with.
    #[error(transparent)]
    Keys(#[from] ReadError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No client could be made.
    #[error("--endpoints: {0}")]
    Client(#[from] client::Error),
    /// The operating system refused threads or signals.
    #[error("the system refused what the gateway needs: {0}")]
    Runtime(#[source] io::Error),
}

impl End for Error {
    fn refused(error: io::Error) -> Self {
        Self::Runtime(error)
    }

    /// See the table above.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(_) => 1,
            Self::Client(error) if !error.is_invalid() => 1,
            Self::Config(_) | Self::Client(_) => 2,
            Self::Keys(_) => 3,
            Self::Listen(_) => 4,
        }
    }
}
