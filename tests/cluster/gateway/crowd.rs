//! What a gateway costs when nobody asks it anything: alone, and with very many connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::gateway::{Caller, EVERYTHING, Gateway};
use crate::harness::process::say_skipped;
use crate::harness::system::{allow_files, memory_kb, most_files};
use crate::harness::{Cluster, DEADLINE, eventually};

/// Connections that say nothing, half of them after one request.
const CROWD: usize = 10_000;
/// At most how many are opened at a time.
const AT_A_TIME: usize = 50;
/// Files that a process has open besides.
const OTHER_FILES: usize = 500;
/// How long a connection may say nothing: longer than the crowd takes to come.
const IDLE: Duration = Duration::from_secs(20);
/// What the crowd may take of a gateway's memory.
const CROWD_KB: u64 = 128 << 10;
/// What a gateway alone takes besides its program: twice what it needs, and half of what it takes to start.
const OWN_KB: u64 = 8 << 10;

/// One of a gateway's gauges or counters.
async fn metric(caller: &Caller, name: &str) -> u64 {
    let metrics = caller.get("/metrics", &[]).await.ok().text;
    let mut lines = metrics.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

/// A connection that says nothing more.
async fn arrive(address: String, asks: bool) -> TcpStream {
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.expect("there is room");
    if asks {
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        let written = stream.write_all(request).await;
        written.expect("it is taken");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let read = stream.read_buf(&mut answer).await;
            assert!(read.expect("it is answered") > 0, "it is kept open");
        }
    }
    stream
}

/// It is closed, and was told nothing.
async fn see_it_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(DEADLINE, read).await;
    read.expect("it is closed in time").expect("it is closed");
    // One that had begun no request might be told that it took too long.
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_end() {
    if most_files() < (CROWD + OTHER_FILES) as u64 {
        let why = format!("a process may have {} files open", most_files());
        say_skipped("ten_thousand_idle_connections_cost_little_and_end", &why);
        return;
    }
    let cluster = Cluster::start(1, &[]).await;
    allow_files(u64::MAX);
    let idle = format!("{}s", IDLE.as_secs());
    let gateway = Gateway::start(&cluster, &["--header-timeout", &idle]).await;
    let ada = gateway.user("ada", EVERYTHING);
    see_it_serve(&ada).await;
    let before = memory_kb(gateway.pid());

    let mut arriving = JoinSet::new();
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        if arriving.len() == AT_A_TIME {
            crowd.extend(arriving.join_next().await);
        }
        let address = gateway.address().to_owned();
        arriving.spawn(arrive(address, number % 2 == 0));
    }
    crowd.extend(arriving.join_all().await.into_iter().map(Ok));
    let connections = "trolley_gateway_connections";
    let open = metric(&ada, connections).await;
    assert!(open >= CROWD as u64, "{open} connections are open");
    see_it_serve(&ada).await;
    let taken = memory_kb(gateway.pid()).saturating_sub(before);
    println!("{CROWD} idle connections: {taken} KiB");
    assert!(taken <= CROWD_KB, "{taken} KiB for {CROWD} connections");
    assert_eq!(
        metric(&ada, "trolley_gateway_connections_refused_total").await,
        0
    );

    let mut leaving = JoinSet::new();
    for stream in crowd {
        leaving.spawn(see_it_closed(stream.expect("it arrived")));
    }
    while let Some(left) = leaving.join_next().await {
        left.expect("it was closed");
    }
    see_it_serve(&ada).await;
    eventually("a gateway that counts nobody but us", async || {
        metric(&ada, connections).await < AT_A_TIME as u64
    })
    .await;
    eventually("memory that is given back", async || {
        memory_kb(gateway.pid()) < before + CROWD_KB / 8
    })
    .await;
}

/// Somebody who asks is answered, every time.
async fn see_it_serve(caller: &Caller) {
    for _ in 0..100 {
        caller.get("/v1/carts/me", &[]).await.ok();
    }
}

/// What starting took is given back: what is left of the 30 MB is the program, and how much of that is loaded beside what is run,
/// the system decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gives_back_what_starting_took() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    eventually("a gateway that has little memory of its own", async || {
        memory_kb(gateway.pid()) < OWN_KB
    })
    .await;
}
