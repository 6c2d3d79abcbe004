//! What the system lets processes have, and what they take of it.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};

/// How many files this process and those that it starts from now on may have open, as far as the system lets it.
pub fn allow_files(most: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|maximum| maximum.min(most));
    setrlimit(Resource::Nofile, limit).expect("up to its maximum it may be set");
}

/// How many they may be allowed at most.
pub fn most_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Memory of a process, in KiB, that is its own: pages of files and of shared memory are the system's.
pub fn memory_kb(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let mut lines = status.lines();
    let line = lines.find_map(|it| it.strip_prefix("RssAnon:"));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.expect("Linux tells the memory of a process")
}
