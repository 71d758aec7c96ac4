//! A log file of limited size. A full one becomes `FILE.1`, that one `FILE.2`, and the oldest is overwritten.
//!
//! This is not left to a crate: tracing-appender rotates by time only, which bounds nothing, and file-rotate panics if the
//! directory is gone and discards lines silently if a file cannot be opened.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Opens a file for writing, without truncating it, or creates it.
pub type OpenLogFile = fn(&Path) -> io::Result<File>;

/// How large log files may grow.
#[derive(Clone, Copy, Debug)]
pub struct LogFileLimits {
    /// The largest file, in bytes.
    pub file_size: u64,
    /// How many full files to keep besides the current one.
    pub kept_files: u32,
}

/// A log file that is replaced by a new one when it is full.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    open: OpenLogFile,
    limits: LogFileLimits,
    file: File,
    size: u64,
    /// Files change between lines only.
    is_between_lines: bool,
}

impl LogFile {
    /// Continues `file`, which is at `path`; `open` opens its successors.
    ///
    /// # Errors
    /// If the file cannot be written, for instance because the disk is full.
    pub fn new(path: PathBuf, mut file: File, open: OpenLogFile, limits: LogFileLimits) -> io::Result<Self> {
        let size = file.seek(SeekFrom::End(0))?;
        // An empty write would not tell.
        file.write_all(b"\n")?;
        file.set_len(size)?;
        file.seek(SeekFrom::Start(size))?;
        Ok(Self { path, open, limits, file, size, is_between_lines: true })
    }

    /// Makes room: if that fails, the file keeps its size, and the next line tries again.
    fn rotate(&mut self) -> io::Result<()> {
        if self.limits.kept_files == 0 {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
        } else {
            for number in (1..self.limits.kept_files).rev() {
                rename(&self.numbered(number), &self.numbered(number + 1))?;
            }
            rename(&self.path, &self.numbered(1))?;
            self.file = (self.open)(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Renames a file, if it exists.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

impl Write for LogFile {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let is_full = self.size > 0 && self.size.saturating_add(text.len() as u64) > self.limits.file_size;
        if is_full && self.is_between_lines {
            self.rotate()?;
        }
        let count = self.file.write(text)?;
        self.size += count as u64;
        self.is_between_lines = count > 0 && text.get(count - 1) == Some(&b'\n');
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::rotation::*;

    fn open(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    }

    fn start(path: &Path, kept_files: u32) -> LogFile {
        let limits = LogFileLimits { file_size: 20, kept_files };
        LogFile::new(path.to_owned(), open(path).unwrap(), open, limits).unwrap()
    }

    fn files(directory: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut log = start(&path, 3);
        for number in 1..=9 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let expected = [
            ("log", "line 8\nline 9\n"),
            ("log.1", "line 6\nline 7\n"),
            ("log.2", "line 4\nline 5\n"),
            ("log.3", "line 2\nline 3\n"),
        ];
        // "before" and the first line, then two lines each.
        assert_eq!(files(directory.path()), named(&expected));
        drop(log);
        start(&path, 3).write_all(b"10\n").unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 9\n10\n"));
    }

    #[test]
    fn without_kept_files_the_only_one_starts_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = start(&directory.path().join("log"), 0);
        for number in 1..=3 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(files(directory.path()), named(&[("log", "line 3\n")]));
    }

    #[test]
    fn a_line_is_not_torn_between_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = start(&directory.path().join("log"), 1);
        log.write_all(b"a long first").unwrap();
        log.write_all(b" line\nsecond\n").unwrap();
        log.write_all(b"third\n").unwrap();
        let expected = [("log", "third\n"), ("log.1", "a long first line\nsecond\n")];
        assert_eq!(files(directory.path()), named(&expected));
    }

    #[test]
    fn a_file_that_cannot_be_replaced_does_not_grow() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = start(&path, 1);
        log.write_all(b"first line, long\n").unwrap();
        // A directory in its way.
        fs::create_dir_all(directory.path().join("log.1/x")).unwrap();
        log.write_all(b"second\n").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first line, long\n");
        fs::remove_dir_all(directory.path().join("log.1")).unwrap();
        log.write_all(b"third\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_at_the_start() {
        let full = || File::options().read(true).write(true).open("/dev/full").unwrap();
        let limits = LogFileLimits { file_size: 20, kept_files: 1 };
        let error = LogFile::new(PathBuf::from("/dev/full"), full(), open, limits).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
