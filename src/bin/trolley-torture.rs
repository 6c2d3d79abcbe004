//! The `trolley-torture` binary. It only maps to exit codes; see [`trolley::cli::torture`].

fn main() -> std::process::ExitCode {
    trolley::cli::torture::main()
}
