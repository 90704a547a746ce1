//! Writes histories as Jepsen does: one EDN map a line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::event::{Event, Process};

/// Writes a history.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, events: &[Event]) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut file = std::io::BufWriter::new(file);
    for event in events {
        writeln!(file, "{}", line(event))?;
    }
    Ok(file.flush()?)
}

/// One event as a map.
pub fn line(event: &Event) -> String {
    let mut out = String::new();
    let Event { index, time, kind, f, value, .. } = event;
    let process = match event.process {
        Process::Client(number) => number.to_string(),
        Process::Nemesis(_) => ":nemesis".to_owned(),
    };
    let _ = write!(out, "{{:index {index}, :time {time}, :type :{}, :process {process}, ", kind.as_str());
    let _ = write!(out, ":f :{}, :value ", keyword(f));
    match f.as_str() {
        "txn" => transaction(&mut out, value),
        _ => term(&mut out, value),
    }
    if let Some(workload) = &event.workload {
        let _ = write!(out, ", :workload :{}", keyword(workload));
    }
    if let Some(node) = event.node {
        let _ = write!(out, ", :node \"n{node}\"");
    }
    if let Some(ts) = event.ts {
        let _ = write!(out, ", :ts {ts}");
    }
    if let Some(error) = &event.error {
        out.push_str(", :error ");
        text(&mut out, error);
    }
    out.push('}');
    out
}

/// The operations of a transaction begin with keywords.
fn transaction(out: &mut String, value: &Value) {
    let Some(operations) = value.as_array() else { return term(out, value) };
    out.push('[');
    for (n, operation) in operations.iter().enumerate() {
        out.push_str(if n == 0 { "[" } else { " [" });
        for (place, part) in operation.as_array().into_iter().flatten().enumerate() {
            match part.as_str() {
                Some(name) if place == 0 => drop(write!(out, ":{}", keyword(name))),
                _ => {
                    out.push(' ');
                    term(out, part);
                }
            }
        }
        out.push(']');
    }
    out.push(']');
}

fn term(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(yes) => drop(write!(out, "{yes}")),
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::String(string) => text(out, string),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(' ');
                }
                term(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (n, (name, field)) in fields.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                // A keyword does not begin with a digit.
                match name.parse::<u64>() {
                    Ok(number) => drop(write!(out, "{number} ")),
                    Err(_) => drop(write!(out, ":{} ", keyword(name))),
                }
                term(out, field);
            }
            out.push('}');
        }
    }
}

fn text(out: &mut String, string: &str) {
    out.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn keyword(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.+*!?/".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Ended, Recorder, Type, Who};

    #[test]
    fn events_are_written_as_jepsen_writes_them() {
        let recorder = Recorder::new();
        let who = Who { process: 3, workload: "append", node: Some(2) };
        recorder.invoke(&who, "txn", json!([["r", "x", null], ["append", "y", 4]]));
        recorder.nemesis("start-kill", json!({"nodes": [1, 2], "why": "a \"leader\""}));
        let lost = Ended { kind: Type::Info, value: json!([["r", "x", null]]), ts: None, error: Some("late\n".into()) };
        recorder.end(&who, "txn", lost);
        let mut history = recorder.history();
        history.iter_mut().for_each(|event| event.time = 5);
        let lines: Vec<String> = history.iter().map(line).collect();
        let expect = [
            r#"{:index 0, :time 5, :type :invoke, :process 3, :f :txn, :value [[:r "x" nil] [:append "y" 4]], :workload :append, :node "n2"}"#,
            r#"{:index 1, :time 5, :type :info, :process :nemesis, :f :start-kill, :value {:nodes [1 2], :why "a \"leader\""}}"#,
            r#"{:index 2, :time 5, :type :info, :process 3, :f :txn, :value [[:r "x" nil]], :workload :append, :node "n2", :error "late\n"}"#,
        ];
        assert_eq!(lines, expect);
    }

    #[test]
    fn a_checker_of_jepsens_histories_reads_them() {
        let recorder = Recorder::new();
        let who = Who { process: 0, workload: "append", node: None };
        for n in 1..=2u64 {
            recorder.invoke(&who, "txn", json!([["append", "x", n], ["r", "x", null]]));
            recorder.nemesis("start-kill", json!(null));
            let seen: Vec<u64> = (1..=n).collect();
            recorder.end(&who, "txn", Ended::ok(json!([["append", "x", n], ["r", "x", seen]])));
        }
        let text: String = recorder.history().iter().map(|event| line(event) + "\n").collect();
        let history = adya::History::from_edn(&text).unwrap();
        let report = adya::check(&history, adya::Workload::ListAppend, &adya::Opts::default());
        assert_eq!(report.valid, adya::Valid::True);
    }
}
