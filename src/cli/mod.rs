//! The command line: arguments, verbs, output.
//!
//! `arguments` is what a person typed, each verb's module turns its part into calls of [`crate::client`], `output` shows what
//! came back, and `failure` maps what went wrong to an exit code. Nothing here knows how a node or a gateway works: `trolley
//! serve` only hands its flags to [`crate::server`], `trolley gateway` to [`crate::gateway`].
//!
//! Deliberately absent: configuration files and prompts. A verb reads flags, environment and, where `-` says so, standard
//! input.

mod arguments;
pub mod bench;
mod cart;
mod cart_actions;
mod checkout;
mod cluster;
mod demo;
mod failure;
mod input;
mod kv;
mod lease;
mod logins;
mod message;
mod namespace;
mod output;
mod session;
pub mod torture;
mod txn;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::arguments::{Arguments, Form, Verb};
use self::failure::{Failure, Recourse};
use crate::process::End as _;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Serve(args) => match crate::server::serve(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                if let crate::server::Error::Config(problem) = &error {
                    output::unlogged("serve", problem);
                }
                ExitCode::from(error.exit_code())
            }
        },
        Verb::Gateway(args) => match crate::gateway::serve(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                if let crate::gateway::Error::Config(problem) = &error {
                    output::unlogged("gateway", problem);
                }
                ExitCode::from(error.exit_code())
            }
        },
        Verb::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "trolley", &mut script);
            match output::raw(&script) {
                Ok(_) => ExitCode::SUCCESS,
                Err(failure) => told(Form::People, Recourse::Records, &failure),
            }
        }
        Verb::Client(verb) => {
            let (form, recourse) = (verb.form(), verb.recourse());
            let done = block_on(verb.threads(), verb.run());
            done.unwrap_or_else(|failure| told(form, recourse, &failure))
        }
    }
}

/// Tells of a failure, and gives the exit code that does.
fn told(form: Form, recourse: Recourse, failure: &Failure) -> ExitCode {
    output::failure(form, recourse, failure);
    ExitCode::from(failure.exit_code())
}

fn block_on(
    threads: Option<u16>,
    task: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads.into());
    }
    let runtime = runtime.enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(task)
}
