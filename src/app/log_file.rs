//! The log file: private, and written by one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::error::StartError;
use crate::config::{Config, LogConfig, TracesConfig};
use crate::private;
use crate::telemetry::{LogFile, LogFileLimits, LogOutput, TraceSettings};

/// Opens the output of the log.
///
/// # Errors
/// If the log file cannot be written, or another process logs to it.
pub fn log_output(config: &Config) -> Result<LogOutput, StartError> {
    let &LogConfig { ref file, ref filter, file_size, kept_files, queue, access: _ } = &config.log;
    let limits = LogFileLimits { file_size, kept_files };
    let file = file.as_deref().map(|path| open(path, limits)).transpose()?;
    let traces = config.traces.clone().map(|traces| {
        let TracesConfig { endpoint, one_in, queue, timeout } = traces;
        TraceSettings { endpoint, one_in, queue, timeout }
    });
    Ok(LogOutput { file, queue, filter: filter.clone(), traces })
}

/// Checks whether [`log_output`] could use a log file; neither creates nor changes it.
///
/// # Errors
/// It could not; the error names the file or its directory.
pub fn inspect_log(path: &Path) -> Result<(), StartError> {
    private::inspect_own(path).map_err(StartError::LogFile)
}

fn open(path: &Path, limits: LogFileLimits) -> Result<LogFile, StartError> {
    let failed = |source| StartError::LogWrite { path: path.to_owned(), source };
    let file = private::own(path).map_err(StartError::LogFile)?;
    match file.try_lock() {
        Ok(()) => LogFile::new(path.to_owned(), file, open_next, limits).map_err(failed),
        Err(TryLockError::WouldBlock) => Err(StartError::LogLocked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn open_next(path: &Path) -> io::Result<File> {
    let file = private::own(path).map_err(io::Error::other)?;
    file.try_lock()?;
    Ok(file)
}
