//! Every verb of the command line: what it says, by exit code and stable reason, when it cannot do what it is asked; and that it
//! serves people and programs when it can.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use trolley::api::status::{OutcomeRule, REASONS};
use trolley::client::{CartOwner, Client, LineRef, MergePolicy};
use trolley::limits;
use trolley::proto::v1;

use crate::harness::Cluster;

const REFUSALS: &str = include_str!("verbs/refusals.txt");
const REQUESTS: &str = include_str!("verbs/requests.txt");

/// Those that ask a cluster for nothing.
const OWN_VERBS: [&str; 4] = ["completions", "gateway", "help", "serve"];

/// Well formed, and no session's.
const ABSENT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A process that was run to its end.
struct Ran {
    code: i32,
    out: String,
    said: String,
}

fn command(endpoints: &str, words: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trolley"));
    command
        .args(words)
        .env("TROLLEY_ENDPOINTS", endpoints)
        .env_remove("TROLLEY_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn spawn(endpoints: &str, words: &[String]) -> Child {
    let child = command(endpoints, words).spawn();
    child.expect("the binary is there")
}

fn wait(child: Child) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it is our own process");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: status.code().unwrap_or(-1),
        out: text(stdout),
        said: text(stderr),
    }
}

fn run(endpoints: &str, words: &[String]) -> Ran {
    wait(spawn(endpoints, words))
}

/// Words of a line, with what the setup made in place of names. What stands between quotes is one word.
fn words(line: &str, names: &BTreeMap<&str, String>) -> Vec<String> {
    let mut line = line.to_owned();
    // Longer names first, because one may begin like another.
    let mut names: Vec<_> = names.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, value) in names {
        line = line.replace(&format!("${name}"), value);
    }
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(nth, part)| {
            if nth % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What a line of refusals expects, and its words.
fn refusal(line: &str) -> (i32, &str, &str) {
    let (code, rest) = line.split_once(' ').expect("an exit code");
    let (reason, words) = rest.split_once(' ').expect("a reason");
    (code.parse().expect("an exit code"), reason, words.trim())
}

/// The verb that a line is about: the first word, or two where the first one only names a group.
fn verb(line: &str) -> String {
    let mut words = line.split_whitespace();
    let first = words.next().expect("a verb");
    match first {
        "txn" | "watch" | "bench" | "demo" => first.to_owned(),
        group => format!("{group} {}", words.next().expect("a verb")),
    }
}

/// Every verb that the program has, as its help tells.
fn verbs() -> BTreeSet<String> {
    let listed = |words: &[String]| {
        let help = run("", &[words, &["--help".to_owned()]].concat()).out;
        let commands = help.lines().skip_while(|line| *line != "Commands:");
        let commands = commands.skip(1).take_while(|line| !line.is_empty());
        // What a line is too short for goes on further to the right.
        let names = commands.filter_map(|line| line.strip_prefix("  "));
        let names = names.filter(|line| !line.starts_with(' '));
        let names = names.map(|line| line.split_whitespace().next().expect("a name").to_owned());
        names
            .filter(|name| !OWN_VERBS.contains(&name.as_str()))
            .collect::<Vec<_>>()
    };
    let mut verbs = BTreeSet::new();
    for first in listed(&[]) {
        let below = listed(std::slice::from_ref(&first));
        if below.is_empty() {
            verbs.insert(first);
        } else {
            verbs.extend(below.iter().map(|second| format!("{first} {second}")));
        }
    }
    verbs
}

/// A store in which whatever can be refused is refused. Gives the names that the lines speak of.
async fn set_up(client: &Client, folder: &Path) -> BTreeMap<&'static str, String> {
    let mut names = BTreeMap::from([("absent", ABSENT.to_owned()), ("long", "x".repeat(2000))]);
    let repeat = |count: usize, word: &dyn Fn(usize) -> String| {
        let words: Vec<_> = (0..count).map(word).collect();
        words.join(" ")
    };
    let clients = repeat(limits::CLIENT_ATTRIBUTES + 1, &|n| {
        format!("--client c{n}=x")
    });
    names.insert("clients", clients);
    let attributes = repeat(limits::LINE_ATTRIBUTES + 1, &|n| {
        format!("--attribute a{n}=x")
    });
    names.insert("attributes", attributes);
    let notes = repeat(limits::CART_ACTIONS + 1, &|n| format!("'note {n}'"));
    names.insert("notes", notes);
    let users = repeat(limits::WATCH_FILTERS + 1, &|n| format!("--user u{n}"));
    names.insert("users", users);
    names.insert("txn", transactions(folder));
    set_up_sessions(client, &mut names).await;
    set_up_carts(client, &mut names).await;
    set_up_keys(client, &mut names).await;
    names
}

