//! Headers that keep browsers from doing what nobody asked for.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// An answer that is no page needs nothing, and no page may frame it.
const OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";

const RULES: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, OF_DATA),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Sets what the route has not set itself: a page says what it needs.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in RULES {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_says_itself_stays() {
        let mut headers = HeaderMap::new();
        let own = HeaderValue::from_static("default-src 'self'");
        headers.insert(CONTENT_SECURITY_POLICY, own.clone());
        secure(&mut headers);
        assert_eq!(headers[CONTENT_SECURITY_POLICY], own);
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers.len(), RULES.len());
    }
}
