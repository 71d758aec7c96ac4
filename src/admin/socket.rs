//! The path of the admin socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The longest socket path that every system supports, in bytes.
const LONGEST: usize = 103;

/// A path short enough for the system: `path` itself, or an alias that is valid while the returned file is open.
pub(super) fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_owned(), None));
    }
    if !cfg!(target_os = "linux") {
        let text = format!("its path has more than {LONGEST} bytes; choose a shorter state_dir");
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let directory = File::open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((path, Some(directory)))
}

/// Whether a socket could be created at this path, judging by the path alone.
///
/// # Errors
/// The path is too long for the system, with the remedy.
pub fn check_path(path: &Path) -> io::Result<()> {
    match short(path) {
        // The first start creates the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        checked => checked.map(drop),
    }
}

/// The path of the socket in a state directory.
#[must_use]
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}
