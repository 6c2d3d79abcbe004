//! Transactions over the stream and as unary calls.

use super::*;
use crate::proto::v1::cart_owner::Owner;
use crate::proto::v1::compare::{Operand, Target};
use crate::proto::v1::txn_service_server::TxnService as _;
use crate::types::SessionToken;

fn inner(request: Op) -> Operation {
    operation(0, request)
}

fn user() -> v1::CartOwner {
    v1::CartOwner {
        owner: Some(Owner::UserId("ada".to_owned())),
    }
}

fn take(delta: i64) -> Operation {
    inner(Op::IncrementKey(v1::IncrementKeyRequest {
        key: "stock".to_owned(),
        delta,
        min: Some(0),
        initial: 3,
        ..Default::default()
    }))
}

fn add(quantity: i64) -> Operation {
    inner(Op::AddCartLine(v1::AddCartLineRequest {
        owner: Some(user()),
        sku: "mug".to_owned(),
        quantity,
        ..Default::default()
    }))
}

fn look(key: &str) -> Operation {
    inner(Op::GetKey(v1::GetKeyRequest {
        key: key.to_owned(),
        ..Default::default()
    }))
}

fn compare(key: &str, operand: Operand) -> v1::Compare {
    v1::Compare {
        target: Some(Target::Key(key.to_owned())),
        operand: Some(operand),
        ..Default::default()
    }
}

fn txn(then: Vec<Operation>) -> v1::TxnRequest {
    v1::TxnRequest {
        then,
        ..Default::default()
    }
}

async fn one(client: &mut Client, sequence: u64, request: v1::TxnRequest) -> Outcome {
    client
        .send(vec![operation(sequence, Op::Txn(request))])
        .await;
    client.outcomes(1).await.remove(0)
}

fn done(outcome: &Outcome) -> &v1::TxnResponse {
    match &outcome.response {
        Some(Body::Txn(response)) => response,
        other => panic!("not done: {other:?}"),
    }
}

#[tokio::test]
async fn a_purchase_is_one_revision_and_is_replayed_as_it_was() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let token = SessionToken::draw(0)
        .expect("the system has randomness")
        .expose();
    let create = inner(Op::CreateSession(v1::CreateSessionRequest {
        token: token.clone(),
        user_id: "ada".to_owned(),
        ..Default::default()
    }));
    let request = txn(vec![
        create,
        take(-2),
        add(2),
        look("stock"),
        look("absent"),
    ]);
    let first = one(&mut client, 1, request.clone()).await;
    let response = done(&first);
    assert!(response.succeeded);
    let [create, take, add, stock, absent] = &response.results[..] else {
        panic!("{response:?}");
    };
    let Some(Body::CreateSession(created)) = &create.response else {
        panic!("{create:?}");
    };
    assert_eq!(created.token, token);
    let session = created.session.clone().expect("it was created");
    assert_eq!(session.create_revision, first.revision);
    let Some(Body::IncrementKey(counter)) = &take.response else {
        panic!("{take:?}");
    };
    assert_eq!((counter.value, counter.mod_revision), (1, first.revision));
    let Some(Body::AddCartLine(added)) = &add.response else {
        panic!("{add:?}");
    };
    assert_eq!(added.mod_revision, first.revision);
    let Some(Body::GetKey(v1::GetKeyResponse {
        item: Some(item), ..
    })) = &stock.response
    else {
        panic!("{stock:?}");
    };
    assert_eq!((&item.value[..], item.counter), (&b"1"[..], Some(1)));
    assert!(matches!(
        absent.response,
        Some(Body::GetKey(v1::GetKeyResponse { item: None, .. }))
    ));

    let again = one(&mut client, 1, request).await;
    assert!(again.replayed && !first.replayed);
    assert_eq!(
        (again.response, again.revision),
        (first.response, first.revision)
    );
}

