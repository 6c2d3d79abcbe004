//! Open files: connections and tables are both.
//!
//! Systems start a program with a limit that suits those with few of them, and let it raise that itself. A node that has none left
//! takes no more connections; nor can it open a table, which would end it.

use rustix::process::{Resource, getrlimit, setrlimit};

/// This process may have as many files open as the system lets it.
pub(super) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if before == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, limit = before, "the number of open files stays limited");
    }
}
