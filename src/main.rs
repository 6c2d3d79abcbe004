//! The `trolley` binary. It only maps to exit codes; see [`trolley::cli`].

/// glibc's allocator spends a fifth of a write's CPU time; RocksDB allocates through this one as well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    trolley::cli::main()
}
