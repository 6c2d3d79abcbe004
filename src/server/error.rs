//! Why a node could not be run, and what the process says with its exit code.

use std::io;
use std::sync::Arc;

use crate::config;
use crate::node::{BootstrapError, OpenError, Stopped};
use crate::process::{End, ListenError};

/// A node that cannot start, or that stopped by itself.
///
/// | exit code | meaning |
/// |---|---|
/// | 1 | the system refused threads, signals or sockets |
/// | 2 | settings, or an address that is not the one by which the members know this node: nothing was changed |
/// | 3 | the data directory: absent rights, in use, another node's, of a newer program, or damaged |
/// | 4 | the address: in use, or not this machine's |
/// | 5 | a storage fault, a replica that diverged, or a program that is too old for its cluster, at run time |
/// | 6 | the cluster does not know this node or this data directory |
/// | 7 | the data directory is another cluster's than that of most configured nodes |
/// | 8 | the disk is full: nothing is damaged, and the node can be started again |
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The data directory cannot be used.
    #[error("cannot use the data directory: {0}")]
    DataDirectory(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The settings make no sense for this data directory.
    #[error("cannot serve: {0}")]
    Moved(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node is no member of its cluster.
    #[error("cannot join the cluster: {0}")]
    Membership(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data directory is another cluster's.
    #[error("cannot serve: {0}")]
    ForeignCluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk was full.
    #[error(
        "the disk is full, so the node cannot go on: {0}; free space, and start it again: it has lost nothing that it acknowledged"
    )]
    NoSpace(String),
    /// The node met a fault.
    #[error("the node stopped: {0}")]
    Stopped(String),
    /// The operating system refused threads or signals.
    #[error("the system refused what the server needs: {0}")]
    Runtime(#[source] io::Error),
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(#[source] tonic::transport::Error),
    /// The proto descriptors are not well formed: a fault of the build.
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Storage(source) if source.is_no_space() => Self::NoSpace(source.to_string()),
            OpenError::Storage(_) | OpenError::Log(_) => Self::DataDirectory(Box::new(error)),
            OpenError::Moved { .. } => Self::Moved(Box::new(error)),
            OpenError::Bootstrap(error) => Stopped::Disowned(Arc::new(error)).into(),
            OpenError::Raft(reason) => Stopped::met(reason).into(),
            OpenError::Config(_) => Self::Stopped(error.to_string()),
        }
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::NoSpace(reason) => Self::NoSpace(reason),
            Stopped::Fault(reason) => Self::Stopped(reason),
            Stopped::Disowned(error) => match &*error {
                BootstrapError::ForeignCluster { .. } => Self::ForeignCluster(Box::new(error)),
                _ => Self::Membership(Box::new(error)),
            },
        }
    }
}

impl End for Error {
    fn refused(error: io::Error) -> Self {
        Self::Runtime(error)
    }

    /// See the table above.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(_) | Self::Transport(_) | Self::Reflection(_) => 1,
            Self::Config(_) | Self::Moved(_) => 2,
            Self::DataDirectory(_) => 3,
            Self::Listen(_) => 4,
            Self::Stopped(_) => 5,
            Self::Membership(_) => 6,
            Self::ForeignCluster(_) => 7,
            Self::NoSpace(_) => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage;
    use crate::types::{ClusterId, NodeId};

    #[test]
    fn a_full_disk_has_an_exit_code_of_its_own_whoever_met_it() {
        let code = |error: Error| error.exit_code();
        // The system's own words for no space, and for a quota that is used up.
        for errno in [28, 122] {
            let met = || io::Error::from_raw_os_error(errno);
            let text = || format!("while it wrote: {}", met());
            assert_eq!(code(Stopped::met(text()).into()), 8, "{}", text());
            assert_eq!(code(OpenError::Raft(text()).into()), 8, "{}", text());
            let storage = storage::Error::Io {
                action: "write",
                path: "a file".into(),
                source: Arc::new(met()),
            };
            assert_eq!(code(OpenError::Storage(storage).into()), 8, "{}", text());
        }
    }

    #[test]
    fn every_other_end_has_the_code_of_the_table() {
        let code = |error: Error| error.exit_code();
        let fault = || "the checksum does not match".to_owned();
        assert_eq!(code(Stopped::met(fault()).into()), 5);
        assert_eq!(code(OpenError::Raft(fault()).into()), 5);
        assert_eq!(code(OpenError::Storage(storage::Error::Stopped).into()), 3);
        let unreadable = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(code(OpenError::Log(unreadable).into()), 3);
        let cluster = |byte| ClusterId::new([byte; 16]);
        let unknown = || BootstrapError::NotAMember {
            cluster: cluster(1),
            node: NodeId::new(4).expect("not 0"),
        };
        assert_eq!(code(OpenError::Bootstrap(unknown()).into()), 6);
        assert_eq!(code(Stopped::Disowned(Arc::new(unknown())).into()), 6);
        let foreign = BootstrapError::ForeignCluster {
            own: cluster(1),
            theirs: cluster(2),
        };
        assert_eq!(code(Stopped::Disowned(Arc::new(foreign)).into()), 7);
    }
}
