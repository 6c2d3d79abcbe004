//! The picture: lanes over one axis of time.

#![expect(
    clippy::cast_precision_loss,
    reason = "a pixel is coarser than any of it"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::escape;
use crate::torture::faults::Proof;
use crate::torture::history::Event;
use crate::torture::record::{Record, Sample};
use crate::torture::tape::{Entry, Outcome};
use crate::torture::verdict::Verdict;

const WIDTH: f64 = 1_240.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 1_230.0;
const ROW: f64 = 16.0;
const LANE: f64 = 46.0;
/// Columns of a lane of calls.
const COLUMNS: usize = 360;
/// Samples of one node further apart than this have a gap between them.
const GAP_US: u64 = 700_000;

/// How calls ended, in one column.
#[derive(Clone, Copy, Default)]
struct Column {
    answered: u32,
    refused: u32,
    doubtful: u32,
    /// The slowest, in microseconds.
    slowest: u64,
}

struct Chart {
    svg: String,
    y: f64,
    span_us: f64,
}

/// The picture of a run.
pub(super) fn chart(record: &Record, verdict: &Verdict) -> String {
    let span_us = (record.about.elapsed_ms.max(1) * 1_000) as f64;
    let mut chart = Chart {
        svg: String::new(),
        y: 22.0,
        span_us,
    };
    chart.faults(record);
    chart.nodes(record);
    for (name, columns) in lanes(record, span_us) {
        chart.calls(&name, &columns);
    }
    let probes = columns(&record.probes, span_us);
    chart.latency("slowest probe", &probes);
    chart.finish(verdict)
}

impl Chart {
    fn x(&self, at_us: u64) -> f64 {
        LEFT + (at_us as f64 / self.span_us).min(1.0) * (RIGHT - LEFT)
    }

    fn add(&mut self, shape: &str) {
        self.svg.push_str(shape);
        self.svg.push('\n');
    }

    fn label(&mut self, text: &str) {
        let y = self.y + 12.0;
        self.add(&format!(
            "<text x=\"0\" y=\"{y:.0}\">{}</text>",
            escape(text)
        ));
    }

    fn bar(&mut self, class: &str, from_us: u64, until_us: u64, title: &str) {
        let (x, y) = (self.x(from_us), self.y + 2.0);
        let width = (self.x(until_us) - x).max(2.0);
        let height = ROW - 4.0;
        self.add(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{height}\">\
             <title>{}</title></rect>",
            escape(title)
        ));
    }

    fn faults(&mut self, record: &Record) {
        let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for episode in &record.chronicle.episodes {
            kinds.entry(episode.kind).or_default().push(episode);
        }
        for (kind, episodes) in kinds {
            self.label(&kind.name());
            for episode in episodes {
                let (class, seen) = match &episode.proof {
                    Proof::Proven(seen) => ("fault", seen),
                    Proof::Unproven(seen) => ("fault unproven", seen),
                    Proof::Skipped(why) => ("fault skipped", why),
                };
                let title = format!("{} of nodes {:?}: {seen}", kind.name(), episode.nodes);
                self.bar(class, episode.begun_us, episode.ended_us, &title);
            }
            self.y += ROW;
        }
        self.y += 8.0;
    }

    fn nodes(&mut self, record: &Record) {
        for node in 1..=record.about.nodes {
            self.label(&format!("node {node}"));
            let samples: Vec<&Sample> =
                record.samples.iter().filter(|it| it.node == node).collect();
            let mut rest = &samples[..];
            while let Some(first) = rest.first() {
                let told = |it: &Sample| (it.member, it.leader, it.term);
                let same = |it: &&Sample| told(it) == told(first);
                let count = rest.iter().take_while(|it| same(it)).count();
                let last = rest[count - 1];
                let next = rest.get(count).map(|it| it.at_us);
                let until = next.unwrap_or(last.at_us).min(last.at_us + GAP_US);
                self.stretch(first, until);
                rest = &rest[count..];
            }
            self.y += ROW;
        }
        self.y += 8.0;
    }

    fn stretch(&mut self, sample: &Sample, until_us: u64) {
        let Some(leader) = sample.leader else { return };
        let (class, what) = match leader {
            0 => ("alone", "knows no leader".to_owned()),
            leader if leader == sample.member => ("leads", "leads".to_owned()),
            leader => ("follows", format!("follows node {leader}")),
        };
        let title = format!("node {} {what} in term {}", sample.member, sample.term);
        self.bar(class, sample.at_us, until_us, &title);
    }

    fn calls(&mut self, name: &str, columns: &[Column]) {
        self.label(name);
        let sum = |it: &Column| it.answered + it.refused + it.doubtful;
        let most = columns.iter().map(sum).max().unwrap_or(0).max(1);
        let per_call = (LANE - 8.0) / f64::from(most);
        let width = (RIGHT - LEFT) / COLUMNS as f64;
        for (index, column) in columns.iter().enumerate() {
            let x = LEFT + index as f64 * width;
            let mut y = self.y + LANE - 4.0;
            for (class, count) in [
                ("answered", column.answered),
                ("refused", column.refused),
                ("doubtful", column.doubtful),
            ] {
                if count > 0 {
                    let height = f64::from(count) * per_call;
                    y -= height;
                    self.add(&format!(
                        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                         <title>{count} {class}</title></rect>"
                    ));
                }
            }
        }
        self.y += LANE;
    }

    /// On a logarithmic scale, from a millisecond up.
    fn latency(&mut self, name: &str, columns: &[Column]) {
        self.label(name);
        let width = (RIGHT - LEFT) / COLUMNS as f64;
        for (index, column) in columns.iter().enumerate().filter(|(_, it)| it.slowest > 0) {
            let ms = column.slowest as f64 / 1_000.0;
            let height = (ms.max(1.0).log10() / 4.3).clamp(0.02, 1.0) * (LANE - 8.0);
            let (x, y) = (LEFT + index as f64 * width, self.y + LANE - 4.0 - height);
            self.add(&format!(
                "<rect class=\"late\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                 <title>{ms:.0} ms</title></rect>"
            ));
        }
        self.y += LANE;
    }

    fn finish(mut self, verdict: &Verdict) -> String {
        let height = self.y + 8.0;
        let mut grid = String::new();
        let seconds = self.span_us / 1e6;
        let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3_600.0];
        let step = step.into_iter().find(|step| seconds / step <= 16.0);
        let step = step.unwrap_or(14_400.0);
        let mut at = 0.0;
        while at <= seconds {
            let x = LEFT + at / seconds * (RIGHT - LEFT);
            writeln!(
                grid,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"16\" y2=\"{height:.0}\"/>\
                 <text class=\"faint\" x=\"{x:.1}\" y=\"11\">{at:.0} s</text>"
            )
            .expect("a string takes all");
            at += step;
        }
        for (check, violation) in verdict.violations() {
            if let Some(at_us) = violation.at_us {
                let x = self.x(at_us);
                let title = escape(&format!("{check}: {}", violation.what));
                self.add(&format!(
                    "<line class=\"violation\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"16\" y2=\"{height:.0}\"><title>{title}</title></line>"
                ));
            }
        }
        format!(
            "<h2>Timeline</h2>\n<svg id=\"chart\" viewBox=\"0 0 {WIDTH} {height:.0}\" data-scale=\"{LEFT} {RIGHT} {seconds}\">\n\
             {grid}{}<line id=\"cursor\" y1=\"16\" y2=\"{height:.0}\"/><text id=\"when\" y=\"24\"></text></svg>\n\
             <p class=\"faint\">Nodes: dark leads, light follows, yellow knows no leader, empty does not answer. Calls: green answered, \
             grey refused, yellow unknown. Probes: logarithmic, from 1 ms. Dashed faults were not seen to take effect.</p>\n",
            self.svg
        )
    }
}

