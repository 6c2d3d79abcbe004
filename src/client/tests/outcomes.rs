//! What a caller may conclude from an error: `NotApplied` is a proof.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Server;

use super::{Fake, Step, Store, cluster, config, connect, dead_endpoint};
use crate::client::{CartOwner, Client, ClientConfig, Error, Outcome, Transport};

/// What a node does, operation by operation.
type Steps = Box<dyn Fn(&Fake) -> Vec<Step>>;

const TIMEOUT: Duration = Duration::from_millis(400);

/// One write against a single node that takes these steps, and the last one again and again.
async fn fail(steps: impl Fn(&Fake) -> Vec<Step>) -> Error {
    let (fakes, _) = cluster(1).await;
    let mut steps: Vec<_> = steps(&fakes[0]);
    steps.reverse();
    fakes[0].script(move |_, _| {
        if let [last] = &steps[..] {
            return again(last);
        }
        steps.pop().expect("one is left")
    });
    let client = connect(&fakes).timeout(TIMEOUT);
    let put = client.keys().put("a", "1").send().await;
    put.expect_err("no step serves")
}

fn again(step: &Step) -> Step {
    match step {
        Step::Fail(failure) => Step::Fail(failure.clone()),
        Step::Ignore => Step::Ignore,
        _ => Step::Break,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_known_only_where_it_is_proven() {
    use Outcome::{NotApplied, Unknown};
    let not_leader =
        |fake: &Fake| Step::Fail(fake.failure(Code::Unavailable, "NO_LEADER", "not_applied"));
    let lost =
        |fake: &Fake| Step::Fail(fake.failure(Code::Unavailable, "LEADERSHIP_LOST", "unknown"));
    let exists =
        |fake: &Fake| Step::Fail(fake.failure(Code::AlreadyExists, "KEY_EXISTS", "not_applied"));
    let forgotten = |fake: &Fake| {
        Step::Fail(fake.failure(Code::FailedPrecondition, "SEQUENCE_CONFIRMED", "unknown"))
    };
    let full =
        |fake: &Fake| Step::Fail(fake.failure(Code::ResourceExhausted, "NO_SPACE", "not_applied"));
    let vague = |_: &Fake| {
        Step::Fail(crate::proto::v1::Failure {
            code: Code::Unimplemented.into(),
            ..Default::default()
        })
    };
    let table: Vec<(&str, Steps, Outcome)> = vec![
        ("leadership lost", Box::new(move |f| vec![lost(f)]), Unknown),
        (
            "lost once, then refused",
            Box::new(move |f| vec![lost(f), not_leader(f)]),
            Unknown,
        ),
        (
            "broken once, then refused",
            Box::new(move |f| vec![Step::Break, not_leader(f)]),
            Unknown,
        ),
        ("broken each time", Box::new(|_| vec![Step::Break]), Unknown),
        ("silent", Box::new(|_| vec![Step::Ignore]), Unknown),
        ("rejected", Box::new(move |f| vec![exists(f)]), NotApplied),
        (
            "broken, then rejected: that is the first reply",
            Box::new(move |f| vec![Step::Break, exists(f)]),
            NotApplied,
        ),
        ("forgotten", Box::new(move |f| vec![forgotten(f)]), Unknown),
        ("no room", Box::new(move |f| vec![full(f)]), NotApplied),
        (
            "broken, then no room: the first may be on its way",
            Box::new(move |f| vec![Step::Break, full(f)]),
            Unknown,
        ),
        (
            "no node's answer",
            Box::new(move |f| vec![vague(f)]),
            NotApplied,
        ),
        (
            "broken, then no node's answer",
            Box::new(move |f| vec![Step::Break, vague(f)]),
            Unknown,
        ),
    ];
    for (name, steps, outcome) in table {
        let error = fail(steps).await;
        assert_eq!(error.outcome(), outcome, "{name}: {error}");
    }
}

/// The deadline may pass between two attempts, all of which were refused, or while one is under way, which nobody can
/// then know the outcome of. Which of the two it is, the machine's speed decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_refused_each_time_was_not_applied() {
    for _ in 0..100 {
        let refused: Steps = Box::new(|fake| {
            vec![Step::Fail(fake.failure(
                Code::Unavailable,
                "NO_LEADER",
                "not_applied",
            ))]
        });
        let error = fail(refused).await;
        if !matches!(error, Error::Deadline { .. }) {
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            return;
        }
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    panic!("the deadline always passed while an attempt was under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_and_nothing_that_was_not_sent_is_unknown() {
    let endpoints = [dead_endpoint().await, dead_endpoint().await];
    let config = ClientConfig::new(endpoints).expect("they are well formed");
    let client = Client::connect(config.timeout(TIMEOUT)).expect("the system has randomness");
    let start = Instant::now();
    let error = client.keys().put("a", "1").send().await;
    let error = error.expect_err("nobody listens");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.is_retryable());
    assert!(start.elapsed() >= TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_ends_in_a_deadline() {
    let (fakes, _) = cluster(1).await;
    fakes[0].script(|_, _| Step::Ignore);
    let config = config(&fakes).attempt_timeout(4 * TIMEOUT).timeout(TIMEOUT);
    let client = Client::connect(config).expect("the system has randomness");
    let error = client.keys().put("a", "1").send().await;
    let error = error.expect_err("nobody answers");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(error.to_string().contains(&fakes[0].address), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(fakes[0].seen().len(), 1);
}

/// As a node is that waits to be a member of a cluster: it says nothing but the code.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_service_is_named_with_what_its_code_means() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let mut serving = JoinSet::new();
    let server = Server::builder().add_routes(Routes::default());
    serving.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let config = ClientConfig::new([&address]).expect("it is well formed");
    for transport in [Transport::Exchange, Transport::Unary] {
        let config = config.clone().transport(transport).timeout(TIMEOUT);
        let client = Client::connect(config).expect("the system has randomness");
        let error = client.keys().put("a", "1").send().await;
        let error = error.expect_err("nobody serves it").to_string();
        assert!(error.contains(&address), "{error}");
        assert!(error.contains("not implemented"), "{error}");
    }
}

/// A cart that is too large for the answer is read within the time that the freeze was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_and_the_read_behind_it_have_one_deadline() {
    let (fakes, _) = cluster(1).await;
    fakes[0].script(|nth, _| if nth == 1 { Step::Serve } else { Step::Ignore });
    let (attempt, timeout) = (Duration::from_secs(3), Duration::from_secs(4));
    let config = config(&fakes).attempt_timeout(attempt).timeout(timeout);
    let client = Client::connect(config).expect("the system has randomness");
    let start = Instant::now();
    let owner = CartOwner::User("ada".to_owned());
    let error = client.carts().freeze(&owner, "till").send().await;
    let error = error.expect_err("nobody reads the cart").to_string();
    assert!(error.contains("the cart is frozen"), "{error}");
    let took = start.elapsed();
    assert!(took >= timeout && took < attempt + timeout, "{took:?}");
}

/// Unary writes against a leader that takes these steps, and then serves.
async fn unary(steps: impl Fn(&Fake) -> Vec<Step>) -> (Client, Vec<Fake>, Arc<Store>) {
    let (fakes, store) = cluster(1).await;
    let mut steps = steps(&fakes[0]);
    steps.reverse();
    fakes[0].script(move |_, _| steps.pop().unwrap_or(Step::Serve));
    let config = config(&fakes).transport(Transport::Unary);
    let client = Client::connect(config).expect("the system has randomness");
    (client, fakes, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_identity_is_not_sent_again_once_it_may_have_been_seen() {
    for lost in [
        |_: &Fake| vec![Step::ServeAndBreak],
        |_: &Fake| vec![Step::Ignore],
    ] {
        let (client, fakes, store) = unary(lost).await;
        let put = client.keys().put("a", "1").at_most_once().send().await;
        let error = put.expect_err("the answer was lost");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(fakes[0].seen().len(), 1, "it was sent once");
        assert!(store.applied("a") <= 1);
    }
    let unknown = |fake: &Fake| {
        vec![Step::Fail(fake.failure(
            Code::Unavailable,
            "LEADERSHIP_LOST",
            "unknown",
        ))]
    };
    let (client, fakes, _) = unary(unknown).await;
    let put = client.keys().put("a", "1").at_most_once().send().await;
    let error = put.expect_err("nobody knows");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(fakes[0].seen().len(), 1, "it was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_identity_is_sent_again_if_it_was_not_applied() {
    let refused = |fake: &Fake| {
        vec![Step::Fail(fake.failure(
            Code::Unavailable,
            "NO_LEADER",
            "not_applied",
        ))]
    };
    let (client, fakes, store) = unary(refused).await;
    let put = client.keys().put("a", "1").at_most_once().send().await;
    put.expect("the second is served");
    assert_eq!(fakes[0].seen().len(), 2);
    assert_eq!(store.applied("a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_how_far_the_store_is() {
    let exists = |fake: &Fake| {
        let mut failure = fake.failure(Code::AlreadyExists, "KEY_EXISTS", "not_applied");
        let seen = ("revision".to_owned(), "7".to_owned());
        failure.metadata.extend([seen]);
        vec![Step::Fail(failure)]
    };
    let (client, _fakes, _) = unary(exists).await;
    let put = client.keys().put("a", "1").if_absent().send().await;
    put.expect_err("it is there");
    assert_eq!(client.revision().get(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_write_is_recognised_when_it_is_sent_again() {
    let (client, fakes, store) = unary(|_| vec![Step::ServeAndBreak]).await;
    let put = client.keys().put("a", "1").send().await;
    put.expect("the second is the first");
    let seen = fakes[0].seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].client, seen[1].client, "under one request id");
    assert_eq!(store.applied("a"), 1);
}
