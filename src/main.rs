//! The `trolley` binary. It only maps to exit codes; see [`trolley::cli`].

use std::process::ExitCode;

use clap::Parser as _;

#[derive(clap::Parser)]
enum Cli {
    Serve(Box<trolley::config::ServeArgs>),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Serve(args) => match trolley::server::serve(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => ExitCode::from(e.exit_code()),
        },
    }
}
