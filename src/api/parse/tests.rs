//! Bad input of every kind, and that it is told by its reason.

mod sessions;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::limits;
use crate::proto::v1::{cart_line_ref::Line, cart_owner::Owner};
use crate::state::{KeyOperation, Operation, PutCondition, SessionOperation, seal};
use crate::types::SessionToken;

fn exchange() -> Origin {
    Origin::Exchange {
        client: ClientId::new([9; 16]),
        sequence: 5,
        confirmed_below: 3,
    }
}

fn reason(request: impl Into<Request>, origin: Origin) -> String {
    match operation(request.into(), origin) {
        Ok(_) => "OK".to_owned(),
        Err(error) => v1::Failure::from(&error).reason,
    }
}

macro_rules! requests {
    ($($message:ident as $variant:ident),* $(,)?) => {$(
        impl From<v1::$message> for Request {
            fn from(message: v1::$message) -> Self {
                Self::$variant(message.into())
            }
        }
    )*};
}

requests!(
    CreateSessionRequest as CreateSession,
    GetSessionRequest as GetSession,
    UpdateSessionRequest as UpdateSession,
    TouchSessionRequest as TouchSession,
    DestroySessionRequest as DestroySession,
    RotateSessionRequest as RotateSession,
    SaveSessionRequest as SaveSession,
    ListSessionsRequest as ListSessions,
    EndSessionRequest as EndSession,
    RevokeAllSessionsRequest as RevokeAllSessions,
    SetNamespaceRequest as SetNamespace,
    AddCartLineRequest as AddCartLine,
    SetCartLineQuantityRequest as SetCartLineQuantity,
    ClearCartRequest as ClearCart,
    GetCartRequest as GetCart,
    GetKeyRequest as GetKey,
    PutKeyRequest as PutKey,
    ListKeysRequest as ListKeys,
);

