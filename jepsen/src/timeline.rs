//! Pages for people: every operation as a bar in the column of its process, and a report of the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::check::Valid;
use crate::event::{Event, Process, Type, operations};
use crate::judge::Results;
use crate::run::Test;

/// Most operations that are drawn.
const DRAWN: usize = 4_000;
/// Pixels for each millisecond.
const SCALE: f64 = 0.2;

/// Makes text safe inside of HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of all operations.
pub fn page(title: &str, history: &[Event]) -> String {
    let mut columns: BTreeMap<String, usize> = BTreeMap::new();
    let mut body = String::new();
    let ops = operations(history);
    // Clients take their turns over processes; a column is a client: what is still under way keeps it.
    let mut busy: Vec<u64> = Vec::new();
    for op in ops.iter().take(DRAWN) {
        let end = op.end.map_or(history.last().map_or(0, |event| event.time), |end| end.time);
        let column = match busy.iter().position(|until| *until <= op.invoke.time) {
            Some(column) => column,
            None => {
                busy.push(0);
                busy.len() - 1
            }
        };
        busy[column] = end;
        let (top, height) = (millis(op.invoke.time) * SCALE, (millis(end - op.invoke.time) * SCALE).max(9.0));
        let value = |event: &Event| event.value.to_string().chars().take(400).collect::<String>();
        let came = op.end.map_or_else(String::new, |end| {
            format!(" → {}{}", value(end), end.error.as_ref().map_or_else(String::new, |why| format!(" ({why})")))
        });
        let name = op.invoke.workload.clone().unwrap_or_default();
        let what = format!("process {} {name} {} {}{came}", op.invoke.process, op.invoke.f, value(op.invoke));
        let _ = writeln!(
            body,
            "<div class=\"op {}\" style=\"left:{}px;top:{top:.1}px;height:{height:.1}px\" title=\"{}\">{} {}</div>",
            op.kind().as_str(),
            70 + column * 104,
            escape(&what),
            op.invoke.process,
            escape(&op.invoke.f),
        );
        columns.insert(op.invoke.process.to_string(), column);
    }
    for event in history.iter().filter(|event| matches!(event.process, Process::Nemesis(_))) {
        if event.value["asked"] == true {
            continue;
        }
        let top = millis(event.time) * SCALE;
        let text = escape(&format!("{} {}", event.f, event.value));
        let _ = writeln!(body, "<div class=\"nemesis\" style=\"top:{top:.1}px\" title=\"{text}\">{}</div>", event.f);
    }
    let more = ops.len().saturating_sub(DRAWN);
    let note = if more > 0 { format!("<p>{more} later operations are not drawn.</p>") } else { String::new() };
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:11px sans-serif}}#all{{position:relative}}\
         .op{{position:absolute;width:98px;overflow:hidden;border-radius:2px;padding:0 2px;white-space:nowrap}}\
         .ok{{background:#a9d2f5}}.info{{background:#ffd27f}}.fail{{background:#f5b0d5}}\
         .nemesis{{position:absolute;left:0;width:100%;border-top:1px solid #c00;color:#c00;pointer-events:auto}}\
         </style><h1>{title}</h1>{note}<p>Point at a bar to see the operation.</p><div id=\"all\">{body}</div>\n"
    )
}

fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The page of the run.
pub fn report(test: &Test, results: &Results) -> String {
    let word = match results.valid {
        Valid::True => "valid",
        Valid::Unknown => "unknown",
        Valid::False => "INVALID",
    };
    let mut rows = String::new();
    for (name, verdict) in &results.workloads {
        let counts: Vec<String> = verdict.counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        let found: Vec<String> = verdict
            .findings
            .iter()
            .map(|f| format!("<h3>{}</h3><pre>{}</pre>", f.name, escape(&f.explanation)))
            .collect();
        let _ = write!(
            rows,
            "<tr><td>{name}</td><td>{:?}</td><td>{}</td><td>{}{}</td></tr>",
            verdict.valid,
            escape(&counts.join(", ")),
            escape(verdict.unknown.as_deref().unwrap_or("")),
            found.join("")
        );
    }
    let list = |items: Vec<String>| items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect::<String>();
    let problems = list(results.problems.clone());
    let timestamps = list(results.timestamps.iter().map(|finding| finding.explanation.clone()).collect());
    let nemeses = list(results.nemeses.iter().map(|(name, actions)| format!("{name}: {actions:?}")).collect());
    let settings = escape(&serde_json::to_string_pretty(test).unwrap_or_default());
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{name}</title><style>body{{font:14px sans-serif;max-width:70em}}\
         td{{border:1px solid #ccc;padding:4px;vertical-align:top}}pre{{white-space:pre-wrap}}</style>\
         <h1>{name}: {word}</h1><p><a href=\"timeline.html\">timeline</a> · <a href=\"history.edn\">history.edn</a> · \
         <a href=\"history.jsonl\">history.jsonl</a> · <a href=\"results.json\">results.json</a> · \
         <a href=\"explanations.txt\">explanations</a></p><table>{rows}</table>\
         <h2>Problems</h2><ul>{problems}{timestamps}</ul><h2>Nemeses</h2><ul>{nemeses}</ul>\
         <img src=\"latency.svg\"><img src=\"rate.svg\"><h2>Test</h2><p>{network}</p><pre>{settings}</pre>\n",
        name = escape(&test.name()),
        network = escape(&results.network),
    )
}

/// How operations ended, for a line of a table.
pub fn tally(history: &[Event]) -> BTreeMap<Type, u64> {
    let mut tally = BTreeMap::new();
    for op in operations(history) {
        *tally.entry(op.kind()).or_default() += 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Ended, Recorder, Who};

    #[test]
    fn operations_that_overlap_stand_beside_each_other_and_text_is_escaped() {
        let recorder = Recorder::new();
        let who = |process| Who { process, workload: "set", node: None };
        recorder.invoke(&who(0), "add", json!("<b>"));
        recorder.invoke(&who(1), "add", json!(2));
        recorder.end(&who(0), "add", Ended::ok(json!(1)));
        recorder.end(&who(1), "add", Ended::ok(json!(2)));
        recorder.invoke(&who(0), "add", json!(3));
        let page = page("t", &recorder.history());
        assert_eq!(page.matches("left:70px").count(), 2, "{page}");
        assert_eq!(page.matches("left:174px").count(), 1);
        assert!(!page.contains("<b>") && page.contains("class=\"op info\""));
    }
}
