//! `drover server`: one node in the foreground.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Args, FromArgMatches, value_parser};
use drover_server::config::{self, Config, Setting, Sources};
use drover_server::datadir::DataDir;
use drover_server::lifecycle::{Shutdown, abort_on_panic, init_logging, raise_open_files};
use drover_server::node::{self, Stopped};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::cli::{UsageError, told};

/// Exit status if the node or the cluster cannot start, or cannot go on: a local failure, as in `cli::EXIT_CODES`.
pub const FAILED: u8 = 5;
/// Exit status if the configuration is wrong, as for every other wrong use of the command line.
pub const USAGE: u8 = 2;
/// Exit status if the time to drain was over before everything was finished.
const CUT_OFF: u8 = 124;
/// Below this many open files, the stores of a few groups are likely to run out of them.
const FEW_OPEN_FILES: u64 = 4096;

const CONFIG: &str = "config";
const EXIT_WITH_PARENT: &str = "exit-with-parent";
const SHIFT_CLOCK: &str = "shift-clock-ms";

/// What the command line says. There is a flag for every setting of the table in `drover_server::config`.
#[derive(Debug)]
pub struct ServerArgs {
    file: Option<PathBuf>,
    /// Process whose end is the end of this one.
    parent: Option<u32>,
    /// By how much the clock of the node is wrong, for rehearsals.
    shift_clock: Option<i64>,
    flags: Vec<(&'static str, String)>,
}

impl Args for ServerArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .env("DROVER_CONFIG")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file (docs/drover.example.toml)");
        let parent = Arg::new(EXIT_WITH_PARENT)
            .long(EXIT_WITH_PARENT)
            .value_name("PID")
            .value_parser(value_parser!(u32))
            .hide(true);
        let shift = Arg::new(SHIFT_CLOCK)
            .long(SHIFT_CLOCK)
            .value_name("MS")
            .value_parser(value_parser!(i64))
            .allow_negative_numbers(true)
            .hide(true);
        command
            .after_help(
                "Each setting can also be given by the file or by an environment variable: docs/configuration.md.",
            )
            .args([file, parent, shift])
            .args(config::all().map(setting_arg))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &'static Setting| {
            matches.get_one::<String>(setting.path).map(|text| (setting.path, text.clone()))
        };
        Ok(Self {
            file: matches.get_one::<PathBuf>(CONFIG).cloned(),
            parent: matches.get_one::<u32>(EXIT_WITH_PARENT).copied(),
            shift_clock: matches.get_one::<i64>(SHIFT_CLOCK).copied(),
            flags: config::all().filter_map(given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn setting_arg(setting: &'static Setting) -> Arg {
    let (section, _) = setting.section_and_field();
    let default = setting.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    Arg::new(setting.path)
        .long(setting.flag())
        .value_name(setting.kind.to_string().to_uppercase())
        .help(format!("{} [variable: {}]{default}", setting.description(), setting.variable()))
        .help_heading(format!("[{section}]"))
}

/// Runs a node until it is told to stop.
pub fn run(args: ServerArgs) -> ExitCode {
    match serve(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover server: {}", told(&error));
            ExitCode::from(FAILED)
        }
    }
}

fn serve(args: ServerArgs) -> anyhow::Result<ExitCode> {
    if let Some(parent) = args.parent {
        exit_with_parent(parent)?;
    }
    let env = match variables(std::env::vars_os()) {
        Ok(env) => env,
        Err(error) => {
            eprintln!("drover server: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let sources = Sources { file: args.file, env, flags: args.flags };
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("drover server: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    init_logging(&config.log)?;
    abort_on_panic();
    match raise_open_files() {
        Ok(Some(files)) if files < FEW_OPEN_FILES => tracing::warn!(files, "few files may be open at once"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    if let Some(ms) = args.shift_clock {
        tracing::warn!(ms, "the clock of this node is shifted: a rehearsal");
        node::shift_clock(ms);
    }
    let data = DataDir::open(&config.node.data_dir, config.cluster.id, config.node.id)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = %config.cluster.id,
        node = %config.node.id,
        store = %data.store_id(),
        new_directory = data.created(),
        "starting"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::on_signals(config.server.drain_timeout).context("cannot listen for signals")?;
        anyhow::Ok(node::run(config, data, shutdown).await?)
    });
    // Whatever still runs was cut off, or has nothing to lose.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended? {
        Stopped::Drained => Ok(ExitCode::SUCCESS),
        Stopped::CutOff => Ok(ExitCode::from(CUT_OFF)),
    }
}

/// The variables that may be settings.
pub fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, UsageError> {
    let mut ours = Vec::new();
    for (name, value) in all {
        let Some(name) = name.to_str().filter(|name| name.starts_with("DROVER_")) else { continue };
        match value.into_string() {
            Ok(value) => ours.push((name.to_owned(), value)),
            Err(value) => {
                return Err(UsageError(format!("variable {name}: {value:?} is not UTF-8; nothing was started")));
            }
        }
    }
    Ok(ours)
}

/// Lets the kernel kill this process when the process that started it ends, however that ends.
pub fn exit_with_parent(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    // The parent may have ended before the line above.
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    if now != Some(parent) {
        bail!("process {parent}, which started this one, has ended");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ServerArgs, clap::Error> {
        let command = ServerArgs::augment_args(clap::Command::new("server").no_binary_name(true));
        ServerArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn every_setting_has_a_flag_and_no_other_flag_is_taken() {
        for setting in config::all() {
            let args = parse(&[&format!("--{}", setting.flag()), "value"]).unwrap();
            assert_eq!(args.flags, [(setting.path, "value".to_owned())]);
        }
        assert!(parse(&["--raft-heartbeat", "5"]).is_err());
        assert_eq!(parse(&["--config", "a.toml"]).unwrap().file, Some("a.toml".into()));
    }

    #[test]
    fn help_tells_the_variable_and_the_default_of_a_setting() {
        let mut command = ServerArgs::augment_args(clap::Command::new("server"));
        command.build();
        let help = command.render_long_help().to_string();
        assert!(help.contains("DROVER_RAFT_HEARTBEAT_MS") && help.contains("[default: 100ms]"), "{help}");
        assert!(!help.contains(EXIT_WITH_PARENT) && !help.contains(SHIFT_CLOCK), "{help}");
    }

    #[test]
    fn only_our_variables_are_read_and_they_must_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(vec![0xff]);
        let pair = |name: &str, value: &OsString| (OsString::from(name), value.clone());
        let fine = variables([pair("PATH", &bad), pair("DROVER_NODE_ID", &"1".into())].into_iter()).unwrap();
        assert_eq!(fine, [("DROVER_NODE_ID".to_owned(), "1".to_owned())]);
        let error = variables([pair("DROVER_NODE_DATA_DIR", &bad)].into_iter()).unwrap_err();
        assert!(error.to_string().contains("DROVER_NODE_DATA_DIR"), "{error}");
    }
}
