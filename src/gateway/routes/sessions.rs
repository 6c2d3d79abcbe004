//! `/v1/sessions`, by token, and `/v1/users/{user}/sessions`, by user.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{User, session};
use super::answer::Answer;
use super::blob::Blob;
use super::call::{Asked, At, Body, Call, with};
use super::cart_views::Merge;
use super::documented::{
    Condition, ReadHeaders, ReadProblems, Seen, SessionHeader, WriteHeaders, WriteProblems,
};
use super::keys::ttl;
use super::session_views::{Changed, Created, Devices, Revoked, Rotated, Saved, Session, Touched};
use crate::client::{CreateSession, RotateSession, UpdateSession};
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::proto::v1;
use crate::types::Revision;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get, update, destroy))
        .routes(routes!(save))
        .routes(routes!(touch))
        .routes(routes!(rotate))
        .routes(routes!(list, revoke_all))
        .routes(routes!(end))
}

type Fields = BTreeMap<String, Blob>;

fn fields(fields: Fields) -> Result<BTreeMap<String, Bytes>, Problem> {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| Ok((name, Bytes::try_from(value)?)))
        .collect()
}

/// A session to begin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// Whose it is; a guest's without. Another user than the caller takes `session:admin`.
    #[schema(value_type = Option<String>)]
    user: Option<User>,
    /// A token of the caller's own, base64url of at least 16 bytes; one is drawn without.
    token: Option<String>,
    #[serde(default)]
    fields: Fields,
    /// Of the browser or device, for listings: up to 16 short texts.
    #[serde(default)]
    client: BTreeMap<String, String>,
    /// How long it lives without being touched or updated.
    #[schema(value_type = Option<u64>, minimum = 1)]
    idle_ttl_ms: Option<NonZeroU64>,
    /// How long it lives whatever happens.
    #[schema(value_type = Option<u64>, minimum = 1)]
    absolute_ttl_ms: Option<NonZeroU64>,
}

impl NewSession {
    /// The request that it stands for.
    pub fn build(self, call: &Call) -> Result<CreateSession<'_>, Problem> {
        let user = self
            .user
            .map(|user| user.resolve(call, Scope::SessionAdmin))
            .transpose()?;
        let mut create = with!(
            call.client.sessions().create(),
            user(user),
            token(self.token),
            idle_ttl(ttl(self.idle_ttl_ms)),
            absolute_ttl(ttl(self.absolute_ttl_ms))
        );
        for (name, value) in fields(self.fields)? {
            create = create.field(name, value);
        }
        for (name, value) in self.client {
            create = create.client(name, value);
        }
        Ok(create)
    }
}

/// Fields to set and to remove; those that are not named stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionChange {
    #[serde(default)]
    set: Fields,
    #[serde(default)]
    remove: Vec<String>,
    #[schema(value_type = Option<u64>, minimum = 1)]
    idle_ttl_ms: Option<NonZeroU64>,
    /// It is gone that long from now, be that earlier or later than before.
    #[schema(value_type = Option<u64>, minimum = 1)]
    absolute_ttl_ms: Option<NonZeroU64>,
}

impl SessionChange {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, token: &str) -> Result<UpdateSession<'c>, Problem> {
        let mut update = with!(
            call.client.sessions().update(token),
            idle_ttl(ttl(self.idle_ttl_ms)),
            absolute_ttl(ttl(self.absolute_ttl_ms))
        );
        for (name, value) in fields(self.set)? {
            update = update.set(name, value);
        }
        for name in self.remove {
            update = update.remove(name);
        }
        Ok(update)
    }
}

/// A login, or a new token for the same session.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Who logs in; without, the session stays whose it is.
    #[schema(value_type = Option<String>)]
    user: Option<User>,
    /// A token of the caller's own, base64url of at least 16 bytes; one is drawn without.
    new_token: Option<String>,
    #[serde(default)]
    set: Fields,
    #[serde(default)]
    remove: Vec<String>,
    /// Takes the place of what was said before, unless it is empty.
    #[serde(default)]
    client: BTreeMap<String, String>,
    #[schema(value_type = Option<u64>, minimum = 1)]
    idle_ttl_ms: Option<NonZeroU64>,
    #[schema(value_type = Option<u64>, minimum = 1)]
    absolute_ttl_ms: Option<NonZeroU64>,
    /// How the session's own cart becomes part of the user's; quantities add up without.
    cart_merge: Option<Merge>,
}

