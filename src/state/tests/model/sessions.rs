//! Sessions in the naive model: no index, no sweep. Whoever ends is taken out at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Cart, Model, check};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::{CartOwner, Fields, Rejection, Rotation, SavePolicy, SessionOperation, TtlKind};
use crate::types::{Namespace, Revision, SessionHandle, TokenHash, Ttl, UserId};

#[derive(Clone)]
pub struct Session {
    pub user: String,
    pub fields: BTreeMap<String, Bytes>,
    pub client: BTreeMap<String, String>,
    pub created: u64,
    pub modified: u64,
    pub created_at: u64,
    pub seen: u64,
    /// 0 for a guest's.
    birth: u64,
    idle: u64,
    interval: u64,
    pub absolute: u64,
    pub cart: Option<Cart>,
}

/// What decides the next birth, as long as there is a session of the user, or one was just revoked.
#[derive(Clone, Default)]
pub struct User {
    last_birth: u64,
    epoch: u64,
    just_revoked: bool,
}

impl Session {
    pub fn due(&self) -> u64 {
        (self.seen + self.interval + self.idle).min(self.absolute)
    }

    /// As a transaction reads it.
    pub fn record(&self) -> pb::SessionRecord {
        pb::SessionRecord {
            user_id: self.user.clone(),
            fields: self
                .fields
                .iter()
                .map(|(name, value)| pb::SessionField {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            create_revision: self.created,
            mod_revision: self.modified,
            created_at: self.created_at,
            last_seen: self.seen,
            idle_ttl: self.idle,
            absolute_deadline: self.absolute,
            indexed_deadline: 0,
            has_cart: self.cart.is_some(),
            tombstone_until: 0,
            birth: self.birth,
            touch_interval: self.interval,
            client: self.client.clone(),
        }
    }

    fn place(&self) -> pb::SessionPlace {
        pb::SessionPlace {
            birth: self.birth,
            created_at: self.created_at,
        }
    }

    pub fn handle(&self) -> Option<SessionHandle> {
        (!self.user.is_empty()).then(|| self.place().into())
    }

    fn changed(&self) -> Body {
        Body::SessionChanged(pb::SessionChanged {
            mod_revision: self.modified,
            idle_deadline: self.due(),
        })
    }

    fn told(
        &self,
        token: TokenHash,
        sealed_token: Bytes,
        ended: Vec<pb::SessionPlace>,
    ) -> pb::SessionCreated {
        pb::SessionCreated {
            sealed_token,
            token_hash: token.as_bytes().to_vec().into(),
            created_at: self.created_at,
            idle_ttl: self.idle,
            idle_deadline: self.due(),
            absolute_deadline: self.absolute,
            touch_interval: self.interval,
            birth: self.birth,
            ended,
        }
    }
}

impl Model {
    pub fn change_session(
        &mut self,
        ns: &Namespace,
        operation: SessionOperation,
    ) -> Result<Body, Rejection> {
        let (now, next) = (self.now, self.next());
        match operation {
            SessionOperation::Create { .. } => self.create_session(ns, operation),
            SessionOperation::Rotate(rotation) => self.rotate_session(ns, *rotation),
            SessionOperation::Update {
                token,
                set,
                remove,
                idle_ttl,
                absolute_ttl,
                if_revision,
            } => {
                let settings = self.session_settings(ns);
                let session = self.session(ns, token)?;
                check(if_revision, session.modified)?;
                let after = updated(&session.fields, set.to_map(), &remove);
                check_size(&settings, &session.fields, &after)?;
                let idle = idle_ttl.map(|asked| idle_ms(&settings, Some(asked)));
                let absolute = absolute_ttl.map(|asked| absolute_ms(&settings, Some(asked)));
                let (idle, absolute) = (idle.transpose()?, absolute.transpose()?);
                if let Some(idle) = idle {
                    session.idle = idle;
                    session.interval = interval_ms(&settings, idle);
                }
                if let Some(absolute) = absolute {
                    session.absolute = now + absolute;
                }
                session.fields = after;
                session.seen = now;
                session.modified = next;
                let body = session.changed();
                self.bump();
                Ok(body)
            }
            SessionOperation::Save {
                token,
                loaded,
                base,
                fields,
                policy,
            } => {
                let base = base.as_ref().map(Fields::to_map);
                self.save_session(ns, token, loaded, base.as_ref(), &fields.to_map(), policy)
            }
            SessionOperation::Touch { token } => {
                self.see(ns, token)?;
                Ok(self.session(ns, token)?.changed())
            }
            SessionOperation::Destroy { token } => {
                self.session(ns, token)?;
                self.end_session(ns, token);
                self.bump();
                Ok(Body::SessionDestroyed(pb::SessionDestroyed {}))
            }
            SessionOperation::End { user, handle } => {
                let found = self.sessions_of(ns, user.as_str());
                let found = found
                    .into_iter()
                    .find(|token| self.sessions[&(ns.clone(), *token)].handle() == Some(handle));
                self.end_session(ns, found.ok_or(Rejection::SessionNotFound)?);
                self.bump();
                Ok(Body::SessionDestroyed(pb::SessionDestroyed {}))
            }
            SessionOperation::RevokeAll { user, except } => {
                let mut ending = self.sessions_of(ns, user.as_str());
                if let Some(except) = except {
                    if !ending.contains(&except) {
                        return Err(Rejection::SessionNotFound);
                    }
                    ending.retain(|token| *token != except);
                }
                if !ending.is_empty() {
                    let revision = self.bump();
                    let user = self.users.entry((ns.clone(), user.to_string()));
                    let user = user.or_default();
                    user.epoch = revision.max(user.last_birth + 1);
                    user.just_revoked = true;
                }
                for token in &ending {
                    self.end_session(ns, *token);
                }
                Ok(Body::SessionsRevoked(pb::SessionsRevoked {
                    ended: ending.len() as u64,
                }))
            }
        }
    }

    pub fn session(&mut self, ns: &Namespace, token: TokenHash) -> Result<&mut Session, Rejection> {
        self.sessions
            .get_mut(&(ns.clone(), token))
            .ok_or(Rejection::SessionNotFound)
    }

    /// Oldest first.
    pub fn sessions_of(&self, ns: &Namespace, user: &str) -> Vec<TokenHash> {
        let mut found: Vec<_> = self
            .sessions
            .iter()
            .filter(|((other, _), session)| other == ns && session.user == user)
            .map(|((_, token), session)| (session.birth, *token))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, token)| token).collect()
    }

