use std::io::{self, IsTerminal};

use tracing_subscriber::fmt;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Why events are not logged as configured.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the log: {0}")]
pub struct LoggingError(#[from] TryInitError);

/// Sends the events of the process to standard error. Once for each process.
///
/// # Errors
/// If it was done before.
pub fn init_logging(log: &Log) -> Result<(), LoggingError> {
    let filter: EnvFilter = log.filter.to_env_filter();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?)
}
