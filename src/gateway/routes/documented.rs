//! What the document says of headers and failures, which are the same for many routes.
//!
//! The headers themselves are read in `call`; these types exist for the document alone.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::access::{Owner, User};
use super::carts::LineName;
use crate::gateway::problem::ProblemDetails;

/// Of requests that read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct ReadHeaders {
    /// The answer sees at least this revision, which an earlier answer named, and any node that has it may give it. Without
    /// it, or if this gateway has not heard of it, the read is linearizable.
    #[param(rename = "X-Trolley-Revision")]
    revision: Option<u64>,
}

/// Of reads of one record.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct Seen {
    /// Entity tags that the caller has, as earlier answers had them.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Of requests that write.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct WriteHeaders {
    /// Names this write: a request that is sent again under the same key, by any front, gets the first answer, for a day.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// Of writes that may depend on what is there.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct Condition {
    /// The entity tag that the record must have; of a frozen cart's, the revision counts.
    #[param(
        rename = "If-Match",
        example = "\"7\"",
        pattern = r#"^"[0-9]{1,19}(\.[0-9]{1,19})?"$"#
    )]
    if_match: Option<String>,
}

/// Of writes that may depend on there being nothing.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct Absence {
    /// `*`: only if there is none yet.
    #[param(rename = "If-None-Match", example = "*", pattern = r"^\*$")]
    if_none_match: Option<String>,
}

/// Of requests that are about a session, or may be.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the document")]
pub struct SessionHeader {
    /// The session's token. It never stands in a path, because paths are logged.
    #[param(rename = "X-Trolley-Session", max_length = 172)]
    session: Option<String>,
}

/// How reads may fail.
pub struct ReadProblems;

/// How writes may fail.
pub struct WriteProblems;

const OF_ALL: &[(&str, &str)] = &[
    ("400", "The request is malformed."),
    ("401", "No token, or none that is good here."),
    ("403", "The token does not allow this."),
    ("404", "There is none."),
    ("408", "The request took too long to arrive."),
    (
        "429",
        "Too many requests: wait as long as `Retry-After` says.",
    ),
    ("431", "The headers are too large."),
    ("502", "The store failed."),
    (
        "503",
        "Overloaded, shutting down, or without a leader: wait as long as `Retry-After` says.",
    ),
    ("504", "The deadline passed."),
];

const OF_WRITES: &[(&str, &str)] = &[
    ("409", "It contradicts what is stored."),
    ("412", "The condition does not hold."),
    ("413", "The body is too large."),
    ("415", "The body is no JSON."),
    ("422", "The `Idempotency-Key` was used for another request."),
    ("507", "The store is full."),
];

fn problems(lists: &[&[(&str, &str)]]) -> BTreeMap<String, RefOr<Response>> {
    let content = ContentBuilder::new()
        .schema(Some(utoipa::openapi::Ref::from_schema_name("Problem")))
        .build();
    let rows = lists.iter().copied().flatten();
    rows.map(|(status, description)| {
        let response = ResponseBuilder::new()
            .description(*description)
            .content("application/problem+json", content.clone())
            .build();
        ((*status).to_owned(), response.into())
    })
    .collect()
}

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[OF_ALL])
    }
}

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[OF_ALL, OF_WRITES])
    }
}

/// The schemas that are referred to by name: by the responses above, and by parameters.
pub fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = Vec::new();
    add::<ProblemDetails>(&mut schemas);
    add::<User>(&mut schemas);
    add::<Owner>(&mut schemas);
    add::<LineName>(&mut schemas);
    schemas
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}