    fn session_settings(&self, ns: &Namespace) -> v1::SessionSettings {
        let settings = self.settings.get(ns).and_then(|(set, _)| set.session);
        settings.unwrap_or_default()
    }

    fn end_session(&mut self, ns: &Namespace, token: TokenHash) {
        let id = (ns.clone(), token);
        let session = self.sessions.remove(&id).expect("the caller found it");
        self.ended.insert(id, session.absolute);
        let user = (ns.clone(), session.user);
        let others = self.sessions_of(ns, &user.1);
        if others.is_empty() && self.users.get(&user).is_some_and(|it| !it.just_revoked) {
            self.users.remove(&user);
        }
    }

    /// Between two entries: what was revoked is swept.
    pub fn forget_users(&mut self) {
        let sessions = &self.sessions;
        self.users.retain(|(ns, user), _| {
            let mut sessions = sessions.iter();
            sessions.any(|((other, _), session)| other == ns && session.user == *user)
        });
        for user in self.users.values_mut() {
            user.just_revoked = false;
        }
    }

    /// The place of a session that is born at a revision, among those of its user.
    fn give_birth(&mut self, ns: &Namespace, user: &str, revision: u64) -> u64 {
        if user.is_empty() {
            return 0;
        }
        let user = self.users.entry((ns.clone(), user.to_owned()));
        let user = user.or_default();
        user.last_birth = revision.max(user.last_birth + 1).max(user.epoch);
        user.last_birth
    }

    fn see(&mut self, ns: &Namespace, token: TokenHash) -> Result<(), Rejection> {
        let now = self.now;
        let session = self.session(ns, token)?;
        if now >= session.seen + session.interval {
            session.seen = now;
            self.bump();
        }
        Ok(())
    }

    fn claim(&self, ns: &Namespace, token: TokenHash) -> Result<(), Rejection> {
        let id = (ns.clone(), token);
        if self.sessions.contains_key(&id) {
            return Err(Rejection::SessionExists);
        }
        if self.ended.contains_key(&id) {
            return Err(Rejection::SessionEnded);
        }
        Ok(())
    }

    /// Who ends so that the user may have one session more.
    fn admit(
        &self,
        ns: &Namespace,
        user: &str,
        leaving: Option<TokenHash>,
    ) -> Result<Vec<TokenHash>, Rejection> {
        let settings = self.session_settings(ns);
        let limit = u64::from(settings.max_per_user.unwrap_or(0));
        let mut standing = self.sessions_of(ns, user);
        standing.retain(|token| Some(*token) != leaving);
        if leaving.is_some() && self.version >= 2 {
            return Ok(Vec::new());
        }
        if user.is_empty() || limit == 0 || (standing.len() as u64) < limit {
            return Ok(Vec::new());
        }
        if settings.limit_policy() == v1::SessionLimitPolicy::RejectNewest {
            return Err(Rejection::SessionsLimit { limit });
        }
        let excess = standing.len() + 1 - usize::try_from(limit).expect("small");
        standing.truncate(excess);
        Ok(standing)
    }

