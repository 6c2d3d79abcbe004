//! Reads that ask for less than the newest: what a node that lags may answer, and what nobody may.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::Channel;
use trolley::client::{
    CartOwner, Client, ClientConfig, Consistency, Error, Outcome, Rejected, Reply, Transport,
};
use trolley::proto::v1;
use trolley::proto::v1::cart_service_client::CartServiceClient;
use trolley::proto::v1::kv_service_client::KvServiceClient;
use trolley::proto::v1::lease_service_client::LeaseServiceClient;
use trolley::proto::v1::namespace_service_client::NamespaceServiceClient;
use trolley::proto::v1::session_service_client::SessionServiceClient;
use trolley::types::Revision;

use crate::harness::{Cluster, PATIENCE, Storm, eventually};

/// Enough for a node that can answer, and little enough to wait for one that cannot.
const SOON: Duration = Duration::from_millis(400);

/// How often the leader is killed.
const KILLS: u64 = 3;

fn stale() -> v1::ReadOptions {
    v1::ReadOptions {
        consistency: v1::Consistency::Stale.into(),
        min_revision: 0,
    }
}

fn at_least(revision: Revision) -> v1::ReadOptions {
    v1::ReadOptions {
        consistency: v1::Consistency::AtLeastRevision.into(),
        min_revision: revision.get(),
    }
}

fn linearizable() -> v1::ReadOptions {
    v1::ReadOptions::default()
}

/// One of everything that can be read, which changes as a whole.
struct Records {
    token: String,
    lease: u64,
}

const USER: &str = "ada";
const KEY: &str = "k";

/// A read: what a node answered, in one number, and at which revision.
type Seen = Result<(u64, Revision), Rejected>;

impl Records {
    async fn make(client: &Client) -> Self {
        let session = client.sessions().create().user(USER).send().await;
        let lease = client.leases().grant(Duration::from_secs(600)).send().await;
        let it = Self {
            token: session.expect("it can be created").value.token,
            lease: lease.expect("it can be granted").lease_id,
        };
        it.change(client, 1).await;
        it
    }

    /// Every record holds this number from now on. The revision from which on all of them do.
    async fn change(&self, client: &Client, number: u64) -> Revision {
        let text = number.to_string();
        let update = client.sessions().update(&self.token);
        let update = update.set("number", text.clone()).send().await;
        update.expect("the session lives");
        let more = client.sessions().create().user(USER).send().await;
        more.expect("one device more");
        let cart = CartOwner::User(USER.to_owned());
        let add = client.carts().add(&cart, "mug", 1).send().await;
        add.expect("one piece more");
        let settings = v1::NamespaceSettings {
            session: Some(v1::SessionSettings {
                max_fields: Some(u32::try_from(number + 10).expect("small")),
                ..v1::SessionSettings::default()
            }),
            cart: None,
        };
        let set = client.namespaces().set(settings).send().await;
        set.expect("they are valid");
        let key = format!("leased/{number}");
        let leased = client.keys().put(key, "v").lease(self.lease).send().await;
        leased.expect("the lease lives");
        let put = client.keys().put(KEY, text).send().await;
        put.expect("a majority takes it").revision
    }

