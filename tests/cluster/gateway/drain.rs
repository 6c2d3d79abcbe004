//! A gateway that is told to go.

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::gateway::{EVERYTHING, Gateway};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished_and_streams_end() {
    let cluster = Cluster::start(1, &[]).await;
    let mut gateway = Gateway::start(&cluster, &["--drain-timeout", "20s"]).await;
    let ada = gateway.user("ada", EVERYTHING);
    let mut events = ada.follow("/v1/watch?keys=", &[]).await;
    assert_eq!(
        events
            .next_of_all()
            .await
            .map(|event| event.name)
            .as_deref(),
        Some("progress")
    );

    let writer = ada.clone();
    let mut writing = tokio::task::JoinSet::new();
    writing.spawn(async move {
        let mut acknowledged = 0_u64;
        loop {
            let body = Some(json!({"delta": 1}));
            let path = "/v1/keys/n/increment";
            let answer = writer.try_send(http::Method::POST, path, &[], body).await;
            match answer {
                Some(answer) if answer.status == 200 => acknowledged += 1,
                // No answer was cut off: none came because nobody listens any more.
                _ => return acknowledged,
            }
        }
    });
    crate::harness::eventually("some writes", async || {
        let read = ada.get("/v1/keys/n", &[]).await;
        read.body["counter"].as_u64() > Some(20)
    })
    .await;
    gateway.ask_to_stop();
    crate::harness::eventually("a gateway that says that it goes", async || {
        let ready = ada.try_send(http::Method::GET, "/readyz", &[], None).await;
        ready.is_none_or(|ready| ready.status == 503)
    })
    .await;
    let status = gateway.wait_for_exit().await;
    assert!(status.success(), "{status}");
    while events.next().await.is_some() {}
    let acknowledged = writing
        .join_next()
        .await
        .expect("it writes")
        .expect("it ends");
    let client = cluster.client();
    let counted = client.keys().get("n").send().await.expect("it is there");
    assert_eq!(
        counted.counter,
        i64::try_from(acknowledged).ok(),
        "each was acknowledged, once"
    );
}
