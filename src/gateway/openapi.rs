//! The document of all routes, `/openapi.json`, and pages that show it, `/docs`.
//!
//! Routes, bodies and answers are documented where they are written; what is the same for all of them is added here.

use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::problem::Problem;
use super::routes::{At, schemas};
use super::{App, front};

const DOCUMENT: &str = "/openapi.json";
/// The pages' scripts are in the binary; they write styles into the page.
const OF_PAGES: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// What `/docs` shows, and how it begins.
const PAGE: &str = include_str!("docs/page.html");
const START: &str = include_str!("docs/start.js");

/// What the document begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Trolley",
        description = "Sessions, carts and keys of a replicated store. Every request shows a JWT; every answer names the \
                       revision that it saw in `X-Trolley-Revision`.",
    ),
    tags(
        (name = "sessions", description = "Who is logged in. A session is named by its token, in `X-Trolley-Session`."),
        (name = "carts", description = "Carts of users and sessions, changed by deltas."),
        (name = "keys", description = "Plain keys and counters of the namespace."),
        (name = "transactions", description = "Several operations as one."),
        (name = "cluster", description = "The nodes, and what goes on."),
        (name = "watch", description = "What happens, as it happens."),
    ),
    security(("token" = [])),
)]
struct Beginning;

/// The whole document, around these paths.
pub fn document(paths: OpenApi) -> OpenApi {
    let mut document = Beginning::openapi();
    document.merge(paths);
    let components = document.components.get_or_insert_default();
    components.schemas.extend(schemas());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document
}

/// The document, and pages that show it. They need no token, so that whoever asks for them is counted by its network.
pub fn routes(paths: OpenApi, app: &Arc<App>) -> Router<Arc<App>> {
    let json: Bytes = serde_json::json!(document(paths)).to_string().into();
    Router::new()
        .route(
            DOCUMENT,
            get(async move || ([(CONTENT_TYPE, "application/json")], json)),
        )
        .route("/docs", get(async || page()))
        .route("/docs/{file}", get(file))
        .route_layer(from_fn_with_state(Arc::clone(app), front::admit))
}

fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, OF_PAGES),
    ];
    (headers, PAGE).into_response()
}

/// What the page loads.
async fn file(At(name): At<String>) -> Result<Response, Problem> {
    let kind = match name.as_str() {
        "start.js" => return Ok(([(CONTENT_TYPE, SCRIPT)], START).into_response()),
        "swagger-ui.css" => "text/css; charset=utf-8",
        "swagger-ui-bundle.js" => SCRIPT,
        _ => return Err(Problem::no_route()),
    };
    let found = unpacked(&name).ok_or_else(Problem::no_route)?;
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "public, max-age=3600"),
    ];
    Ok((headers, found).into_response())
}

/// A file of the archive, which all who read it share: those who never finish, too.
fn unpacked(name: &str) -> Option<Bytes> {
    static STYLE: LazyLock<Option<Bytes>> = LazyLock::new(|| unpack("swagger-ui.css"));
    static BUNDLE: LazyLock<Option<Bytes>> = LazyLock::new(|| unpack("swagger-ui-bundle.js"));
    match name {
        "swagger-ui.css" => STYLE.clone(),
        "swagger-ui-bundle.js" => BUNDLE.clone(),
        _ => None,
    }
}

/// A file out of the archive. It is some milliseconds' work, which is done once.
fn unpack(name: &str) -> Option<Bytes> {
    let archive = std::io::Cursor::new(SWAGGER_UI_VENDORED);
    let mut archive = zip::ZipArchive::new(archive).ok()?;
    let wanted = format!("/dist/{name}");
    let path = {
        let mut paths = archive.file_names().filter_map(Result::ok);
        paths.find(|path| path.ends_with(&wanted))?.into_owned()
    };
    let mut bytes = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_loads_is_in_the_binary() {
        for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
            assert!(PAGE.contains(name), "{name}");
            let bytes = unpacked(name).expect("it is in the archive");
            assert!(bytes.len() > 10_000, "{name}: {}", bytes.len());
            let again = unpacked(name).expect("it is still there");
            assert_eq!(bytes.as_ptr(), again.as_ptr(), "{name} is there once");
        }
        assert!(PAGE.contains("start.js"));
        assert!(START.contains(DOCUMENT));
        assert_eq!(unpacked("../package.json"), None);
    }

    #[test]
    fn every_operation_is_named_once_and_refers_to_what_is_there() {
        let paths = crate::gateway::routes::api().into_openapi();
        let document = serde_json::json!(document(paths));
        assert_eq!(document["openapi"], "3.1.0");
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("there are paths") {
            assert!(path.starts_with("/v1/"), "{path}");
            for (method, operation) in item.as_object().expect("it has methods") {
                let name = operation["operationId"].as_str().expect("it has a name");
                assert!(
                    names.insert(name.to_owned()),
                    "{method} {path}: {name} is another's"
                );
                for status in ["401", "403", "503"] {
                    let answers = &operation["responses"];
                    assert!(answers[status].is_object(), "{method} {path} {status}");
                }
            }
        }
        let schemas = &document["components"]["schemas"];
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a string ends");
            assert!(
                schemas[name].is_object(),
                "{name} is referred to and not there"
            );
        }
    }
}
