//! Latency and rate over time as SVG, with a band for everything that was broken.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::event::{Event, Process, Type, operations};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 30.0;
/// Most points that are drawn.
const POINTS: usize = 20_000;
const COLOURS: [&str; 8] = ["#e6194b", "#f58231", "#3cb44b", "#4363d8", "#911eb4", "#008080", "#9a6324", "#808000"];

/// Something that was broken: its name, from and to in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// What.
    pub name: String,
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
}

/// What was broken when. What was not mended lasts to the end.
pub fn bands(history: &[Event]) -> Vec<Band> {
    let end = history.last().map_or(0, |event| event.time);
    let mut open: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut bands = Vec::new();
    for event in history.iter().filter(|event| matches!(event.process, Process::Nemesis(_))) {
        let number = event.value["number"].as_u64().unwrap_or(0);
        if let Some(name) = event.f.strip_prefix("start-") {
            if event.value["asked"] == true {
                open.insert((name.to_owned(), number), event.time);
            } else if event.value["outcome"] == "skipped" {
                open.remove(&(name.to_owned(), number));
            }
        } else if let Some(name) = event.f.strip_prefix("stop-")
            && let Some(from) = open.remove(&(name.to_owned(), number))
        {
            bands.push(Band { name: name.to_owned(), from, to: event.time });
        }
    }
    bands.extend(open.into_iter().map(|((name, _), from)| Band { name, from, to: end }));
    bands.sort_by_key(|band| band.from);
    bands
}

struct Canvas {
    out: String,
    end: u64,
}

impl Canvas {
    fn new(title: &str, history: &[Event]) -> Self {
        let end = history.last().map_or(1, |event| event.time.max(1));
        let mut out = String::new();
        let (width, height) = (WIDTH + LEFT + 20.0, HEIGHT + TOP + 60.0);
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"11\"><rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}</text>"
        );
        let mut canvas = Canvas { out, end };
        canvas.bands(history);
        let seconds = end / 1_000_000_000 + 1;
        for second in (0..=seconds).step_by(usize::try_from(seconds / 12 + 1).unwrap_or(1)) {
            let x = canvas.x(second * 1_000_000_000);
            let y = TOP + HEIGHT + 14.0;
            let _ = write!(canvas.out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>");
        }
        let _ = write!(
            canvas.out,
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#888\"/>"
        );
        canvas
    }

    fn x(&self, time: u64) -> f64 {
        (LEFT + WIDTH * time as f64 / self.end as f64).min(LEFT + WIDTH)
    }

    fn bands(&mut self, history: &[Event]) {
        let bands = bands(history);
        let mut names: Vec<&str> = bands.iter().map(|band| band.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let share = HEIGHT / names.len().max(1) as f64;
        for band in &bands {
            let row = names.iter().position(|name| *name == band.name).unwrap_or(0);
            let (from, to) = (self.x(band.from), self.x(band.to));
            let (y, colour) = (TOP + share * row as f64, COLOURS[row % COLOURS.len()]);
            let _ = write!(
                self.out,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{share:.1}\" fill=\"{colour}\" opacity=\"0.13\">\
                 <title>{}</title></rect>",
                (to - from).max(1.0),
                band.name
            );
        }
        for (row, name) in names.iter().enumerate() {
            let (x, y) = (LEFT + 4.0, TOP + share * row as f64 + 12.0);
            let colour = COLOURS[row % COLOURS.len()];
            let _ = write!(self.out, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>");
        }
    }

    fn legend(&mut self) {
        for (n, (kind, colour)) in KINDS.iter().enumerate() {
            let (x, y) = (LEFT + 90.0 * n as f64, TOP + HEIGHT + 40.0);
            let _ = write!(
                self.out,
                "<rect x=\"{x}\" y=\"{}\" width=\"9\" height=\"9\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
                y - 9.0,
                x + 13.0,
                kind.as_str()
            );
        }
    }

    fn finish(mut self) -> String {
        self.legend();
        self.out.push_str("</svg>\n");
        self.out
    }
}

const KINDS: [(Type, &str); 3] = [(Type::Ok, "#4078c0"), (Type::Info, "#f0a000"), (Type::Fail, "#d040a0")];

fn colour(kind: Type) -> &'static str {
    KINDS.iter().find(|(other, _)| *other == kind).map_or("#000", |(_, colour)| colour)
}

/// A point for each operation: when it began, how long it took, how it ended.
pub fn latency(history: &[Event]) -> String {
    let mut canvas = Canvas::new("latency, milliseconds", history);
    // From 0.1 ms to 100 s.
    let y = |ms: f64| TOP + HEIGHT - HEIGHT * (ms.clamp(0.1, 100_000.0).log10() + 1.0) / 6.0;
    for ms in [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0] {
        let at = y(ms);
        let _ = write!(
            canvas.out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ms}</text>",
            LEFT + WIDTH,
            LEFT - 4.0,
            at + 4.0
        );
    }
    let ops = operations(history);
    let every = ops.len() / POINTS + 1;
    for op in ops.iter().step_by(every) {
        let Some(end) = op.end else { continue };
        let ms = (end.time - op.invoke.time) as f64 / 1e6;
        let (x, y) = (canvas.x(op.invoke.time), y(ms));
        let colour = colour(end.kind);
        let _ = write!(canvas.out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\" fill=\"{colour}\" opacity=\"0.7\"/>");
    }
    canvas.finish()
}

