//! The command line: arguments, verbs, output.

pub mod bench;
