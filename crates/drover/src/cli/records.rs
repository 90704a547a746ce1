//! Files of rows: tab-separated, comma-separated, or one JSON object on each line.
//!
//! | format | key and value | binary |
//! |---|---|---|
//! | TSV | two columns; `\xNN`, `\\`, `\t`, `\n`, `\r`, `\0` are escapes (not with `--raw`) | escapes |
//! | CSV | two columns, quoted as in RFC 4180 | as it is |
//! | JSON lines | two fields; a value that is not a string is taken as its JSON text | `key_hex`, `value_hex` |
//!
//! With `--hex` the columns of TSV and CSV hold hexadecimal digits.
//!
//! Readers report the line on which a malformed row starts and go on with the next.

mod writer;

use std::io::{BufRead, Read};
use std::path::Path;

use bytes::Bytes;
use clap::ValueEnum;
use drover_keys::unescape;
use serde_json::{Map, Value};

pub use writer::Writer;

use super::exit::UsageError;
use super::notation::parse_hex;

/// Form of a file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Tsv,
    Csv,
    Jsonl,
}

impl Format {
    /// The format that the file's extension tells.
    pub fn of(path: &Path) -> Result<Self, UsageError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tsv" | "tab" | "txt") => Ok(Format::Tsv),
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson" | "json") => Ok(Format::Jsonl),
            _ => Err(UsageError(format!("the name {} does not tell the format; give --format", path.display()))),
        }
    }
}

/// A column by its place, counted from 1, or by its name in the head line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    At(usize),
    Named(String),
}

impl std::str::FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<usize>() {
            Ok(0) => Err("columns are counted from 1".to_owned()),
            Ok(at) => Ok(Column::At(at)),
            Err(_) if text.is_empty() => Err("a column has a number or a name".to_owned()),
            Err(_) => Ok(Column::Named(text.to_owned())),
        }
    }
}

/// Where keys and values stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub format: Format,
    /// Column or field of the key.
    pub key: Column,
    /// Column or field of the value.
    pub value: Column,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Whether backslashes in TSV stand for themselves.
    pub raw: bool,
    /// Whether the columns of TSV and CSV hold hexadecimal digits.
    pub hex: bool,
}

/// One row and the line it starts on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: u64,
    pub key: Bytes,
    pub value: Bytes,
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub line: u64,
    pub why: String,
}

/// What a line holds; an I/O error ends the file.
pub type Item = std::io::Result<Result<Row, Malformed>>;

/// The rows of a file, in order. Empty lines are skipped.
///
/// # Errors
/// If the head line cannot be read or does not have the columns.
pub fn rows(
    source: impl BufRead + Send + 'static,
    layout: &Layout,
) -> anyhow::Result<Box<dyn Iterator<Item = Item> + Send>> {
    match layout.format {
        Format::Tsv => tsv(source, layout),
        Format::Csv => csv(source, layout),
        Format::Jsonl => Ok(jsonl(source, layout)),
    }
}

/// The two columns as places from 0.
fn places(layout: &Layout, head: Option<&[String]>) -> Result<(usize, usize), UsageError> {
    let place = |column: &Column| match (column, head) {
        (Column::At(at), _) => Ok(at - 1),
        (Column::Named(name), Some(head)) => head
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| UsageError(format!("no column is called {name:?}; there are {}", head.join(", ")))),
        (Column::Named(name), None) => {
            Err(UsageError(format!("column {name:?} is given by name, but without --header no column has one")))
        }
    };
    Ok((place(&layout.key)?, place(&layout.value)?))
}

fn pick<'a>(columns: &[&'a [u8]], place: usize, what: &str) -> Result<&'a [u8], String> {
    columns
        .get(place)
        .copied()
        .ok_or_else(|| format!("has {} column(s), the {what} is in column {}", columns.len(), place + 1))
}

fn finished(key: Bytes, value: Bytes, line: u64) -> Result<Row, String> {
    if key.is_empty() { Err("the key is empty".to_owned()) } else { Ok(Row { line, key, value }) }
}

/// Lines without their end, numbered from 1. A carriage return before the end belongs to the end.
fn lines(source: impl BufRead + Send + 'static) -> impl Iterator<Item = std::io::Result<(u64, Vec<u8>)>> + Send {
    source.split(b'\n').zip(1..).map(|(line, number)| {
        let mut line = line?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok((number, line))
    })
}