/// Operations that ended in each second, by how they ended.
pub fn rate(history: &[Event]) -> String {
    let mut canvas = Canvas::new("operations a second", history);
    let mut per_second: BTreeMap<(Type, u64), u64> = BTreeMap::new();
    for op in operations(history) {
        if let Some(end) = op.end {
            *per_second.entry((end.kind, end.time / 1_000_000_000)).or_default() += 1;
        }
    }
    let highest = per_second.values().max().copied().unwrap_or(1).max(1);
    let y = |count: u64| TOP + HEIGHT - HEIGHT * count as f64 / highest as f64;
    for part in 0..=4 {
        let count = highest * part / 4;
        let _ = write!(
            canvas.out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>",
            LEFT - 4.0,
            y(count) + 4.0
        );
    }
    for (kind, colour) in KINDS {
        let points: Vec<String> = (0..=canvas.end / 1_000_000_000)
            .map(|second| {
                let count = per_second.get(&(kind, second)).copied().unwrap_or(0);
                format!("{:.1},{:.1}", canvas.x(second * 1_000_000_000 + 500_000_000), y(count))
            })
            .collect();
        let points = points.join(" ");
        let _ = write!(
            canvas.out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
    }
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Ended, Recorder, Who};

    fn history() -> Vec<Event> {
        let recorder = Recorder::new();
        recorder.nemesis("start-kill", json!({"asked": true, "number": 0}));
        recorder.nemesis("start-kill", json!({"outcome": "installed", "number": 0}));
        recorder.nemesis("start-move", json!({"asked": true, "number": 1}));
        let who = Who { process: 0, workload: "set", node: None };
        recorder.invoke(&who, "add", json!(1));
        recorder.end(&who, "add", Ended::ok(json!(1)));
        recorder.nemesis("start-move", json!({"outcome": "skipped", "number": 1}));
        recorder.nemesis("stop-move", json!({"number": 1}));
        recorder.nemesis("start-kill", json!({"asked": true, "number": 7}));
        recorder.nemesis("stop-kill", json!({"number": 0}));
        let mut history = recorder.history();
        history.iter_mut().zip(1..).for_each(|(event, n)| event.time = n * 1_000_000_000);
        history
    }

    #[test]
    fn what_is_broken_is_a_band_until_it_is_mended() {
        let second = 1_000_000_000;
        let band = |from: u64, to: u64| Band { name: "kill".to_owned(), from: from * second, to: to * second };
        assert_eq!(bands(&history()), [band(1, 9), band(8, 9)]);
    }

    #[test]
    fn plots_are_whole_and_show_operations_and_bands() {
        for svg in [latency(&history()), rate(&history()), latency(&[]), rate(&[])] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        }
        assert_eq!(latency(&history()).matches("<circle").count(), 1);
        assert_eq!(rate(&history()).matches("<title>kill</title>").count(), 2);
    }
}
