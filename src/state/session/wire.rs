//! Session operations to messages of the log and back.

use bytes::Bytes;

use super::given::Fields;
use super::operation::{Rotation, SavePolicy, SessionOperation};
use crate::proto::internal::command::Operation as Wire;
use crate::proto::{internal as pb, v1};
use crate::state::cart::MergePolicy;
use crate::state::command_wire::{hash_bytes, ttl};
use crate::types::{
    ClientAttributes, Invalid, LogTime, Revision, SessionHandle, TokenHash, Ttl, UserId,
};

impl From<&SessionOperation> for Wire {
    fn from(operation: &SessionOperation) -> Self {
        match operation {
            SessionOperation::Create { .. } => create_to_wire(operation),
            SessionOperation::Rotate(rotation) => rotate_to_wire(rotation),
            SessionOperation::Update {
                token,
                set,
                remove,
                idle_ttl,
                absolute_ttl,
                if_revision,
            } => Self::SessionUpdate(pb::SessionUpdate {
                token_hash: hash_bytes(token),
                set: set.packed().clone(),
                remove: remove.clone(),
                if_revision: if_revision.map(Revision::get),
                idle_ttl: idle_ttl.map_or(0, Ttl::as_millis),
                absolute_ttl: absolute_ttl.map_or(0, Ttl::as_millis),
            }),
            SessionOperation::Save {
                token,
                loaded,
                base,
                fields,
                policy,
            } => Self::SessionSave(pb::SessionSave {
                token_hash: hash_bytes(token),
                loaded_revision: loaded.get(),
                whole: base.is_none(),
                base: base.as_ref().map_or_else(Vec::new, list),
                fields: list(fields),
                last_writer_wins: *policy == SavePolicy::LastWriterWins,
            }),
            SessionOperation::Touch { token } => Self::SessionTouch(pb::SessionTouch {
                token_hash: hash_bytes(token),
            }),
            SessionOperation::Destroy { token } => Self::SessionDestroy(pb::SessionDestroy {
                token_hash: hash_bytes(token),
            }),
            SessionOperation::End { user, handle } => Self::SessionEnd(pb::SessionEnd {
                user_id: user.as_str().to_owned(),
                place: Some((*handle).into()),
            }),
            SessionOperation::RevokeAll { user, except } => {
                Self::SessionRevokeAll(pb::SessionRevokeAll {
                    user_id: user.as_str().to_owned(),
                    except_token_hash: except.as_ref().map_or_else(Bytes::new, hash_bytes),
                })
            }
        }
    }
}

fn create_to_wire(operation: &SessionOperation) -> Wire {
    let SessionOperation::Create {
        token,
        sealed_token,
        user,
        fields,
        client,
        idle_ttl,
        absolute_ttl,
    } = operation
    else {
        unreachable!("only creations are sent here");
    };
    Wire::SessionCreate(pb::SessionCreate {
        token_hash: hash_bytes(token),
        sealed_token: sealed_token.clone(),
        user_id: user_id(user.as_ref()),
        fields: list(fields),
        idle_ttl: idle_ttl.map_or(0, Ttl::as_millis),
        absolute_ttl: absolute_ttl.map_or(0, Ttl::as_millis),
        client: client.as_map().clone(),
    })
}

fn rotate_to_wire(rotation: &Rotation) -> Wire {
    Wire::SessionRotate(pb::SessionRotate {
        token_hash: hash_bytes(&rotation.token),
        new_token_hash: hash_bytes(&rotation.new_token),
        sealed_token: rotation.sealed_token.clone(),
        user_id: user_id(rotation.user.as_ref()),
        set: list(&rotation.set),
        remove: rotation.remove.clone(),
        idle_ttl: rotation.idle_ttl.map_or(0, Ttl::as_millis),
        absolute_ttl: rotation.absolute_ttl.map_or(0, Ttl::as_millis),
        client: rotation.client.as_map().clone(),
        cart_merge: v1::CartMergePolicy::from(rotation.cart_merge).into(),
    })
}

fn list(fields: &Fields) -> Vec<pb::SessionField> {
    let fields = fields.packed().shared();
    fields
        .map(|(name, value)| pb::SessionField {
            name: name.to_owned(),
            value,
        })
        .collect()
}

fn parse_list(fields: Vec<pb::SessionField>) -> Result<Fields, Invalid> {
    Fields::parse_packed(fields.into_iter().collect())
}

