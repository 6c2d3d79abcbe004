//! Leaders that are killed while users log out everywhere, log in, and order.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use tonic::transport::Channel;
use trolley::client::{CartOwner, Client, CreatedSession, Error, Outcome, Reply, RotatedSession};
use trolley::proto::v1::session_service_client::SessionServiceClient;
use trolley::proto::v1::{
    CartState, CompleteOrderResponse, Consistency, GetSessionRequest, ListSessionsRequest,
    ReadOptions, UpdateSessionResponse,
};
use trolley::types::Revision;

use crate::harness::{Cluster, Storm};

/// How often the leader is killed.
const KILLS: u64 = 8;

/// What a request was answered: a value and the revision at which it came true, or the reason why not.
type Answer<T> = Result<(T, Revision), String>;

/// A user with devices and a frozen cart, before the storm.
struct Setup {
    number: u64,
    user: String,
    /// The device from which all others are logged out.
    kept: CreatedSession,
    /// Three others. The first renews its token at the same time, the second writes.
    others: Vec<CreatedSession>,
    /// Logs in as the user at the same time.
    guest: CreatedSession,
    frozen: Revision,
}

/// What was answered to the requests that were under way at the same time.
#[derive(Debug, PartialEq)]
struct Answers {
    revoked: Answer<u64>,
    login: Answer<RotatedSession>,
    renewed: Answer<RotatedSession>,
    late: Answer<UpdateSessionResponse>,
    ordered: Answer<CompleteOrderResponse>,
}

fn told<T>(answer: Result<Reply<T>, Error>) -> Answer<T> {
    match answer {
        Ok(reply) => Ok((reply.value, reply.revision)),
        Err(error) => {
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            Err(error.reason().expect("a node refused it").to_owned())
        }
    }
}

impl Setup {
    async fn make(storm: &Storm, client: &Client, number: u64) -> Self {
        let user = format!("user-{number}");
        let create = async |device: &str, user: &str| {
            let id = format!("{number}/create {device}");
            let made = storm.ask("create", || {
                let create = client.sessions().create().client("device", device);
                create.user(user).request_id(&id).send()
            });
            made.await.expect("it can be created").value
        };
        let kept = create("laptop", &user).await;
        let others = vec![
            create("phone", &user).await,
            create("tablet", &user).await,
            create("desk", &user).await,
        ];
        let guest = create("kiosk", "").await;
        let owner = CartOwner::User(user.clone());
        let id = format!("{number}/add");
        let add = storm.ask("add", || {
            let add = client.carts().add(&owner, "mug", 2);
            add.request_id(&id).send()
        });
        add.await.expect("it can be added");
        let id = format!("{number}/freeze");
        let freeze = storm.ask("freeze", || {
            let freeze = client.carts().freeze(&owner, "till");
            freeze.request_id(&id).send()
        });
        let frozen = freeze.await.expect("it has a line").freeze_revision;
        Self {
            number,
            user,
            kept,
            others,
            guest,
            frozen,
        }
    }

    /// All at the same time.
    async fn log_out(&self, storm: &Storm, client: &Client) -> Answers {
        let id = |verb: &str| format!("{}/{verb}", self.number);
        let owner = CartOwner::User(self.user.clone());
        let sessions = || client.sessions();
        let [renewing, writing, ..] = &self.others[..] else {
            panic!("three other devices");
        };
        let (revoked, login, renewed, late, ordered) = tokio::join!(
            storm.ask("revoke-all", || {
                let revoke = sessions().revoke_all(&self.user).except(&self.kept.token);
                revoke.request_id(id("revoke")).send()
            }),
            storm.ask("rotate", || {
                let rotate = sessions().rotate(&self.guest.token).user(&self.user);
                rotate.request_id(id("login")).send()
            }),
            storm.ask("rotate", || {
                let rotate = sessions().rotate(&renewing.token);
                rotate.request_id(id("renew")).send()
            }),
            storm.ask("update", || {
                let update = sessions().update(&writing.token).set("late", "yes");
                update.request_id(id("update")).send()
            }),
            storm.ask("complete-order", || {
                let complete = client.carts();
                let complete = complete.complete_order(
                    &owner,
                    "till",
                    self.frozen,
                    format!("order {}", self.number),
                );
                complete.request_id(id("order")).send()
            }),
        );
        Answers {
            revoked: told(revoked),
            login: told(login),
            renewed: told(renewed),
            late: told(late),
            ordered: told(ordered),
        }
    }
}

/// What must be true of a user from then on: the tokens of all sessions, with the handles of those that live.
struct Devices {
    user: String,
    live: Vec<(String, String)>,
    dead: Vec<String>,
}