impl Rotation {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, token: &str) -> Result<RotateSession<'c>, Problem> {
        let user = self
            .user
            .map(|user| user.resolve(call, Scope::SessionAdmin))
            .transpose()?;
        let mut rotate = with!(
            call.client.sessions().rotate(token),
            user(user),
            new_token(self.new_token),
            idle_ttl(ttl(self.idle_ttl_ms)),
            absolute_ttl(ttl(self.absolute_ttl_ms)),
            cart_merge(self.cart_merge.map(Merge::into))
        );
        for (name, value) in fields(self.set)? {
            rotate = rotate.set(name, value);
        }
        for name in self.remove {
            rotate = rotate.remove(name);
        }
        for (name, value) in self.client {
            rotate = rotate.client(name, value);
        }
        Ok(rotate)
    }
}

/// All fields of a session, to be merged with what others changed since it was loaded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// As they should be; a field that was loaded and is not here was removed.
    fields: Fields,
    /// As they were loaded; without, whatever others changed meanwhile and differs is a conflict.
    base: Option<Fields>,
    /// The session's `mod_revision` when it was loaded.
    loaded_revision: u64,
    #[serde(default)]
    policy: SavePolicy,
}

/// What happens where both changed a field.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SavePolicy {
    /// Nothing is saved.
    #[default]
    FailOnConflict,
    /// The caller's values win.
    LastWriterWins,
}

/// Whether reading is being seen.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GetQuery {
    /// Moves the idle deadline as well; the scope `session:write` is needed then.
    #[serde(default)]
    #[param(required = false)]
    touch: bool,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Sessions in one page: 100 unless said, at most 1000.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<NonZeroU32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which sessions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RevokeQuery {
    /// Spares the session of the header `X-Trolley-Session`.
    #[serde(default)]
    #[param(required = false)]
    except_current: bool,
}

/// Begin a session. Scope `session:write`.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", operation_id = "create_session",
    params(WriteHeaders), request_body = NewSession,
    responses((status = 201, body = Created), WriteProblems))]
async fn create(call: Call, Body(body): Body<NewSession>) -> Result<Answer<Created>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let create = with!(body.build(&call)?, request_id(call.request_id.clone()));
    let created = create.send().await?;
    let revision = Revision::new(created.session.mod_revision);
    Ok(Answer::of(created, Created::from)
        .tagged(revision)
        .created())
}

/// Read the session. Scope `session:read`.
#[utoipa::path(get, path = "/v1/sessions/current", tag = "sessions", operation_id = "get_session",
    params(GetQuery, SessionHeader, Seen, ReadHeaders),
    responses((status = 200, body = Session), (status = 304, description = "The caller has it."), ReadProblems))]
async fn get(call: Call, Asked(query): Asked<GetQuery>) -> Result<Answer<Session>, Problem> {
    call.allow(Scope::SessionRead)?;
    if query.touch {
        call.allow(Scope::SessionWrite)?;
    }
    let seen = call.seen()?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let get = call.client.sessions().get(&token);
    let get = if query.touch { get.touch() } else { get };
    let found = get.send().await?;
    let revision = Revision::new(found.mod_revision);
    Ok(Answer::of(found, Session::from).unless_seen(seen, revision))
}

/// Set and remove fields. Scope `session:write`.
#[utoipa::path(patch, path = "/v1/sessions/current", tag = "sessions", operation_id = "update_session",
    params(SessionHeader, Condition, WriteHeaders), request_body = SessionChange,
    responses((status = 200, body = Changed), WriteProblems))]
async fn update(call: Call, Body(body): Body<SessionChange>) -> Result<Answer<Changed>, Problem> {
    call.allow(Scope::SessionWrite)?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let update = with!(
        body.build(&call, &token)?,
        if_revision(call.condition()?),
        request_id(call.request_id.clone())
    );
    let changed = update.send().await?;
    let revision = Revision::new(changed.mod_revision);
    Ok(Answer::of(changed, Changed::from).tagged(revision))
}

/// Log out. The session's own cart goes with it. Scope `session:write`.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "sessions", operation_id = "destroy_session",
    params(SessionHeader, WriteHeaders),
    responses((status = 204, description = "It has ended."), WriteProblems))]
async fn destroy(call: Call) -> Result<Answer<()>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let destroy = call.client.sessions().destroy(&token);
    let destroy = with!(destroy, request_id(call.request_id));
    Ok(Answer::done(destroy.send().await?))
}

/// Give the session back whole: a three-way merge with what others changed. Scope `session:write`.
#[utoipa::path(post, path = "/v1/sessions/current/save", tag = "sessions", operation_id = "save_session",
    params(SessionHeader, WriteHeaders), request_body = Save,
    responses((status = 200, body = Saved), WriteProblems))]
