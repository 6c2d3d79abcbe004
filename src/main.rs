//! The `trolley` binary. It only maps to exit codes; see [`trolley::cli`].

fn main() -> std::process::ExitCode {
    trolley::cli::main()
}
