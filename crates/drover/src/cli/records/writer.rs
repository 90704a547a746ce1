//! Writes rows so that the readers beside it give them back.

use csv::{QuoteStyle, WriterBuilder};
use drover_client::Entry;

use super::super::kv::{row_json, row_line};
use super::super::notation::Notation;
use super::super::output::Output;
use super::Format;

/// Writes rows in one of the formats.
pub struct Writer<'a> {
    notation: Notation,
    sink: Sink<'a>,
}

enum Sink<'a> {
    Tsv(&'a mut Output),
    Csv(Box<csv::Writer<&'a mut Output>>),
    Jsonl(&'a mut Output),
}

impl<'a> Writer<'a> {
    /// A writer of rows to `sink`. In CSV bytes stand as they are, or as hexadecimal digits; the other formats have escapes.
    pub fn new(format: Format, notation: Notation, sink: &'a mut Output) -> Self {
        let sink = match format {
            Format::Tsv => Sink::Tsv(sink),
            // A first key that begins as a byte order mark does would be cut by readers if it had no quotes.
            Format::Csv => Sink::Csv(Box::new(WriterBuilder::new().quote_style(QuoteStyle::Always).from_writer(sink))),
            Format::Jsonl => Sink::Jsonl(sink),
        };
        Self { notation, sink }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn row(&mut self, Entry { key, version }: &Entry) -> std::io::Result<()> {
        let value = &version.value;
        match (&mut self.sink, self.notation) {
            (Sink::Tsv(sink), notation) => sink.line(&row_line(notation, key, value)),
            (Sink::Csv(sink), Notation::Escaped) => sink.write_record([key, value]).map_err(of_the_sink),
            (Sink::Csv(sink), Notation::Hex) => {
                sink.write_record([Notation::Hex.format(key), Notation::Hex.format(value)]).map_err(of_the_sink)
            }
            (Sink::Jsonl(sink), notation) => sink.json(&row_json(notation, key, version, false)),
        }
    }

    /// Hands over what is buffered.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> std::io::Result<()> {
        match self.sink {
            Sink::Tsv(sink) | Sink::Jsonl(sink) => sink.flush(),
            Sink::Csv(mut sink) => sink.flush(),
        }
    }
}

/// Errors of the sink keep their kind: a closed pipe is no failure.
fn of_the_sink(error: csv::Error) -> std::io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => std::io::Error::other(format!("{kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use bytes::Bytes;
    use drover_client::{Timestamp, Versioned};
    use proptest::prelude::*;

    use super::super::super::output::tests::Captured;
    use super::super::{Column, Layout, rows};
    use super::*;

    fn written(format: Format, notation: Notation, rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let captured = Captured::default();
        let mut output = Output::to(captured.clone());
        let mut writer = Writer::new(format, notation, &mut output);
        for (key, value) in rows {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            let version = Versioned { value, commit_ts: Timestamp::from_raw(65_537), expire_at: None };
            writer.row(&Entry { key, version }).unwrap();
        }
        writer.finish().unwrap();
        captured.bytes()
    }

    fn read_back(format: Format, notation: Notation, text: Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let hex = notation == Notation::Hex;
        let layout = Layout { format, key: Column::At(1), value: Column::At(2), header: false, raw: false, hex };
        let read = rows(Cursor::new(text), &layout).unwrap().map(|row| row.unwrap().unwrap());
        read.map(|row| (row.key.to_vec(), row.value.to_vec())).collect()
    }

    const FORMATS: [Format; 3] = [Format::Tsv, Format::Csv, Format::Jsonl];

    proptest! {
        #[test]
        fn rows_of_any_bytes_come_back_in_every_format(
            rows in proptest::collection::vec(
                (
                    proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r')], 1..8),
                    proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\t'), Just(b'\n'), Just(b'\\')], 0..8),
                ),
                0..8,
            ),
        ) {
            for format in FORMATS {
                for notation in [Notation::Escaped, Notation::Hex] {
                    let text = written(format, notation, &rows);
                    prop_assert_eq!(&read_back(format, notation, text), &rows, "{:?} {:?}", format, notation);
                }
            }
        }
    }

    #[test]
    fn a_key_that_begins_as_a_byte_order_mark_does_comes_back_whole() {
        let rows = [(b"\xef\xbb\xbfk".to_vec(), b"\xef\xbb\xbf".to_vec())];
        for format in FORMATS {
            assert_eq!(
                read_back(format, Notation::Escaped, written(format, Notation::Escaped, &rows)),
                rows,
                "{format:?}"
            );
        }
    }

    #[test]
    fn hexadecimal_digits_are_what_is_asked_for_in_every_format() {
        let rows = [(b"k\n".to_vec(), b"\xff".to_vec())];
        let shown = |format, notation| String::from_utf8(written(format, notation, &rows)).unwrap();
        assert_eq!(shown(Format::Tsv, Notation::Escaped), "k\\x0a\t\\xff\n");
        assert_eq!(shown(Format::Tsv, Notation::Hex), "6b0a\tff\n");
        assert_eq!(shown(Format::Csv, Notation::Hex), "\"6b0a\",\"ff\"\n");
        let object = "{\"commit_ts\":\"1.1\",\"key_hex\":\"6b0a\",\"value_hex\":\"ff\"}\n";
        assert_eq!(shown(Format::Jsonl, Notation::Hex), object);
    }
}
