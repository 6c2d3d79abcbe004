//! What a client is told about its cluster and about its own patience.

use std::time::Duration;

use crate::proto::v1;
use crate::types::{Namespace, Revision};

use super::Error;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// Sees at least the state at this revision; any node may answer.
    AtLeast(Revision),
    /// Sees whatever the answering node has.
    Stale,
}

impl Consistency {
    /// Only the leader is asked.
    pub(super) fn needs_leader(self) -> bool {
        self == Self::Linearizable
    }

    /// The message; absent for the default.
    pub(super) fn to_options(self) -> Option<v1::ReadOptions> {
        let (consistency, min_revision) = match self {
            Self::Linearizable => return None,
            Self::AtLeast(revision) => (v1::Consistency::AtLeastRevision, revision.get()),
            Self::Stale => (v1::Consistency::Stale, 0),
        };
        Some(v1::ReadOptions {
            consistency: consistency.into(),
            min_revision,
        })
    }

    /// Back from the message.
    pub(super) fn of_options(options: Option<&v1::ReadOptions>) -> Self {
        match options.map(|options| (options.consistency(), options.min_revision)) {
            Some((v1::Consistency::AtLeastRevision, revision)) => {
                Self::AtLeast(Revision::new(revision))
            }
            Some((v1::Consistency::Stale, _)) => Self::Stale,
            _ => Self::Linearizable,
        }
    }
}

/// How operations travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// Many to a frame, over one stream per node.
    #[default]
    Exchange,
    /// One gRPC call each, as clients in other languages do it.
    Unary,
}

/// Everything that [`super::Client::connect`] wants to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(super) endpoints: Vec<String>,
    pub(super) namespace: String,
    pub(super) timeout: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) consistency: Consistency,
    pub(super) transport: Transport,
}

impl ClientConfig {
    /// Any of the cluster's members, each as `host:port` or `http://host:port`.
    pub fn new(endpoints: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        let mut addresses: Vec<String> = Vec::new();
        for endpoint in endpoints {
            let address = parse_endpoint(endpoint.as_ref())?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(Error::Endpoint {
                endpoint: String::new(),
                problem: "at least one endpoint is needed",
            });
        }
        Ok(Self {
            endpoints: addresses,
            namespace: Namespace::DEFAULT.to_owned(),
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            consistency: Consistency::default(),
            transport: Transport::default(),
        })
    }

    /// Whose records requests are about. The default is `default`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a call may take in all, retries included. The default is 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a node may be silent before an operation that waits for it is sent to another. The default is 500 ms. While large
    /// requests are on their way it may be longer, two seconds for each megabyte beyond the first quarter: the link may be slow.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long a connection may take to be made. The default is 1 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How fresh reads are. The default is [`Consistency::Linearizable`].
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// How operations travel. The default is [`Transport::Exchange`].
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }
}

/// The address in an endpoint.
fn parse_endpoint(endpoint: &str) -> Result<String, Error> {
    let wrong = |problem| Error::Endpoint {
        endpoint: endpoint.to_owned(),
        problem,
    };
    let text = endpoint.trim();
    if text.starts_with("https://") {
        return Err(wrong("only http is spoken"));
    }
    let text = text.strip_prefix("http://").unwrap_or(text);
    let address = text.trim_end_matches('/');
    let authority: http::uri::Authority = address
        .parse()
        .map_err(|_| wrong("expected host:port or http://host:port"))?;
    if authority.host().is_empty() || authority.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("expected host:port with a port from 1 to 65535"));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_lose_their_scheme_and_their_doubles() {
        let config = ClientConfig::new(["a:1", "http://a:1/", " b:2 ", "[::1]:7400"])
            .expect("all are well formed");
        assert_eq!(config.endpoints, ["a:1", "b:2", "[::1]:7400"]);
    }

    #[test]
    fn malformed_endpoints_are_refused() {
        for endpoint in [
            "",
            "a",
            "a:",
            "a:0",
            "a:70000",
            "https://a:1",
            ":1",
            "a b:1",
        ] {
            assert!(ClientConfig::new([endpoint]).is_err(), "{endpoint:?}");
        }
        assert!(ClientConfig::new(Vec::<String>::new()).is_err());
    }

    #[test]
    fn consistency_survives_its_message() {
        for consistency in [
            Consistency::Linearizable,
            Consistency::Stale,
            Consistency::AtLeast(Revision::new(7)),
        ] {
            let options = consistency.to_options();
            assert_eq!(Consistency::of_options(options.as_ref()), consistency);
        }
    }
}
