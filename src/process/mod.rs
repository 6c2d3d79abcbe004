//! What every serving process needs of its system: log lines, signals, a socket, open files.
//!
//! Deliberately absent: what is served, and the exit codes that tell why it ended.

mod files;
mod listen;
mod logging;
mod signals;

pub use files::raise_file_limit;
pub use listen::{ListenError, listen};
pub use logging::start_logging;
pub use signals::shutdown_signal;
