//! Sessions as JSON has them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::blob::Blob;
use super::cart_views::Merge;
use crate::client::{CreatedSession, RotatedSession};
use crate::proto::v1;

/// A session. Its token is never part of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// Absent for a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    fields: BTreeMap<String, Blob>,
    /// What was said of the browser or device.
    client: BTreeMap<String, String>,
    /// Names the session in a listing of its user's; absent for a guest. It logs nobody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    create_revision: u64,
    /// The revision that changed it last; also in `ETag`.
    mod_revision: u64,
    /// Times are Unix milliseconds.
    created_at_ms: u64,
    last_seen_ms: u64,
    /// It is gone then unless it is touched or updated before.
    idle_deadline_ms: u64,
    /// It is gone then whatever happens.
    absolute_deadline_ms: u64,
    idle_ttl_ms: u64,
    /// A touch within this time of `last_seen_ms` is not stored.
    touch_interval_ms: u64,
}

impl From<v1::Session> for Session {
    fn from(session: v1::Session) -> Self {
        Self {
            user_id: text(session.user_id),
            fields: session
                .fields
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect(),
            client: session.client.into_iter().collect(),
            handle: text(session.handle),
            create_revision: session.create_revision,
            mod_revision: session.mod_revision,
            created_at_ms: session.created_at_ms,
            last_seen_ms: session.last_seen_ms,
            idle_deadline_ms: session.idle_deadline_ms,
            absolute_deadline_ms: session.absolute_deadline_ms,
            idle_ttl_ms: session.idle_ttl_ms,
            touch_interval_ms: session.touch_interval_ms,
        }
    }
}

/// What stands in messages as an empty text is absent.
pub fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A new session.
#[derive(Serialize, ToSchema)]
pub struct Created {
    /// What the browser's cookie should hold. A secret: it cannot be asked for again.
    token: String,
    session: Session,
    /// Handles of the user's older sessions that were ended to make room.
    ended: Vec<String>,
}

impl From<CreatedSession> for Created {
    fn from(created: CreatedSession) -> Self {
        Self {
            token: created.token,
            session: created.session.into(),
            ended: created.ended,
        }
    }
}

impl From<v1::CreateSessionResponse> for Created {
    fn from(created: v1::CreateSessionResponse) -> Self {
        Self {
            token: created.token,
            session: created.session.unwrap_or_default().into(),
            ended: created.ended,
        }
    }
}

/// A session under its new token.
#[derive(Serialize, ToSchema)]
pub struct Rotated {
    /// What the browser's cookie should hold from now on. A secret: it cannot be asked for again.
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    mod_revision: u64,
    idle_deadline_ms: u64,
    absolute_deadline_ms: u64,
    /// What became of the session's own cart; absent when it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cart: Option<CartMoved>,
    /// Handles of the user's older sessions that were ended to make room.
    ended: Vec<String>,
}

impl From<RotatedSession> for Rotated {
    fn from(rotated: RotatedSession) -> Self {
        (*rotated).clone().into()
    }
}

impl From<v1::RotateSessionResponse> for Rotated {
    fn from(rotated: v1::RotateSessionResponse) -> Self {
        Self {
            token: rotated.token,
            user_id: text(rotated.user_id),
            handle: text(rotated.handle),
            mod_revision: rotated.mod_revision,
            idle_deadline_ms: rotated.idle_deadline_ms,
            absolute_deadline_ms: rotated.absolute_deadline_ms,
            cart: rotated.cart.as_ref().map(CartMoved::from),
            ended: rotated.ended,
        }
    }
}

/// What became of a session's own cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartMoved {
    /// By which policy it was merged; absent if it went along as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Merge>,
    taken_lines: u32,
    dropped_lines: u32,
    /// It had been merged before.
    already_merged: bool,
    /// Of the cart that the session fills now; 0 if there is none.
    mod_revision: u64,
}

impl From<&v1::CartMerge> for CartMoved {
    fn from(merge: &v1::CartMerge) -> Self {
        Self {
            policy: Merge::of(merge.policy()).filter(|_| !merge.moved),
            taken_lines: merge.taken_lines,
            dropped_lines: merge.dropped_lines,
            already_merged: merge.already_merged,
            mod_revision: merge.mod_revision,
        }
    }
}

/// What a change left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    mod_revision: u64,
    idle_deadline_ms: u64,
}

impl From<v1::UpdateSessionResponse> for Changed {
    fn from(changed: v1::UpdateSessionResponse) -> Self {
        Self {
            mod_revision: changed.mod_revision,
            idle_deadline_ms: changed.idle_deadline_ms,
        }
    }
}

/// What a save left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Saved {
    mod_revision: u64,
    idle_deadline_ms: u64,
    /// Others had changed the session meanwhile: it holds more than what was saved.
    merged: bool,
    /// Under `last_writer_wins`: fields whose newer values were written over.
    overwritten: Vec<String>,
}

impl From<v1::SaveSessionResponse> for Saved {
    fn from(saved: v1::SaveSessionResponse) -> Self {
        Self {
            mod_revision: saved.mod_revision,
            idle_deadline_ms: saved.idle_deadline_ms,
            merged: saved.merged,
            overwritten: saved.overwritten,
        }
    }
}

/// What a touch left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Touched {
    idle_deadline_ms: u64,
}

impl From<v1::TouchSessionResponse> for Touched {
    fn from(touched: v1::TouchSessionResponse) -> Self {
        Self {
            idle_deadline_ms: touched.idle_deadline_ms,
        }
    }
}

/// One of a user's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Device {
    /// Names it for ending it.
    handle: String,
    created_at_ms: u64,
    last_seen_ms: u64,
    idle_deadline_ms: u64,
    absolute_deadline_ms: u64,
    client: BTreeMap<String, String>,
    /// It is the session of the request's `X-Trolley-Session`.
    current: bool,
}

impl From<v1::UserSession> for Device {
    fn from(session: v1::UserSession) -> Self {
        Self {
            handle: session.handle,
            created_at_ms: session.created_at_ms,
            last_seen_ms: session.last_seen_ms,
            idle_deadline_ms: session.idle_deadline_ms,
            absolute_deadline_ms: session.absolute_deadline_ms,
            client: session.client.into_iter().collect(),
            current: session.current,
        }
    }
}

/// A user's sessions, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Devices {
    sessions: Vec<Device>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<v1::ListSessionsResponse> for Devices {
    fn from(page: v1::ListSessionsResponse) -> Self {
        Self {
            sessions: page.sessions.into_iter().map(Device::from).collect(),
            next_cursor: text(page.next_cursor),
        }
    }
}

/// How many sessions ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revoked {
    pub ended: u64,
}
