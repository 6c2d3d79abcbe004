//! Secrets and values that are read instead of typed, so that they stay out of the shell's history.

use std::io::Read as _;

use bytes::Bytes;

use super::failure::Failure;

/// What stands for standard input.
const STDIN: &str = "-";
/// Where a session's token is looked for when no argument gives it.
const TOKEN_VARIABLE: &str = "TROLLEY_TOKEN";

/// Reads standard input, once.
#[derive(Debug, Default)]
pub(super) struct Input {
    is_read: bool,
}

impl Input {
    /// The argument, or standard input, byte by byte, if it is `-`.
    pub fn value(&mut self, argument: String) -> Result<Bytes, Failure> {
        if argument != STDIN {
            return Ok(argument.into());
        }
        if std::mem::replace(&mut self.is_read, true) {
            return Err(Failure::Usage(
                "only one argument can be read from standard input".to_owned(),
            ));
        }
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map_err(Failure::Input)?;
        Ok(bytes.into())
    }

    /// A file's content, or standard input if the name is `-`.
    pub fn file(&mut self, name: &str) -> Result<Bytes, Failure> {
        if name == STDIN {
            return self.value(name.to_owned());
        }
        match std::fs::read(name) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Failure::Usage(format!("{name}: {error}"))),
        }
    }

    /// A session's token: the argument, standard input if it is `-`, or else the environment.
    pub fn token(&mut self, argument: Option<String>) -> Result<String, Failure> {
        let Some(argument) = argument.or_else(|| std::env::var(TOKEN_VARIABLE).ok()) else {
            return Err(Failure::Usage(format!(
                "a session's token is needed: as an argument, as - for standard input, or in {TOKEN_VARIABLE}"
            )));
        };
        let bytes = self.value(argument)?;
        // What is no text is no token, and is answered like any other malformed one.
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}
