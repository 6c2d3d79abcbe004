//! The stream against a node in memory.
