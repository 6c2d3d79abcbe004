//! Everything durable: the Raft log, the state database, snapshots, and who this data directory belongs to.
