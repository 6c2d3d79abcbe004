//! Whom requests are counted for.

use std::net::IpAddr;

use crate::gateway::auth::Caller;
use crate::types::{Namespace, UserId};

/// Whoever has a rate, and a share of what all share: users who show tokens, and networks from which people come who show
/// none, because those could be anybody, as often as they like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Party {
    /// A user of a namespace.
    User(Namespace, UserId),
    /// As [`network`] names it.
    Network(String),
}

impl Party {
    /// Whoever shows this token.
    pub fn of(caller: &Caller) -> Self {
        Self::User(caller.namespace.clone(), caller.user.clone())
    }
}

/// Whoever has one address of IPv6 has as many as there are in its network.
pub fn network(address: Option<IpAddr>) -> String {
    match address {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            if let Some(mapped) = address.to_ipv4_mapped() {
                return mapped.to_string();
            }
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_counted_as_one() {
        let of = |text: &str| network(text.parse().ok());
        assert_eq!(of("10.0.0.9"), "10.0.0.9");
        assert_eq!(of("::ffff:10.0.0.9"), "10.0.0.9");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:3:4:5:6"));
        assert_eq!(of(""), "unknown");
    }
}
