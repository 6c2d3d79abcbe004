//! A process under test: killed, signalled, waited for.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::eventually;

/// Lines of its log that a failing test shows.
const LOG_END: usize = 25;

/// Whether there is a program of this name: it is asked for its version.
pub fn is_installed(program: &str, flag: &str) -> bool {
    let mut version = Command::new(program);
    version.arg(flag);
    version.stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Says that a test is skipped, past the test harness, which keeps what tests that pass print to itself.
pub fn say_skipped(test: &str, why: &str) {
    let words = format!("\nSKIPPED {test}: {why}\n\n");
    drop(io::stderr().write_all(words.as_bytes()));
}

/// A process, once it was started, and its log.
pub struct Process {
    /// Names it where a test fails.
    what: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// One that was not started yet, and what it will write its log to.
    pub fn new(what: String, log: PathBuf) -> Self {
        Self {
            what,
            log,
            child: None,
        }
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, without waiting for anything.
    pub fn start(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "{} runs already", self.what);
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.what)));
    }

    /// It was started and neither killed nor waited for since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        let child = self.child.as_ref();
        child
            .unwrap_or_else(|| panic!("{} does not run", self.what))
            .id()
    }

    /// SIGKILL, and waits until it is gone. One that does not run stays so.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a process of our own can be killed");
            child
                .wait()
                .expect("a process of our own can be waited for");
        }
    }

    /// Any signal: the standard library sends none but SIGKILL.
    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").arg("-c").arg(&command).status();
        let status = status.expect("there is a shell");
        assert!(status.success(), "{command}: {status}");
    }

    /// Its exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait();
        status
            .expect("a process of our own can be waited for")?
            .code()
    }

    /// Waits until it has ended by itself.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let child = self.child.take();
        let mut child = child.unwrap_or_else(|| panic!("{} does not run", self.what));
        let mut status = None;
        eventually(&format!("the end of {}", self.what), async || {
            let ended = child.try_wait();
            status = ended.expect("a process of our own can be waited for");
            status.is_some()
        })
        .await;
        status.expect("it was just found")
    }

    /// All of its log.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let log = self.said();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_END)..].join("\n")
    }
}