fn tsv(
    source: impl BufRead + Send + 'static,
    layout: &Layout,
) -> anyhow::Result<Box<dyn Iterator<Item = Item> + Send>> {
    let mut lines = lines(source);
    let head: Option<Vec<String>> = match layout.header {
        true => {
            let (_, line) = lines.next().transpose()?.unwrap_or_default();
            Some(String::from_utf8_lossy(&line).split('\t').map(str::to_owned).collect())
        }
        false => None,
    };
    let (key_at, value_at) = places(layout, head.as_deref())?;
    let (raw, hex) = (layout.raw, layout.hex);
    let field = move |bytes: &[u8]| -> Result<Bytes, String> {
        if hex {
            return digits(bytes);
        }
        if raw {
            return Ok(Bytes::copy_from_slice(bytes));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8; escape the bytes or use --raw".to_owned())?;
        unescape(text).map(Bytes::from)
    };
    let parse = move |number: u64, line: &[u8]| {
        let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let key = field(pick(&columns, key_at, "key")?)?;
        let value = field(pick(&columns, value_at, "value")?)?;
        finished(key, value, number)
    };
    Ok(Box::new(lines.filter(is_not_empty).map(move |line| {
        let (number, line) = line?;
        Ok(parse(number, &line).map_err(|why| Malformed { line: number, why }))
    })))
}

/// A column of hexadecimal digits.
fn digits(column: &[u8]) -> Result<Bytes, String> {
    parse_hex(&String::from_utf8_lossy(column))
}

fn is_not_empty(line: &std::io::Result<(u64, Vec<u8>)>) -> bool {
    !matches!(line, Ok((_, line)) if line.is_empty())
}

fn csv(source: impl Read + Send + 'static, layout: &Layout) -> anyhow::Result<Box<dyn Iterator<Item = Item> + Send>> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(layout.header).flexible(true).from_reader(source);
    let head: Option<Vec<String>> = match layout.header {
        true => Some(reader.byte_headers()?.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()),
        false => None,
    };
    let (key_at, value_at) = places(layout, head.as_deref())?;
    let hex = layout.hex;
    let field = move |column: &[u8]| if hex { digits(column) } else { Ok(Bytes::copy_from_slice(column)) };
    Ok(Box::new(reader.into_byte_records().map(move |record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, ::csv::Position::line);
                return match error.into_kind() {
                    ::csv::ErrorKind::Io(error) => Err(error),
                    kind => Ok(Err(Malformed { line, why: format!("{kind:?}") })),
                };
            }
        };
        let line = record.position().map_or(0, ::csv::Position::line);
        let columns: Vec<&[u8]> = record.iter().collect();
        let row = pick(&columns, key_at, "key").and_then(|key| {
            let value = pick(&columns, value_at, "value")?;
            finished(field(key)?, field(value)?, line)
        });
        Ok(row.map_err(|why| Malformed { line, why }))
    })))
}

fn jsonl(source: impl BufRead + Send + 'static, layout: &Layout) -> Box<dyn Iterator<Item = Item> + Send> {
    let name = |column: &Column, default: &str| match column {
        Column::Named(name) => name.clone(),
        Column::At(_) => default.to_owned(),
    };
    let (key_name, value_name) = (name(&layout.key, "key"), name(&layout.value, "value"));
    let parse = move |number: u64, line: &[u8]| {
        let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let key = field(&object, &key_name)?;
        let value = field(&object, &value_name)?;
        finished(key, value, number)
    };
    Box::new(lines(source).filter(is_not_empty).map(move |line| {
        let (number, line) = line?;
        Ok(parse(number, &line).map_err(|why| Malformed { line: number, why }))
    }))
}

