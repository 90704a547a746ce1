//! `drover shell`: commands from a prompt, or from standard input.
//!
//! # Model
//!
//! ```text
//! line ── words ── grammar (clap) ── Action ── State::after ── Session ── client
//!  ▲                                            (pure)          │
//!  └ Editor (a terminal) or Script (anything else)              └ at most one open transaction
//! ```
//!
//! A line becomes words ([`words`]), the words a command of [`grammar`], the command an [`action::Action`] free of notation.
//! [`state`] says which actions are allowed while a transaction is open, and [`session`] does them.
//!
//! # Invariants
//!
//! - A transaction that is open exists in this process alone; leaving drops it, and says so.
//! - Ctrl-C ends the line or what is under way, never the shell with somebody at it. A write that it ends has an unknown outcome,
//!   and the message says how to find out. In a script SIGTERM does the same.
//! - Without a terminal the first line that does not end with 0 ends the shell, with the code of that line.
//! - With `--json` every command but `quit` prints one object, whether it fails or not; `watch` one for each look.

mod action;
mod complete;
mod editor;
mod grammar;
mod history;
mod interrupt;
mod known;
mod reads;
mod script;
mod session;
mod state;
mod transaction;
mod watch;
pub mod words;
mod writes;

use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;

use action::Action;
use complete::Completion;
use editor::{Editor, Typed};
use interrupt::{Interrupted, Interrupts};
use script::Script;
use session::Session;

use super::exit::{End, UsageError, end_of};
use super::failure::{Asked, complain, told};
use super::output::Output;
use super::{Global, notice};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to keep the lines that were typed [default: drover/history in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Do not keep the lines that were typed
    #[arg(long, conflicts_with = "history")]
    no_history: bool,
}

/// What a line leads to.
enum Led {
    /// The next line.
    On(End),
    /// Out of the shell.
    Out,
}

pub async fn run(global: &Global, args: Args, output: &mut Output) -> anyhow::Result<End> {
    let attended = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if attended {
        // Before anything is sent: a history that cannot be kept is a mistake of whoever named the file.
        let editor = open_editor(&args)?;
        let session = Session::new(global.connect().await?, global, Interrupts::listen(attended)?, attended);
        return converse(global, editor, session, output).await;
    }
    let session = Session::new(global.connect().await?, global, Interrupts::listen(attended)?, attended);
    follow(global, Script::read(BufReader::new(std::io::stdin())), session, output).await
}

/// Without a history file if the default one cannot be used.
fn open_editor(args: &Args) -> anyhow::Result<Editor> {
    if args.no_history {
        return Editor::open(None);
    }
    if let Some(path) = &args.history {
        return Editor::open(Some(path));
    }
    let path = history::default_path(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"));
    Editor::open(path.as_deref()).or_else(|error| {
        notice(&told(&error));
        Editor::open(None)
    })
}

/// With somebody at the terminal.
async fn converse(
    global: &Global,
    mut editor: Editor,
    mut session: Session<'_>,
    output: &mut Output,
) -> anyhow::Result<End> {
    if !global.json {
        notice("Type help for the commands, Ctrl-D to leave.");
    }
    'lines: loop {
        let completion =
            Completion { state: session.state(), known: session.known.clone(), notation: global.notation() };
        let prompt = session.prompt();
        // One that came too late for the last command is not meant for the next.
        session.interrupts.forget();
        let typed = tokio::task::block_in_place(|| editor.next(&prompt, completion))?;
        let lines = match typed {
            Typed::Lines(lines) => lines,
            Typed::Cleared => continue,
            Typed::End => break,
        };
        for line in lines.lines() {
            match perform(global, &mut session, line, output).await {
                Ok(Led::On(_)) => output.flush()?,
                Ok(Led::Out) => break 'lines,
                Err(error) => {
                    complain(global, Asked::InShell(global.notation()), output, &error, end_of(&error))?;
                    // What was pasted behind it may depend on it.
                    break;
                }
            }
        }
    }
    if let Some(text) = session.abandon() {
        output.flush()?;
        notice(&text);
    }
    Ok(End::Done)
}

/// Line by line from a script.
async fn follow(
    global: &Global,
    mut script: Script,
    mut session: Session<'_>,
    output: &mut Output,
) -> anyhow::Result<End> {
    let end = loop {
        let done = match next_line(&mut script, &mut session).await {
            Ok(Some(line)) => perform(global, &mut session, &line, output).await,
            Ok(None) => Ok(Led::Out),
            Err(error) => Err(error),
        };
        match done {
            Ok(Led::On(End::Done)) => output.flush()?,
            Ok(Led::On(end)) => break end,
            Ok(Led::Out) => match session.abandon() {
                None => break End::Done,
                Some(text) => {
                    let error = UsageError(format!("the script ends within a transaction: {text}")).into();
                    complain(global, Asked::InShell(global.notation()), output, &error, End::Usage)?;
                    break End::Usage;
                }
            },
            Err(error) => {
                let end = end_of(&error);
                // Whoever reads the answers has seen enough.
                if end != End::Done {
                    complain(
                        global,
                        Asked::InShell(global.notation()),
                        output,
                        &error.context(format!("line {}", script.number())),
                        end,
                    )?;
                }
                break end;
            }
        }
    };
    output.flush()?;
    if let Some(text) = session.abandon() {
        notice(&text);
    }
    Ok(end)
}

async fn next_line(script: &mut Script, session: &mut Session<'_>) -> anyhow::Result<Option<String>> {
    session.interrupts.unless(script.next()).await.unwrap_or_else(|| Err(Interrupted.into()))
}

async fn perform(global: &Global, session: &mut Session<'_>, line: &str, output: &mut Output) -> anyhow::Result<Led> {
    match Action::parse(line, global.notation())? {
        None => Ok(Led::On(End::Done)),
        Some(Action::Quit) => Ok(Led::Out),
        Some(action) => Ok(Led::On(session.perform(action, output).await?)),
    }
}
