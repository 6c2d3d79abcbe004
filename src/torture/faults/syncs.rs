//! Syncs that take long or fail: `strace`, attached to a running node, answers in the kernel's place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// What becomes of syncs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failing {
    /// Each takes so many milliseconds longer.
    Slow(u64),
    /// Each fails.
    Error,
}

/// Attached to one node.
#[derive(Debug)]
pub(super) struct Tracer {
    child: Child,
    notes: PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(5);

impl Tracer {
    /// Whether a process can be traced here.
    pub fn is_there() -> io::Result<()> {
        let tried = std::process::Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", "trace=none", "true"])
            .stderr(Stdio::null())
            .status()?;
        if tried.success() {
            Ok(())
        } else {
            Err(io::Error::other("strace cannot trace"))
        }
    }

    /// Attaches it to all threads of a process.
    pub async fn attach(pid: u32, how: Failing, notes: &Path) -> io::Result<Self> {
        fs::write(notes, "")?;
        let inject = match how {
            Failing::Slow(ms) => format!("inject=fsync,fdatasync:delay_exit={}", ms * 1000),
            Failing::Error => "inject=fsync,fdatasync:error=EIO".to_owned(),
        };
        let mut command = Command::new("strace");
        command
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                &inject,
                "-o",
            ])
            .arg(notes)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn()?;
        let tracer = Self {
            child,
            notes: notes.to_owned(),
        };
        tracer.wait_until_attached(pid).await;
        Ok(tracer)
    }

    async fn wait_until_attached(&self, pid: u32) {
        let is_traced = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let tracer = status
                .lines()
                .find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_some_and(|tracer| tracer.trim() != "0")
        };
        let attached = async {
            while !is_traced() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // A node that is gone is not traced, which the count will say.
        timeout(PATIENCE, attached).await.ok();
    }

    /// Detaches it: how many syncs it has changed.
    pub async fn stop(&mut self) -> io::Result<u64> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended with the node.
            kill_process(pid, Signal::TERM).ok();
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        let notes = fs::read_to_string(&self.notes)?;
        let changed = |line: &&str| line.contains("(INJECTED)") || line.contains("(DELAYED)");
        Ok(notes.lines().filter(changed).count() as u64)
    }
}
