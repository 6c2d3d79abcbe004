//! What users get wrong, through the command line: a stable reason, an exit code, and nothing changed.

use std::process::{Command, Output};

use crate::harness::Cluster;

/// Exit code, standard output, standard error.
fn trolley(endpoints: &str, words: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_trolley"))
        .args(words)
        .env("TROLLEY_ENDPOINTS", endpoints)
        .env_remove("TROLLEY_TOKEN")
        .output()
        .expect("the binary is there");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_named_and_change_nothing() {
    let cluster = Cluster::start(3, &[]).await;
    let endpoints = cluster.endpoints().join(",");
    let (code, _, said) = trolley(&endpoints, &["kv", "put", "k", "v"]);
    assert_eq!(code, 0, "{said}");
    let before = cluster.wait_for_agreement().await[0].revision;

    let long = "x".repeat(2000);
    let bad_txn = cluster.folder().join("bad.json");
    std::fs::write(&bad_txn, r#"{ "then": [{ "put_kye": {} }] }"#).expect("writable");
    let bad_txn = bad_txn.to_str().expect("the folder's name is text");
    let late_txn = cluster.folder().join("late.json");
    let late = r#"{ "then": [{ "put_key": { "key": "k", "value": "w" } }, { "delete_key": { "key": "absent" } }] }"#;
    std::fs::write(&late_txn, late).expect("writable");
    let late_txn = late_txn.to_str().expect("the folder's name is text");
    let cases: [(i32, &[&str]); 19] = [
        (2, &["txn", bad_txn]),
        (2, &["txn", "no such file"]),
        (3, &["txn", late_txn]),
        (4, &["kv", "incr", "k"]),
        (4, &["kv", "incr", "stock", "-1", "--min", "0"]),
        (2, &["kv", "incr", "stock", "1", "--min", "2", "--max", "1"]),
        (3, &["kv", "put", "k", "w", "--lease", "999"]),
        (3, &["lease", "keep-alive", "999"]),
        (2, &["kv", "put", "", "v"]),
        (2, &["kv", "put", &long, "v"]),
        (2, &["kv", "list", "--cursor", "nonsense"]),
        (3, &["kv", "get", "absent"]),
        (3, &["kv", "delete", "absent"]),
        (4, &["kv", "put", "k", "w", "--if-absent"]),
        (4, &["kv", "put", "k", "w", "--if-revision", "999"]),
        (2, &["cart", "add", "sku", "0", "--user", "ada"]),
        (2, &["cart", "add", "sku", "99999999999", "--user", "ada"]),
        (3, &["session", "get", "not-a-token"]),
        (3, &["session", "get", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    ];
    for (expected, words) in cases {
        let (code, out, said) = trolley(&endpoints, words);
        assert_eq!(code, expected, "{words:?}: {out} {said}");
        assert!(!said.is_empty(), "{words:?} said nothing");
    }
    let malformed = trolley(&endpoints, &["session", "get", "not-a-token"]);
    let absent = trolley(
        &endpoints,
        &["session", "get", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    );
    assert_eq!(
        malformed, absent,
        "a malformed token is answered like an absent one"
    );

    let after = cluster.wait_for_agreement().await[0].revision;
    assert_eq!(before, after, "a mistake changed the store");
    let (code, _, said) = trolley("127.0.0.1:1", &["kv", "get", "k", "--timeout", "1s"]);
    assert_eq!(code, 5, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_serves_people_and_programs() {
    let cluster = Cluster::start(3, &[]).await;
    let endpoints = cluster.endpoints().join(",");
    let run = |words: &[&str]| {
        let (code, out, said) = trolley(&endpoints, words);
        assert_eq!(code, 0, "{words:?}: {said}");
        out
    };
    run(&["cart", "add", "mug", "2", "--user", "ada"]);
    run(&["cart", "add", "mug", "3", "--user", "ada"]);
    let cart: serde_json::Value = parse(&run(&["cart", "get", "--user", "ada", "--json"]));
    assert_eq!(cart["cart"]["lines"][0]["quantity"], 5, "{cart}");
    let session: serde_json::Value = parse(&run(&["session", "create", "--user", "ada", "--json"]));
    let token = session["token"].as_str().expect("a token").to_owned();
    run(&["session", "get", &token]);
    run(&["session", "destroy", &token]);
    let (code, ..) = trolley(&endpoints, &["session", "get", &token]);
    assert_eq!(code, 3, "logged out stays out");
    let status: serde_json::Value = parse(&run(&["cluster", "status", "--json"]));
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(3),
        "{status}"
    );
}

fn parse(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("--json prints JSON")
}
