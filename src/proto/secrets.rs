//! `Debug` of the messages that hold a session's token: everything but the token.
//!
//! Invariant: no message of the public API shows a token in its `Debug`, nested or not. The build script withholds the
//! generated `Debug` from every message that has a field for one, so that a new one does not compile until it stands here.

use std::fmt;

use super::v1;

/// Stands where a token would, if there is one.
struct Hidden(bool);

impl Hidden {
    fn of(token: &str) -> Self {
        Self(!token.is_empty())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "<token>" } else { "<none>" })
    }
}

/// Names every field of a message, which the compiler checks: first its tokens, then those that are shown.
macro_rules! hide {
    ($($message:ident { $($token:ident),+; $($shown:ident),* })*) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($token,)+ $($shown),* } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($token), &Hidden::of($token)))+
                    .finish()
            }
        }
    )*};
}

hide! {
    CreateSessionRequest {
        token; namespace, request_id, user_id, fields, idle_ttl_ms, absolute_ttl_ms, client
    }
    CreateSessionResponse { token; header, session, ended }
    GetSessionRequest { token; namespace, read, touch }
    UpdateSessionRequest {
        token; namespace, request_id, set, remove, if_revision, idle_ttl_ms, absolute_ttl_ms
    }
    TouchSessionRequest { token; namespace, request_id }
    DestroySessionRequest { token; namespace, request_id }
    SaveSessionRequest { token; namespace, request_id, loaded_revision, fields, base, policy }
    RotateSessionRequest {
        token, new_token;
        namespace, request_id, user_id, set, remove, idle_ttl_ms, absolute_ttl_ms, client, cart_merge
    }
    RotateSessionResponse {
        token;
        header, user_id, handle, mod_revision, created_at_ms, idle_ttl_ms, idle_deadline_ms, absolute_deadline_ms,
        cart, ended
    }
    ListSessionsRequest { current_token; namespace, read, user_id, limit, cursor }
    RevokeAllSessionsRequest { except_token; namespace, request_id, user_id }
}

impl fmt::Debug for v1::CartOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner } = self;
        f.debug_struct("CartOwner").field("owner", owner).finish()
    }
}

impl fmt::Debug for v1::cart_owner::Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserId(user) => f.debug_tuple("UserId").field(user).finish(),
            Self::SessionToken(token) => {
                let token = &Hidden::of(token);
                f.debug_tuple("SessionToken").field(token).finish()
            }
        }
    }
}

impl fmt::Debug for v1::Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relation,
            target,
            operand,
        } = self;
        f.debug_struct("Compare")
            .field("target", target)
            .field("relation", relation)
            .field("operand", operand)
            .finish()
    }
}

impl fmt::Debug for v1::compare::Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.debug_tuple("Key").field(key).finish(),
            Self::SessionToken(token) => {
                let token = &Hidden::of(token);
                f.debug_tuple("SessionToken").field(token).finish()
            }
            Self::Cart(owner) => f.debug_tuple("Cart").field(owner).finish(),
        }
    }
}

impl fmt::Debug for v1::compare::Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(it) => f.debug_tuple("Exists").field(it).finish(),
            Self::ModRevision(it) => f.debug_tuple("ModRevision").field(it).finish(),
            Self::CreateRevision(it) => f.debug_tuple("CreateRevision").field(it).finish(),
            Self::Value(it) => f.debug_tuple("Value").field(it).finish(),
            Self::Counter(it) => f.debug_tuple("Counter").field(it).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::operation::Request;
    use crate::proto::v1::outcome::Response;
    use crate::proto::v1::{cart_owner::Owner, compare::Target};

    const TOKEN: &str = "c2VjcmV0IHRva2Vu";

    fn token() -> String {
        TOKEN.to_owned()
    }

    fn owner() -> Option<v1::CartOwner> {
        Some(v1::CartOwner {
            owner: Some(Owner::SessionToken(token())),
        })
    }

    macro_rules! with_token {
        ($($variant:ident($message:ident { $($field:ident),+ })),* $(,)?) => {
            vec![$(Request::$variant(v1::$message { $($field: token(),)+ ..Default::default() }.into())),*]
        };
    }

    fn requests() -> Vec<Request> {
        let mut requests = with_token![
            CreateSession(CreateSessionRequest { token }),
            GetSession(GetSessionRequest { token }),
            UpdateSession(UpdateSessionRequest { token }),
            TouchSession(TouchSessionRequest { token }),
            DestroySession(DestroySessionRequest { token }),
            SaveSession(SaveSessionRequest { token }),
            RotateSession(RotateSessionRequest { token, new_token }),
            ListSessions(ListSessionsRequest { current_token }),
            RevokeAllSessions(RevokeAllSessionsRequest { except_token }),
        ];
        requests.push(Request::GetCart(v1::GetCartRequest {
            owner: owner(),
            ..Default::default()
        }));
        requests
    }

    #[test]
    fn no_request_shows_a_token() {
        for request in requests() {
            let shown = format!("{request:?} {request:#?}");
            assert!(!shown.contains(TOKEN), "{shown}");
            assert!(shown.contains("<token>"), "{shown}");
        }
        let targets = [
            Target::SessionToken(token()),
            Target::Cart(owner().expect("just made")),
        ];
        let compare = targets.map(|target| v1::Compare {
            target: Some(target),
            ..Default::default()
        });
        let operations = requests().into_iter().map(|request| v1::Operation {
            sequence: 0,
            request: Some(request),
        });
        let txn = v1::TxnRequest {
            compare: compare.into(),
            then: operations.collect(),
            ..Default::default()
        };
        let frame = v1::ExchangeRequest {
            operations: vec![v1::Operation {
                sequence: 1,
                request: Some(Request::Txn(txn)),
            }],
            ..Default::default()
        };
        let shown = format!("{frame:?}");
        assert!(!shown.contains(TOKEN), "{shown}");
        assert_eq!(shown.matches("<token>").count(), requests().len() + 1 + 2);
    }

    #[test]
    fn no_response_shows_a_token() {
        let born = [
            Response::CreateSession(Box::new(v1::CreateSessionResponse {
                token: token(),
                ..Default::default()
            })),
            Response::RotateSession(v1::RotateSessionResponse {
                token: token(),
                ..Default::default()
            }),
        ];
        let results = born.map(|response| v1::Outcome {
            response: Some(response),
            ..Default::default()
        });
        let txn = v1::TxnResponse {
            results: results.into(),
            ..Default::default()
        };
        let shown = format!("{txn:?}");
        assert!(!shown.contains(TOKEN), "{shown}");
        assert_eq!(shown.matches("<token>").count(), 2);
    }

    #[test]
    fn what_is_no_token_is_shown() {
        let request = v1::CreateSessionRequest {
            user_id: "ada".to_owned(),
            ..Default::default()
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("ada") && shown.contains("<none>"), "{shown}");
    }
}
