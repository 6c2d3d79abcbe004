//! A run at a glance: one page of HTML that needs nothing else, in light and in dark.
//!
//! From top to bottom over one axis of time: faults, whom each node followed, calls by how they ended, how long probes
//! took, and a line for each violation. Below it the tables of the verdict.

mod chart;

use std::fmt::Write as _;

use self::chart::chart;
use crate::torture::checks::Judgement;
use crate::torture::record::Record;
use crate::torture::verdict::Verdict;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page.
#[must_use]
pub fn page(record: &Record, verdict: &Verdict) -> String {
    let word = word(verdict.verdict);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Trolley torture: {word}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Trolley torture: <span class=\"{word}\">{word}</span></h1>\n"
    );
    let total = &verdict.total;
    let facts = format!(
        "<p class=\"faint\">seed {}, profile {}, {} nodes, {} s; {} calls: {} answered, {} refused, {} not applied, {} unknown; \
         {} overlaps of two faults</p>\n",
        verdict.seed,
        escape(&verdict.profile),
        verdict.nodes,
        verdict.elapsed_ms / 1000,
        total.invoked,
        total.answered,
        total.refused,
        total.not_applied,
        total.unknown,
        verdict.overlaps
    );
    page.push_str(&facts);
    if !verdict.reasons.is_empty() {
        let reasons = escape(&verdict.reasons.join("\n"));
        writeln!(page, "<p class=\"reasons {word}\">{reasons}</p>").expect("a string takes all");
    }
    page.push_str(&chart(record, verdict));
    page.push_str(&properties(verdict));
    page.push_str(&faults(verdict));
    page.push_str(&recovery(verdict));
    page + "<script>" + SCRIPT + "</script></body></html>\n"
}

fn word(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Valid => "valid",
        Judgement::Unknown => "unknown",
        Judgement::Invalid => "invalid",
    }
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// A table; columns of numbers are marked by their titles' ending `#`.
fn table(title: &str, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("<h2>{title}</h2>\n<table><tr>");
    for column in columns {
        write!(text, "<th>{}</th>", column.trim_end_matches('#')).expect("a string takes all");
    }
    text.push_str("</tr>\n");
    for row in rows {
        text.push_str("<tr>");
        for (cell, column) in row.iter().zip(columns) {
            let class = if column.ends_with('#') {
                " class=\"number\""
            } else {
                ""
            };
            write!(text, "<td{class}>{cell}</td>").expect("a string takes all");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table>\n");
    text
}

fn properties(verdict: &Verdict) -> String {
    let rows = verdict.checks.iter().map(|check| {
        let word = word(check.judgement);
        let mut note = escape(&check.note);
        for violation in &check.violations {
            let what = escape(&violation.what);
            note = note + "<div class=\"reasons invalid\">" + &what + "</div>";
        }
        vec![
            escape(&check.name),
            format!("<span class=\"{word}\">{word}</span>"),
            check.examined.to_string(),
            note,
        ]
    });
    table("Properties", &["property", "", "facts#", ""], rows)
}

fn faults(verdict: &Verdict) -> String {
    let rows = verdict.faults.iter().map(|(kind, coverage)| {
        vec![
            escape(kind),
            coverage.proven.to_string(),
            coverage.unproven.to_string(),
            coverage.skipped.to_string(),
            coverage.overlaps.to_string(),
            escape(&coverage.last),
        ]
    });
    let columns = [
        "fault",
        "took effect#",
        "not seen#",
        "skipped#",
        "overlaps#",
        "seen last",
    ];
    table("Faults", &columns, rows)
}

fn recovery(verdict: &Verdict) -> String {
    let recovery = &verdict.recovery;
    let title = format!(
        "Recovery after {} changes: p50 {} ms, p99 {} ms, longest {} ms",
        recovery.samples, recovery.p50_ms, recovery.p99_ms, recovery.max_ms
    );
    let causes = recovery.longest_by_cause.iter();
    let rows = causes.map(|(cause, ms)| vec![escape(cause), ms.to_string()]);
    table(&title, &["after", "longest, ms#"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::faults::{Episode, Kind, Proof};
    use crate::torture::record::Sample;

    #[test]
    fn a_page_needs_nothing_else_and_shows_what_happened() {
        let mut record = crate::torture::testing::empty_record();
        record.about.elapsed_ms = 9_000;
        record.about.nodes = 1;
        record.chronicle.episodes.push(Episode {
            kind: Kind::KillLeader,
            nodes: vec![2],
            leader: 2,
            begun_us: 1_000_000,
            ended_us: 4_000_000,
            proof: Proof::Proven("<gone>".to_owned()),
        });
        record.samples.push(Sample {
            at_us: 500_000,
            node: 1,
            member: 1,
            leader: Some(1),
            term: 3,
            memory_kb: 1,
            files: 1,
        });
        record.audit.files.push("node-1.log: a panic".to_owned());
        let page = page(&record, &Verdict::of(&record));
        for part in [
            "kill-leader",
            "class=\"leads\"",
            "a panic",
            "&lt;gone&gt;",
            "invalid",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for address in ["http://", "https://", "src=", "href=", "<gone>"] {
            assert!(!page.contains(address), "{address}");
        }
    }
}
