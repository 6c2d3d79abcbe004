//! What is shown while something runs, and what is said in the end.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::torture::checks::Judgement;
use crate::torture::corruption::judge::Ending;
use crate::torture::corruption::{Matrix, files};
use crate::torture::faults::damage::Way;
use crate::torture::run::Progress;
use crate::torture::series::Series;
use crate::torture::verdict::Verdict;

/// Hidden by itself where standard error is no terminal.
pub(super) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}");
    bar.enable_steady_tick(Duration::from_millis(200));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    match progress {
        Progress::Starting => bar.set_message("nodes start"),
        Progress::Phase(number, total, what) => {
            bar.set_length(*total as u64);
            bar.set_position(*number as u64);
            bar.set_message(what.clone());
        }
        Progress::Auditing => {
            bar.set_position(bar.length().unwrap_or(1));
            bar.set_message("everything is mended and read");
        }
    }
}

pub(super) fn tell(verdict: &Verdict, folder: &Path, is_json: bool) -> Result<(), Failure> {
    if is_json {
        let json = serde_json::to_string(verdict).unwrap_or_default();
        output::line(&json)?;
    } else {
        output::line(&describe(verdict))?;
        output::line(&format!("{}", folder.join("timeline.html").display()))?;
    }
    Ok(())
}

fn describe(verdict: &Verdict) -> String {
    let word = word(verdict.verdict);
    let mut faults = output::table(&[
        "fault",
        "took effect",
        "not seen",
        "skipped",
        "overlaps",
        "seen last",
    ]);
    for (kind, coverage) in &verdict.faults {
        let last: String = coverage.last.chars().take(60).collect();
        faults.add_row([
            kind.clone(),
            coverage.proven.to_string(),
            coverage.unproven.to_string(),
            coverage.skipped.to_string(),
            coverage.overlaps.to_string(),
            last,
        ]);
    }
    let mut checks = output::table(&["property", "", "facts", ""]);
    for check in &verdict.checks {
        let word = format!("{:?}", check.judgement).to_lowercase();
        checks.add_row([
            check.name.clone(),
            word,
            check.examined.to_string(),
            check.note.clone(),
        ]);
    }
    let recovery = &verdict.recovery;
    let total = &verdict.total;
    let mut text = format!(
        "{faults}\n{checks}\n{} calls in {} s: {} answered, {} refused, {} not applied, {} unknown; {} overlaps of two faults\n\
         recovery after {} changes: p50 {} ms, p99 {} ms, longest {} ms\n{}\n",
        total.invoked,
        verdict.elapsed_ms / 1000,
        total.answered,
        total.refused,
        total.not_applied,
        total.unknown,
        verdict.overlaps,
        recovery.samples,
        recovery.p50_ms,
        recovery.p99_ms,
        recovery.max_ms,
        verdict.durability,
    );
    for reason in &verdict.reasons {
        text.push_str("  ");
        text.push_str(reason);
        text.push('\n');
    }
    text + &format!(
        "{word} (seed {}, {} nodes, {})",
        verdict.seed, verdict.nodes, verdict.version
    )
}

fn put(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes all");
}

fn word(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Valid => "VALID",
        Judgement::Unknown => "UNKNOWN",
        Judgement::Invalid => "INVALID",
    }
}

/// What many runs come to.
pub(super) fn series(series: &Series) -> String {
    let (samples, p50, p99, longest) = series.recovery;
    let mut text = format!(
        "{} runs: {} valid, {} invalid, {} unknown; {} kinds of faults took effect {} times, {} overlaps\n\
         {} operations were checked for linearizability, of {} calls in {} s\n\
         recovery after {samples} changes: p50 {p50} ms, p99 {p99} ms, longest {longest} ms\n{}\n",
        series.runs,
        series.valid.len(),
        series.invalid.len(),
        series.unknown.len(),
        series.faults.len(),
        series.faults.values().sum::<u64>(),
        series.overlaps,
        series.operations,
        series.calls,
        series.elapsed_ms / 1000,
        series.durability,
    );
    for (seed, reasons) in series.invalid.iter().chain(&series.unknown) {
        put(
            &mut text,
            format_args!("  seed {seed}: {}\n", reasons.join("; ")),
        );
    }
    for kind in &series.skipped {
        put(&mut text, format_args!("  skipped: {kind}\n"));
    }
    text + word(series.judgement())
}

/// The corruption matrix as a table of Markdown, with the endings counted below.
pub(super) fn matrix(matrix: &Matrix) -> String {
    let mut text = String::from("| file |");
    for way in Way::ALL {
        put(
            &mut text,
            format_args!(" {} |", format!("{way:?}").to_lowercase()),
        );
    }
    put(
        &mut text,
        format_args!("\n|---|{}\n", "---|".repeat(Way::ALL.len())),
    );
    for kind in files::Kind::ALL {
        let of_kind = || matrix.cells.iter().filter(|cell| cell.kind == kind);
        if of_kind().next().is_none() {
            continue;
        }
        put(&mut text, format_args!("| {} |", kind.name()));
        for way in Way::ALL {
            let cell = of_kind().find(|cell| cell.way == way);
            let said = cell.map_or("", |cell| cell.ending.name());
            put(&mut text, format_args!(" {said} |"));
        }
        text.push('\n');
    }
    let counts = Ending::ALL.map(|ending| format!("{} {}", matrix.count(ending), ending.name()));
    put(&mut text, format_args!("\n{}\n", counts.join(", ")));
    for cell in matrix.cells.iter().filter(|cell| cell.ending.is_bad()) {
        let (way, ending) = (cell.way.done(), cell.ending.name());
        let line = format_args!(
            "  {} ({way}): {ending} {:?}: {}\n",
            cell.file, cell.code, cell.said
        );
        put(&mut text, line);
    }
    for gap in &matrix.gaps {
        put(&mut text, format_args!("  {gap}\n"));
    }
    text + if matrix.is_valid() {
        "VALID"
    } else {
        "INVALID"
    }
}
