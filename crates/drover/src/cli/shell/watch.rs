//! `watch status`: the cluster again and again.

use std::io::IsTerminal;
use std::time::Duration;

use drover_client::{Client, ClusterStatus, Error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::exit::{End, end_of};
use super::super::failure::{Asked, complain};
use super::super::output::Output;
use super::super::{Global, status};
use super::interrupt::{Interrupted, Interrupts};

/// Cursor to the upper left, everything below erased.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How a status is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// From one look to the next.
    pub every: Duration,
    /// Ends after so many looks.
    pub times: Option<u64>,
    /// Whether somebody sits at the terminal, who ends it with Enter or Ctrl-C and wants to see it go on after a failure.
    pub attended: bool,
}

/// Why a pause has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Time,
    Enter,
    Interrupt,
}

impl Watch {
    /// Shows the status until somebody ends it or it was shown as often as is wanted.
    ///
    /// # Errors
    /// If nobody sits at the terminal: what a look ended in, or an interrupt.
    pub async fn run(
        self,
        client: &Client,
        global: &Global,
        output: &mut Output,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<End> {
        let mut look = 0;
        loop {
            look += 1;
            let woken = tokio::select! {
                biased;
                seen = client.status() => { self.show(global, output, look, seen)?; Woken::Time }
                () = interrupts.next() => Woken::Interrupt,
                () = enter(self.attended) => Woken::Enter,
            };
            if woken == Woken::Time && self.times.is_some_and(|times| look >= times) {
                return Ok(End::Done);
            }
            let woken = match woken {
                Woken::Time => tokio::select! {
                    () = tokio::time::sleep(self.every) => Woken::Time,
                    () = interrupts.next() => Woken::Interrupt,
                    () = enter(self.attended) => Woken::Enter,
                },
                ended => ended,
            };
            match woken {
                Woken::Time => {}
                Woken::Interrupt if !self.attended => return Err(Interrupted.into()),
                Woken::Enter | Woken::Interrupt => return Ok(End::Done),
            }
        }
    }

    fn show(
        self,
        global: &Global,
        output: &mut Output,
        look: u64,
        seen: Result<ClusterStatus, Error>,
    ) -> anyhow::Result<()> {
        let clears = self.attended && !global.json && std::io::stdout().is_terminal();
        if clears {
            output.line(&format!("{CLEAR}look {look}{}; Enter or Ctrl-C ends it", self.pace()))?;
        } else if look > 1 && !global.json {
            output.line("")?;
        }
        match seen {
            Ok(seen) => status::show(global.json, output, &seen)?,
            Err(error) if self.attended => {
                let error = error.into();
                complain(global, Asked::InShell(global.notation()), output, &error, end_of(&error))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(output.flush()?)
    }

    fn pace(self) -> String {
        let every = humantime::format_duration(self.every);
        self.times.map_or_else(|| format!(", every {every}"), |times| format!(" of {times}, every {every}"))
    }
}

/// Between two looks whether Enter was pressed.
const POLL: Duration = Duration::from_millis(50);

/// Waits for Enter at the terminal and takes the line; for good if nobody sits there. Looks every now and then: a read that
/// waits could not be called off, and would take what is typed at the next prompt.
async fn enter(attended: bool) {
    if !attended {
        return std::future::pending().await;
    }
    let stdin = std::io::stdin();
    loop {
        let mut typed = [PollFd::new(&stdin, PollFlags::IN)];
        if poll(&mut typed, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            // There is something to read, so this does not block. What it is does not matter.
            let _ = rustix::io::read(&stdin, &mut [0; 4096]);
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_tells_how_often_and_how_many_times() {
        let watch = Watch { every: Duration::from_millis(1_500), times: None, attended: true };
        assert_eq!(watch.pace(), ", every 1s 500ms");
        assert_eq!(Watch { times: Some(3), ..watch }.pace(), " of 3, every 1s 500ms");
    }
}
