//! Random operations on sessions, and settings of namespaces.

use bytes::Bytes;

use super::super::model::Session;
use super::{Script, condition, fields, pick, ttl};
use crate::proto::v1;
use crate::state::{
    MergePolicy, NamespaceOperation, Rotation, SavePolicy, SessionOperation, Settings,
};
use crate::types::{ClientAttributes, LogTime, Namespace, Revision, SessionHandle};

impl Script {
    #[allow(
        clippy::many_single_char_names,
        reason = "random bytes have no better names"
    )]
    pub(super) fn session(&self, ns: &Namespace, kind: u8, rest: [u8; 7]) -> SessionOperation {
        let [a, b, c, d, e, f, _] = rest;
        let hash = self.token(a);
        let user = |byte: u8| self.user(byte % 2);
        let given = |byte: u8| (!byte.is_multiple_of(4)).then(|| ttl(byte));
        match kind {
            0 | 1 | 30 => SessionOperation::Create {
                token: hash,
                sealed_token: Bytes::copy_from_slice(&[c]),
                user: (b % 3 > 0).then(|| user(b)),
                fields: fields(c, d),
                client: client(d),
                idle_ttl: given(e),
                absolute_ttl: given(f),
            },
            31 | 32 => SessionOperation::Rotate(Box::new(Rotation {
                token: hash,
                new_token: self.token(b),
                sealed_token: Bytes::copy_from_slice(&[c]),
                user: (c % 3 > 0).then(|| user(c)),
                set: fields(c, d),
                remove: (0..e % 3).map(|n| format!("f{n}")).collect(),
                idle_ttl: given(e),
                absolute_ttl: given(f),
                client: client(d),
                cart_merge: pick(
                    &[
                        MergePolicy::Sum,
                        MergePolicy::Max,
                        MergePolicy::KeepTarget,
                        MergePolicy::KeepSource,
                        MergePolicy::SourceIfTargetEmpty,
                    ],
                    f,
                ),
            })),
            33 | 34 => {
                let current = self.model.session_revision(ns, hash);
                // A base that was right at some time, or never.
                let base = fields(e, d);
                SessionOperation::Save {
                    token: hash,
                    loaded: condition(f, current).unwrap_or(Revision::new(current)),
                    base: (b % 3 > 0).then(|| self.model.loaded(ns, hash, base, b)),
                    fields: fields(c, d),
                    // Of another byte than the base: each policy meets every base.
                    policy: pick(
                        &[SavePolicy::FailOnConflict, SavePolicy::LastWriterWins],
                        f / 8,
                    ),
                }
            }
            35 | 36 => {
                let user = user(b);
                let theirs = self.model.sessions_of(ns, user.as_str());
                let token = (!theirs.is_empty()).then(|| pick(&theirs, c));
                let session = token.and_then(|token| self.model.sessions.get(&(ns.clone(), token)));
                let handle = session.and_then(Session::handle);
                let absent = SessionHandle::new(u64::from(d), LogTime::from_millis(e.into()));
                SessionOperation::End {
                    user,
                    handle: handle.unwrap_or(absent),
                }
            }
            37 => SessionOperation::RevokeAll {
                user: user(b),
                except: c.is_multiple_of(2).then(|| {
                    let theirs = self.model.sessions_of(ns, user(b).as_str());
                    theirs.get(usize::from(d) % 4).copied().unwrap_or(hash)
                }),
            },
            2 | 3 => SessionOperation::Update {
                token: hash,
                set: fields(c, d),
                remove: (0..e % 3).map(|n| format!("f{n}")).collect(),
                idle_ttl: b.is_multiple_of(5).then(|| ttl(d)),
                absolute_ttl: b.is_multiple_of(7).then(|| ttl(e)),
                if_revision: condition(f, self.model.session_revision(ns, hash)),
            },
            4 => SessionOperation::Touch { token: hash },
            _ => SessionOperation::Destroy { token: hash },
        }
    }

    pub(super) fn settings(
        &self,
        ns: &Namespace,
        [_, _, c, d, e, f, _]: [u8; 7],
    ) -> NamespaceOperation {
        NamespaceOperation::Set {
            settings: settings(c, d, e),
            if_revision: condition(f, self.model.settings_revision(ns)),
        }
    }
}

/// See [`super::names_a_revision`].
pub fn names_a_revision(operation: &SessionOperation) -> bool {
    match operation {
        SessionOperation::Update { if_revision, .. } => if_revision.is_some(),
        // A handle holds a birth, which is a revision.
        SessionOperation::Save { .. } | SessionOperation::End { .. } => true,
        SessionOperation::Create { .. }
        | SessionOperation::Rotate(_)
        | SessionOperation::Touch { .. }
        | SessionOperation::Destroy { .. }
        | SessionOperation::RevokeAll { .. } => false,
    }
}

fn client(byte: u8) -> ClientAttributes {
    let device = byte
        .is_multiple_of(3)
        .then(|| ("device".to_owned(), format!("d{}", byte % 2)));
    ClientAttributes::parse(device.into_iter().collect()).expect("small")
}

fn settings(c: u8, d: u8, e: u8) -> Settings {
    let policies = [
        v1::SessionLimitPolicy::RejectNewest,
        v1::SessionLimitPolicy::EndOldest,
        v1::SessionLimitPolicy::Unspecified,
    ];
    let range = v1::TtlSettings {
        min_ms: Some(5),
        default_ms: Some(20),
        max_ms: Some(400),
    };
    let absolute = v1::TtlSettings {
        min_ms: Some(10),
        default_ms: Some(300),
        max_ms: Some(20_000),
    };
    let session = v1::SessionSettings {
        max_fields: pick(&[None, None, Some(2), Some(4)], c),
        max_bytes: pick(&[None, None, Some(200)], d),
        max_per_user: pick(&[None, Some(1), Some(2), Some(3)], d),
        limit_policy: pick(&policies, e).into(),
        idle_ttl: pick(&[None, Some(range)], c / 4),
        absolute_ttl: pick(&[None, None, Some(absolute)], d / 4),
        touch_interval_ms: pick(&[None, Some(0), Some(3)], e / 4),
    };
    let cart = v1::CartSettings {
        empty_ttl_ms: pick(&[None, Some(1), Some(60)], c),
        guest_ttl_ms: pick(&[None, Some(30), Some(500)], d),
        user_ttl_ms: pick(&[None, Some(20), Some(900)], e),
    };
    let settings = v1::NamespaceSettings {
        session: (c % 3 != 1).then_some(session),
        cart: (c % 3 != 2).then_some(cart),
    };
    Settings::parse(Some(settings)).expect("every one of them is valid")
}