/// Files with transactions, in a folder of their own.
fn transactions(folder: &Path) -> String {
    let folder = folder.join("transactions");
    fs::create_dir(&folder).expect("it can be made");
    let large = [r#"{ "get_key": { "key": "large" } }"#; 2].join(", ");
    let files = [
        ("nonsense", r#"{ "then": [{ "put_kye": {} }] }"#.to_owned()),
        (
            "invalid",
            r#"{ "then": [{ "put_key": { "key": "" } }] }"#.to_owned(),
        ),
        (
            "missing",
            r#"{ "then": [{ "put_key": { "key": "k", "value": "w" } }, { "delete_key": { "key": "absent" } }] }"#
                .to_owned(),
        ),
        (
            "conflict",
            r#"{ "then": [{ "put_key": { "key": "k", "value": "w", "if_absent": true } }] }"#
                .to_owned(),
        ),
        ("large", format!(r#"{{ "then": [{large}] }}"#)),
        (
            "harmless",
            r#"{ "then": [{ "get_key": { "key": "k" } }] }"#.to_owned(),
        ),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("it can be written");
    }
    folder.to_str().expect("a plain name").to_owned()
}

async fn set_up_sessions(client: &Client, names: &mut BTreeMap<&'static str, String>) {
    let create = || client.sessions().create();
    let ended = create().send().await.expect("created").value.token;
    let destroyed = client.sessions().destroy(&ended).send().await;
    destroyed.expect("it lives");
    names.insert("ended", ended);
    let live = create().user("ada").field("theme", "dark").send().await;
    let live = live.expect("created").value;
    let update = client.sessions().update(&live.token).set("theme", "blue");
    update.send().await.expect("it lives");
    names.insert("live", live.token);
    names.insert("handle", live.session.handle);

    let tight = client.namespace("tight");
    let settings = v1::NamespaceSettings {
        session: Some(v1::SessionSettings {
            max_fields: Some(2),
            max_bytes: Some(100),
            max_per_user: Some(1),
            limit_policy: v1::SessionLimitPolicy::RejectNewest.into(),
            idle_ttl: Some(v1::TtlSettings {
                max_ms: Some(3_600_000),
                ..v1::TtlSettings::default()
            }),
            ..v1::SessionSettings::default()
        }),
        cart: None,
    };
    let set = tight.namespaces().set(settings).send().await;
    set.expect("they are valid");
    let bob = tight.sessions().create().user("bob").send().await;
    bob.expect("the only one");
    let guest = tight.sessions().create().send().await;
    names.insert("tightguest", guest.expect("created").value.token);
}

async fn set_up_carts(client: &Client, names: &mut BTreeMap<&'static str, String>) {
    let carts = client.carts();
    let user = |name: &str| CartOwner::User(name.to_owned());
    let mut guests = Vec::new();
    for name in ["guest", "euros"] {
        let guest = client.sessions().create().send().await;
        let guest = guest.expect("created").value.token;
        guests.push(CartOwner::Session(guest.clone()));
        names.insert(name, guest);
    }
    let most = i64::from(limits::QUANTITY_MAX);
    let dear = limits::PRICE_MAX_MINOR_UNITS;
    let adds = [
        (&user("ada"), "mug", 1, 100, "EUR"),
        (&user("frozen"), "mug", 1, 100, "EUR"),
        (&user("moved"), "mug", 1, 100, "EUR"),
        (&guests[0], "mug", 1, 100, "USD"),
        (&guests[1], "mug", 1, 100, "EUR"),
        (&user("full"), "mug", most, 0, "EUR"),
    ];
    for (owner, sku, quantity, price, currency) in adds {
        let add = carts.add(owner, sku, quantity).unit_price(price, currency);
        add.send().await.expect("it can be added");
    }
    for nth in 0..9 {
        let add = carts.add(&user("rich"), format!("sku-{nth}"), most);
        let added = add.unit_price(dear, "EUR").send().await;
        added.expect("the sum fits 64 bits");
    }
    for size in ["S", "L"] {
        let add = carts.add(&user("twin"), "shirt", 1).attribute("size", size);
        add.send().await.expect("it can be added");
    }
    for turn in 0..limits::CART_LINES / limits::CART_ACTIONS {
        let all = 0..limits::CART_ACTIONS;
        let update = all.fold(carts.update(&user("many")), |update, nth| {
            update.add(format!("sku-{turn}-{nth}"), 1)
        });
        update.send().await.expect("as many as there may be");
    }
    let codes = (0..limits::CART_COUPONS).fold(carts.update(&user("coupons")), |update, nth| {
        update.add_coupon_code(format!("CODE{nth}"))
    });
    codes.send().await.expect("as many as there may be");
    let attributes = 0..limits::CART_ATTRIBUTES;
    let attributes = attributes.fold(carts.update(&user("attributed")), |update, nth| {
        update.attribute(format!("a{nth}"), "x")
    });
    attributes.send().await.expect("as many as there may be");
    let merge = carts.merge(&user("moved"), &user("target"), MergePolicy::Sum);
    merge.send().await.expect("it can be merged");

    // An order of another freeze than the one that runs.
    let owner = user("frozen");
    let first = carts.freeze(&owner, "till").send().await;
    let first = first.expect("it has a line").freeze_revision;
    let complete = carts.complete_order(&owner, "till", first, "order-1");
    complete.send().await.expect("it was frozen");
    let add = carts.add(&owner, "mug", 1).unit_price(100, "EUR");
    add.send().await.expect("it is open");
    let second = carts.freeze(&owner, "till").send().await;
    let second = second.expect("it has a line").freeze_revision;
    names.insert("freeze", second.to_string());
    let gone = carts.remove(&owner, LineRef::Id(1)).send().await;
    assert_eq!(
        gone.expect_err("it is frozen").reason(),
        Some("CART_FROZEN")
    );
}

async fn set_up_keys(client: &Client, names: &mut BTreeMap<&'static str, String>) {
    let keys = client.keys();
    let put = keys.put("k", "v").request_id("used").send().await;
    put.expect("it can be put");
    let large = "x".repeat(limits::TXN_RESULT_BYTES * 3 / 4);
    keys.put("large", large)
        .send()
        .await
        .expect("it can be put");
    keys.increment("stock", 5).send().await.expect("a counter");
    let lease = client
        .leases()
        .grant(Duration::from_secs(3600))
        .send()
        .await;
    let lease = lease.expect("granted").lease_id;
    for nth in 0..limits::LEASE_KEYS {
        let put = keys.put(format!("leased/{nth}"), "v").lease(lease);
        put.send().await.expect("as many as there may be");
    }
    names.insert("fulllease", lease.to_string());
}

/// What the program said, checked against itself and against the table of reasons.
fn check(line: &str, ran: &Ran, code: i32, reason: &str) {
    let Ran { out, said, .. } = ran;
    assert_eq!(ran.code, code, "{line}: {out}{said}");
    assert!(out.is_empty(), "{line}: {out}");
    if reason == "-" {
        assert!(!said.is_empty(), "{line} said nothing");
        return;
    }
    let told: Value = serde_json::from_str(said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"));
    let told = &told["error"];
    assert_eq!(told["reason"], reason, "{line}: {said}");
    assert_eq!(told["exit_code"], code, "{line}: {said}");
    let row = REASONS.iter().find(|row| row.name == reason);
    let row = row.expect("it is in the table");
    assert_eq!(told["code"], i32::from(row.code), "{line}: {said}");
    if row.outcome != OutcomeRule::InMetadata {
        assert_eq!(told["outcome"], row.outcome.as_str(), "{line}: {said}");
    }
}

/// A mistake has its exit code and its reason, changes nothing, and is told to people as to programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_named_and_changes_nothing() {
    let cluster = Cluster::start(1, &[]).await;
    let endpoints = cluster.endpoints().join(",");
    let client = cluster.client();
    let names = set_up(&client, cluster.folder()).await;
    let before = cluster.wait_for_agreement().await[0].revision;
    let mut told = BTreeSet::new();
    for line in lines(REFUSALS) {
        let (code, reason, rest) = refusal(line);
        let mut words = words(rest, &names);
        if reason == "-" {
            check(line, &run(&endpoints, &words), code, reason);
            continue;
        }
        if told.insert(reason) {
            let said = run(&endpoints, &words).said;
            assert!(said.starts_with("error: "), "{line}: {said}");
            assert!(said.contains(&format!("({reason})")), "{line}: {said}");
            // People are shown names, and not how the program keeps them.
            assert!(!said.contains("(\""), "{line}: {said}");
        }
        words.push("--json".to_owned());
        check(line, &run(&endpoints, &words), code, reason);
    }
    let malformed = run(&endpoints, &words("session get short", &names));
    let absent = run(&endpoints, &words("session get $absent", &names));
    assert_eq!(malformed.said, absent.said, "it helps those who guess");
    let after = cluster.wait_for_agreement().await[0].revision;
    assert_eq!(before, after, "a mistake changed the store");
    client.close().await;
}

/// Nothing is forgotten in the tables of this test.
#[test]
fn every_verb_stands_in_both_tables() {
    let verbs = verbs();
    let refused = lines(REFUSALS).map(|line| verb(refusal(line).2));
    assert_eq!(refused.collect::<BTreeSet<_>>(), verbs);
    let requested = lines(REQUESTS).map(|line| verb(line.trim_start_matches("* ")));
    assert_eq!(requested.collect::<BTreeSet<_>>(), verbs);
}

/// Runs all requests at the same time, with little patience.
fn run_all(endpoints: &str, names: &BTreeMap<&str, String>, lines: &[&str]) -> Vec<Ran> {
    let children: Vec<_> = lines
        .iter()
        .map(|line| {
            let mut words = words(line.trim_start_matches("* "), names);
            words.extend(["--timeout", "1500ms", "--json"].map(str::to_owned));
            spawn(endpoints, &words)
        })
        .collect();
    children.into_iter().map(wait).collect()
}

/// Where no node answers, and where none leads, every verb says so in time; and that it changed nothing, where that is certain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_served_is_told_in_time() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let names = set_up(&client, cluster.folder()).await;
    client.close().await;
    let requests: Vec<_> = lines(REQUESTS).collect();
    let outcome = |ran: &Ran| {
        let told: Value = serde_json::from_str(&ran.said).expect("--json prints JSON");
        assert_eq!(told["error"]["exit_code"], 5, "{}", ran.said);
        told["error"]["outcome"].as_str().map(str::to_owned)
    };
    for (line, ran) in requests
        .iter()
        .zip(run_all("127.0.0.1:1", &names, &requests))
    {
        assert_eq!(ran.code, 5, "{line}: {}", ran.said);
        // A benchmark makes many requests and speaks of none.
        let outcome = outcome(&ran);
        assert_eq!(
            outcome.as_deref().unwrap_or("not_applied"),
            "not_applied",
            "{line}"
        );
    }

    cluster.node(2).kill();
    cluster.node(3).kill();
    let endpoints = cluster.node(1).address().to_owned();
    // What watches goes on until somebody stops it.
    let requests: Vec<_> = requests
        .iter()
        .filter(|line| **line != "* watch")
        .copied()
        .collect();
    for (line, ran) in requests.iter().zip(run_all(&endpoints, &names, &requests)) {
        if line.starts_with('*') {
            assert_eq!(ran.code, 0, "{line}: {}", ran.said);
            continue;
        }
        assert_eq!(ran.code, 5, "{line}: {}", ran.said);
        let is_read = ["get", "list"].contains(&line.split(' ').nth(1).unwrap_or_default());
        let outcome = outcome(&ran);
        assert!(
            !is_read || outcome.as_deref() == Some("not_applied"),
            "{line}: {}",
            ran.said
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_serves_people_and_programs() {
    let cluster = Cluster::start(3, &[]).await;
    let endpoints = cluster.endpoints().join(",");
    let run = |line: &str| {
        let ran = run(&endpoints, &words(line, &BTreeMap::new()));
        assert_eq!(ran.code, 0, "{line}: {}", ran.said);
        ran.out
    };
    run("cart add mug 2 --user ada");
    run("cart add mug 3 --user ada");
    let cart: Value = parse(&run("cart get --user ada --json"));
    assert_eq!(cart["cart"]["lines"][0]["quantity"], 5, "{cart}");
    // A freeze that is renewed keeps its name, by which the order is completed.
    let freeze = "cart freeze till --user ada --json";
    let frozen: Value = parse(&run(freeze));
    run("kv put other x");
    let renewed: Value = parse(&run(freeze));
    assert_eq!(renewed["revision"], frozen["revision"], "{renewed}");
    let revision = &renewed["revision"];
    run(&format!(
        "cart complete-order ORDER-1 --holder till --revision {revision} --user ada"
    ));
    let session: Value = parse(&run("session create --user ada --json"));
    let token = session["token"].as_str().expect("a token").to_owned();
    run(&format!("session get {token}"));
    run(&format!("session destroy {token}"));
    let status: Value = parse(&run("cluster status --json"));
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(3),
        "{status}"
    );
}

/// A script that keeps what is printed must hear that it was not written, and that somebody else's names do no harm to a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_arrives_or_fails_and_is_harmless() {
    const HARM: &str = "a\u{1b}[2Jb\u{9b}c";
    let cluster = Cluster::start(1, &[]).await;
    let endpoints = cluster.endpoints().join(",");
    let client = cluster.client();
    let put = client.keys().put(HARM, "v").send().await;
    put.expect("a node takes a write");
    let file = cluster.folder().join("harm");
    let get = serde_json::json!({ "then": [{ "get_key": { "key": HARM } }] });
    fs::write(&file, get.to_string()).expect("it can be written");
    let txn = format!("txn {}", file.display());
    for line in ["kv list", "kv list --all", &txn] {
        let ran = run(&endpoints, &words(line, &BTreeMap::new()));
        assert_eq!(ran.code, 0, "{line}: {}", ran.said);
        assert!(ran.out.contains('a') && ran.out.contains('c'), "{line}");
        let harmful = |c: char| c.is_control() && c != '\n';
        assert!(!ran.out.contains(harmful), "{line}: {:?}", ran.out);
    }
    let put = client.keys().put("k", "v").send().await;
    put.expect("a node takes a write");
    for line in [
        "kv get k",
        "kv get k --json",
        "kv list",
        "kv list --all",
        "kv list --all --json",
        "session create",
        "session create --quiet",
        "cluster status",
        "watch --from 1",
        "completions bash",
        &txn,
    ] {
        let full = fs::File::options().write(true).open("/dev/full");
        let mut command = command(&endpoints, &words(line, &BTreeMap::new()));
        let child = command.stdout(full.expect("it is always there")).spawn();
        let ran = wait(child.expect("the binary is there"));
        assert_eq!(ran.code, 1, "{line}: {}", ran.said);
        assert!(ran.said.contains("No space left"), "{line}: {}", ran.said);
    }
    client.close().await;
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("--json prints JSON")
}