#[tokio::test]
async fn what_is_refused_says_where_and_undoes_all() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let refused = one(&mut client, 1, txn(vec![add(1), take(-2), take(-2)])).await;
    let told = failure(&refused);
    assert_eq!(told.reason, "COUNTER_BELOW_MIN");
    assert_eq!(told.metadata["branch"], "then");
    assert_eq!(told.metadata["operation_index"], "2");
    assert_eq!(told.metadata["actual_value"], "1");
    assert_eq!(told.metadata["outcome"], "not_applied");
    assert!(told.message.starts_with("then[2]: "), "{}", told.message);

    let again = one(&mut client, 1, txn(vec![add(1), take(-2), take(-2)])).await;
    assert_eq!(failure(&again), told);
    let cart = inner(Op::GetCart(v1::GetCartRequest {
        owner: Some(user()),
        ..Default::default()
    }));
    let seen = one(&mut client, 2, txn(vec![cart, look("stock")])).await;
    assert_eq!(seen.revision, 0, "nothing has changed anything");
    let results = &done(&seen).results;
    assert!(matches!(&results[0].response, Some(Body::GetCart(cart)) if cart.cart.is_none()));
    assert!(matches!(&results[1].response, Some(Body::GetKey(key)) if key.item.is_none()));
}

/// Stock, cart and order in one step: what an action of an update is refused for is told with both places.
#[tokio::test]
async fn a_checkout_is_all_or_nothing() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let update = |sku: &str| {
        let line = v1::CartLineRef {
            line: Some(v1::cart_line_ref::Line::Sku(sku.to_owned())),
        };
        let remove = v1::RemoveLineAction { line: Some(line) };
        inner(Op::UpdateCart(v1::UpdateCartRequest {
            owner: Some(user()),
            actions: vec![v1::CartAction {
                action: Some(v1::cart_action::Action::Remove(remove)),
            }],
            ..Default::default()
        }))
    };
    let freeze = inner(Op::FreezeCart(v1::FreezeCartRequest {
        owner: Some(user()),
        holder: "till".to_owned(),
        ..Default::default()
    }));
    let get = inner(Op::GetCart(v1::GetCartRequest {
        owner: Some(user()),
        ..Default::default()
    }));
    let refused = one(&mut client, 1, txn(vec![take(-2), add(2), update("hat")])).await;
    let told = failure(&refused);
    assert_eq!(told.reason, "CART_LINE_NOT_FOUND");
    assert_eq!(told.metadata["operation_index"], "2");
    assert_eq!(told.metadata["action"], "0");

    let frozen = one(&mut client, 2, txn(vec![take(-2), add(2), freeze, get])).await;
    let [_, _, freeze, seen] = &done(&frozen).results[..] else {
        panic!("{frozen:?}");
    };
    let Some(Body::FreezeCart(freeze)) = &freeze.response else {
        panic!("{freeze:?}");
    };
    let Some(Body::GetCart(seen)) = &seen.response else {
        panic!("{seen:?}");
    };
    assert_eq!(seen.cart, freeze.snapshot);
    assert_eq!(
        freeze.freeze.as_ref().expect("it is").revision,
        frozen.revision
    );
    let refused = one(&mut client, 3, txn(vec![take(-1), add(1)])).await;
    assert_eq!(failure(&refused).reason, "CART_FROZEN");
    assert_eq!(failure(&refused).metadata["holder"], "till");

    let complete = inner(Op::CompleteOrder(v1::CompleteOrderRequest {
        owner: Some(user()),
        holder: "till".to_owned(),
        revision: frozen.revision,
        order_id: "o1".to_owned(),
        ..Default::default()
    }));
    let completed = one(&mut client, 4, txn(vec![complete, add(1)])).await;
    assert_eq!(done(&completed).results.len(), 2);
}

