//! A token that is none, wherever a token may stand: it is answered like one that no session has, to the last byte.

use super::*;
use crate::proto::v1::cart_owner::Owner;
use crate::proto::v1::compare::{Operand, Target};

/// Well formed, and no session's.
const ABSENT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn malformed() -> [String; 6] {
    [
        String::new(),
        "abc".to_owned(),
        "not base64url!!!!!!!!!!!!!!".to_owned(),
        // With padding, which tokens do without.
        format!("{ABSENT}="),
        "\u{fc}".repeat(20),
        "A".repeat(5000),
    ]
}

fn owner_with(token: &str) -> v1::CartOwner {
    v1::CartOwner {
        owner: Some(Owner::SessionToken(token.to_owned())),
    }
}

/// Every write that names a session by its token (or handle), and that an absent one fails.
fn writes(text: &str) -> Vec<Op> {
    let token = text.to_owned();
    let owner = Some(owner_with(text));
    let of_ada = Some(v1::CartOwner {
        owner: Some(Owner::UserId("ada".to_owned())),
    });
    vec![
        Op::UpdateSession(v1::UpdateSessionRequest {
            token: token.clone(),
            ..Default::default()
        }),
        Op::SaveSession(v1::SaveSessionRequest {
            token: token.clone(),
            ..Default::default()
        }),
        Op::TouchSession(v1::TouchSessionRequest {
            token: token.clone(),
            ..Default::default()
        }),
        Op::RotateSession(Box::new(v1::RotateSessionRequest {
            token: token.clone(),
            new_token: super::token(7),
            ..Default::default()
        })),
        Op::DestroySession(v1::DestroySessionRequest {
            token: token.clone(),
            ..Default::default()
        }),
        Op::EndSession(v1::EndSessionRequest {
            user_id: "ada".to_owned(),
            handle: token.clone(),
            ..Default::default()
        }),
        Op::AddCartLine(v1::AddCartLineRequest {
            owner: owner.clone(),
            sku: "mug".to_owned(),
            quantity: 1,
            ..Default::default()
        }),
        Op::ClearCart(v1::ClearCartRequest {
            owner: owner.clone(),
            ..Default::default()
        }),
        Op::MergeCarts(v1::MergeCartsRequest {
            source: owner.clone(),
            target: of_ada.clone(),
            policy: v1::CartMergePolicy::Sum.into(),
            ..Default::default()
        }),
        Op::MergeCarts(v1::MergeCartsRequest {
            source: of_ada,
            target: owner.clone(),
            policy: v1::CartMergePolicy::Sum.into(),
            ..Default::default()
        }),
        Op::FreezeCart(v1::FreezeCartRequest {
            owner,
            holder: "till".to_owned(),
            ..Default::default()
        }),
    ]
}

fn reads(text: &str) -> Vec<Op> {
    vec![
        Op::GetSession(v1::GetSessionRequest {
            token: text.to_owned(),
            ..Default::default()
        }),
        Op::GetCart(v1::GetCartRequest {
            owner: Some(owner_with(text)),
            ..Default::default()
        }),
    ]
}

/// What all of these come to on a store that has one key and no session.
async fn answers(requests: Vec<Op>) -> Vec<Outcome> {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x")]).await;
    client.outcomes(1).await;
    let count = requests.len();
    let requests = (2..).zip(requests);
    let operations = requests.map(|(sequence, request)| operation(sequence, request));
    client.send(operations.collect()).await;
    client.outcomes(count).await
}

#[tokio::test]
async fn a_malformed_token_is_an_absent_session_in_every_request() {
    let requests = |text: &str| [writes(text), reads(text)].concat();
    let absent = answers(requests(ABSENT)).await;
    for (outcome, request) in absent.iter().zip(requests("")) {
        assert_eq!(failure(outcome).reason, "SESSION_NOT_FOUND", "{request:?}");
    }
    for text in malformed() {
        assert_eq!(answers(requests(&text)).await, absent, "{text:?}");
    }
}

#[tokio::test]
async fn whom_to_spare_may_be_nobody_but_not_malformed() {
    let revoke = |text: &str| {
        vec![Op::RevokeAllSessions(v1::RevokeAllSessionsRequest {
            user_id: "ada".to_owned(),
            except_token: text.to_owned(),
            ..Default::default()
        })]
    };
    let absent = answers(revoke(ABSENT)).await;
    assert_eq!(failure(&absent[0]).reason, "SESSION_NOT_FOUND");
    for text in malformed() {
        let answer = answers(revoke(&text)).await;
        assert_eq!(answer == absent, !text.is_empty(), "{text:?}: {answer:?}");
    }
}

/// Transactions in which a token stands everywhere that it may.
fn transactions(text: &str) -> Vec<Op> {
    let compare = |operand| v1::Compare {
        target: Some(Target::SessionToken(text.to_owned())),
        operand: Some(operand),
        ..Default::default()
    };
    let cart = v1::Compare {
        target: Some(Target::Cart(owner_with(text))),
        operand: Some(Operand::Exists(false)),
        ..Default::default()
    };
    let inner = |request| operation(0, request);
    let observed = v1::TxnRequest {
        compare: vec![
            compare(Operand::Exists(false)),
            compare(Operand::ModRevision(0)),
            cart,
        ],
        then: reads(text).into_iter().map(inner).collect(),
        // Whatever stands in the branch that is not taken is nobody's business.
        otherwise: writes(text).into_iter().take(1).map(inner).collect(),
        ..Default::default()
    };
    let lacking = v1::TxnRequest {
        compare: vec![compare(Operand::Exists(true))],
        otherwise: vec![put(0, "told", "it was not there")],
        ..Default::default()
    };
    let written = writes(text).into_iter().map(|write| v1::TxnRequest {
        then: vec![put(0, "undone", "x"), inner(write)],
        ..Default::default()
    });
    let all = [observed, lacking].into_iter().chain(written);
    all.map(Op::Txn).collect()
}

#[tokio::test]
async fn a_malformed_token_is_an_absent_session_inside_a_transaction() {
    let absent = answers(transactions(ABSENT)).await;
    let done = |outcome: &Outcome| match &outcome.response {
        Some(Body::Txn(response)) => response.clone(),
        other => panic!("not done: {other:?}"),
    };
    let observed = done(&absent[0]);
    assert!(observed.succeeded, "no such session, no such cart");
    let found: Vec<_> = observed.results.iter().map(|it| &it.response).collect();
    let empty_handed = |it: &&Option<Body>| match it {
        Some(Body::GetSession(it)) => it.session.is_none(),
        Some(Body::GetCart(it)) => it.cart.is_none(),
        _ => false,
    };
    assert_eq!(found.iter().filter(|it| empty_handed(it)).count(), 2);
    let lacking = done(&absent[1]);
    assert!(!lacking.succeeded && lacking.results.len() == 1);
    for refused in &absent[2..] {
        let told = failure(refused);
        assert_eq!(told.reason, "SESSION_NOT_FOUND");
        assert_eq!(told.metadata["operation_index"], "1");
    }
    for text in malformed() {
        assert_eq!(answers(transactions(&text)).await, absent, "{text:?}");
    }
}
