//! One node: a process that is started, killed, paused and started again over the same data.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use trolley::torture::cluster::serve;

use super::eventually;
use super::process::Process;

/// A member of a cluster under test.
pub struct Node {
    id: u64,
    address: String,
    listening: String,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
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
                Self::new(id, address, listening, &members, folder, flags)
            })
            .collect()
    }

    /// One of these members, not running yet.
    pub fn new(
        id: u64,
        address: &str,
        listening: &str,
        members: &str,
        folder: &Path,
        flags: &[&str],
    ) -> Self {
        let own = [
            ("--node-id", id.to_string()),
            ("--listen", listening.to_owned()),
            ("--advertise", address.to_owned()),
            ("--initial-cluster", members.to_owned()),
        ];
        let own = own
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        Self {
            id,
            address: address.to_owned(),
            listening: listening.to_owned(),
            data: folder.join(format!("node-{id}")),
            arguments: own.chain(flags.iter().map(ToString::to_string)).collect(),
            environment: Vec::new(),
            process: Process::new(format!("node {id}"), folder.join(format!("node-{id}.log"))),
        }
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
        self.process.is_running()
    }

    /// The id of its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// The process's exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Starts the process, without waiting for anything.
    pub fn start(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_trolley"));
        let command = serve(binary, &self.data, self.process.log());
        let mut command = command.expect("the log can be written");
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned());
        self.process.start(&mut command);
    }

    /// SIGKILL, and waits until the process is gone. A node that does not run stays so.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.process.signal("TERM");
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.process.signal("HUP");
    }

    /// SIGTERM, and waits until the node has drained and left.
    pub async fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_for_exit().await
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit().await
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

    /// All of its log, of earlier processes too.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        self.process.log_end()
    }
}