fn lanes(record: &Record, span_us: f64) -> Vec<(String, Vec<Column>)> {
    let lanes = [
        ("registers", registers(record, span_us)),
        ("other reads", columns(&record.looks, span_us)),
        ("carts", columns(&record.adds, span_us)),
        ("bank", columns(&record.bankings, span_us)),
        ("lists", columns(&record.listings, span_us)),
        ("sessions", columns(&record.sessions, span_us)),
        ("leases", columns(&record.leases, span_us)),
        ("locks", columns(&record.locks, span_us)),
    ];
    let lanes = lanes
        .into_iter()
        .map(|(name, columns)| (name.to_owned(), columns));
    lanes
        .filter(|(_, columns)| columns.iter().any(|it| it.answered > 0))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a column is coarser, and times are not negative"
)]
fn place(at_us: u64, span_us: f64) -> usize {
    let index = at_us as f64 / span_us * COLUMNS as f64;
    (index as usize).min(COLUMNS - 1)
}

fn columns<C, A>(entries: &[Entry<C, A>], span_us: f64) -> Vec<Column> {
    let mut columns = vec![Column::default(); COLUMNS];
    for entry in entries {
        let column = &mut columns[place(entry.invoked_us, span_us)];
        match entry.outcome {
            Outcome::Answered(_) => column.answered += 1,
            Outcome::Refused(_) => column.refused += 1,
            Outcome::NotApplied | Outcome::Unknown => column.doubtful += 1,
        }
        let took = entry.returned_us.unwrap_or(entry.invoked_us) - entry.invoked_us;
        column.slowest = column.slowest.max(took);
    }
    columns
}

fn registers(record: &Record, span_us: f64) -> Vec<Column> {
    use crate::torture::history::Outcome;
    let mut columns = vec![Column::default(); COLUMNS];
    for event in record.history.events() {
        if let Event::Return { at_us, outcome, .. } = event {
            let column = &mut columns[place(*at_us, span_us)];
            match outcome {
                Outcome::Unknown | Outcome::NotApplied => column.doubtful += 1,
                Outcome::Refused => column.refused += 1,
                _ => column.answered += 1,
            }
        }
    }
    columns
}
