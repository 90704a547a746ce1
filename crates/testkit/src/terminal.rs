//! A program at a terminal of its own: what a person types, and what the person sees.
//!
//! A pseudo terminal of the kernel stands between the test and the program, so Ctrl-C is a signal and line editing works as it does
//! for people. What is seen is the text without colours and cursor movements.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, ioctl_tiocsctty, set_parent_process_death_signal, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Ctrl-C.
pub const CTRL_C: &str = "\x03";
/// Ctrl-D.
pub const CTRL_D: &str = "\x04";
/// Enter.
pub const ENTER: &str = "\r";
/// Tab.
pub const TAB: &str = "\t";

/// What was waited for did not appear.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {wanted:?} to appear on the terminal; seen since the last: {seen:?}")]
pub struct NotSeen {
    wanted: String,
    waited: Duration,
    seen: String,
}

/// What the program has written so far.
#[derive(Debug, Default)]
struct Screen {
    bytes: Vec<u8>,
    closed: bool,
}

type Shared = Arc<(Mutex<Screen>, Condvar)>;

/// A running program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Shared,
    /// How much of the text was waited for already.
    read: usize,
}

impl Terminal {
    /// Starts a program at a terminal of 40 lines by 200 columns. It dies with the thread that called this.
    ///
    /// # Errors
    /// If there is no terminal to be had, or the program cannot be started.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let slave: OwnedFd = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&slave, Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 })?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave).env("TERM", "xterm");
        // SAFETY: the closure runs between fork and exec and makes three system calls that are async-signal-safe; it neither
        // allocates nor takes locks.
        unsafe {
            command.pre_exec(|| {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                setsid()?;
                Ok(ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let child = command.spawn()?;
        // The command holds the slave; without it the end of the program is the end of what is read.
        drop(command);
        let screen = Shared::default();
        let keyboard = File::from(master);
        let (reader, shared) = (keyboard.try_clone()?, screen.clone());
        std::thread::spawn(move || read_all(reader, &shared));
        Ok(Self { child, keyboard, screen, read: 0 })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) -> io::Result<()> {
        self.keyboard.write_all(keys.as_bytes())
    }

    /// Waits until `wanted` appears behind what was waited for before; everything from there up to it, and it.
    ///
    /// # Errors
    /// After `bound`, or when the program has ended without it.
    pub fn see(&mut self, wanted: &str, bound: Duration) -> Result<String, NotSeen> {
        let deadline = Instant::now() + bound;
        let (lock, changed) = &*self.screen;
        let mut screen = hold(lock);
        loop {
            let text = text_of(&screen.bytes);
            let unread = &text[self.read..];
            if let Some(at) = unread.find(wanted) {
                let seen = unread[..at + wanted.len()].to_owned();
                self.read += seen.len();
                return Ok(seen);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if screen.closed || left.is_zero() {
                return Err(NotSeen { wanted: wanted.to_owned(), waited: bound, seen: unread.to_owned() });
            }
            screen = changed.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the program has ended; how, and what it wrote behind what was waited for.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn end(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        let (lock, changed) = &*self.screen;
        let screen = changed.wait_while(hold(lock), |screen| !screen.closed);
        let screen = screen.unwrap_or_else(PoisonError::into_inner);
        Ok((status, text_of(&screen.bytes)[self.read..].to_owned()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hold(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until nobody holds the other side any more, which the kernel reports as an error.
fn read_all(mut source: File, screen: &(Mutex<Screen>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        let read = source.read(&mut buffer).unwrap_or(0);
        let mut held = hold(&screen.0);
        held.bytes.extend_from_slice(&buffer[..read]);
        held.closed = read == 0;
        screen.1.notify_all();
        if read == 0 {
            return;
        }
    }
}

/// The text in what a program wrote to a terminal: without escape sequences and carriage returns, up to the last whole character
/// or sequence. More bytes only ever add to it.
fn text_of(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            0x1b => match end_of_sequence(behind) {
                Some(length) => &behind[length..],
                None => break,
            },
            b'\r' => behind,
            _ => {
                text.push(*first);
                behind
            }
        };
    }
    match String::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let whole = error.utf8_error().valid_up_to();
            let mut text = error.into_bytes();
            // Half a character at the end; a program that writes something else than text is no subject of this.
            text.truncate(whole);
            String::from_utf8(text).unwrap_or_default()
        }
    }
}

/// How many bytes behind an escape belong to it.
fn end_of_sequence(behind: &[u8]) -> Option<usize> {
    match behind.first()? {
        b'[' => behind.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte)).map(|at| at + 2),
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    #[test]
    fn text_is_what_a_person_sees_and_never_shrinks() {
        let written = "\x1b[?2004h\rdrover…> \x1b[J\x1b[1;32mgreen\x1b[m\x1b=\r\nend".as_bytes();
        assert_eq!(text_of(written), "drover…> green\nend");
        for length in 0..written.len() {
            assert!("drover…> green\nend".starts_with(&text_of(&written[..length])), "{length}");
        }
    }

    #[test]
    fn what_is_typed_reaches_the_program_and_ctrl_c_is_a_signal() {
        let mut terminal = Terminal::start(Command::new("cat")).unwrap();
        terminal.press("hello\r").unwrap();
        // Once by the terminal, once by the program.
        assert_eq!(terminal.see("hello\nhello\n", BOUND).unwrap(), "hello\nhello\n");
        terminal.press(CTRL_D).unwrap();
        assert!(terminal.end().unwrap().0.success());
        let mut terminal = Terminal::start(Command::new("cat")).unwrap();
        terminal.press("x\r").unwrap();
        terminal.see("x\nx\n", BOUND).unwrap();
        terminal.press(CTRL_C).unwrap();
        let (status, _) = terminal.end().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
        let mut terminal = Terminal::start(Command::new("true")).unwrap();
        assert!(terminal.see("nothing", BOUND).unwrap_err().to_string().contains("nothing"));
    }
}
