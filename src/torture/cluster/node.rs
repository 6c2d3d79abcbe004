//! One node: a process that is started, killed, paused and started again over the same data.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Lines of its log that a report shows.
const LOG_END: usize = 12;

/// A member of a cluster.
pub struct Node {
    id: u64,
    member: u64,
    advertised: String,
    listening: String,
    data: PathBuf,
    log: PathBuf,
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    is_paused: bool,
}

/// What a kill has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// No process.
    DidNotRun,
    /// One that is gone now.
    Now,
    /// One that had come to an end of its own, which nobody had noticed yet.
    HadEnded(ExitStatus),
}

/// What a node is made of.
pub(super) struct Plan<'a> {
    pub id: u64,
    pub advertised: String,
    pub listening: String,
    pub members: &'a str,
    pub data: PathBuf,
    pub log: PathBuf,
    pub binary: &'a Path,
    pub flags: &'a [String],
    pub environment: &'a [(String, String)],
}

impl Node {
    pub(super) fn new(plan: Plan<'_>) -> Self {
        let own = [
            ("--node-id", plan.id.to_string()),
            ("--listen", plan.listening.clone()),
            ("--advertise", plan.advertised.clone()),
            ("--initial-cluster", plan.members.to_owned()),
        ];
        let own = own
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        Self {
            id: plan.id,
            member: plan.id,
            advertised: plan.advertised,
            listening: plan.listening,
            data: plan.data,
            log: plan.log,
            binary: plan.binary.to_owned(),
            arguments: own.chain(plan.flags.iter().cloned()).collect(),
            environment: plan.environment.to_vec(),
            child: None,
            is_paused: false,
        }
    }

    /// Its number, which is that of its place: of its addresses, its log and its data directory.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Under which id it is a member, which is another one once it has taken the place of a node that was lost.
    #[must_use]
    pub fn member(&self) -> u64 {
        self.member
    }

    /// Forgets all that it stored. From its next start on it is a new node that waits to be added to these members.
    pub(super) fn become_newcomer(&mut self, member: u64, members: &str) -> io::Result<()> {
        for entry in fs::read_dir(&self.data)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        self.member = member;
        for (flag, value) in [
            ("--node-id", member.to_string()),
            ("--initial-cluster", members.to_owned()),
        ] {
            let at = self.arguments.iter().position(|it| it == flag);
            let at = at.ok_or_else(|| io::Error::other(format!("there is no {flag}")))?;
            self.arguments[at + 1] = value;
        }
        if !self.arguments.iter().any(|it| it == "--join") {
            self.arguments.push("--join".to_owned());
        }
        Ok(())
    }

    /// Where peers and clients dial it: its front.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Where it listens, behind its front.
    #[must_use]
    pub fn listening(&self) -> &str {
        &self.listening
    }

    /// Where it stores everything.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it says.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process, if it was started and its end was not noticed yet.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    pub(super) fn start(&mut self) -> io::Result<u32> {
        let mut command = serve(&self.binary, &self.data, &self.log)?;
        command.args(&self.arguments);
        command.envs(self.environment.iter().cloned());
        let mut command = Command::from(command);
        // What a person types at the terminal is meant for the one who runs all this.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("it has no pid"))?;
        self.child = Some(child);
        self.is_paused = false;
        Ok(pid)
    }

    /// SIGKILL, and waits until the process is gone.
    pub(super) async fn kill(&mut self) -> io::Result<Killed> {
        let Some(mut child) = self.child.take() else {
            return Ok(Killed::DidNotRun);
        };
        child.start_kill()?;
        let status = child.wait().await?;
        Ok(match status.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() => Killed::Now,
            _ => Killed::HadEnded(status),
        })
    }

    /// SIGTERM, and waits until it has left by itself, or kills it once it has had the time.
    pub(super) async fn terminate(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = match tokio::time::timeout(patience, child.wait()).await {
            Ok(status) => Some(status?),
            Err(_) => None,
        };
        if status.is_none() {
            self.kill().await?;
        }
        self.child = None;
        Ok(status)
    }

    /// SIGSTOP or SIGCONT.
    pub(super) fn set_paused(&mut self, is_paused: bool) -> io::Result<()> {
        if is_paused != self.is_paused {
            self.signal(if is_paused {
                Signal::STOP
            } else {
                Signal::CONT
            })?;
            self.is_paused = is_paused;
        }
        Ok(())
    }

    /// How it ended, if it has ended by itself since it was started.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// It was started and neither killed nor seen to end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// What the kernel says that the process does: `T` is stopped.
    #[must_use]
    pub fn kernel_state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The name in front may hold spaces and parentheses.
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Kilobytes of memory and open files.
    #[must_use]
    pub fn resources(&self) -> Option<(u64, u64)> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes = line.split_whitespace().next()?.parse().ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some((kilobytes, files as u64))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_END)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no pid of a process"))?;
        Ok(kill_process(pid, signal)?)
    }
}

/// The command that starts a node over this data, with what it says going behind what is in `log`: flags come behind.
pub fn serve(binary: &Path, data: &Path, log: &Path) -> io::Result<std::process::Command> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let errors = log.try_clone()?;
    let mut command = std::process::Command::new(binary);
    command.arg("serve").arg("--data-dir").arg(data);
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // Flags may also come from the environment, and a person's are not ours.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TROLLEY_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}
