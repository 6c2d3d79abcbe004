//! One shard's life without transport: open, ready, drain; propose, read, status.
