//! Memory that was freed.
//!
//! The allocator keeps it for whoever allocates next, and gives it back to the system after some seconds: when the thread that
//! freed it allocates again. A thread that sleeps never does, so what it took to start would be kept for ever.

/// Has freed memory given back by threads that do nothing else.
pub fn give_back_freed_memory() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory that was freed may stay with this process");
    }
}