fn field(object: &Map<String, Value>, name: &str) -> Result<Bytes, String> {
    match (object.get(name), object.get(&format!("{name}_hex"))) {
        (Some(Value::String(text)), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (Some(other), None) => Ok(other.to_string().into()),
        (None, Some(Value::String(digits))) => parse_hex(digits).map_err(|why| format!("{name}_hex: {why}")),
        (None, Some(_)) => Err(format!("{name}_hex is not a string")),
        (Some(_), Some(_)) => Err(format!("has both {name} and {name}_hex")),
        (None, None) => Err(format!("has no field {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn layout(format: Format) -> Layout {
        Layout { format, key: Column::At(1), value: Column::At(2), header: false, raw: false, hex: false }
    }

    fn read(text: &[u8], layout: &Layout) -> Vec<Result<Row, Malformed>> {
        rows(Cursor::new(text.to_vec()), layout).unwrap().map(Result::unwrap).collect()
    }

    fn row(line: u64, key: &str, value: &str) -> Result<Row, Malformed> {
        Ok(Row { line, key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()) })
    }

    fn bad_lines(rows: &[Result<Row, Malformed>]) -> Vec<u64> {
        rows.iter().filter_map(|row| row.as_ref().err()).map(|bad| bad.line).collect()
    }

    #[test]
    fn tab_separated_rows_are_unescaped_and_bad_ones_named_by_line() {
        let got = read(b"a\t1\r\n\nb\\x00\t2\\t3\nonly\nc\\q\tx\n\tv\nd\t", &layout(Format::Tsv));
        assert_eq!(got[0], row(1, "a", "1"));
        assert_eq!(got[1], row(3, "b\0", "2\t3"));
        assert_eq!(bad_lines(&got), [4, 5, 6]);
        assert_eq!(got[5], row(7, "d", ""));
    }

    #[test]
    fn raw_tab_separated_rows_are_taken_as_they_are() {
        let got = read(b"a\\x\t\xff\n", &Layout { raw: true, ..layout(Format::Tsv) });
        assert_eq!(got, [Ok(Row { line: 1, key: "a\\x".into(), value: Bytes::from_static(b"\xff") })]);
        assert_eq!(bad_lines(&read(b"a\t\xff\n", &layout(Format::Tsv))), [1]);
    }

    #[test]
    fn columns_of_hexadecimal_digits_are_read_and_others_named_by_line() {
        for (format, text) in [(Format::Tsv, "6100\tff\n6\tff\n61\t0g\n"), (Format::Csv, "6100,\"ff\"\n6,ff\n61,0g\n")]
        {
            let got = read(text.as_bytes(), &Layout { hex: true, ..layout(format) });
            assert_eq!(got[0], Ok(Row { line: 1, key: "a\0".into(), value: Bytes::from_static(b"\xff") }));
            assert_eq!(bad_lines(&got), [2, 3], "{format:?}");
        }
    }

    #[test]
    fn columns_are_found_by_name_and_by_number() {
        let named =
            |format| Layout { key: Column::Named("id".into()), value: Column::At(3), header: true, ..layout(format) };
        assert_eq!(read(b"x\tid\ty\n0\tk\tv\n", &named(Format::Tsv)), [row(2, "k", "v")]);
        assert_eq!(read(b"x,id,y\n0,k,\"v,\"\"w\"\n", &named(Format::Csv)), [row(2, "k", "v,\"w")]);
        let unknown = Layout { key: Column::Named("nope".into()), ..named(Format::Csv) };
        assert!(rows(Cursor::new(b"a,b\n".to_vec()), &unknown).is_err());
        let headless = Layout { header: false, ..named(Format::Tsv) };
        assert!(rows(Cursor::new(b"a\tb\n".to_vec()), &headless).is_err());
    }

    #[test]
    fn quoted_lines_of_csv_count_as_lines_and_short_rows_are_malformed() {
        let got = read(b"a,\"1\n2\"\nshort\nb,3,extra\n", &layout(Format::Csv));
        assert_eq!(got[0], row(1, "a", "1\n2"));
        assert_eq!(bad_lines(&got), [3]);
        assert_eq!(got[2], row(4, "b", "3"));
    }

    #[test]
    fn json_lines_hold_text_hexadecimal_or_any_json() {
        let text =
            b"{\"key\":\"a\",\"value\":\"1\"}\n{\"key_hex\":\"00ff\",\"value\":{\"x\":[1]}}\n{\"key\":\"c\"}\n[]\n{\n\
            {\"key\":\"d\",\"key_hex\":\"00\",\"value\":\"\"}\n{\"key\":7,\"value\":null}\n";
        let got = read(text, &layout(Format::Jsonl));
        assert_eq!(got[0], row(1, "a", "1"));
        assert_eq!(got[1], Ok(Row { line: 2, key: Bytes::from_static(b"\0\xff"), value: "{\"x\":[1]}".into() }));
        assert_eq!(bad_lines(&got), [3, 4, 5, 6]);
        assert_eq!(got[6], row(7, "7", "null"));
        let renamed =
            Layout { key: Column::Named("id".into()), value: Column::Named("v".into()), ..layout(Format::Jsonl) };
        assert_eq!(read(b"{\"id\":\"k\",\"v\":\"w\"}", &renamed), [row(1, "k", "w")]);
    }

    #[test]
    fn the_extension_tells_the_format() {
        for (name, format) in [("a.tsv", Format::Tsv), ("a.b.csv", Format::Csv), ("x/y.jsonl", Format::Jsonl)] {
            assert_eq!(Format::of(Path::new(name)).unwrap(), format);
        }
        assert!(Format::of(Path::new("rows")).is_err());
    }

    fn never_panics(text: &[u8], raw: bool, hex: bool, header: bool) {
        for format in [Format::Tsv, Format::Csv, Format::Jsonl] {
            let layout = Layout { raw, hex, header, ..layout(format) };
            for row in rows(Cursor::new(text.to_vec()), &layout).into_iter().flatten() {
                match row.unwrap() {
                    Ok(row) => assert!(!row.key.is_empty()),
                    Err(bad) => assert!(!bad.why.is_empty()),
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_files_never_panic(text: Vec<u8>, raw: bool, hex: bool, header: bool) {
            never_panics(&text, raw, hex, header);
        }

        #[test]
        fn files_that_are_almost_rows_never_panic(
            text in r#"([a-c]{0,2}|[\\"{}:,\t\n\r]|\\x[0-9a-f]{0,2}|"key"|"value_hex"|\{"key":"a","value":){0,24}"#,
            raw: bool,
            hex: bool,
            header: bool,
        ) {
            never_panics(text.as_bytes(), raw, hex, header);
        }
    }
}