/// Revisions say which of the requests came first, and that decides everything.
fn judge(setup: &Setup, answers: &Answers) -> Devices {
    let (ended, revoked_at) = *answers.revoked.as_ref().expect("the kept session is hers");
    let mut dead: Vec<String> = setup.others.iter().map(|it| it.token.clone()).collect();
    dead.push(setup.guest.token.clone());
    let kept = &setup.kept;
    let mut live = vec![(kept.token.clone(), kept.session.handle.clone())];

    let (login, at) = answers.login.as_ref().expect("a guest may log in");
    assert_eq!(login.user_id, setup.user);
    let was_in_time = *at < revoked_at;
    if was_in_time {
        dead.push(login.token.clone());
    } else {
        live.push((login.token.clone(), login.handle.clone()));
    }
    let others = setup.others.len() as u64;
    assert_eq!(ended, others + u64::from(was_in_time), "{answers:?}");

    match &answers.renewed {
        Ok((renewed, at)) => {
            assert!(
                *at < revoked_at,
                "renewed after it was revoked: {answers:?}"
            );
            dead.push(renewed.token.clone());
        }
        Err(reason) => assert_eq!(reason, "SESSION_NOT_FOUND"),
    }
    match &answers.late {
        Ok((_, at)) => assert!(
            *at < revoked_at,
            "written after it was revoked: {answers:?}"
        ),
        Err(reason) => assert_eq!(reason, "SESSION_NOT_FOUND"),
    }
    let (ordered, _) = answers.ordered.as_ref().expect("it was frozen");
    assert_eq!(
        (ordered.already_completed, ordered.remaining_lines),
        (false, 0)
    );
    Devices {
        user: setup.user.clone(),
        live,
        dead,
    }
}

/// Whatever the leader died of, who was logged out is out on every node, each request counted once, and its retry is told what
/// the first was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_back_when_the_leader_dies_of_a_revocation() {
    let mut cluster = Cluster::start(3, &[]).await;
    let kinds = ["revoke-all", "rotate", "complete-order"];
    let story = |storm: Arc<Storm>, client: Client, number| async move {
        let setup = Setup::make(&storm, &client, number).await;
        let answers = Box::pin(setup.log_out(&storm, &client)).await;
        let devices = judge(&setup, &answers);
        // At once, while the sweep of what was revoked may be under way.
        for token in &devices.dead {
            let read = storm.read("get", || client.sessions().get(token).send());
            let gone = read.await.expect_err("it was ended");
            assert_eq!(gone.reason(), Some("SESSION_NOT_FOUND"));
        }
        (setup, answers, devices)
    };
    let stories = Storm::rage(&mut cluster, KILLS, &kinds, story).await;

    // A process that knows the request ids, and nothing else of the first.
    let client = cluster.client();
    let calm = Storm::default();
    let before = cluster.wait_for_agreement().await[0].revision;
    for (setup, answers, _) in &stories {
        assert_eq!(Box::pin(setup.log_out(&calm, &client)).await, *answers);
    }
    let after = cluster.wait_for_agreement().await[0].revision;
    assert_eq!(before, after, "a retry was applied again");
    for id in [1, 2, 3] {
        let node = SessionServiceClient::new(cluster.channel(id).await);
        for how in [Consistency::Stale, Consistency::Linearizable] {
            join_all(
                stories
                    .iter()
                    .map(|(.., devices)| check(&node, how, devices)),
            )
            .await;
        }
    }
    for (setup, ..) in &stories {
        let owner = CartOwner::User(setup.user.clone());
        let cart = client.carts().get(&owner).send().await;
        let cart = cart.expect("a cart can be read");
        assert_eq!((cart.state(), cart.lines.len()), (CartState::Ordered, 0));
    }
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// One node, asked directly, knows exactly the sessions that live.
async fn check(node: &SessionServiceClient<Channel>, how: Consistency, devices: &Devices) {
    let read = ReadOptions {
        consistency: how.into(),
        min_revision: 0,
    };
    let is_there = async |token: &str| {
        let request = GetSessionRequest {
            read: Some(read),
            token: token.to_owned(),
            ..GetSessionRequest::default()
        };
        match node.clone().get(request).await {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
                false
            }
        }
    };
    let user = &devices.user;
    for (token, handle) in &devices.live {
        assert!(
            is_there(token).await,
            "{handle} of {user} is gone ({how:?})"
        );
    }
    for token in &devices.dead {
        assert!(
            !is_there(token).await,
            "a session of {user} is back ({how:?})"
        );
    }
    let list = ListSessionsRequest {
        read: Some(read),
        user_id: user.clone(),
        ..ListSessionsRequest::default()
    };
    let listed = node.clone().list(list).await.expect("it can be listed");
    let listed = listed.into_inner().sessions.into_iter();
    let listed: BTreeSet<_> = listed.map(|session| session.handle).collect();
    let live = devices.live.iter().map(|(_, handle)| handle.clone());
    assert_eq!(listed, live.collect(), "{user} ({how:?})");
}
