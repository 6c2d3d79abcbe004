//! `trolley demo`.

use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::arguments::{Target, at_least_one};
use super::failure::Failure;
use super::output::{sheet, show};
use crate::torture::demo::{self, Plan, Report};

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Example:
  trolley demo --kill-command 'scripts/cluster.sh kill leader'

The exit code is 1 if an acknowledged write was lost or one was applied twice.";

/// How much to do.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Tasks that add to the cart at the same time
    #[arg(long, default_value_t = 32, value_parser = at_least_one())]
    clients: usize,
    /// Adds in all
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    adds: u64,
    /// Lines of the cart
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100))]
    skus: u64,
    /// Run by the shell in the middle, to kill the leader
    #[arg(long, value_name = "COMMAND")]
    kill_command: Option<String>,
}

pub(super) async fn run(args: &DemoArgs, target: &Target) -> Result<ExitCode, Failure> {
    let plan = Plan {
        clients: args.clients,
        adds: args.adds,
        skus: args.skus,
        kill_command: args.kill_command.clone(),
    };
    let bar = progress(args.adds);
    let report = demo::run(target.connect()?, &plan, |done| bar.set_position(done)).await;
    bar.finish_and_clear();
    let report = report?;
    show(target.form(), || json!(report), || describe(&report))?;
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Hidden by itself where standard error is no terminal.
fn progress(adds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("adding to the cart {wide_bar} {pos}/{len}");
    let bar = ProgressBar::new(adds);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn describe(report: &Report) -> String {
    let verdict = if report.is_clean() {
        "Every acknowledged write is there, exactly once."
    } else {
        "THE CART DOES NOT HOLD WHAT WAS ACKNOWLEDGED."
    };
    let mut rows = vec![
        ("writes acknowledged", report.acknowledged.to_string()),
        ("lost", report.lost.to_string()),
        ("applied twice", report.applied_twice.to_string()),
        ("outcome unknown", report.unknown.to_string()),
        ("certainly not applied", report.not_applied.to_string()),
    ];
    if let Some(gap) = report.without_leader_ms {
        rows.push(("without a leader", format!("{gap} ms")));
    }
    rows.push(("time in all", format!("{} ms", report.elapsed_ms)));
    if let Some(leader) = &report.leader {
        rows.push(("leader now", leader.clone()));
    }
    let rows = rows
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    format!("{}\n{verdict}", sheet(rows))
}
