//! Logins, saves and devices.

use super::*;

#[test]
fn a_rotation_draws_and_seals_as_a_creation_does() {
    let old = token();
    let rotate = || v1::RotateSessionRequest {
        request_id: "r".to_owned(),
        token: old.clone(),
        user_id: "u".to_owned(),
        ..Default::default()
    };
    let (first, retry) = (
        write(rotate(), Origin::Unary),
        write(rotate(), Origin::Unary),
    );
    assert_eq!(first.command.fingerprint, retry.command.fingerprint);
    for write in [first, retry] {
        let (Operation::Session(SessionOperation::Rotate(rotation)), Echo::SessionRotate(echo)) =
            (&write.command.operation, &write.echo)
        else {
            panic!("not a rotation: {write:?}");
        };
        let request_id = echo.request_id.as_ref().expect("it was given");
        let opened = seal::open(
            &echo.namespace,
            request_id,
            &rotation.new_token,
            &rotation.sealed_token,
        );
        assert!(opened.is_some_and(|opened| opened == echo.token));
    }
}

#[test]
fn what_a_save_left_alone_is_not_part_of_its_command() {
    let fields = |pairs: &[(&str, &str)]| -> BTreeMap<String, Bytes> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), Bytes::from((*value).to_owned())))
            .collect()
    };
    let save = v1::SaveSessionRequest {
        token: token(),
        fields: fields(&[("same", "1"), ("changed", "3"), ("new", "4")]),
        base: Some(v1::SessionFields {
            fields: fields(&[("same", "1"), ("changed", "2"), ("gone", "5")]),
        }),
        ..Default::default()
    };
    let Operation::Session(SessionOperation::Save {
        base: Some(base),
        fields: wanted,
        ..
    }) = write(save, Origin::Unary).command.operation
    else {
        panic!("not a save with a base");
    };
    assert_eq!(base.to_map(), fields(&[("changed", "2"), ("gone", "5")]));
    assert_eq!(wanted.to_map(), fields(&[("changed", "3"), ("new", "4")]));
}

#[test]
fn logins_and_devices_are_checked() {
    let rotate = || v1::RotateSessionRequest {
        token: token(),
        new_token: token(),
        ..Default::default()
    };
    let many = (0..=limits::CLIENT_ATTRIBUTES).map(|nth| (nth.to_string(), String::new()));
    let large = [("a".to_owned(), text(limits::CLIENT_ATTRIBUTE_BYTES))];
    let cases = [
        (rotate(), "OK"),
        (
            v1::RotateSessionRequest {
                token: "short".to_owned(),
                ..rotate()
            },
            "OK",
        ),
        (
            v1::RotateSessionRequest {
                new_token: "short".to_owned(),
                ..rotate()
            },
            "MALFORMED",
        ),
        (
            v1::RotateSessionRequest {
                new_token: String::new(),
                ..rotate()
            },
            "EMPTY_FIELD",
        ),
        (
            v1::RotateSessionRequest {
                cart_merge: 9,
                ..rotate()
            },
            "MALFORMED",
        ),
        (
            v1::RotateSessionRequest {
                idle_ttl_ms: -1,
                ..rotate()
            },
            "OUT_OF_RANGE",
        ),
        (
            v1::RotateSessionRequest {
                client: many.collect(),
                ..rotate()
            },
            "TOO_MANY",
        ),
        (
            v1::RotateSessionRequest {
                client: large.into(),
                ..rotate()
            },
            "FIELD_TOO_LONG",
        ),
        (
            v1::RotateSessionRequest {
                set: [("a".to_owned(), Bytes::new())].into(),
                remove: vec!["a".to_owned()],
                ..rotate()
            },
            "EXCLUSIVE_FIELDS",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(reason(request.clone(), exchange()), expected, "{request:?}");
    }
    let end = |user: &str, handle: &str| v1::EndSessionRequest {
        user_id: user.to_owned(),
        handle: handle.to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(end("", "x"), exchange()), "EMPTY_FIELD");
    assert_eq!(reason(end("u", "x"), exchange()), "OK");
    let list = v1::ListSessionsRequest {
        user_id: "u".to_owned(),
        cursor: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(list, exchange()), "BAD_CURSOR");
    let revoke = |user: &str, except: &str| v1::RevokeAllSessionsRequest {
        user_id: user.to_owned(),
        except_token: except.to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(revoke("u", ""), exchange()), "OK");
    assert_eq!(reason(revoke("", ""), exchange()), "EMPTY_FIELD");
    assert_eq!(reason(revoke("u", "x"), exchange()), "OK");
    let save = v1::SaveSessionRequest {
        token: token(),
        policy: 9,
        ..Default::default()
    };
    assert_eq!(reason(save, exchange()), "MALFORMED");
    let set = v1::SetNamespaceRequest::default();
    assert_eq!(reason(set, exchange()), "EMPTY_FIELD");
}
