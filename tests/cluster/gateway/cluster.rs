//! What the console asks for.

use serde_json::Value;

use crate::harness::Cluster;
use crate::harness::gateway::{EVERYTHING, Gateway};

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_is_shown_to_whoever_may_see_it() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let gateway = Gateway::start(&cluster, &["--name", "front-a"]).await;
    let refused = gateway
        .user("ada", EVERYTHING)
        .get("/v1/cluster", &[])
        .await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(refused.body["metadata"]["scope"], "cluster:read");

    let operator = gateway.user("op", "cluster:read key:write");
    operator
        .put("/v1/keys/a", &[], serde_json::json!({"value": "b"}))
        .await
        .ok();
    let down = cluster.others(leader)[0];
    cluster.node(down).kill();
    let seen = operator.get("/v1/cluster", &[]).await.ok().body;
    assert_eq!(seen["front"]["name"], "front-a");
    assert_eq!(seen["front"]["traffic"]["writes"], 1, "{seen}");
    // The one that was refused is not about the store.
    assert_eq!(seen["front"]["traffic"]["reads"], 0, "{seen}");
    let nodes = seen["nodes"].as_array().expect("a list");
    let of = |id: u64| {
        let node = nodes.iter().find(|node| node["node_id"] == id);
        node.unwrap_or_else(|| panic!("no node {id} in {seen}"))
    };
    assert_eq!(of(leader)["role"], "leader");
    assert_eq!(of(leader)["digest"].as_str().map(str::len), Some(32));
    assert!(of(leader)["revision"].as_u64() > Some(0), "{seen}");
    assert_ne!(of(down)["error"], Value::Null);
    assert_eq!(of(down)["role"], Value::Null);
}
