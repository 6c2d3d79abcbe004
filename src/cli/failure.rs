//! What can go wrong on the command line, and which exit code tells it.

use crate::client::{self, Outcome};
use crate::torture::bench;
use crate::torture::demo::DemoError;

use super::bench::BenchError;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The client's error.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Arguments that fit each other only at run time.
    #[error("{0}")]
    Usage(String),
    /// Standard input cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(std::io::Error),
    /// What came back cannot be printed. A reader that went away is another matter, see `output`.
    #[error("cannot write to standard output: {0}; what was asked for is done")]
    Output(std::io::Error),
    /// No threads.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    /// The benchmark came to no result.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The demonstration could not be carried out.
    #[error(transparent)]
    Demo(#[from] DemoError),
}

impl Failure {
    /// The process's exit code, as `--help` has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Bench(BenchError::Operation { .. }) => 2,
            Self::Client(error)
            | Self::Bench(BenchError::Prepare(error))
            | Self::Demo(DemoError::Client { source: error, .. }) => exit_code(error),
            Self::Bench(BenchError::Connect(_) | BenchError::Run(bench::Error::Nothing(_))) => 5,
            Self::Input(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Bench(_)
            | Self::Demo(_) => 1,
        }
    }

    /// The client's error, if it is one.
    pub fn client(&self) -> Option<&client::Error> {
        match self {
            Self::Client(error) => Some(error),
            _ => None,
        }
    }
}

fn exit_code(error: &client::Error) -> u8 {
    if error.is_invalid() {
        2
    } else if error.is_not_found() {
        3
    } else if error.is_conflict() {
        4
    } else if error.is_retryable() {
        5
    } else {
        1
    }
}

/// How a person finds out what became of a request that failed and may have been carried out all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recourse {
    /// By what is stored, or by asking again under the same name.
    Records,
    /// By what the cluster says of itself.
    Cluster,
}

impl Recourse {
    /// What a person should know about a request that failed.
    pub fn advice(self, outcome: Outcome) -> &'static str {
        match (outcome, self) {
            (Outcome::NotApplied, _) => "nothing was changed",
            (Outcome::Unknown, Self::Records) => {
                "a write may have been applied: read before repeating it, or repeat it with the same --request-id"
            }
            (Outcome::Unknown, Self::Cluster) => {
                "it may have been done all the same: `trolley cluster status` tells who leads and who is a member; asking again \
                 does no harm"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn rejected(code: Code) -> Failure {
        Failure::Client(client::Error::from(client::Rejected {
            code,
            reason: String::new(),
            message: String::new(),
            metadata: std::collections::BTreeMap::new(),
        }))
    }

    fn nothing_succeeded() -> Failure {
        let nothing = bench::Error::Nothing(String::new());
        Failure::Bench(BenchError::Run(nothing))
    }

    #[test]
    fn exit_codes_tell_kinds_apart() {
        let out_of_time = client::Error::Deadline {
            outcome: Outcome::Unknown,
            problem: String::new(),
        };
        let table = [
            (rejected(Code::InvalidArgument), 2),
            (rejected(Code::NotFound), 3),
            (rejected(Code::AlreadyExists), 4),
            (rejected(Code::Aborted), 4),
            (rejected(Code::FailedPrecondition), 4),
            (rejected(Code::Unavailable), 5),
            (rejected(Code::Internal), 1),
            (Failure::Client(out_of_time), 5),
            (Failure::Usage(String::new()), 2),
            (nothing_succeeded(), 5),
            (Failure::Output(std::io::ErrorKind::StorageFull.into()), 1),
        ];
        for (failure, code) in table {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }
}
