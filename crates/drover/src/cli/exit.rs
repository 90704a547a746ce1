//! How a command ends, as scripts see it.

use std::io;
use std::process::ExitCode;

use drover_kv::Error;

/// Shown at the end of `drover --help`; docs/cli.md says the same.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: key not found, comparison failed, copies differ, verification failed; a move would be refused,
     a job was called off; a transaction of which nothing is known, an operation that never happened
  2  wrong usage: arguments that cannot be read, an empty key, an endpoint that is no address; nothing was sent
  3  the outcome is unknown: the operation may have happened or may still happen; Ctrl-C or SIGTERM came while it was
     under way, or no answer did
  4  the cluster refused or cannot be reached; the operation did not happen
  5  a local failure: a file that cannot be read or written, malformed input
  130, 143  ended by Ctrl-C or SIGTERM (128 and the signal's number, as shells count) while nothing was under way that
     changes the cluster";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Done.
    Done,
    /// Done, and the answer is no.
    No,
    /// Wrong usage that the parser of arguments cannot see.
    Usage,
    /// The outcome is unknown.
    Unknown,
    /// The cluster refused, definitely.
    Refused,
    /// Something on this machine failed.
    Local,
}

impl End {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            End::Done => 0,
            End::No => 1,
            End::Usage => 2,
            End::Unknown => 3,
            End::Refused => 4,
            End::Local => 5,
        }
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(end.code())
    }
}

/// Arguments that contradict each other or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// What clap complains of, without the word that complaints begin with anyway.
pub fn misread(error: &clap::Error) -> UsageError {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // The advice to say --help fits no object and no line of the shell.
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    UsageError(text.trim_end().to_owned())
}

/// How a command that failed with `error` ended. A reader that closed our standard output has seen enough: that is no
/// failure.
pub fn end_of(error: &anyhow::Error) -> End {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return if error.is_unknown() { End::Unknown } else { End::Refused };
        }
        if cause.is::<UsageError>() {
            return End::Usage;
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return End::Done;
        }
    }
    End::Local
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use drover_kv::Reason;

    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_code_also_with_context() {
        let context = |error: anyhow::Error| Err::<(), _>(error).context("line 7").unwrap_err();
        let table: Vec<(anyhow::Error, u8)> = vec![
            (Error::unknown(Reason::TimeoutIndefinite, "x").into(), 3),
            (Error::unknown(Reason::Unavailable, "x").into(), 3),
            (Error::definite(Reason::Timeout, "x").into(), 4),
            (Error::definite(Reason::KeyEmpty, "x").into(), 4),
            (UsageError("x".into()).into(), 2),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
            (io::Error::from(io::ErrorKind::NotFound).into(), 5),
            (anyhow::anyhow!("x"), 5),
        ];
        for (error, code) in table {
            let text = format!("{error:?}");
            assert_eq!(end_of(&error).code(), code, "{text}");
            assert_eq!(end_of(&context(error)).code(), code, "{text} with context");
        }
    }

    #[test]
    fn the_help_text_and_the_page_say_the_same_of_every_code() {
        let page = include_str!("../../../../docs/cli.md");
        let help = EXIT_CODES.split_whitespace().collect::<Vec<_>>().join(" ");
        let ends = [End::Done, End::No, End::Usage, End::Unknown, End::Refused, End::Local];
        for code in ends.map(|end| end.code().to_string()).into_iter().chain(["130, 143".to_owned()]) {
            let listed = page.lines().find_map(|line| line.strip_prefix(&format!("| {code} | "))).unwrap();
            let meaning = listed.split(" | ").next().unwrap();
            assert!(help.contains(&format!(" {code} {meaning}")), "{code} {meaning}: {help}");
        }
    }
}
