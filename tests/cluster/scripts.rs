//! `scripts/cluster.sh`: which processes it takes for its nodes, what it deletes, and what it says of a node that does not stay.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{take_turn, unused_ports};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh");

/// A cluster of the script's, with a copy of the program. What is left of it when a test ends is ended.
struct Scripted {
    folder: TempDir,
    nodes: u16,
    /// Of the first node.
    port: u16,
}

impl Scripted {
    fn up(nodes: u16) -> Self {
        let folder = TempDir::with_prefix("trolley-script-").expect("a folder");
        let port = unused_ports(nodes);
        let scripted = Self {
            folder,
            nodes,
            port,
        };
        fs::copy(env!("CARGO_BIN_EXE_trolley"), scripted.program()).expect("it can be copied");
        let (code, said) = scripted.run(&["up", &nodes.to_string()]);
        assert_eq!(code, 0, "{said}");
        scripted
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("trolley")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// The exit code of the script, and all that it said.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(SCRIPT);
        command.args(words).stdin(Stdio::null());
        command.env("TROLLEY_DIR", self.data());
        command.env("TROLLEY_BIN", self.program());
        command.env("TROLLEY_PORT", (self.port - 1).to_string());
        let ran = command.output().expect("there is a bash");
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (ran.status.code().unwrap_or(-1), said)
    }

    /// Some node accepts connections.
    fn listens(&self) -> bool {
        let mut ports = self.port..self.port + self.nodes;
        ports.any(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// Of each node, as its pid file says.
    fn pids(&self) -> Vec<String> {
        let files = (1..=self.nodes).map(|id| self.data().join(format!("node-{id}/pid")));
        let pids = files.filter_map(|file| fs::read_to_string(file).ok());
        pids.filter_map(|text| text.lines().next().map(str::to_owned))
            .collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // A script that works has ended them.
        if self.listens() {
            let kill = format!("kill -KILL {}", self.pids().join(" "));
            Command::new("sh").arg("-c").arg(kill).status().ok();
        }
    }
}

/// A node goes on with its program when the file is moved and another put in its place, as upgrades do.
#[tokio::test]
async fn a_node_whose_program_was_moved_is_known_and_stopped() {
    let _turn = take_turn().await;
    let scripted = Scripted::up(1);
    let moved = scripted.folder.path().join("trolley.old");
    fs::rename(scripted.program(), &moved).expect("it can be moved");
    fs::copy(&moved, scripted.program()).expect("it can be copied");
    let (code, said) = scripted.run(&["status"]);
    assert!(code == 0 && said.contains("running"), "{code}: {said}");
    let (code, said) = scripted.run(&["down"]);
    assert_eq!(code, 0, "{said}");
    assert!(!scripted.listens(), "{said}");
    let (code, said) = scripted.run(&["wipe"]);
    assert_eq!(code, 0, "{said}");
    assert!(!scripted.data().exists());
}

/// The only way out of a damaged folder is not closed by the damage.
#[tokio::test]
async fn a_damaged_cluster_can_be_wiped() {
    let _turn = take_turn().await;
    let scripted = Scripted::up(1);
    for shape in ["", "nonsense\n"] {
        fs::write(scripted.data().join("cluster.conf"), shape).expect("it can be written");
        let (code, said) = scripted.run(&["status"]);
        assert!(code == 1 && said.contains("cluster.sh wipe"), "{said}");
    }
    let (code, said) = scripted.run(&["wipe"]);
    assert_eq!(code, 0, "{said}");
    assert!(!scripted.listens(), "{said}");
    assert!(!scripted.data().exists(), "{said}");
}

/// A node that was removed listens for a moment, until it is told.
#[tokio::test]
async fn a_node_that_does_not_stay_did_not_start() {
    let _turn = take_turn().await;
    let scripted = Scripted::up(2);
    let (_, endpoints) = scripted.run(&["endpoints"]);
    let removed = Command::new(scripted.program())
        .args([
            "cluster",
            "remove-member",
            "2",
            "--endpoints",
            endpoints.trim(),
        ])
        .output()
        .expect("the program is there");
    assert!(removed.status.success(), "{removed:?}");
    let (code, said) = scripted.run(&["restart", "2"]);
    assert!(
        code == 1 && said.contains("did not come up"),
        "{code}: {said}"
    );
    let (code, said) = scripted.run(&["restart", "1"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = scripted.run(&["wipe"]);
    assert_eq!(code, 0, "{said}");
}
