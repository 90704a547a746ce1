//! `drover dump`: all rows of a range as of one moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use drover_client::{ScanQuery, Timestamp};
use indicatif::ProgressBar;

use super::exit::{End, UsageError};
use super::notation::RangeArgs;
use super::output::Output;
use super::records::{Format, Writer};
use super::{Global, notice};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    range: RangeArgs,
    /// Form of the rows [default: what the name of the file tells, else tsv]
    #[arg(long)]
    format: Option<Format>,
    /// As of this timestamp
    #[arg(long, value_name = "TIMESTAMP")]
    at: Option<Timestamp>,
    /// Write to a file
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl Args {
    fn format(&self, json: bool) -> Result<Format, UsageError> {
        match (self.format, &self.output) {
            (Some(format), _) => Ok(format),
            (None, _) if json => Ok(Format::Jsonl),
            (None, Some(path)) => Format::of(path),
            (None, None) => Ok(Format::Tsv),
        }
    }
}

/// Where a dump goes. What was in a file before stays there until the dump is whole.
struct Target<'a> {
    path: &'a Path,
    /// The rows so far; `None` for something that is no file, such as a pipe.
    part: Option<PathBuf>,
}

impl<'a> Target<'a> {
    fn of(path: &'a Path) -> Self {
        let special = path.metadata().is_ok_and(|found| !found.is_file());
        let part = || {
            let mut name = path.as_os_str().to_owned();
            name.push(".part");
            PathBuf::from(name)
        };
        Self { path, part: (!special).then(part) }
    }

    fn create(&self) -> anyhow::Result<File> {
        match &self.part {
            Some(part) => File::create(part).with_context(|| format!("cannot create {}", part.display())),
            None => {
                let opened = File::options().write(true).open(self.path);
                opened.with_context(|| format!("cannot write to {}", self.path.display()))
            }
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let Some(part) = self.part else { return Ok(()) };
        let renamed = File::open(&part).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&part, self.path));
        renamed.with_context(|| {
            format!("the dump is in {} and cannot be renamed to {}", part.display(), self.path.display())
        })
    }
}

pub async fn run(global: &Global, args: Args, output: &mut Output) -> anyhow::Result<End> {
    let format = args.format(global.json)?;
    let query = ScanQuery { at: args.at, ..ScanQuery::new(args.range.interval(global.notation())?) };
    let mut scan = global.connect().await?.scan(query);
    let target = args.output.as_deref().map(Target::of);
    let mut file = match &target {
        Some(target) => Some(Output::to(target.create()?)),
        None => None,
    };
    let mut writer = Writer::new(format, global.notation(), file.as_mut().unwrap_or(output));
    let spinner = ProgressBar::new_spinner();
    let (mut rows, mut read_ts) = (0, args.at);
    while let Some(page) = scan.next_page().await? {
        page.entries.iter().try_for_each(|row| writer.row(row))?;
        rows += page.count;
        read_ts = Some(page.read_ts);
        spinner.set_message(format!("{rows} rows"));
        spinner.tick();
    }
    writer.finish()?;
    drop(file);
    target.map_or(Ok(()), Target::finish)?;
    spinner.finish_and_clear();
    let as_of = read_ts.map_or_else(String::new, |ts| format!(" as of {ts}"));
    notice(&format!("{rows} rows{as_of}"));
    Ok(End::Done)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_in_the_file_stays_until_the_dump_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keep.tsv");
        fs::write(&path, "the last dump").unwrap();
        let target = Target::of(&path);
        let mut file = target.create().unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "the last dump");
        drop(file);
        target.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "half");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let null = Target::of(Path::new("/dev/null"));
        null.create().unwrap().write_all(b"gone").unwrap();
        null.finish().unwrap();
        assert!(!Path::new("/dev/null.part").exists());
    }

    #[test]
    fn the_format_is_the_one_asked_for_else_the_files_else_tab_separated() {
        let args = |format, output: Option<&str>| Args {
            range: RangeArgs::default(),
            format,
            at: None,
            output: output.map(PathBuf::from),
        };
        assert_eq!(args(None, None).format(false).unwrap(), Format::Tsv);
        assert_eq!(args(None, None).format(true).unwrap(), Format::Jsonl);
        assert_eq!(args(None, Some("x.jsonl")).format(false).unwrap(), Format::Jsonl);
        assert_eq!(args(Some(Format::Tsv), Some("x.jsonl")).format(true).unwrap(), Format::Tsv);
        assert_eq!(args(None, Some("x.csv")).format(false).unwrap(), Format::Csv);
        assert!(args(None, Some("x")).format(false).is_err());
    }
}