    /// Every kind of read, at one node.
    async fn read(&self, node: &Channel, read: v1::ReadOptions) -> Vec<(&'static str, Seen)> {
        macro_rules! read {
            ($client:ident.$method:ident($request:expr), $number:expr) => {Box::pin(async {
                let mut seen = None;
                eventually("a node's own answer", async || {
                    let mut request = tonic::Request::new($request);
                    request.set_timeout(SOON);
                    let answer = $client::new(node.clone()).$method(request).await;
                    let answer = answer.map_err(Rejected::from).map(|answer| {
                        let answer = answer.into_inner();
                        let header = answer.header.clone().expect("every answer has one");
                        ($number(answer), Revision::new(header.revision))
                    });
                    // The transport gives up a little later than the node, unless the machine is busy.
                    let is_nodes = answer.as_ref().map_or_else(|it| !it.reason.is_empty(), |_| true);
                    seen = Some(answer);
                    is_nodes
                })
                .await;
                seen.expect("it was just seen")
            })};
        }
        let number = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).expect("a number");
            text.parse::<u64>().expect("a number")
        };
        let read = Some(read);
        let session = read!(
            SessionServiceClient.get(v1::GetSessionRequest {
                read,
                token: self.token.clone(),
                ..Default::default()
            }),
            |it: v1::GetSessionResponse| number(&it.session.expect("it lives").fields["number"])
        );
        let devices = read!(
            SessionServiceClient.list(v1::ListSessionsRequest {
                read,
                user_id: USER.to_owned(),
                ..Default::default()
            }),
            // One is as old as the user.
            |it: v1::ListSessionsResponse| it.sessions.len() as u64 - 1
        );
        let owner = v1::CartOwner {
            owner: Some(v1::cart_owner::Owner::UserId(USER.to_owned())),
        };
        let cart = read!(
            CartServiceClient.get(v1::GetCartRequest {
                read,
                owner: Some(owner.clone()),
                ..Default::default()
            }),
            |it: v1::GetCartResponse| u64::from(it.cart.expect("it is there").lines[0].quantity)
        );
        let settings = read!(
            NamespaceServiceClient.get(v1::GetNamespaceRequest {
                read,
                ..Default::default()
            }),
            |it: v1::GetNamespaceResponse| {
                let session = it.settings.and_then(|it| it.session).expect("it was set");
                u64::from(session.max_fields.expect("it was set")) - 10
            }
        );
        let lease = read!(
            LeaseServiceClient.get(v1::GetLeaseRequest {
                read,
                lease_id: self.lease,
                ..Default::default()
            }),
            |it: v1::GetLeaseResponse| it.keys.len() as u64
        );
        let listed = read!(
            KvServiceClient.list(v1::ListKeysRequest {
                read,
                prefix: "leased/".to_owned(),
                ..Default::default()
            }),
            |it: v1::ListKeysResponse| it.items.len() as u64
        );
        let key = read!(
            KvServiceClient.get(v1::GetKeyRequest {
                read,
                key: KEY.to_owned(),
                ..Default::default()
            }),
            |it: v1::GetKeyResponse| number(&it.item.expect("it is there").value)
        );
        let (session, devices, cart, settings, lease, listed, key) =
            tokio::join!(session, devices, cart, settings, lease, listed, key);
        vec![
            ("session", session),
            ("devices", devices),
            ("cart", cart),
            ("settings", settings),
            ("lease", lease),
            ("list", listed),
            ("key", key),
        ]
    }

    async fn expect(&self, node: &Channel, read: v1::ReadOptions, number: u64) -> Revision {
        let mut revision = Revision::default();
        for (what, seen) in self.read(node, read).await {
            let (found, at) = seen.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(found, number, "{what}");
            assert!(at >= Revision::new(read.min_revision), "{what} as of {at}");
            revision = at;
        }
        revision
    }

    async fn expect_refusals(&self, node: &Channel, read: v1::ReadOptions, reasons: &[&str]) {
        for (what, seen) in self.read(node, read).await {
            let error = seen.expect_err(what);
            assert!(reasons.contains(&error.reason.as_str()), "{what}: {error}");
            assert_eq!(error.metadata["outcome"], "not_applied");
            if let Some(actual) = error.metadata.get("actual_revision") {
                let actual: u64 = actual.parse().expect("a revision");
                assert!(actual < read.min_revision, "{what}: {error}");
            }
        }
    }
}

/// A client of its own, which knows one node by where it really listens.
fn client_of(cluster: &mut Cluster, id: u64, transport: Transport) -> Client {
    let endpoints = [cluster.node(id).listening().to_owned()];
    let config = ClientConfig::new(endpoints).expect("an address");
    let config = config.transport(transport).timeout(PATIENCE);
    Client::connect(config).expect("a client can be made")
}

