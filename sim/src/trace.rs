//! What happened, in the order in which it happened: every message, fault and answer, with its simulated time.
//!
//! Two runs of a seed are the same run if their traces are equal. Of a message the trace holds the length, not the bytes: RocksDB
//! writes names into its table files that no seed decides, and what it says of its size depends on its threads.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::machine;

struct Inner {
    hash: Xxh3,
    lines: u64,
    file: Option<BufWriter<File>>,
    echo: bool,
}

/// The trace of a run. Clones are the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

impl Trace {
    /// An empty trace, which is also written to `file`; `echo` shows all but messages on standard error.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn new(file: Option<&Path>, echo: bool) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self(Arc::new(Mutex::new(Inner { hash: Xxh3::new(), lines: 0, file, echo }))))
    }

    /// Notes what happened now.
    pub fn note(&self, what: impl Display) {
        self.line(&what, true);
    }

    /// Notes a message.
    pub fn message(&self, from: impl Display, to: impl Display, bytes: usize) {
        self.line(&format_args!("{from} > {to}: {bytes} bytes"), false);
    }

    fn line(&self, what: &dyn Display, shown: bool) {
        let line = format!("{:>12.6} {what}\n", machine::now().as_secs_f64());
        let mut inner = self.0.lock();
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        if shown && inner.echo {
            eprint!("{line}");
        }
        if let Some(file) = &mut inner.file {
            // What cannot be written is missed by whoever reads it; the hash is not changed by it.
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// How many lines it has, and their hash.
    pub fn digest(&self) -> (u64, u64) {
        let mut inner = self.0.lock();
        if let Some(file) = &mut inner.file {
            let _ = file.flush();
        }
        (inner.lines, inner.hash.digest())
    }
}
