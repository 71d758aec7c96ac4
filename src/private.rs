//! Files that hold a secret: read only where nobody else can read or change them, written so from the start.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// The largest file that is read: far above any keystore.
const MAX_FILE: u64 = 64 << 10;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;
const FOR_OTHERS: u32 = 0o077;

/// Why a file with a secret is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It would be overwritten.
    #[error("{path} exists already and is not overwritten; move it away, or choose another place", path = .0.display())]
    Exists(PathBuf),
    /// It is a folder, a device or the like.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// It holds more than a secret.
    #[error("{path} is larger than {MAX_FILE} bytes, so it is no file of a key or a password", path = .0.display())]
    TooLarge(PathBuf),
    /// Other users can read or write it.
    #[error("{path} is open to other users (mode {mode:03o}); run: chmod 600 {path}", path = path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user can change it at will.
    #[error("{path} belongs to another user (uid {owner}, this is {us}); run as its owner, or: chown {us} {path}; chmod 600 {path}", path = path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Any user can put another file in its place.
    #[error("the folder {folder} can be changed by every user; run: chmod o-w {folder}", folder = .0.display())]
    Folder(PathBuf),
}

/// Reads a file that only its owner, who must be this user, can read and write.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let io = |error| PrivateFileError::Io { path: path.to_owned(), error };
    // Looked at before it is opened: opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    check_folder(path)?;
    let file = File::open(path).map_err(io)?;
    check(path, &file.metadata().map_err(io)?)?;
    // Room for all of it at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 2));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(PrivateFileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// What follows the byte order mark (UTF-8) that some editors put at the start of a text.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Writes a new file that only this user can read and write, and makes sure that it is on disk.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists(path.to_owned()),
        _ => PrivateFileError::Io { path: path.to_owned(), error },
    };
    check_folder(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), PrivateFileError> {
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner, us });
    }
    let mode = metadata.mode() & 0o777;
    if mode & FOR_OTHERS != 0 {
        return Err(PrivateFileError::Open { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Refuses a folder in which every user can replace the file, links followed.
fn check_folder(path: &Path) -> Result<(), PrivateFileError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder_of(&real);
    let mode =
        fs::metadata(folder).map_err(|error| PrivateFileError::Io { path: folder.to_owned(), error })?.mode();
    if mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0 {
        return Err(PrivateFileError::Folder(folder.to_owned()));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_file_of_ones_own_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"secret").unwrap();
        for (bits, is_private) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o640, false),
            (0o620, false),
            (0o610, false),
            (0o604, false),
            (0o602, false),
            (0o601, false),
            (0o644, false),
            (0o666, false),
        ] {
            mode(&path, bits);
            match read(&path) {
                Ok(bytes) => assert!(is_private && bytes.as_slice() == b"secret", "{bits:o}"),
                Err(error) => {
                    assert!(!is_private && error.to_string().contains("chmod 600 /"), "{bits:o}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_folder_open_to_all_is_refused_unless_sticky() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"secret").unwrap();
        let link_home = tempfile::tempdir().unwrap();
        let link = link_home.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (bits, is_safe) in [(0o700, true), (0o755, true), (0o777, false), (0o702, false), (0o1777, true)]
        {
            mode(folder.path(), bits);
            assert_eq!(read(&path).is_ok(), is_safe, "{bits:o}");
            assert_eq!(read(&link).is_ok(), is_safe, "{bits:o} through a link");
            let new = folder.path().join(format!("{bits:o}"));
            assert_eq!(create(&new, b"x").is_ok(), is_safe, "{bits:o} to create");
        }
    }

    #[test]
    fn another_users_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"secret").unwrap();
        // Only root may give a file away; without that right the owner check cannot be reached.
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(matches!(read(&path), Err(PrivateFileError::Foreign { owner: 12345, .. })));
        }
    }

    #[test]
    fn a_new_file_is_private_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(create(&path, b"second"), Err(PrivateFileError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn what_is_no_small_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(PrivateFileError::NotAFile(_))));
        let path = folder.path().join("large");
        create(&path, &vec![b'0'; MAX_FILE as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(PrivateFileError::TooLarge(_))));
        assert!(matches!(read(&folder.path().join("none")), Err(PrivateFileError::Io { .. })));
    }
}