fn user_id(user: Option<&UserId>) -> String {
    user.map_or_else(String::new, |user| user.as_str().to_owned())
}

impl From<SessionHandle> for pb::SessionPlace {
    fn from(handle: SessionHandle) -> Self {
        Self {
            birth: handle.birth(),
            created_at: handle.created_at().as_millis(),
        }
    }
}

impl From<pb::SessionPlace> for SessionHandle {
    fn from(place: pb::SessionPlace) -> Self {
        Self::new(place.birth, LogTime::from_millis(place.created_at))
    }
}

impl TryFrom<pb::SessionCreate> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionCreate) -> Result<Self, Invalid> {
        Ok(Self::Create {
            token: TokenHash::parse(&it.token_hash)?,
            sealed_token: it.sealed_token,
            user: optional_user(it.user_id)?,
            fields: parse_list(it.fields)?,
            client: ClientAttributes::parse(it.client)?,
            idle_ttl: ttl("idle_ttl", it.idle_ttl)?,
            absolute_ttl: ttl("absolute_ttl", it.absolute_ttl)?,
        })
    }
}

impl TryFrom<pb::SessionUpdate> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionUpdate) -> Result<Self, Invalid> {
        Ok(Self::Update {
            token: TokenHash::parse(&it.token_hash)?,
            set: Fields::parse_packed(it.set)?,
            remove: Fields::parse_names(it.remove)?,
            idle_ttl: ttl("idle_ttl", it.idle_ttl)?,
            absolute_ttl: ttl("absolute_ttl", it.absolute_ttl)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

impl TryFrom<pb::SessionSave> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionSave) -> Result<Self, Invalid> {
        if it.whole && !it.base.is_empty() {
            return Err(Invalid::Exclusive {
                first: "whole",
                second: "base",
            });
        }
        let base = parse_list(it.base)?;
        Ok(Self::Save {
            token: TokenHash::parse(&it.token_hash)?,
            loaded: Revision::new(it.loaded_revision),
            base: (!it.whole).then_some(base),
            fields: parse_list(it.fields)?,
            policy: if it.last_writer_wins {
                SavePolicy::LastWriterWins
            } else {
                SavePolicy::FailOnConflict
            },
        })
    }
}

impl TryFrom<pb::SessionTouch> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionTouch) -> Result<Self, Invalid> {
        Ok(Self::Touch {
            token: TokenHash::parse(&it.token_hash)?,
        })
    }
}

impl TryFrom<pb::SessionDestroy> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionDestroy) -> Result<Self, Invalid> {
        Ok(Self::Destroy {
            token: TokenHash::parse(&it.token_hash)?,
        })
    }
}

impl TryFrom<pb::SessionRotate> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionRotate) -> Result<Self, Invalid> {
        Ok(Self::Rotate(Box::new(Rotation {
            token: TokenHash::parse(&it.token_hash)?,
            new_token: TokenHash::parse(&it.new_token_hash)?,
            cart_merge: MergePolicy::parse("cart_merge", it.cart_merge)?,
            sealed_token: it.sealed_token,
            user: optional_user(it.user_id)?,
            set: parse_list(it.set)?,
            remove: Fields::parse_names(it.remove)?,
            idle_ttl: ttl("idle_ttl", it.idle_ttl)?,
            absolute_ttl: ttl("absolute_ttl", it.absolute_ttl)?,
            client: ClientAttributes::parse(it.client)?,
        })))
    }
}

impl TryFrom<pb::SessionEnd> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionEnd) -> Result<Self, Invalid> {
        let place = it.place.ok_or(Invalid::Empty { field: "place" })?;
        Ok(Self::End {
            user: UserId::parse(it.user_id)?,
            handle: place.into(),
        })
    }
}

impl TryFrom<pb::SessionRevokeAll> for SessionOperation {
    type Error = Invalid;

    fn try_from(it: pb::SessionRevokeAll) -> Result<Self, Invalid> {
        let except = Some(it.except_token_hash).filter(|hash| !hash.is_empty());
        Ok(Self::RevokeAll {
            user: UserId::parse(it.user_id)?,
            except: except.map(|hash| TokenHash::parse(&hash)).transpose()?,
        })
    }
}

fn optional_user(text: String) -> Result<Option<UserId>, Invalid> {
    Some(text)
        .filter(|text| !text.is_empty())
        .map(UserId::parse)
        .transpose()
}