/// A follower that no entry reaches any more: it answers `STALE` as it was, refuses or waits where more is asked for, and
/// never passes off the old for the new. A client that may ask others is answered by those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_waits_or_refuses_and_never_answers_older() {
    let mut cluster = Cluster::start_linked(3, &[]).await;
    let client = cluster.client();
    let records = Records::make(&client).await;
    let before = Revision::new(cluster.wait_for_agreement().await[0].revision);
    let leader = cluster.wait_for_leader().await;
    let behind = cluster.others(leader)[0];
    let node = cluster.channel(behind).await;
    let mut impatient = Vec::new();
    for transport in [Transport::Exchange, Transport::Unary] {
        impatient.push(client_of(&mut cluster, behind, transport));
    }

    cluster.link(behind).cut();
    let after = records.change(&client, 2).await;
    assert_eq!(records.expect(&node, stale(), 1).await, before);
    records.expect(&node, at_least(before), 1).await;
    records
        .expect_refusals(&node, at_least(after), &["BEHIND_REVISION"])
        .await;
    // It knows from the leader, which it can still dial, how far it would have to be.
    let reasons = ["DEADLINE_EXCEEDED", "NO_LEADER", "NO_QUORUM"];
    records
        .expect_refusals(&node, linearizable(), &reasons)
        .await;
    for client in &impatient {
        let at_least = client.consistency(Consistency::AtLeast(after));
        for _ in 0..6 {
            let read = at_least.keys().get(KEY).send().await;
            let read = read.expect("two nodes have it");
            assert_eq!(read.value.value, "2");
            assert!(read.revision >= after && read.node_id != behind);
        }
        eventually("a stale answer of the node that lags", async || {
            let stale = client.consistency(Consistency::Stale);
            let read = stale.keys().get(KEY).send().await.expect("all have it");
            let is_old = read.node_id == behind;
            assert_eq!(read.value.value, if is_old { "1" } else { "2" });
            assert_eq!(read.revision < after, is_old);
            is_old
        })
        .await;
    }

    let waits = async {
        let mut request = tonic::Request::new(v1::GetKeyRequest {
            read: Some(at_least(after)),
            key: KEY.to_owned(),
            ..Default::default()
        });
        request.set_timeout(PATIENCE);
        let answer = KvServiceClient::new(node.clone()).get(request).await;
        answer.expect("it catches up in time").into_inner()
    };
    let mends = async {
        // The one that waits is there before.
        records.expect(&node, stale(), 1).await;
        cluster.link(behind).mend();
    };
    let (answer, ()) = tokio::join!(waits, mends);
    assert_eq!(answer.item.expect("it is there").value, "2");
    cluster.wait_for_agreement().await;
    for read in [stale(), at_least(after), linearizable()] {
        records.expect(&node, read, 2).await;
    }
    for client in impatient {
        client.close().await;
    }
    client.close().await;
}

/// A leader that reaches nobody: what it could not replicate is never read, and what it has is read only by those who ask for
/// no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_followers_shows_nothing_that_is_not_committed() {
    let mut cluster = Cluster::start_linked(3, &[]).await;
    let client = cluster.client();
    let records = Records::make(&client).await;
    let before = Revision::new(cluster.wait_for_agreement().await[0].revision);
    let leader = cluster.wait_for_leader().await;
    let node = cluster.channel(leader).await;
    for id in cluster.others(leader) {
        cluster.link(id).cut();
    }
    let mut put = tonic::Request::new(v1::PutKeyRequest {
        request_id: "never acknowledged".to_owned(),
        key: KEY.to_owned(),
        value: "2".into(),
        ..Default::default()
    });
    put.set_timeout(SOON);
    let put = KvServiceClient::new(node.clone()).put(put).await;
    let put = Rejected::from(put.expect_err("nobody else has it"));
    assert_eq!(put.outcome(), Outcome::Unknown, "{put}");
    for _ in 0..20 {
        assert_eq!(records.expect(&node, stale(), 1).await, before);
    }
    records.expect(&node, at_least(before), 1).await;
    records
        .expect_refusals(&node, at_least(before.next()), &["BEHIND_REVISION"])
        .await;
    let reasons = ["NO_QUORUM", "NO_LEADER", "DEADLINE_EXCEEDED"];
    records
        .expect_refusals(&node, linearizable(), &reasons)
        .await;

    for id in cluster.others(leader) {
        cluster.link(id).mend();
    }
    let now = client.keys().get(KEY).send().await.expect("a leader again");
    cluster.wait_for_agreement().await;
    for id in [1, 2, 3] {
        let request = v1::GetKeyRequest {
            read: Some(stale()),
            key: KEY.to_owned(),
            ..Default::default()
        };
        let mut node = KvServiceClient::new(cluster.channel(id).await);
        let read = node.get(request).await.expect("it answers").into_inner();
        assert_eq!(read.item.expect("it is there").value, now.value.value);
    }
    client.close().await;
}

