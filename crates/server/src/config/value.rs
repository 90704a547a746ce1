//! The types of settings, and how their values are written.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use drover_keys::{ClusterId, GroupId, NodeId};
use toml::Spanned;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

/// How the values of a setting are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number,
    /// A whole number of bytes, or text with a unit.
    Size,
    /// A whole number of milliseconds, or text with a unit.
    Duration,
    /// Text; the word says which.
    Text(&'static str),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list of tables; its fields are told in the description.
    List,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Number => f.write_str("number"),
            Kind::Size => f.write_str("size"),
            Kind::Duration => f.write_str("duration"),
            Kind::Text(what) => f.write_str(what),
            Kind::Choice(words) => f.write_str(&words.join(" or ")),
            Kind::List => f.write_str("list of tables"),
        }
    }
}

/// Why something is not a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadValue {
    /// Where inside the value, as in `[2].start`; empty: the value itself.
    pub at: String,
    /// Where in the text it was read from.
    pub span: Range<usize>,
    /// What is wrong, and what is right.
    pub message: String,
}

impl BadValue {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { at: String::new(), span, message: message.into() }
    }

    /// The same, seen from one level further out.
    pub fn inside(mut self, outer: &str) -> Self {
        self.at.insert_str(0, outer);
        self
    }
}

/// A value that can stand in a file, a variable or a flag.
pub(super) trait SettingValue: Sized {
    /// How it is written.
    const KIND: Kind;
    /// Whether leaving the setting out is a value of its own.
    const MAY_BE_ABSENT: bool = false;

    /// Reads the text of a variable, a flag or a default.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a value of a file. A list may be wrong in several places.
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
        scalar_text(value, Self::KIND)
            .and_then(|text| Self::from_text(&text))
            .map_err(|message| vec![BadValue::new(value.span(), message)])
    }

    /// The value that stands for a setting that is left out.
    fn absent() -> Option<Self> {
        None
    }

    /// The value as a number, for the check against the range of the setting.
    fn magnitude(&self) -> Option<u64> {
        None
    }
}

/// The text of a scalar, if a setting of this kind may be written that way.
fn scalar_text(value: &Spanned<DeValue<'_>>, kind: Kind) -> Result<String, String> {
    let value = value.as_ref();
    match (value, kind) {
        (DeValue::Integer(n), Kind::Number | Kind::Size | Kind::Duration) => {
            i128::from_str_radix(n.as_str(), n.radix()).map(|n| n.to_string()).map_err(|e| format!("{n}: {e}"))
        }
        (DeValue::String(text), Kind::Size | Kind::Duration | Kind::Text(_) | Kind::Choice(_)) => Ok(text.to_string()),
        _ => {
            let wanted = match kind {
                Kind::Number => "a whole number without quotes".to_owned(),
                Kind::Size => "a number of bytes, or text such as \"64MiB\"".to_owned(),
                Kind::Duration => "a number of milliseconds, or text such as \"100ms\"".to_owned(),
                Kind::Text(what) => format!("{what}, in quotes"),
                Kind::Choice(words) => format!("{}, in quotes", words.join(" or ")),
                Kind::List => "a list of tables".to_owned(),
            };
            Err(format!("expected {wanted}, found {}", value.type_str()))
        }
    }
}

impl SettingValue for u64 {
    const KIND: Kind = Kind::Number;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number between 0 and {}", u64::MAX))
    }

    fn magnitude(&self) -> Option<u64> {
        Some(*self)
    }
}

macro_rules! numbered {
    ($($id:ident),+) => {$(
        impl SettingValue for $id {
            const KIND: Kind = Kind::Number;

            fn from_text(text: &str) -> Result<Self, String> {
                u64::from_text(text).map($id)
            }

            fn magnitude(&self) -> Option<u64> {
                Some(self.0)
            }
        }
    )+};
}

numbered!(NodeId, GroupId);

