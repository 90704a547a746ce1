//! Standard output, or a file in its place.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use drover_keys::escape;
use serde::Serialize;

/// Where answers go. Errors are those of the reader: a closed pipe among them.
pub struct Output {
    sink: BufWriter<Box<dyn Write + Send>>,
    terminal: bool,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { sink: BufWriter::new(Box::new(stdout)), terminal }
    }

    /// Any other place; not a terminal.
    pub fn to(sink: impl Write + Send + 'static) -> Self {
        Self { sink: BufWriter::with_capacity(1 << 16, Box::new(sink)), terminal: false }
    }

    /// One line of text.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.sink, "{text}")
    }

    /// A value: to a terminal as a line of text that cannot upset it, else exactly the bytes.
    pub fn value(&mut self, raw: &[u8]) -> io::Result<()> {
        if !self.terminal {
            return self.sink.write_all(raw);
        }
        match std::str::from_utf8(raw) {
            Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => self.line(text),
            _ => self.line(&escape(raw)),
        }
    }

    /// One line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.sink, value)?;
        self.sink.write_all(b"\n")
    }

    /// A table with a head line.
    pub fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head.to_vec());
        table.add_rows(rows);
        table.to_string().lines().try_for_each(|line| self.line(line.trim_end()))
    }

    /// Hands over what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Bytes as they are.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, for tests.
    #[derive(Clone, Default)]
    pub struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(terminal: bool, raw: &[u8]) -> Vec<u8> {
        let captured = Captured::default();
        let mut output = Output { terminal, ..Output::to(captured.clone()) };
        output.value(raw).unwrap();
        output.flush().unwrap();
        captured.bytes()
    }

    #[test]
    fn a_value_is_raw_unless_it_goes_to_a_terminal() {
        for raw in [&b"plain"[..], b"", b"\x1b[2J", b"\xff\0\n"] {
            assert_eq!(shown(false, raw), raw);
        }
        assert_eq!(shown(true, "grüße\tan\nalle".as_bytes()), "grüße\tan\nalle\n".as_bytes());
        assert_eq!(shown(true, b"\x1b[2J"), b"\\x1b[2J\n");
        assert_eq!(shown(true, b"\xff"), b"\\xff\n");
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_trailing_blanks() {
        let captured = Captured::default();
        let mut output = Output::to(captured.clone());
        let rows = vec![vec!["1".to_owned(), "leader".to_owned()], vec!["200".to_owned(), String::new()]];
        output.table(&["group", "role"], rows).unwrap();
        output.flush().unwrap();
        assert_eq!(captured.text(), " group  role\n 1      leader\n 200\n");
    }
}
