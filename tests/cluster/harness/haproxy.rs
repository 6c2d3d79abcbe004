//! haproxy in front of two gateways, with the configuration that the demo runs: a load balancer that looks after its fronts,
//! sends again what one of them did not answer, and counts that.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::{self, Process};
use super::{eventually, unused_port};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/haproxy.cfg");
/// What that calls the fronts together.
const BACKEND: &str = "fronts";
/// The line of figures about all of them.
const TOTAL: &str = "BACKEND";

/// Whether it can be run here.
pub fn is_installed() -> bool {
    process::is_installed("haproxy", "-v")
}

/// One that runs.
pub struct Haproxy {
    address: String,
    control: String,
    process: Process,
}

impl Haproxy {
    /// In front of two gateways, both of which it has seen ready. Its files are in this folder.
    pub async fn start(folder: &Path, fronts: [&str; 2]) -> Self {
        let [address, control] =
            [unused_port(), unused_port()].map(|port| format!("127.0.0.1:{port}"));
        // It can be told what to do, which the demo's need not be.
        let extra = folder.join("haproxy-control.cfg");
        let socket = format!("global\n    stats socket ipv4@{control} level admin\n");
        fs::write(&extra, socket).expect("the folder can be written");
        let log = folder.join("haproxy.log");
        let errors = File::create(&log).expect("the folder can be written");
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f", CONFIG, "-f"])
            .arg(&extra)
            .env("TROLLEY_BALANCER", &address)
            .env("TROLLEY_FRONT_1", fronts[0])
            .env("TROLLEY_FRONT_2", fronts[1])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut process = Process::new("haproxy".to_owned(), log);
        process.start(&mut command);
        let haproxy = Self {
            address,
            control,
            process,
        };
        eventually("haproxy's control socket", async || {
            TcpStream::connect(&haproxy.control).await.is_ok()
        })
        .await;
        haproxy.wait_for_status(0, "UP").await;
        haproxy.wait_for_status(1, "UP").await;
        haproxy
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it says this of a front, the first or the second.
    pub async fn wait_for_status(&self, front: usize, status: &str) {
        let what = format!("haproxy that calls {} {status}", name(front));
        eventually(&what, async || self.status(front).await == status).await;
    }

    /// What it says of a front.
    pub async fn status(&self, front: usize) -> String {
        self.figure(&name(front), "status").await
    }

    /// Sends nothing to a front any more, or again what it should get: `maint`, `drain` or `ready`.
    pub async fn set_state(&self, front: usize, state: &str) {
        let command = format!("set server {BACKEND}/{} state {state}", name(front));
        let answer = self.tell(&command).await;
        assert!(answer.trim().is_empty(), "{command}: {answer}");
    }

    /// Requests that a front has got.
    pub async fn requests(&self, front: usize) -> u64 {
        self.count(&name(front), "stot").await
    }

    /// Requests that a front has not answered yet.
    pub async fn under_way(&self, front: usize) -> u64 {
        self.count(&name(front), "scur").await
    }

    /// Times that a front was found to be gone.
    pub async fn deaths(&self, front: usize) -> u64 {
        self.count(&name(front), "chkdown").await
    }

    /// Requests that were sent again, and those among them that went to the other front.
    pub async fn retries(&self) -> (u64, u64) {
        let retried = self.count(TOTAL, "wretr").await;
        (retried, self.count(TOTAL, "wredis").await)
    }

    async fn count(&self, server: &str, column: &str) -> u64 {
        let figure = self.figure(server, column).await;
        let count = figure.parse();
        count.unwrap_or_else(|_| panic!("{column} of {server} is no number: {figure:?}"))
    }

    /// One of its figures: a table, the first line of which says what the columns are.
    async fn figure(&self, server: &str, column: &str) -> String {
        let table = self.tell(&format!("show stat {BACKEND} -1 -1")).await;
        let rows = table.lines().map(|line| line.split(',').collect());
        let rows: Vec<Vec<&str>> = rows.collect();
        let head = rows.first().expect("a table has a head");
        let place = head.iter().position(|name| *name == column);
        let row = rows.iter().find(|row| row.get(1) == Some(&server));
        let figure = row.zip(place).and_then(|(row, place)| row.get(place));
        let figure = figure.unwrap_or_else(|| panic!("no {column} of {server} in {table}"));
        (*figure).to_owned()
    }

    async fn tell(&self, command: &str) -> String {
        let stream = TcpStream::connect(&self.control).await;
        let mut stream = stream.expect("haproxy listens");
        let line = format!("{command}\n");
        let written = stream.write_all(line.as_bytes()).await;
        written.expect("haproxy is told");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.expect("haproxy answers");
        answer
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            let end = self.process.log_end();
            println!("--- the end of haproxy's log ---\n{end}");
        }
    }
}

/// What the configuration calls it.
fn name(front: usize) -> String {
    format!("front-{}", front + 1)
}
