//! What every serving process needs of its system: log lines, signals, a socket.
//!
//! Deliberately absent: what is served, and the exit codes that tell why it ended.

mod listen;
mod logging;
mod signals;

pub use listen::{ListenError, listen};
pub use logging::start_logging;
pub use signals::shutdown_signal;