impl SettingValue for ByteSize {
    const KIND: Kind = Kind::Size;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is not a size: write a number of bytes, or one with a unit as in \"64MiB\""))
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl SettingValue for Duration {
    const KIND: Kind = Kind::Duration;

    fn from_text(text: &str) -> Result<Self, String> {
        if let Ok(ms) = text.parse() {
            return Ok(Duration::from_millis(ms));
        }
        let bad = |what: &str| {
            format!(
                "{text:?} is not {what}: write a number of milliseconds, or one with a unit as in \"100ms\" or \"10m\""
            )
        };
        let duration = humantime::parse_duration(text).map_err(|_| bad("a duration"))?;
        match u64::try_from(duration.as_millis()) {
            Ok(ms) if Duration::from_millis(ms) == duration => Ok(duration),
            _ => Err(bad("a whole number of milliseconds")),
        }
    }

    fn magnitude(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

impl SettingValue for PathBuf {
    const KIND: Kind = Kind::Text("path");

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("the path is empty".to_owned()) } else { Ok(PathBuf::from(text)) }
    }
}

impl SettingValue for SocketAddr {
    const KIND: Kind = Kind::Text("IP address and port");

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is not an IP address and port as in \"127.0.0.1:7400\" or \"[::]:7400\""))
    }
}

impl SettingValue for ClusterId {
    const KIND: Kind = Kind::Text("32 hexadecimal digits");

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// Where others reach a node: host name or IP address, and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    /// `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("{text:?} is not an address others can connect to ({why}): write HOST:PORT"));
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return match (socket.ip().is_unspecified(), socket.port()) {
                (true, _) => bad("it names every interface"),
                (_, 0) => bad("port 0"),
                _ => Ok(Self(text.to_owned())),
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else { return bad("no port") };
        let host_is_a_name = !host.is_empty()
            && host.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        match port.parse::<u16>() {
            _ if !host_is_a_name => bad("no host name"),
            Ok(1..) => Ok(Self(text.to_owned())),
            _ => bad("no port"),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl SettingValue for Address {
    const KIND: Kind = Kind::Text("host and port");

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// Addresses of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

impl SettingValue for Addresses {
    const KIND: Kind = Kind::Text("addresses, separated by commas");
    const MAY_BE_ABSENT: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(|address| address.trim().parse()).collect::<Result<_, _>>().map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const KIND: Kind = T::KIND;
    const MAY_BE_ABSENT: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn magnitude(&self) -> Option<u64> {
        self.as_ref().and_then(T::magnitude)
    }
}

/// Which events are logged, in the language of `tracing_subscriber`'s `EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter.
    pub(crate) fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl SettingValue for LogFilter {
    const KIND: Kind = Kind::Text("log filter");

    fn from_text(text: &str) -> Result<Self, String> {
        match EnvFilter::builder().parse(text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err("the log filter is empty; use \"off\" to log nothing".to_owned()),
            Err(error) => Err(format!("{text:?} is not a log filter: {error}")),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl SettingValue for LogFormat {
    const KIND: Kind = Kind::Choice(&["text", "json"]);

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_and_without_units() {
        let sizes = [("64MiB", Some(64 << 20)), ("1 GiB", Some(1 << 30)), ("10kB", Some(10_000)), ("4096", Some(4096))];
        for (text, expect) in sizes.into_iter().chain([("-1", None), ("", None), ("MiB", None), ("5 apples", None)]) {
            assert_eq!(ByteSize::from_text(text).ok().map(|s| s.0), expect, "{text}");
        }
        let durations = [("100ms", Some(100)), ("10m", Some(600_000)), ("1m 30s", Some(90_000)), ("250", Some(250))];
        for (text, expect) in
            durations.into_iter().chain([("-1s", None), ("", None), ("10us", None), ("3 potatoes", None)])
        {
            assert_eq!(Duration::from_text(text).ok().and_then(|d| d.magnitude()), expect, "{text}");
        }
    }

    #[test]
    fn an_advertised_address_must_be_one_that_others_can_connect_to() {
        let table = [
            ("10.0.0.1:7400", true),
            ("[::1]:7400", true),
            ("drover-0.drover.svc:7400", true),
            ("localhost:1", true),
            ("0.0.0.0:7400", false),
            ("[::]:7400", false),
            ("host:0", false),
            ("1.2.3.4:0", false),
            ("host", false),
            (":7400", false),
            ("host:70000", false),
            ("http://host:7400", false),
            ("a..b:1", false),
        ];
        for (text, good) in table {
            assert_eq!(text.parse::<Address>().is_ok(), good, "{text}");
        }
    }
}
