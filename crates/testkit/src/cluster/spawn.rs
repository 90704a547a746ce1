//! Starts child processes that die with this one.
//!
//! The kernel sends the death signal when the *thread* that forked ends, so all children are forked by one thread that
//! lives as long as the process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{Signal, set_parent_process_death_signal};

type Job = (Command, Sender<io::Result<Child>>);

/// Starts the command; the child gets SIGKILL when this process ends, however it ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::spawn(move || {
            for (command, answer) in inbox {
                // The caller waits for the answer, so it is there to take it.
                let _ = answer.send(fork(command));
            }
        });
        jobs
    });
    let (answer, result) = channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send((command, answer)).map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    result.recv().map_err(gone)?
}

fn fork(mut command: Command) -> io::Result<Child> {
    // SAFETY: the closure runs between fork and exec and makes one system call that is async-signal-safe; it neither
    // allocates nor takes locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}