/// The new token, its cart and whatever else belongs to a login come together, also for a retry.
#[tokio::test]
async fn a_login_can_be_part_of_a_transaction() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let guest = v1::CartOwner {
        owner: Some(Owner::SessionToken(token(1))),
    };
    let line = v1::AddCartLineRequest {
        owner: Some(guest),
        sku: "hat".to_owned(),
        quantity: 1,
        ..Default::default()
    };
    client
        .send(vec![
            create_session(1, 1, ""),
            operation(2, Op::AddCartLine(line)),
        ])
        .await;
    client.outcomes(2).await;
    let login = inner(Op::RotateSession(Box::new(v1::RotateSessionRequest {
        user_id: "ada".to_owned(),
        ..rotate(2)
    })));
    let cart = inner(Op::GetCart(v1::GetCartRequest {
        owner: Some(user()),
        ..Default::default()
    }));
    let request = txn(vec![login, put(0, "seen", "ada"), cart]);
    let first = one(&mut client, 3, request.clone()).await;
    let [login, _, cart] = &done(&first).results[..] else {
        panic!("{first:?}");
    };
    let Some(Body::RotateSession(login)) = &login.response else {
        panic!("{login:?}");
    };
    assert_eq!(login.token, token(2));
    let merged = login.cart.as_ref().expect("there was a cart");
    assert_eq!(
        (merged.taken_lines, merged.mod_revision),
        (1, first.revision)
    );
    let Some(Body::GetCart(cart)) = &cart.response else {
        panic!("{cart:?}");
    };
    assert_eq!(cart.cart.as_ref().map_or(0, |cart| cart.lines.len()), 1);
    let again = one(&mut client, 3, request).await;
    assert!(again.replayed);
    assert_eq!(again.response, first.response);

    let late = inner(Op::RotateSession(Box::new(rotate(3))));
    let refused = one(&mut client, 4, txn(vec![put(0, "seen", "bob"), late])).await;
    assert_eq!(failure(&refused).reason, "SESSION_NOT_FOUND");
    assert_eq!(failure(&refused).metadata["operation_index"], "1");
}

#[tokio::test]
async fn a_save_that_conflicts_undoes_all() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let fields = |value: &str| [("lang".to_owned(), Bytes::from(value.to_owned()))].into();
    let update = |value: &str| {
        inner(Op::UpdateSession(v1::UpdateSessionRequest {
            token: token(1),
            set: fields(value),
            ..Default::default()
        }))
    };
    let save = inner(Op::SaveSession(v1::SaveSessionRequest {
        token: token(1),
        loaded_revision: 1,
        fields: fields("fr"),
        ..Default::default()
    }));
    client.send(vec![create_session(1, 1, "")]).await;
    client.outcomes(1).await;
    let request = txn(vec![update("de"), save.clone()]);
    let refused = one(&mut client, 2, request.clone()).await;
    let told = failure(&refused);
    assert_eq!(told.reason, "SAVE_CONFLICT");
    assert_eq!(told.metadata["fields"], r#"["lang"]"#);
    assert_eq!(told.metadata["operation_index"], "1");
    assert_eq!(told.metadata["branch"], "then");
    let again = one(&mut client, 2, request).await;
    assert_eq!(failure(&again), told);
    let saved = one(&mut client, 3, txn(vec![save])).await;
    let Some(Body::SaveSession(saved)) = &done(&saved).results[0].response else {
        panic!("{saved:?}");
    };
    assert!(!saved.merged, "nobody had changed it");
}

#[tokio::test]
async fn comparisons_choose_the_branch() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x")]).await;
    client.outcomes(1).await;
    let holds = [
        compare("a", Operand::Exists(true)),
        compare("a", Operand::ModRevision(1)),
        compare("a", Operand::CreateRevision(1)),
        compare("a", Operand::Value(Bytes::from_static(b"x"))),
        v1::Compare {
            relation: v1::Relation::NotEqual.into(),
            ..compare("a", Operand::Counter(0))
        },
        v1::Compare {
            relation: v1::Relation::Less.into(),
            ..compare("a", Operand::Value(Bytes::from_static(b"y")))
        },
        compare("absent", Operand::ModRevision(0)),
    ];
    let request = v1::TxnRequest {
        compare: holds.to_vec(),
        then: vec![look("a")],
        ..Default::default()
    };
    assert!(done(&one(&mut client, 2, request.clone()).await).succeeded);
    for (nth, fails) in (3..).zip([
        compare("a", Operand::Exists(false)),
        compare("a", Operand::ModRevision(2)),
        compare("absent", Operand::Value(Bytes::new())),
        v1::Compare {
            relation: v1::Relation::Greater.into(),
            ..compare("a", Operand::CreateRevision(1))
        },
    ]) {
        let mut request = request.clone();
        request.compare.push(fails.clone());
        let outcome = one(&mut client, nth, request).await;
        let response = done(&outcome);
        assert!(!response.succeeded, "{fails:?}");
        assert!(response.results.is_empty(), "{fails:?}");
    }
}

