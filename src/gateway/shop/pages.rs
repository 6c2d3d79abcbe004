//! The pages: files that are part of the binary.
//!
//! They load nothing from elsewhere and run no script that stands in the page itself, and the policy that goes with them
//! says so to the browser.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use crate::gateway::App;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Path, kind and text of every file.
const FILES: [(&str, &str, &str); 9] = [
    ("/shop", HTML, include_str!("../pages/shop.html")),
    ("/shop/shop.js", SCRIPT, include_str!("../pages/shop.js")),
    ("/shop/orders", HTML, include_str!("../pages/orders.html")),
    (
        "/shop/orders.js",
        SCRIPT,
        include_str!("../pages/orders.js"),
    ),
    ("/shop/api.js", SCRIPT, include_str!("../pages/api.js")),
    ("/shop/style.css", STYLE, include_str!("../pages/style.css")),
    ("/console", HTML, include_str!("../pages/console.html")),
    (
        "/console/console.js",
        SCRIPT,
        include_str!("../pages/console.js"),
    ),
    ("/console/plot.js", SCRIPT, include_str!("../pages/plot.js")),
];

/// One route for each.
pub fn routes() -> Router<Arc<App>> {
    let home = Router::new().route("/", get(async || Redirect::to("/shop")));
    FILES.iter().fold(home, |router, (path, kind, text)| {
        router.route(path, get(async || file(kind, text)))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(kind: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
        let files = FILES.iter().filter(move |file| file.1 == kind);
        files.map(|(path, _, text)| (*path, *text))
    }

    /// What stands between quotes after these words.
    fn after<'a>(text: &'a str, words: &'a str) -> impl Iterator<Item = &'a str> {
        let rest = text.split(words).skip(1);
        rest.filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn everything_that_pages_load_is_here() {
        for (path, text) in of_kind(HTML) {
            let loaded = ["src=\"", "rel=\"stylesheet\" href=\""]
                .into_iter()
                .flat_map(|words| after(text, words));
            for name in loaded {
                assert!(FILES.iter().any(|file| file.0 == name), "{path}: {name}");
            }
        }
        for (path, text) in of_kind(SCRIPT) {
            for name in after(text, "from \"") {
                assert!(FILES.iter().any(|file| file.0 == name), "{path}: {name}");
            }
        }
    }

    #[test]
    fn pages_keep_to_their_policy() {
        for (path, text) in of_kind(HTML) {
            for banned in [
                "<style",
                " style=",
                " onclick=",
                " onsubmit=",
                "javascript:",
                "http:",
            ] {
                assert!(!text.contains(banned), "{path}: {banned}");
            }
            assert_eq!(
                text.matches("<script").count(),
                text.matches("src=\"").count(),
                "{path}"
            );
        }
        for (path, text) in of_kind(SCRIPT) {
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!text.contains(banned), "{path}: {banned}");
            }
        }
    }
}