fn write(request: impl Into<Request>, origin: Origin) -> Write {
    match operation(request.into(), origin) {
        Ok(Parsed::Write(write)) => write,
        other => panic!("not a write: {other:?}"),
    }
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn token() -> String {
    SessionToken::draw(0)
        .expect("the system has randomness")
        .expose()
}

fn user() -> v1::CartOwner {
    v1::CartOwner {
        owner: Some(Owner::UserId("u".to_owned())),
    }
}

fn add() -> v1::AddCartLineRequest {
    v1::AddCartLineRequest {
        owner: Some(user()),
        sku: "s".to_owned(),
        quantity: 1,
        ..Default::default()
    }
}

fn put() -> v1::PutKeyRequest {
    v1::PutKeyRequest {
        key: "k".to_owned(),
        ..Default::default()
    }
}

fn price(minor_units: i64, currency: &str) -> v1::Money {
    v1::Money {
        minor_units,
        currency: currency.to_owned(),
    }
}

#[test]
fn keys_are_checked() {
    let cases = [
        (put(), "OK"),
        (
            v1::PutKeyRequest {
                key: String::new(),
                ..put()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::PutKeyRequest {
                key: text(limits::KEY_BYTES + 1),
                ..put()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::PutKeyRequest {
                value: Bytes::from(vec![0; limits::VALUE_BYTES + 1]),
                ..put()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::PutKeyRequest {
                ttl_ms: -1,
                ..put()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::PutKeyRequest {
                ttl_ms: i64::MAX,
                ..put()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::PutKeyRequest {
                if_revision: Some(1),
                if_absent: true,
                ..put()
            },
            "EXCLUSIVE_FIELDS",
        ),
        (
            v1::PutKeyRequest {
                namespace: "a b".to_owned(),
                ..put()
            },
            "MALFORMED",
        ),
        (
            v1::PutKeyRequest {
                namespace: text(65),
                ..put()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::PutKeyRequest {
                request_id: text(65),
                ..put()
            },
            "FIELD_TOO_LONG",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(
            reason(request.clone(), Origin::Unary),
            expected,
            "{request:?}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn cart_lines_are_checked() {
    let attribute = |name: &str, value: String| BTreeMap::from([(name.to_owned(), value)]);
    let cases = [
        (add(), "OK"),
        (
            v1::AddCartLineRequest {
                owner: None,
                ..add()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::AddCartLineRequest {
                owner: Some(v1::CartOwner { owner: None }),
                ..add()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::AddCartLineRequest {
                sku: String::new(),
                ..add()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::AddCartLineRequest {
                sku: text(limits::SKU_BYTES + 1),
                ..add()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::AddCartLineRequest {
                quantity: 0,
                ..add()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::AddCartLineRequest {
                quantity: -1,
                ..add()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::AddCartLineRequest {
                quantity: i64::MAX,
                ..add()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::AddCartLineRequest {
                unit_price: Some(price(1, "EUR")),
                ..add()
            },
            "OK",
        ),
        (
            v1::AddCartLineRequest {
                unit_price: Some(price(1, "XXX")),
                ..add()
            },
            "MALFORMED",
        ),
        (
            v1::AddCartLineRequest {
                unit_price: Some(price(1, "eur")),
                ..add()
            },
            "MALFORMED",
        ),
        (
            v1::AddCartLineRequest {
                unit_price: Some(price(-1, "EUR")),
                ..add()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::AddCartLineRequest {
                unit_price: Some(price(i64::MAX, "EUR")),
                ..add()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::AddCartLineRequest {
                attributes: attribute("", text(1)),
                ..add()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::AddCartLineRequest {
                attributes: attribute("a", text(limits::LINE_ATTRIBUTE_BYTES)),
                ..add()
            },
            "FIELD_TOO_LONG",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(
            reason(request.clone(), Origin::Unary),
            expected,
            "{request:?}"
        );
    }
    let line = |line| v1::SetCartLineQuantityRequest {
        owner: Some(user()),
        line: Some(v1::CartLineRef { line }),
        quantity: 1,
        ..Default::default()
    };
    assert_eq!(reason(line(None), Origin::Unary), "EMPTY_FIELD");
    assert_eq!(
        reason(line(Some(Line::Sku(String::new()))), Origin::Unary),
        "EMPTY_FIELD"
    );
    assert_eq!(reason(line(Some(Line::LineId(1))), Origin::Unary), "OK");
}

#[test]
fn sessions_are_checked() {
    let create = v1::CreateSessionRequest::default;
    let fields = |names: usize, bytes: usize| -> BTreeMap<String, Bytes> {
        (0..names)
            .map(|n| (format!("f{n}"), Bytes::from(vec![0; bytes])))
            .collect()
    };
    let cases = [
        (create(), "OK"),
        (
            v1::CreateSessionRequest {
                token: "abc".to_owned(),
                ..create()
            },
            "MALFORMED",
        ),
        (
            v1::CreateSessionRequest {
                token: text(1000),
                ..create()
            },
            "MALFORMED",
        ),
        (
            v1::CreateSessionRequest {
                token: token(),
                ..create()
            },
            "OK",
        ),
        (
            v1::CreateSessionRequest {
                user_id: text(limits::USER_ID_BYTES + 1),
                ..create()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::CreateSessionRequest {
                idle_ttl_ms: -1,
                ..create()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::CreateSessionRequest {
                absolute_ttl_ms: i64::MIN,
                ..create()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::CreateSessionRequest {
                fields: fields(limits::SESSION_FIELDS + 1, 0),
                ..create()
            },
            "TOO_MANY",
        ),
        (
            v1::CreateSessionRequest {
                fields: fields(1, limits::SESSION_BYTES),
                ..create()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::CreateSessionRequest {
                fields: BTreeMap::from([(String::new(), Bytes::new())]),
                ..create()
            },
            "EMPTY_FIELD",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(reason(request, Origin::Unary), expected);
    }
    let both = v1::UpdateSessionRequest {
        token: token(),
        set: fields(1, 1),
        remove: vec!["f0".to_owned()],
        ..Default::default()
    };
    assert_eq!(reason(both, Origin::Unary), "EXCLUSIVE_FIELDS");
    for (idle_ttl_ms, absolute_ttl_ms, expected) in [
        (1, i64::from(u32::MAX), "OK"),
        (-1, 0, "OUT_OF_RANGE"),
        (0, i64::MAX, "OUT_OF_RANGE"),
    ] {
        let update = v1::UpdateSessionRequest {
            token: token(),
            idle_ttl_ms,
            absolute_ttl_ms,
            ..Default::default()
        };
        assert_eq!(reason(update, Origin::Unary), expected);
    }
}

#[test]
fn reads_are_checked() {
    let read = |consistency, min_revision| v1::GetKeyRequest {
        key: "k".to_owned(),
        read: Some(v1::ReadOptions {
            consistency,
            min_revision,
        }),
        ..Default::default()
    };
    assert_eq!(reason(read(0, 0), Origin::Unary), "OK");
    assert_eq!(reason(read(2, 7), Origin::Unary), "OK");
    assert_eq!(reason(read(1, 7), Origin::Unary), "MALFORMED");
    assert_eq!(reason(read(99, 0), Origin::Unary), "MALFORMED");
    let list = |limit, cursor: &str| v1::ListKeysRequest {
        limit,
        cursor: cursor.to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(list(0, ""), Origin::Unary), "OK");
    assert_eq!(reason(list(1000, ""), Origin::Unary), "OK");
    assert_eq!(reason(list(1001, ""), Origin::Unary), "OUT_OF_RANGE");
    assert_eq!(reason(list(0, "forged"), Origin::Unary), "BAD_CURSOR");
}

#[test]
fn the_exchange_stream_has_its_own_identity() {
    let put_with_id = v1::PutKeyRequest {
        request_id: "r".to_owned(),
        ..put()
    };
    assert_eq!(reason(put_with_id.clone(), exchange()), "EXCLUSIVE_FIELDS");
    let create_with_id = v1::CreateSessionRequest {
        request_id: "r".to_owned(),
        token: token(),
        ..Default::default()
    };
    assert_eq!(reason(create_with_id, exchange()), "EXCLUSIVE_FIELDS");
    let identity = write(put(), exchange()).command.identity;
    assert!(matches!(
        identity,
        Identity::Client {
            sequence: 5,
            confirmed_below: 3,
            ..
        }
    ));
    assert!(matches!(
        write(put_with_id, Origin::Unary).command.identity,
        Identity::Request(_)
    ));
    assert_eq!(
        write(put(), Origin::Unary).command.identity,
        Identity::Anonymous
    );
}

#[test]
fn a_creation_over_exchange_brings_its_token() {
    let error = operation(v1::CreateSessionRequest::default().into(), exchange());
    let failure = v1::Failure::from(&error.expect_err("no token"));
    assert_eq!(failure.reason, "EMPTY_FIELD");
    assert!(
        failure.message.contains("the client draws it"),
        "{}",
        failure.message
    );
    let with_token = v1::CreateSessionRequest {
        token: token(),
        ..Default::default()
    };
    assert_eq!(reason(with_token, exchange()), "OK");
}

#[test]
fn a_drawn_token_is_sealed_and_not_part_of_the_fingerprint() {
    let create = |user: &str| v1::CreateSessionRequest {
        request_id: "r".to_owned(),
        user_id: user.to_owned(),
        ..Default::default()
    };
    let (first, retry) = (
        write(create("u"), Origin::Unary),
        write(create("u"), Origin::Unary),
    );
    let other = write(create("v"), Origin::Unary);
    assert_eq!(first.command.fingerprint, retry.command.fingerprint);
    assert_ne!(first.command.fingerprint, other.command.fingerprint);
    let tokens = [&first, &retry].map(|write| match (&write.command.operation, &write.echo) {
        (
            Operation::Session(SessionOperation::Create {
                token,
                sealed_token,
                ..
            }),
            Echo::SessionCreate(echo),
        ) => {
            let echo = &echo.token;
            let request_id = echo.request_id.as_ref().expect("it was given");
            let opened = seal::open(&echo.namespace, request_id, token, sealed_token);
            assert!(opened.is_some_and(|opened| opened == echo.token));
            *token
        }
        other => panic!("not a creation: {other:?}"),
    });
    assert_ne!(tokens[0], tokens[1], "each attempt draws its own");
}

#[test]
fn a_drawn_token_is_not_sealed_without_a_request_id() {
    let write = write(v1::CreateSessionRequest::default(), Origin::Unary);
    let Operation::Session(SessionOperation::Create {
        sealed_token,
        idle_ttl,
        absolute_ttl,
        ..
    }) = write.command.operation
    else {
        panic!("not a creation");
    };
    assert!(sealed_token.is_empty());
    // The namespace's settings decide, where the command is applied.
    assert_eq!((idle_ttl, absolute_ttl), (None, None));
}

#[test]
fn an_own_token_is_part_of_the_fingerprint() {
    let create = || v1::CreateSessionRequest {
        request_id: "r".to_owned(),
        token: token(),
        ..Default::default()
    };
    let (one, other) = (
        write(create(), Origin::Unary),
        write(create(), Origin::Unary),
    );
    assert_ne!(one.command.fingerprint, other.command.fingerprint);
}

#[test]
fn conditions_of_a_put() {
    let condition = |request| match write(request, Origin::Unary).command.operation {
        Operation::Key(KeyOperation::Put { condition, .. }) => condition,
        other => panic!("not a put: {other:?}"),
    };
    assert_eq!(condition(put()), PutCondition::Always);
    assert_eq!(
        condition(v1::PutKeyRequest {
            if_absent: true,
            ..put()
        }),
        PutCondition::IfAbsent
    );
    let at = v1::PutKeyRequest {
        if_revision: Some(4),
        ..put()
    };
    assert_eq!(condition(at), PutCondition::IfRevision(Revision::new(4)));
}

#[test]
fn what_is_parsed_survives_the_log() {
    let session = token();
    let requests: Vec<Request> = vec![
        v1::CreateSessionRequest {
            token: session.clone(),
            ..Default::default()
        }
        .into(),
        v1::UpdateSessionRequest {
            token: session.clone(),
            ..Default::default()
        }
        .into(),
        v1::TouchSessionRequest {
            token: session,
            ..Default::default()
        }
        .into(),
        v1::AddCartLineRequest {
            unit_price: Some(price(0, "JPY")),
            ..add()
        }
        .into(),
        v1::ClearCartRequest {
            owner: Some(user()),
            ..Default::default()
        }
        .into(),
        v1::PutKeyRequest { ttl_ms: 1, ..put() }.into(),
    ];
    for request in requests {
        let command = write(request, exchange()).command;
        assert_eq!(
            Command::decode(command.encode()).expect("it was valid"),
            command
        );
    }
}
