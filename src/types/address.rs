//! Where a process listens, as people write it.

use std::net::Ipv6Addr;

/// The host and the port of `HOST:PORT`, where an IPv6 host stands in brackets.
#[must_use]
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']');
            inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
        }
        None => !host.is_empty() && host.chars().all(plain),
    };
    is_host.then_some((host, port))
}

/// Whether another machine can dial it.
#[must_use]
pub fn is_dialable(address: &str) -> bool {
    split_address(address)
        .is_some_and(|(host, port)| port != 0 && !matches!(host, "0.0.0.0" | "[::]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = [
            ("127.0.0.1:7400", ("127.0.0.1", 7400)),
            ("[::1]:1", ("[::1]", 1)),
            (
                "node-1.shop_a.internal:65535",
                ("node-1.shop_a.internal", 65535),
            ),
        ];
        for (text, expected) in good {
            assert_eq!(split_address(text), Some(expected), "{text}");
            assert!(is_dialable(text), "{text}");
        }
        for text in [
            "",
            "a",
            ":1",
            "a:",
            "a:65536",
            "a:-1",
            "::1:1",
            "[::1:1",
            "[x]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert_eq!(split_address(text), None, "{text}");
            assert!(!is_dialable(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "a:0"] {
            assert!(split_address(text).is_some(), "{text}");
            assert!(!is_dialable(text), "{text}");
        }
    }
}
