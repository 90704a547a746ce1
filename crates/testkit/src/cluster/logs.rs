use std::fmt;
use std::path::Path;

use drover_keys::NodeId;

/// How many lines of a log an error shows.
const TAIL_LINES: usize = 40;

/// A line of a node's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whose log.
    pub node: NodeId,
    /// The line.
    pub text: String,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.node, self.text)
    }
}

/// The lines at WARN or ERROR, and panics, that contain none of `allowed`. Understands text and JSON logs.
pub fn loud_lines(node: NodeId, log: &str, allowed: &[&str]) -> Vec<LogLine> {
    let loud = log.lines().filter(|line| is_loud(line) && !allowed.iter().any(|part| line.contains(part)));
    loud.map(|line| LogLine { node, text: line.to_owned() }).collect()
}

fn is_loud(line: &str) -> bool {
    // The level stands near the front; a message that quotes the word later is not loud.
    let words = line.split_whitespace().take(3);
    let as_text = words.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphabetic()));
    let as_json = |level: &str| line.contains(&format!("\"level\":\"{level}\""));
    as_text.into_iter().any(|word| word == "WARN" || word == "ERROR")
        || as_json("WARN")
        || as_json("ERROR")
        || line.contains("panicked at")
}

/// The end of a log, for error messages.
pub fn tail(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_errors_and_panics_are_loud_unless_allowed() {
        let log = "2026-01-01T00:00:00Z  INFO drover: said \"WARN\" to a peer\n\
                   2026-01-01T00:00:00Z  WARN drover: peer 2 is gone\n\
                   2026-01-01T00:00:00Z ERROR drover: disk\n\
                   {\"timestamp\":\"t\",\"level\":\"ERROR\",\"fields\":{}}\n\
                   thread 'main' panicked at src/main.rs:1:1:\n";
        let loud = loud_lines(NodeId(1), log, &["peer 2"]);
        let texts: Vec<&str> = loud.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, log.lines().skip(2).collect::<Vec<_>>());
    }
}