async fn save(call: Call, Body(body): Body<Save>) -> Result<Answer<Saved>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let sessions = call.client.sessions();
    let (wanted, loaded) = (fields(body.fields)?, Revision::new(body.loaded_revision));
    let save = match body.base {
        Some(base) => {
            let loaded = v1::Session {
                fields: fields(base)?,
                mod_revision: loaded.get(),
                ..Default::default()
            };
            sessions.save(&token, &loaded, wanted)
        }
        None => sessions.save_blind(&token, loaded, wanted),
    };
    let save = match body.policy {
        SavePolicy::FailOnConflict => save,
        SavePolicy::LastWriterWins => save.last_writer_wins(),
    };
    let save = with!(save, request_id(call.request_id.clone()));
    let saved = save.send().await?;
    let revision = Revision::new(saved.mod_revision);
    Ok(Answer::of(saved, Saved::from).tagged(revision))
}

/// Move the idle deadline. Scope `session:write`.
#[utoipa::path(post, path = "/v1/sessions/current/touch", tag = "sessions", operation_id = "touch_session",
    params(SessionHeader, WriteHeaders), responses((status = 200, body = Touched), WriteProblems))]
async fn touch(call: Call) -> Result<Answer<Touched>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let touch = call.client.sessions().touch(&token);
    let touch = with!(touch, request_id(call.request_id));
    Ok(Answer::of(touch.send().await?, Touched::from))
}

/// Log in, or renew the token: the old one is of no use afterwards. Scope `session:write`.
#[utoipa::path(post, path = "/v1/sessions/current/rotate", tag = "sessions", operation_id = "rotate_session",
    params(SessionHeader, WriteHeaders), request_body = Rotation,
    responses((status = 200, body = Rotated), WriteProblems))]
async fn rotate(call: Call, Body(body): Body<Rotation>) -> Result<Answer<Rotated>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let token = session(&call, Scope::SessionAdmin).await?;
    let rotate = body.build(&call, &token)?;
    let rotate = with!(rotate, request_id(call.request_id.clone()));
    let rotated = rotate.send().await?;
    let revision = Revision::new(rotated.mod_revision);
    Ok(Answer::of(rotated, Rotated::from).tagged(revision))
}

/// List a user's sessions, oldest first. Scope `session:read`.
#[utoipa::path(get, path = "/v1/users/{user}/sessions", tag = "sessions", operation_id = "list_sessions",
    params(("user" = User, Path), ListQuery, SessionHeader, ReadHeaders),
    responses((status = 200, body = Devices), ReadProblems))]
async fn list(
    call: Call,
    At(user): At<User>,
    Asked(query): Asked<ListQuery>,
) -> Result<Answer<Devices>, Problem> {
    call.allow(Scope::SessionRead)?;
    call.no_condition()?;
    let user = user.resolve(&call, Scope::SessionAdmin)?;
    let list = call.client.sessions().list(user);
    let list = with!(
        list,
        current(call.session.clone()),
        limit(query.limit.map(NonZeroU32::get)),
        cursor(query.cursor)
    );
    Ok(Answer::of(list.send().await?, Devices::from))
}

/// Log out one of a user's sessions. Scope `session:write`.
#[utoipa::path(delete, path = "/v1/users/{user}/sessions/{handle}", tag = "sessions", operation_id = "end_session",
    params(("user" = User, Path), ("handle" = String, Path), WriteHeaders),
    responses((status = 204, description = "It has ended."), WriteProblems))]
async fn end(call: Call, At((user, handle)): At<(User, String)>) -> Result<Answer<()>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let user = user.resolve(&call, Scope::SessionAdmin)?;
    let end = call.client.sessions().end(user, handle);
    let end = with!(end, request_id(call.request_id));
    Ok(Answer::done(end.send().await?))
}

/// Log out all of a user's sessions, or all but the current one. Scope `session:write`.
#[utoipa::path(delete, path = "/v1/users/{user}/sessions", tag = "sessions", operation_id = "revoke_sessions",
    params(("user" = User, Path), RevokeQuery, SessionHeader, WriteHeaders),
    responses((status = 200, body = Revoked), WriteProblems))]
async fn revoke_all(
    call: Call,
    At(user): At<User>,
    Asked(query): Asked<RevokeQuery>,
) -> Result<Answer<Revoked>, Problem> {
    call.allow(Scope::SessionWrite)?;
    call.no_condition()?;
    let user = user.resolve(&call, Scope::SessionAdmin)?;
    let spared = if query.except_current {
        Some(session(&call, Scope::SessionAdmin).await?)
    } else {
        None
    };
    let revoke = call.client.sessions().revoke_all(user);
    let revoke = with!(revoke, except(spared), request_id(call.request_id));
    Ok(Answer::of(revoke.send().await?, |ended| Revoked { ended }))
}
