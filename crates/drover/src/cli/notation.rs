//! Keys and values as text, on the command line, in JSON and on the screen.

use bytes::Bytes;
use drover_keys::{End, Interval, escape, unescape};
use serde_json::{Map, Value};

use super::exit::UsageError;

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Printable ASCII as it is, `\xNN` and friends for the rest.
    Escaped,
    /// Pairs of hexadecimal digits.
    Hex,
}

impl Notation {
    /// Reads an argument.
    pub fn parse(self, text: &str) -> Result<Bytes, UsageError> {
        match self {
            Notation::Escaped => unescape(text).map(Bytes::from).map_err(|why| UsageError(format!("{text:?}: {why}"))),
            Notation::Hex => parse_hex(text).map_err(|why| UsageError(format!("{text:?}: {why}"))),
        }
    }

    /// Reads an argument that is the key of a row.
    pub fn parse_key(self, text: &str) -> Result<Bytes, UsageError> {
        let key = self.parse(text)?;
        match key.is_empty() {
            true => Err(UsageError("the key is empty; keys have at least 1 byte".to_owned())),
            false => Ok(key),
        }
    }

    /// Writes bytes so that [`parse`](Self::parse) gives them back.
    pub fn format(self, raw: &[u8]) -> String {
        match self {
            Notation::Escaped => escape(raw),
            Notation::Hex => format_hex(raw),
        }
    }

    /// Adds `name: text` to a JSON object if the bytes are text, else `name_hex: digits`. Lossless either way.
    pub fn add_json(self, object: &mut Map<String, Value>, name: &str, raw: &[u8]) {
        match std::str::from_utf8(raw) {
            Ok(text) if self == Notation::Escaped => object.insert(name.to_owned(), text.into()),
            _ => object.insert(format!("{name}_hex"), format_hex(raw).into()),
        };
    }
}

/// Pairs of hexadecimal digits.
pub fn format_hex(raw: &[u8]) -> String {
    use std::fmt::Write;
    raw.iter().fold(String::with_capacity(raw.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        out
    })
}

/// Reads pairs of hexadecimal digits.
pub fn parse_hex(text: &str) -> Result<Bytes, String> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
        }
        Some(_) => Err("an odd number of hexadecimal digits".to_owned()),
        None => Err("not hexadecimal digits".to_owned()),
    }
}

/// The least key above every key that starts with `prefix`; none if there is no such key.
fn after_prefix(prefix: &[u8]) -> End {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return End::Key(end.into());
        }
    }
    End::Unbounded
}

/// Which keys a command is about.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RangeArgs {
    /// Lowest key
    #[arg(long, value_name = "KEY")]
    pub start: Option<String>,
    /// Key below which the range ends; without it the range has no end
    #[arg(long, value_name = "KEY")]
    pub end: Option<String>,
    /// All keys that start so
    #[arg(long, value_name = "KEY", conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
}

impl RangeArgs {
    /// Whether no bound is given.
    pub fn is_unbounded(&self) -> bool {
        self.start.is_none() && self.end.is_none() && self.prefix.is_none()
    }

    /// The range.
    pub fn interval(&self, notation: Notation) -> Result<Interval, UsageError> {
        if let Some(prefix) = &self.prefix {
            let prefix = notation.parse(prefix)?;
            let end = after_prefix(&prefix);
            return Interval::new(prefix, end).map_err(|error| UsageError(error.to_string()));
        }
        let start = self.start.as_deref().map(|key| notation.parse(key)).transpose()?.unwrap_or_default();
        let end = self.end.as_deref().map(|key| notation.parse(key)).transpose()?.map_or(End::Unbounded, End::Key);
        Interval::new(start, end).map_err(|error| UsageError(error.to_string()))
    }
}

/// A span of time on the command line: a number with `ms`, `s`, `m` or `h`; without unit seconds.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no duration: write 500ms, 10s, 2m or 1h"))?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{unit:?} is no unit of time: use ms, s, m or h")),
    };
    match number.checked_mul(unit_ms) {
        Some(ms @ 1..) => Ok(std::time::Duration::from_millis(ms)),
        Some(0) => Err("a duration must be longer than nothing".to_owned()),
        None => Err(format!("{text:?} is too long")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_covers_exactly_what_starts_with_it() {
        let range = |prefix: &str| {
            let args = RangeArgs { prefix: Some(prefix.to_owned()), ..RangeArgs::default() };
            args.interval(Notation::Escaped).unwrap()
        };
        assert!(range("a").contains(b"a") && range("a").contains(b"a\xff\xff") && !range("a").contains(b"b"));
        assert_eq!(range("a\\xff").end(), &End::Key("b".into()));
        assert_eq!(range("\\xff\\xff").end(), &End::Unbounded);
        assert_eq!(range(""), Interval::all());
    }

    #[test]
    fn an_end_that_is_empty_is_not_an_end_that_is_absent() {
        let args = RangeArgs { end: Some(String::new()), ..RangeArgs::default() };
        assert!(args.interval(Notation::Escaped).is_err());
        assert_eq!(RangeArgs::default().interval(Notation::Escaped).unwrap(), Interval::all());
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, ms) in [("250ms", 250), ("3", 3_000), ("3s", 3_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "0", "-1s", "1.5s", "3 s", "1d", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_hexadecimal_is_refused() {
        for bad in ["0", "0g", "é0", "0x00"] {
            assert!(Notation::Hex.parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back_in_either_notation(raw: Vec<u8>) {
            for notation in [Notation::Escaped, Notation::Hex] {
                prop_assert_eq!(notation.parse(&notation.format(&raw)).unwrap(), &raw);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            for notation in [Notation::Escaped, Notation::Hex] {
                let _ = notation.parse(&text);
            }
            let _ = parse_duration(&text);
        }
    }
}