#[tokio::test]
async fn what_may_not_stand_in_a_transaction_is_named() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let named = |request_id: &str, namespace: &str| {
        inner(Op::PutKey(v1::PutKeyRequest {
            namespace: namespace.to_owned(),
            request_id: request_id.to_owned(),
            key: "a".to_owned(),
            ..Default::default()
        }))
    };
    let cases = [
        (inner(Op::Txn(v1::TxnRequest::default())), "MALFORMED"),
        (
            inner(Op::ListKeys(v1::ListKeysRequest::default())),
            "MALFORMED",
        ),
        (
            inner(Op::GrantLease(v1::GrantLeaseRequest::default())),
            "MALFORMED",
        ),
        (
            inner(Op::CreateSession(v1::CreateSessionRequest::default())),
            "EMPTY_FIELD",
        ),
        (get(0, "a", v1::Consistency::Stale), "MALFORMED"),
        (put(7, "a", "x"), "EXCLUSIVE_FIELDS"),
        (named("id", ""), "EXCLUSIVE_FIELDS"),
        (named("", "other"), "MALFORMED"),
        (put(0, "", "x"), "EMPTY_FIELD"),
        (
            inner(Op::GetCart(v1::GetCartRequest {
                owner: Some(user()),
                own: true,
                ..Default::default()
            })),
            "MALFORMED",
        ),
        (get_session(0, 1, true), "MALFORMED"),
        (
            inner(Op::ListSessions(v1::ListSessionsRequest {
                user_id: "ada".to_owned(),
                ..Default::default()
            })),
            "MALFORMED",
        ),
        (
            inner(Op::GetNamespace(v1::GetNamespaceRequest::default())),
            "MALFORMED",
        ),
        (
            inner(Op::RotateSession(Box::new(v1::RotateSessionRequest {
                new_token: String::new(),
                ..rotate(2)
            }))),
            "EMPTY_FIELD",
        ),
        (Operation::default(), "EMPTY_FIELD"),
    ];
    for (nth, (bad, reason)) in (1..).zip(cases) {
        let outcome = one(
            &mut client,
            nth,
            txn(vec![named("", "default"), bad.clone()]),
        )
        .await;
        let told = failure(&outcome);
        assert_eq!(told.reason, reason, "{bad:?}");
        assert_eq!(told.metadata["operation_index"], "1", "{bad:?}");
    }
    let freeze = inner(Op::FreezeCart(v1::FreezeCartRequest {
        owner: Some(user()),
        holder: "till".to_owned(),
        ..Default::default()
    }));
    let outcome = one(&mut client, 49, txn(vec![freeze.clone(), freeze])).await;
    assert_eq!(failure(&outcome).reason, "TOO_MANY");
    let many = vec![look("a"); limits::TXN_OPERATIONS + 1];
    let outcome = one(&mut client, 50, txn(many)).await;
    assert_eq!(failure(&outcome).reason, "TOO_MANY");
    let bad = v1::TxnRequest {
        compare: vec![v1::Compare {
            target: Some(Target::Cart(user())),
            ..compare("", Operand::Counter(1))
        }],
        ..Default::default()
    };
    let outcome = one(&mut client, 51, bad).await;
    let told = failure(&outcome);
    assert_eq!(
        (told.reason.as_str(), told.metadata["branch"].as_str()),
        ("MALFORMED", "compare")
    );
    assert_eq!(client.node.proposed(), 0);
}

#[tokio::test]
async fn a_unary_transaction_is_replayed_under_its_request_id() {
    let api = Api::new(MemoryNode::leader());
    let request = v1::TxnRequest {
        request_id: "purchase".to_owned(),
        ..txn(vec![take(-2), add(2)])
    };
    let call = || api.txn(Request::new(request.clone()));
    let first = call().await.expect("served").into_inner();
    let again = call().await.expect("served").into_inner();
    assert!(again.header.is_some_and(|header| header.replayed));
    assert_eq!(
        (again.succeeded, again.results),
        (first.succeeded, first.results)
    );

    let other = v1::TxnRequest {
        request_id: "purchase".to_owned(),
        ..txn(vec![take(-1)])
    };
    let told = api
        .txn(Request::new(other))
        .await
        .expect_err("another body");
    assert_eq!(reason(&told), "REQUEST_ID_REUSED");
}
