//! How much CPU time processes have used, from `/proc`.

use std::time::Duration;

/// Linux counts process times in ticks of 10 ms on every architecture it runs on today (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// `utime` is field 14 of `/proc/<pid>/stat`; after the command's closing bracket, the third field is first.
const UTIME: usize = 14 - 3;

/// A process's CPU time cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// There is no such process.
    #[error("cannot read the CPU time of process {pid}: {source}")]
    Read {
        /// The process.
        pid: u32,
        /// Why.
        source: std::io::Error,
    },
    /// The file looks otherwise than on Linux.
    #[error("/proc/{0}/stat does not look like Linux's")]
    Format(u32),
}

/// User and system time of all processes together, since they started.
pub fn cpu_time(pids: &[u32]) -> Result<Duration, CpuError> {
    let mut total = Duration::ZERO;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|source| CpuError::Read { pid: *pid, source })?;
        let ticks = ticks(&stat).ok_or(CpuError::Format(*pid))?;
        total += TICK.saturating_mul(ticks);
    }
    Ok(total)
}

/// `utime` and `stime`. The command before them may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(UTIME);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = cpu_time(&[u32::MAX]).expect_err("no such process");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