    fn end_all(&mut self, ns: &Namespace, tokens: &[TokenHash]) -> Vec<pb::SessionPlace> {
        let mut places = Vec::new();
        for token in tokens {
            places.push(self.sessions[&(ns.clone(), *token)].place());
            self.end_session(ns, *token);
        }
        places
    }

    fn create_session(
        &mut self,
        ns: &Namespace,
        operation: SessionOperation,
    ) -> Result<Body, Rejection> {
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
            panic!("not a creation");
        };
        self.claim(ns, token)?;
        let settings = self.session_settings(ns);
        check_size(&settings, &BTreeMap::new(), &fields.to_map())?;
        let idle = idle_ms(&settings, idle_ttl)?;
        let absolute = absolute_ms(&settings, absolute_ttl)?;
        let user = user.map_or(String::new(), UserId::into_string);
        let ending = self.admit(ns, &user, None)?;
        let revision = self.bump();
        let ended = self.end_all(ns, &ending);
        let birth = self.give_birth(ns, &user, revision);
        let session = Session {
            user,
            birth,
            fields: fields.to_map(),
            client: client.into_map(),
            created: revision,
            modified: revision,
            created_at: self.now,
            seen: self.now,
            idle,
            interval: interval_ms(&settings, idle),
            absolute: self.now + absolute,
            cart: None,
        };
        let told = session.told(token, sealed_token, ended);
        self.sessions.insert((ns.clone(), token), session);
        Ok(Body::SessionCreated(told))
    }

    fn rotate_session(&mut self, ns: &Namespace, rotation: Rotation) -> Result<Body, Rejection> {
        let Rotation {
            token,
            new_token,
            sealed_token,
            user,
            set,
            remove,
            idle_ttl,
            absolute_ttl,
            client,
            cart_merge,
        } = rotation;
        let old = self.session(ns, token)?.clone();
        self.claim(ns, new_token)?;
        let settings = self.session_settings(ns);
        let fields = updated(&old.fields, set.to_map(), &remove);
        check_size(&settings, &old.fields, &fields)?;
        let idle = match idle_ttl {
            None => old.idle,
            asked => idle_ms(&settings, asked)?,
        };
        let user = user.map_or(old.user.clone(), UserId::into_string);
        let same_user = user == old.user;
        let absolute = if absolute_ttl.is_none() && same_user {
            old.absolute
        } else {
            self.now + absolute_ms(&settings, absolute_ttl)?
        };
        let ending = self.admit(ns, &user, same_user.then_some(token))?;
        let next = self.next();
        let (mut moved, mut merged) = (None, None);
        match old.cart.clone() {
            None => {}
            Some(cart) if user.is_empty() => moved = Some(cart),
            Some(_) => {
                let gone = (&ending[..], token);
                merged = self.merge_at_end(ns, gone, &user, cart_merge, next)?;
            }
        }
        let revision = self.bump();
        let ended = self.end_all(ns, &ending);
        let birth = self.give_birth(ns, &user, revision);
        let session = Session {
            user: user.clone(),
            fields,
            client: if client.as_map().is_empty() {
                old.client
            } else {
                client.into_map()
            },
            created: next,
            modified: next,
            created_at: self.now,
            seen: self.now,
            birth,
            idle,
            interval: interval_ms(&settings, idle),
            absolute,
            cart: None,
        };
        let created = Some(session.told(new_token, sealed_token, ended));
        self.sessions.insert((ns.clone(), new_token), session);
        let is_moved = moved.is_some();
        if let Some(cart) = moved {
            let mod_revision = cart.modified;
            let owner = CartOwner::Session(new_token);
            self.store_cart(ns, &owner, cart);
            self.end_session(ns, token);
            let filled = self.cart(ns, &owner).map_or(0, |cart| cart.modified);
            merged = Some(pb::CartsMerged {
                mod_revision: if self.version >= 2 {
                    filled
                } else {
                    mod_revision
                },
                ..pb::CartsMerged::default()
            });
        } else {
            self.end_session(ns, token);
        }
        Ok(Body::SessionRotated(pb::SessionRotated {
            created,
            user_id: user,
            cart: merged,
            cart_policy: v1::CartMergePolicy::from(cart_merge).into(),
            cart_moved: is_moved,
        }))
    }

    fn save_session(
        &mut self,
        ns: &Namespace,
        token: TokenHash,
        loaded: Revision,
        base: Option<&BTreeMap<String, Bytes>>,
        wanted: &BTreeMap<String, Bytes>,
        policy: SavePolicy,
    ) -> Result<Body, Rejection> {
        let (now, next) = (self.now, self.next());
        let settings = self.session_settings(ns);
        let session = self.session(ns, token)?;
        let merged = session.modified != loaded.get();
        let mut after = session.fields.clone();
        let mut conflicts = Vec::new();
        let all = base.unwrap_or(&session.fields).keys().chain(wanted.keys());
        for name in all.collect::<BTreeSet<_>>() {
            let (mine, theirs) = (wanted.get(name), session.fields.get(name));
            let was = base.map(|base| base.get(name));
            if was == Some(mine) || mine == theirs {
                continue;
            }
            if merged && was != Some(theirs) {
                conflicts.push(name.clone());
            }
            after.remove(name);
            after.extend(mine.map(|value| (name.clone(), value.clone())));
        }
        if policy == SavePolicy::FailOnConflict && !conflicts.is_empty() {
            return Ok(Body::SaveConflict(pb::SaveConflict {
                fields: conflicts,
                actual_revision: session.modified,
            }));
        }
        check_size(&settings, &session.fields, &after)?;
        if after == session.fields {
            self.see(ns, token)?;
        } else {
            session.fields = after;
            session.seen = now;
            session.modified = next;
            self.bump();
        }
        let session = self.session(ns, token)?;
        Ok(Body::SessionSaved(pb::SessionSaved {
            mod_revision: session.modified,
            idle_deadline: session.due(),
            merged,
            overwritten: conflicts,
        }))
    }
}

