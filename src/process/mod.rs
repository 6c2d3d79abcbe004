//! What every serving process needs of its system: log lines, threads, signals, a socket, open files, memory.
//!
//! Deliberately absent: what is served, and which exit code stands for what.

mod files;
mod listen;
mod logging;
mod memory;
mod run;
mod signals;

pub use listen::{ListenError, listen};
pub use memory::give_back_freed_memory;
pub use run::{End, run};
