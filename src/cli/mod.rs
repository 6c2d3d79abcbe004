//! The command line: arguments, verbs, output.