/// What a caller knows of the store so far: whatever it reads next is no older, whoever answers.
#[derive(Default)]
struct Known {
    revision: Revision,
    /// Of a counter that only grows.
    total: i64,
    /// Who answered, to which kind of reader.
    nodes: BTreeSet<(&'static str, u64)>,
}

impl Known {
    /// Takes in an answer, which must not be older than anything before.
    fn take(&mut self, kind: &'static str, read: &Reply<v1::KeyValue>) {
        let total = read.value.counter.expect("a counter");
        assert!(
            read.revision >= self.revision && total >= self.total,
            "node {} went back from {} as of {} to {total} as of {}",
            read.node_id,
            self.total,
            self.revision,
            read.revision,
        );
        (self.revision, self.total) = (read.revision, total);
        self.nodes.insert((kind, read.node_id));
    }
}

/// A caller that has no client library asks whichever node comes next.
async fn get_plainly(
    node: &Channel,
    key: &str,
    known: Revision,
) -> Result<Reply<v1::KeyValue>, Error> {
    let mut request = tonic::Request::new(v1::GetKeyRequest {
        read: Some(at_least(known)),
        key: key.to_owned(),
        ..Default::default()
    });
    request.set_timeout(SOON);
    let answer = KvServiceClient::new(node.clone()).get(request).await;
    let answer = answer.map_err(|status| match Rejected::from(status) {
        // The connection is broken.
        broken if broken.reason.is_empty() => Error::Unavailable {
            outcome: Outcome::Unknown,
            problem: broken.message,
        },
        rejected => rejected.into(),
    })?;
    let answer = answer.into_inner();
    let header = answer.header.expect("every answer has one");
    Ok(Reply {
        value: answer.item.expect("it was found"),
        revision: Revision::new(header.revision),
        replayed: false,
        node_id: header.node_id,
    })
}

/// One caller's writes, each of which it reads from any node, and reads of a counter that all callers raise.
async fn write_and_read(
    storm: &Storm,
    client: &Client,
    nodes: &[Channel; 3],
    number: u64,
) -> Known {
    let own = format!("own/{number}");
    let mut known = Known::default();
    for turn in 0..3_u64 {
        let id = format!("{number}/{turn}");
        let put = storm.ask("put", || {
            let put = client.keys().put(&own, turn.to_string());
            put.request_id(format!("{id}/put")).send()
        });
        put.await.expect("a majority takes it");
        let raise = storm.ask("increment", || {
            let raise = client.keys().increment("total", 1);
            raise.request_id(format!("{id}/increment")).send()
        });
        let raised = raise.await.expect("a majority takes it");
        assert!(raised.revision > known.revision && raised.value.value > known.total);
        (known.revision, known.total) = (raised.revision, raised.value.value);
        for key in [&own, "total"] {
            for kind in ["read", "plain read"] {
                let revision = known.revision;
                let turns = AtomicUsize::new(usize::try_from(number + turn).expect("few"));
                let read = storm.read(kind, || async {
                    if kind == "read" {
                        let read = client.keys().get(key);
                        let read = read.consistency(Consistency::AtLeast(revision));
                        return read.send().await;
                    }
                    let node = &nodes[turns.fetch_add(1, Ordering::Relaxed) % nodes.len()];
                    get_plainly(node, key, revision).await
                });
                let read = read.await.expect("some node is that far");
                assert!(read.revision >= revision, "{read:?}");
                if key == own {
                    assert_eq!(read.value.value, turn.to_string(), "{read:?}");
                } else {
                    known.take(kind, &read);
                }
            }
        }
    }
    known
}

/// Read your writes, and never go back, on whichever node, while leaders die.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_never_reads_what_is_older_than_what_it_knows() {
    let mut cluster = Cluster::start(3, &[]).await;
    let nodes = [
        cluster.channel(1).await,
        cluster.channel(2).await,
        cluster.channel(3).await,
    ];
    let story = move |storm: Arc<Storm>, client: Client, number| {
        let nodes = nodes.clone();
        async move { write_and_read(&storm, &client, &nodes, number).await }
    };
    let known = Storm::rage(&mut cluster, KILLS, &["put", "increment"], story).await;
    let nodes: BTreeSet<_> = known.iter().flat_map(|it| &it.nodes).copied().collect();
    let all = ["read", "plain read"].map(|kind| [1, 2, 3].map(|id| (kind, id)));
    let all = all.into_iter().flatten().collect();
    assert_eq!(nodes, all, "not every node answered each kind of reader");
    cluster.wait_for_agreement().await;
}
