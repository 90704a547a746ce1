//! The prompt: a line editor over the terminal.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor as LineEditor, Helper};

use super::super::notice;
use super::complete::Completion;
use super::history;

/// Lines that are remembered.
const HISTORY_LINES: usize = 1_000;

/// What somebody did at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Entered this: one line, or several that were pasted.
    Lines(String),
    /// Pressed Ctrl-C: the line is dropped.
    Cleared,
    /// Pressed Ctrl-D on an empty line.
    End,
}

/// The line editor and its history.
pub struct Editor {
    editor: LineEditor<Offers, FileHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// An editor that keeps its history in a file, or only while it lives.
    ///
    /// # Errors
    /// If the file cannot be used, or the terminal is none.
    pub fn open(history: Option<&Path>) -> anyhow::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = LineEditor::with_config(config)?;
        if let Some(path) = history {
            let what = || format!("cannot keep the history in {}; --no-history does without", path.display());
            history::prepare(path).with_context(what)?;
            match editor.load_history(path) {
                Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                loaded => loaded.with_context(what)?,
            }
        }
        Ok(Self { editor, history: history.map(Path::to_owned) })
    }

    /// Asks for the next line. Blocks.
    ///
    /// # Errors
    /// If the terminal goes away.
    pub fn next(&mut self, prompt: &str, completion: Completion) -> anyhow::Result<Typed> {
        self.editor.set_helper(Some(Offers(completion)));
        match self.editor.readline(prompt) {
            Ok(lines) => {
                self.remember(&lines);
                Ok(Typed::Lines(lines))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Cleared),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(error).context("reading the terminal"),
        }
    }

    /// Every line is written at once: a shell that is killed has lost none. If the file cannot be written, it is let go.
    fn remember(&mut self, line: &str) {
        let Some(path) = &self.history else {
            let _ = self.editor.add_history_entry(line);
            return;
        };
        let kept = self.editor.add_history_entry(line).and_then(|_| self.editor.append_history(path));
        if let Err(error) = kept {
            notice(&format!("from here on the history is not kept in {}: {error}", path.display()));
            self.history = None;
        }
    }
}

/// Completion as the editor asks for it.
struct Offers(Completion);

impl Completer for Offers {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = self.0.of(&line[..pos]);
        let pair = |word: String| Pair { replacement: format!("{word} "), display: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Hinter for Offers {
    type Hint = String;
}

impl Highlighter for Offers {}

impl Validator for Offers {}

impl Helper for Offers {}
