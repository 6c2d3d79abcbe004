//! Raft between nodes: dialling out and serving what comes in.
