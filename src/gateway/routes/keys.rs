//! `/v1/keys`: plain keys and counters.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::Answer;
use super::blob::Blob;
use super::call::{Asked, At, Body, Call, with};
use super::documented::{
    Absence, Condition, ReadHeaders, ReadProblems, Seen, WriteHeaders, WriteProblems,
};
use crate::client::{IncrementKey, PutKey as Put};
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::proto::v1;
use crate::types::Revision;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, delete))
        .routes(routes!(increment))
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the name is the one over gRPC")]
pub struct Key {
    /// Its name.
    pub key: String,
    /// Its value; a counter's in decimal digits.
    pub value: Blob,
    /// A counter's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<i64>,
    /// The revision that made it.
    pub create_revision: u64,
    /// The revision that changed it last; also in `ETag`.
    pub mod_revision: u64,
    /// When it will be gone, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The lease that it dies with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<u64>,
}

impl From<v1::KeyValue> for Key {
    fn from(item: v1::KeyValue) -> Self {
        Self {
            key: item.key,
            value: item.value.into(),
            counter: item.counter,
            create_revision: item.create_revision,
            mod_revision: item.mod_revision,
            deadline_ms: some(item.deadline_ms),
            lease_id: some(item.lease_id),
        }
    }
}

/// What stands in messages as 0 is absent.
pub fn some(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

/// A time to live in the store's terms.
pub fn ttl(ms: Option<NonZeroU64>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.get()))
}

/// Some keys, in byte order.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyPage {
    items: Vec<Key>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct KeyQuery {
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Keys in one page: 100 unless said, at most 1000.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<NonZeroU32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A key's new value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutKey {
    value: Blob,
    /// How long it lives, in milliseconds; until it is deleted without.
    #[schema(value_type = Option<u64>, minimum = 1)]
    ttl_ms: Option<NonZeroU64>,
}

impl PutKey {
    /// The request that it stands for.
    pub fn build(self, call: &Call, key: String, if_absent: bool) -> Result<Put<'_>, Problem> {
        let put = call.client.keys().put(key, Bytes::try_from(self.value)?);
        let put = if if_absent { put.if_absent() } else { put };
        Ok(with!(put, ttl(ttl(self.ttl_ms))))
    }
}

/// What a write left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    create_revision: u64,
    mod_revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
}

impl From<v1::PutKeyResponse> for Written {
    fn from(put: v1::PutKeyResponse) -> Self {
        Self {
            create_revision: put.create_revision,
            mod_revision: put.mod_revision,
            deadline_ms: some(put.deadline_ms),
        }
    }
}

/// What to add to a counter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Increment {
    /// Negative to take away.
    delta: i64,
    /// The sum must not be below.
    min: Option<i64>,
    /// The sum must not be above.
    max: Option<i64>,
    /// What a counter that is not there counts from.
    initial: Option<i64>,
    /// How long a counter that is not there will live, in milliseconds.
    #[schema(value_type = Option<u64>, minimum = 1)]
    ttl_ms: Option<NonZeroU64>,
}

impl Increment {
    /// The request that it stands for.
    pub fn build(self, call: &Call, key: String) -> IncrementKey<'_> {
        with!(
            call.client.keys().increment(key, self.delta),
            min(self.min),
            max(self.max),
            initial(self.initial),
            ttl(ttl(self.ttl_ms))
        )
    }
}

/// A counter's sum.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counted {
    value: i64,
    create_revision: u64,
    mod_revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
}

impl From<v1::IncrementKeyResponse> for Counted {
    fn from(sum: v1::IncrementKeyResponse) -> Self {
        Self {
            value: sum.value,
            create_revision: sum.create_revision,
            mod_revision: sum.mod_revision,
            deadline_ms: some(sum.deadline_ms),
        }
    }
}

/// List keys in byte order. Scope `key:read`.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "list_keys", params(KeyQuery, ReadHeaders),
    responses((status = 200, body = KeyPage), ReadProblems))]
async fn list(call: Call, Asked(query): Asked<KeyQuery>) -> Result<Answer<KeyPage>, Problem> {
    call.allow(Scope::KeyRead)?;
    call.no_condition()?;
    let list = call.client.keys().list();
    let list = with!(
        list,
        prefix(query.prefix),
        limit(query.limit.map(NonZeroU32::get)),
        cursor(query.cursor)
    );
    let page = list.send().await?;
    Ok(Answer::of(page, |page| KeyPage {
        items: page.items.into_iter().map(Key::from).collect(),
        next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()),
    }))
}

/// Read a key. Scope `key:read`.
#[utoipa::path(get, path = "/v1/keys/{key}", tag = "keys", operation_id = "get_key", params(("key" = String, Path), Seen, ReadHeaders),
    responses((status = 200, body = Key), (status = 304, description = "The caller has it."), ReadProblems))]
async fn get(call: Call, At(key): At<String>) -> Result<Answer<Key>, Problem> {
    call.allow(Scope::KeyRead)?;
    let seen = call.seen()?;
    let item = call.client.keys().get(key).send().await?;
    let revision = Revision::new(item.mod_revision);
    Ok(Answer::of(item, Key::from).unless_seen(seen, revision))
}

/// Write a key; under `If-None-Match: *` only if there is none. Scope `key:write`.
#[utoipa::path(put, path = "/v1/keys/{key}", tag = "keys", operation_id = "put_key",
    params(("key" = String, Path), Condition, Absence, WriteHeaders),
    request_body = PutKey, responses((status = 200, body = Written), WriteProblems))]
async fn put(
    call: Call,
    At(key): At<String>,
    Body(body): Body<PutKey>,
) -> Result<Answer<Written>, Problem> {
    call.allow(Scope::KeyWrite)?;
    let if_absent = call.if_absent()?;
    let put = with!(
        body.build(&call, key, if_absent)?,
        if_revision(call.if_match),
        request_id(call.request_id.clone())
    );
    let written = put.send().await?;
    let revision = Revision::new(written.mod_revision);
    Ok(Answer::of(written, Written::from).tagged(revision))
}

/// Delete a key. Scope `key:write`.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "keys", operation_id = "delete_key",
    params(("key" = String, Path), Condition, WriteHeaders),
    responses((status = 204, description = "It is gone."), WriteProblems))]
async fn delete(call: Call, At(key): At<String>) -> Result<Answer<()>, Problem> {
    call.allow(Scope::KeyWrite)?;
    let delete = call.client.keys().delete(key);
    let delete = with!(
        delete,
        if_revision(call.condition()?),
        request_id(call.request_id)
    );
    Ok(Answer::done(delete.send().await?))
}

/// Add to a counter, within bounds. Scope `key:write`.
#[utoipa::path(post, path = "/v1/keys/{key}/increment", tag = "keys", operation_id = "increment_key",
    params(("key" = String, Path), WriteHeaders), request_body = Increment,
    responses((status = 200, body = Counted), WriteProblems))]
async fn increment(
    call: Call,
    At(key): At<String>,
    Body(body): Body<Increment>,
) -> Result<Answer<Counted>, Problem> {
    call.allow(Scope::KeyWrite)?;
    call.no_condition()?;
    let increment = with!(body.build(&call, key), request_id(call.request_id.clone()));
    let sum = increment.send().await?;
    let revision = Revision::new(sum.mod_revision);
    Ok(Answer::of(sum, Counted::from).tagged(revision))
}