fn updated(
    fields: &BTreeMap<String, Bytes>,
    set: BTreeMap<String, Bytes>,
    remove: &[String],
) -> BTreeMap<String, Bytes> {
    let mut after = fields.clone();
    after.retain(|name, _| !remove.contains(name));
    after.extend(set);
    after
}

fn check_size(
    settings: &v1::SessionSettings,
    before: &BTreeMap<String, Bytes>,
    fields: &BTreeMap<String, Bytes>,
) -> Result<(), Rejection> {
    let most = u64::from(settings.max_fields.unwrap_or(256));
    if fields.len() as u64 > most.max(before.len() as u64) {
        return Err(Rejection::SessionFieldsLimit { limit: most });
    }
    let most = settings.max_bytes.unwrap_or(limits::SESSION_BYTES as u64);
    let size = |fields: &BTreeMap<String, Bytes>| {
        let sizes = fields.iter().map(|(name, value)| name.len() + value.len());
        sizes.sum::<usize>() as u64
    };
    if size(fields) > most.max(size(before)) {
        return Err(Rejection::SessionBytesLimit { limit: most });
    }
    Ok(())
}

fn idle_ms(settings: &v1::SessionSettings, asked: Option<Ttl>) -> Result<u64, Rejection> {
    let range = settings.idle_ttl.unwrap_or_default();
    let default = limits::SESSION_IDLE_TTL_DEFAULT_MS;
    ttl_ms(range, default, asked, TtlKind::Idle)
}

fn absolute_ms(settings: &v1::SessionSettings, asked: Option<Ttl>) -> Result<u64, Rejection> {
    let range = settings.absolute_ttl.unwrap_or_default();
    let default = limits::SESSION_ABSOLUTE_TTL_DEFAULT_MS;
    ttl_ms(range, default, asked, TtlKind::Absolute)
}

fn ttl_ms(
    range: v1::TtlSettings,
    default: u64,
    asked: Option<Ttl>,
    ttl: TtlKind,
) -> Result<u64, Rejection> {
    let millis = |given: Option<i64>, otherwise| given.map_or(otherwise, i64::cast_unsigned);
    let (min, max) = (
        millis(range.min_ms, 1),
        millis(range.max_ms, limits::TTL_MAX_MS),
    );
    let default = millis(range.default_ms, default.clamp(min, max));
    match asked.map_or(default, Ttl::as_millis) {
        asked if asked < min => Err(Rejection::TtlTooShort { ttl, min }),
        asked if asked > max => Err(Rejection::TtlTooLong { ttl, max }),
        asked => Ok(asked),
    }
}

fn interval_ms(settings: &v1::SessionSettings, idle: u64) -> u64 {
    let default = (idle / 10).min(60_000);
    let set = settings.touch_interval_ms.map(i64::cast_unsigned);
    set.unwrap_or(default).min(idle)
}
