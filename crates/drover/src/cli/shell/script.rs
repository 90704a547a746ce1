//! Lines from standard input when nobody sits at it.

use std::io::BufRead;

use anyhow::Context as _;
use tokio::sync::mpsc;

/// The lines of a source, read by a thread of its own so that nothing else has to wait for them.
pub struct Script {
    lines: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    number: u64,
}

impl Script {
    /// Begins to read. The thread ends with its source, or with the process.
    pub fn read(source: impl BufRead + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in source.split(b'\n') {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, number: 0 }
    }

    /// The number of the line that was returned last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line; nothing at the end.
    ///
    /// # Errors
    /// If it cannot be read or is no text.
    pub async fn next(&mut self) -> anyhow::Result<Option<String>> {
        let Some(line) = self.lines.recv().await else { return Ok(None) };
        self.number += 1;
        let line = String::from_utf8(line.context("cannot read standard input")?);
        line.context("it is not UTF-8; write other bytes as \\xNN").map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn lines_come_in_order_with_their_numbers() {
        let mut script = Script::read(Cursor::new(b"get a\n\nlast".to_vec()));
        for (number, line) in (1..).zip(["get a", "", "last"]) {
            assert_eq!(script.next().await.unwrap().as_deref(), Some(line));
            assert_eq!(script.number(), number);
        }
        assert_eq!(script.next().await.unwrap(), None);
        let mut script = Script::read(Cursor::new(b"get \xff\n".to_vec()));
        assert!(format!("{:#}", script.next().await.unwrap_err()).contains("not UTF-8"));
    }
}
