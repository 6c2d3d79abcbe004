//! One node: a process that is started, killed, paused and started again over the same data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use trolley::torture::cluster::serve;

use super::eventually;

/// Lines of its log that a failing test shows.
const LOG_END: usize = 25;

/// A member of a cluster under test.
pub struct Node {
    id: u64,
    address: String,
    listening: String,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// The members at these addresses, listening at those, none of them running yet.
    pub fn all(
        addresses: &[String],
        listening: &[String],
        folder: &Path,
        flags: &[&str],
    ) -> Vec<Self> {
        let members: Vec<String> = (1..)
            .zip(addresses)
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        let members = members.join(",");
        (1..)
            .zip(addresses.iter().zip(listening))
            .map(|(id, (address, listening))| {
                let data = folder.join(format!("node-{id}"));
                let own = [
                    ("--node-id", id.to_string()),
                    ("--listen", listening.clone()),
                    ("--advertise", address.clone()),
                    ("--initial-cluster", members.clone()),
                ];
                let own = own
                    .into_iter()
                    .flat_map(|(flag, value)| [flag.to_owned(), value]);
                Self {
                    id,
                    address: address.clone(),
                    listening: listening.clone(),
                    data,
                    arguments: own.chain(flags.iter().map(ToString::to_string)).collect(),
                    environment: Vec::new(),
                    log: folder.join(format!("node-{id}.log")),
                    child: None,
                }
            })
            .collect()
    }

    /// It stores everything there from its next start on.
    pub fn keep_data_in(&mut self, place: &Path) {
        place.clone_into(&mut self.data);
    }

    /// It has these in its environment from its next start on.
    pub fn set_environment(&mut self, environment: &[(String, String)]) {
        environment.clone_into(&mut self.environment);
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is dialled.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens: the same, unless a link is between.
    pub fn listening(&self) -> &str {
        &self.listening
    }

    /// Where it stores everything.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// It was started and neither killed nor stopped since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The id of its process.
    pub fn process(&self) -> u32 {
        let child = self.child.as_ref();
        child
            .expect("a node that is asked for its process runs")
            .id()
    }

    /// The process's exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        let child = self.child.as_mut()?;
        let status = child.try_wait();
        status
            .expect("a process of our own can be waited for")?
            .code()
    }

    /// Starts the process, without waiting for anything.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let binary = Path::new(env!("CARGO_BIN_EXE_trolley"));
        let command = serve(binary, &self.data, &self.log);
        let mut command = command.expect("the log can be written");
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned());
        self.child = Some(command.spawn().expect("the node can be started"));
    }

    /// SIGKILL, and waits until the process is gone. A node that does not run stays so.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a process of our own can be killed");
            child
                .wait()
                .expect("a process of our own can be waited for");
        }
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// SIGTERM, and waits until the node has drained and left.
    pub async fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_for_exit().await
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a node that is waited for runs");
        let mut status = None;
        eventually("the end of a node", async || {
            status = child
                .try_wait()
                .expect("a process of our own can be waited for");
            status.is_some()
        })
        .await;
        status.expect("it was just found")
    }

    /// Waits until the node accepts connections.
    pub async fn wait_until_listening(&self) {
        eventually("a node that listens", async || {
            tokio::net::TcpStream::connect(&self.listening)
                .await
                .is_ok()
        })
        .await;
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_END)..].join("\n")
    }

    // The standard library sends no signal but SIGKILL.
    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("a node that is signalled runs");
        let command = format!("kill -{name} {}", child.id());
        let status = Command::new("sh").arg("-c").arg(&command).status();
        let status = status.expect("there is a shell");
        assert!(status.success(), "{command}: {status}");
    }
}
