//! Files and directories for this user only, which are used only if other users can neither read nor change them, and
//! created that way; and files that others may read but not write.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use zeroize::Zeroizing;

/// The largest file to read, far above the size of any keystore.
const MAX_FILE: u64 = 64 << 10;
/// The number of hexadecimal digits of a token: 128 bits.
const TOKEN: usize = 32;
/// The fewest hexadecimal digits, and the fewest words, that look like a key.
const LEAST_DIGITS: usize = 48;
const LEAST_WORDS: usize = 12;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;
const FOR_OTHERS: u32 = 0o077;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const READABLE_BY_GROUP: u32 = 0o040;

/// Why a private file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It cannot be read or written.
    #[error("{path}: {error}", path = shown(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// It already exists.
    #[error("{path} already exists; not overwriting it; move it away, or choose another path", path = .0.display())]
    Exists(PathBuf),
    /// It does not contain a token.
    #[error("{path} does not hold {TOKEN} hexadecimal digits; remove it, and tollpass creates a new one at the next start", path = .0.display())]
    NotAToken(PathBuf),
    /// It is a directory, a device or the like.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// It is too large for a secret.
    #[error("{path} is larger than {MAX_FILE} bytes, so it cannot be a key or password file", path = .0.display())]
    TooLarge(PathBuf),
    /// Other users can read or write it.
    #[error("{path} is readable by other users (mode {mode:03o}); run: chmod 600 {path}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Root has provided it, and others than this process's groups can read it, or some group can change it.
    #[error(
        "{path} belongs to root and is open to other users (mode {mode:03o}); let only root and a group of this process read it: \
         mode 0440, such as defaultMode 0440 with fsGroup in Kubernetes, or mode and gid of a Docker secret", path = path.display()
    )]
    OpenOfRoot {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user, who can change it.
    #[error("{path} belongs to another user (uid {owner}, this is {us}); run as its owner{}", or_take(*us, path), path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The owner's user ID.
        owner: u32,
        /// The effective user ID of this process.
        us: u32,
    },
    /// It is a symbolic link.
    #[error("{path} is a symbolic link, which tollpass never creates; check where it points, then run: rm {path}", path = .0.display())]
    Link(PathBuf),
    /// The directory belongs to another user.
    #[error("the directory {path} belongs to another user (uid {owner}, this is {us}); run as its owner, or choose another directory", path = path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// The owner's user ID.
        owner: u32,
        /// The effective user ID of this process.
        us: u32,
    },
    /// Other users can change what the directory contains.
    #[error("other users can change the directory {path} (mode {mode:04o}); choose a dedicated directory, or run: chmod go-w {path}", path = path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Every user can change it.
    #[error("every user can change {path} (mode {mode:03o}); run: chmod o-w {path}", path = path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Every user can replace the file.
    #[error("every user can change the directory {directory}; run: chmod o-w {directory}", directory = .0.display())]
    Directory(PathBuf),
}

/// The path of a file that may not exist. Then its name may be the secret that should be in the file.
fn shown(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if is_secret(name) {
        path.with_file_name("...").display().to_string()
    } else {
        path.display().to_string()
    }
}

/// Whether a text that should name something, such as a file, looks like a key or another secret itself.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']);
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // More than the 40 of an address; a key that was copied badly is not much less of a secret.
    let is_key = digits.len() >= LEAST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = || text.split_ascii_whitespace();
    let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_phrase = words().count() >= LEAST_WORDS && words().all(is_word);
    is_key || is_phrase || text.contains("-----BEGIN") || text.starts_with('{')
}

/// Another remedy for a file of another user. Root would take it from a service that runs as that user.
fn or_take(us: u32, path: &Path) -> String {
    let path = path.display();
    if us == 0 { String::new() } else { format!(", or: chown {us} {path}; chmod 600 {path}") }
}

/// Reads a file that only this user can access; or that root has provided for a group of this process to read, as Kubernetes
/// and Docker do.
///
/// # Errors
/// Also if another user owns the file, can access it or can replace it.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let io = |error| PrivateFileError::Io { path: path.to_owned(), error };
    // Before opening it: opening a named pipe would block until there is a writer.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    check_directory(path)?;
    let file = File::open(path).map_err(io)?;
    check(path, &file.metadata().map_err(io)?)?;
    // Allocated once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 2));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(PrivateFileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Strips the UTF-8 byte order mark that some editors put at the start of a file.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Creates a file that only this user can access, and syncs it to disk.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists(path.to_owned()),
        _ => PrivateFileError::Io { path: path.to_owned(), error },
    };
    check_directory(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(io)
}

/// Creates a directory that only this user can access, unless it exists, and checks that only this user can change it.
pub fn create_directory(path: &Path) -> Result<(), PrivateFileError> {
    let io = |error| PrivateFileError::Io { path: path.to_owned(), error };
    inspect_directory(path)?;
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    inspect_directory(path)
}

/// Whether [`create_directory`] would succeed, as far as can be known without creating anything.
pub fn inspect_directory(path: &Path) -> Result<(), PrivateFileError> {
    let io = |error| PrivateFileError::Io { path: path.to_owned(), error };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return can_be_made(path),
        found => found.map_err(io)?,
    };
    if !metadata.is_dir() {
        return Err(io(io::ErrorKind::NotADirectory.into()));
    }
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(PrivateFileError::ForeignDirectory { path: path.to_owned(), owner, us });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(PrivateFileError::OpenDirectory { path: path.to_owned(), mode });
    }
    can_write(path).map_err(io)?;
    // Anyone who can change the parent directory can replace this one.
    check_directory(path)
}

/// Whether this user can create entries in the nearest existing ancestor.
fn can_be_made(path: &Path) -> Result<(), PrivateFileError> {
    let above = path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("."));
    let made = if above.is_dir() { can_write(above) } else { Err(io::ErrorKind::NotADirectory.into()) };
    made.map_err(|error| PrivateFileError::Io { path: path.to_owned(), error })
}

fn can_write(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};

    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Opens a file of tollpass for writing, or creates it, and revokes other users' access. Keeps its content.
pub fn own(path: &Path) -> Result<File, PrivateFileError> {
    let io = |error| PrivateFileError::Io { path: path.to_owned(), error };
    inspect(path)?;
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
    let file = file.open(path).map_err(io)?;
    if file.metadata().map_err(io)?.mode() & FOR_OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    }
    Ok(file)
}

/// Whether [`own`] would succeed, as far as can be known without creating or changing the file.
pub fn inspect_own(path: &Path) -> Result<(), PrivateFileError> {
    use rustix::fs::{Access, access};

    inspect(path)?;
    let io = |path: &Path, error| PrivateFileError::Io { path: path.to_owned(), error };
    match access(path, Access::READ_OK | Access::WRITE_OK).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory_of(path);
            can_write(directory).map_err(|error| io(directory, error))
        }
        found => found.map_err(|error| io(path, error)),
    }
}

/// Checks that a file or socket of tollpass, if it exists, belongs to this user and is not a symbolic link.
pub fn inspect(path: &Path) -> Result<(), PrivateFileError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(PrivateFileError::Io { path: path.to_owned(), error }),
        Ok(metadata) => metadata,
    };
    if metadata.is_symlink() {
        return Err(PrivateFileError::Link(path.to_owned()));
    }
    if !metadata.is_file() && !metadata.file_type().is_socket() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner, us });
    }
    Ok(())
}

/// Checks a file that decides about money or trust: an error if every user can write or replace it, a warning if some
/// other user can. A missing file is reported elsewhere.
pub fn check_writers(path: &Path) -> Result<Option<String>, PrivateFileError> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() {
        return Ok(None);
    }
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if mode & WRITABLE_BY_ALL != 0 {
        return Err(PrivateFileError::Writable { path: path.to_owned(), mode });
    }
    check_directory(path)?;
    let path = path.display();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Ok(Some(format!(
            "the group of {path} can change it (mode {mode:03o}); run: chmod go-w {path}"
        )));
    }
    let us = rustix::process::geteuid().as_raw();
    let is_trusted = owner == us || owner == 0;
    Ok((!is_trusted)
        .then(|| format!("{path} belongs to another user (uid {owner}, this is {us}), who can change it")))
}

/// Reads a token in hexadecimal digits; creates the file with a random one if it does not exist.
pub fn token(path: &Path) -> Result<Zeroizing<String>, PrivateFileError> {
    let bytes = match read(path) {
        Err(PrivateFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; TOKEN / 2];
            OsRng.fill_bytes(&mut random);
            let text = Zeroizing::new(hex::encode(random));
            create(path, format!("{}\n", *text).as_bytes())?;
            return Ok(text);
        }
        found => found?,
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end();
    if text.len() != TOKEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PrivateFileError::NotAToken(path.to_owned()));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), PrivateFileError> {
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    let us = OwnIds::read()
        .map_err(|error| PrivateFileError::Io { path: path.to_owned(), error: error.into() })?;
    us.check(path, (metadata.uid(), metadata.gid()), metadata.mode() & 0o777)
}

/// The user and the groups of this process.
struct OwnIds {
    user: u32,
    groups: Vec<u32>,
}

impl OwnIds {
    fn read() -> rustix::io::Result<Self> {
        let mut groups: Vec<u32> =
            rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Ok(Self { user: rustix::process::geteuid().as_raw(), groups })
    }

    /// Checks that a secret with this owner, group and mode is one for this process only.
    fn check(&self, path: &Path, (owner, group): (u32, u32), mode: u32) -> Result<(), PrivateFileError> {
        let (path, us) = (path.to_owned(), self.user);
        // A group of one's own may have other members; one that root gives a file to for this process should not.
        let is_for_group = owner == 0 && self.groups.contains(&group) && (us, group) != (0, 0);
        let open = mode & FOR_OTHERS & if is_for_group { !READABLE_BY_GROUP } else { !0 };
        match owner {
            _ if owner == us && open != 0 => Err(PrivateFileError::Open { path, mode }),
            0 if open != 0 => Err(PrivateFileError::OpenOfRoot { path, mode }),
            _ if owner == us || owner == 0 => Ok(()),
            _ => Err(PrivateFileError::Foreign { path, owner, us }),
        }
    }
}

/// Refuses a path, after following links, whose directory lets every user replace the file.
fn check_directory(path: &Path) -> Result<(), PrivateFileError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory_of(&real);
    let mode = fs::metadata(directory)
        .map_err(|error| PrivateFileError::Io { path: directory.to_owned(), error })?
        .mode();
    if mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0 {
        return Err(PrivateFileError::Directory(directory.to_owned()));
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::private::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_file_of_ones_own_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
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
    fn a_directory_open_to_all_is_refused_unless_sticky() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"secret").unwrap();
        let link_home = tempfile::tempdir().unwrap();
        let link = link_home.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (bits, is_safe) in [(0o700, true), (0o755, true), (0o777, false), (0o702, false), (0o1777, true)]
        {
            mode(directory.path(), bits);
            assert_eq!(read(&path).is_ok(), is_safe, "{bits:o}");
            assert_eq!(read(&link).is_ok(), is_safe, "{bits:o} through a link");
            let new = directory.path().join(format!("{bits:o}"));
            assert_eq!(create(&new, b"x").is_ok(), is_safe, "{bits:o} to create");
        }
    }

    #[test]
    fn root_may_provide_a_secret_for_a_group_of_this_process() {
        let user = OwnIds { user: 1000, groups: vec![1000, 2000] };
        let root = OwnIds { user: 0, groups: vec![0, 2000] };
        let path = Path::new("/run/secrets/key");
        for (us, owner, group, mode, expected) in [
            (&user, 0, 2000, 0o440, ""),
            (&user, 0, 2000, 0o640, ""),
            (&user, 0, 1000, 0o040, ""),
            (&user, 0, 0, 0o400, ""),
            (&user, 1000, 1000, 0o400, ""),
            (&root, 0, 2000, 0o440, ""),
            (&root, 0, 0, 0o600, ""),
            (&user, 0, 0, 0o440, "belongs to root and is open to other users (mode 440)"),
            (&user, 0, 2000, 0o444, "defaultMode 0440 with fsGroup"),
            (&user, 0, 2000, 0o460, "belongs to root and is open"),
            (&user, 0, 3000, 0o440, "belongs to root and is open"),
            (&user, 1000, 2000, 0o440, "run: chmod 600 /"),
            (&user, 1001, 2000, 0o440, "belongs to another user (uid 1001, this is 1000)"),
            (&root, 0, 0, 0o640, "run: chmod 600 /"),
            (&root, 0, 3000, 0o640, "run: chmod 600 /"),
            (&root, 1000, 2000, 0o440, "belongs to another user (uid 1000, this is 0)"),
        ] {
            let told = us
                .check(path, (owner, group), mode)
                .map_or_else(|error| error.to_string(), |()| String::new());
            assert!(!told.contains("chown 0"), "{told}");
            assert!(
                if expected.is_empty() { told.is_empty() } else { told.contains(expected) },
                "{mode:o}: {told}"
            );
        }
    }

    #[test]
    fn another_users_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"secret").unwrap();
        // Only root may change the owner; without that right this check cannot be tested.
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(matches!(read(&path), Err(PrivateFileError::Foreign { owner: 12345, .. })));
        }
    }

    #[test]
    fn a_new_file_is_private_and_overwrites_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(create(&path, b"second"), Err(PrivateFileError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn a_token_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let made = token(&path).unwrap();
        assert_eq!(made.len(), TOKEN);
        assert_eq!(token(&path).unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_ne!(token(&directory.path().join("other")).unwrap(), made);
        for (bad, text) in
            ["", "abc", "../../../../../../../../../../etc", &"0".repeat(TOKEN + 1)].iter().enumerate()
        {
            let path = directory.path().join(bad.to_string());
            create(&path, text.as_bytes()).unwrap();
            assert!(matches!(token(&path), Err(PrivateFileError::NotAToken(_))), "{text}");
        }
        mode(&path, 0o644);
        assert!(matches!(token(&path), Err(PrivateFileError::Open { .. })));
    }

    #[test]
    fn directories_devices_and_large_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read(directory.path()), Err(PrivateFileError::NotAFile(_))));
        let path = directory.path().join("large");
        create(&path, &vec![b'0'; MAX_FILE as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(PrivateFileError::TooLarge(_))));
        assert!(matches!(read(&directory.path().join("none")), Err(PrivateFileError::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_can_change_or_own_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/state");
        inspect_directory(&path).unwrap();
        assert!(!path.exists(), "a look makes nothing");
        create_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for (bits, is_good) in
            [(0o700, true), (0o755, true), (0o775, false), (0o770, false), (0o777, false), (0o1777, false)]
        {
            mode(&path, bits);
            assert_eq!(create_directory(&path).is_ok(), is_good, "{bits:o}");
            assert_eq!(inspect_directory(&path).is_ok(), is_good, "{bits:o}");
        }
        mode(&path, 0o700);
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            let error = create_directory(&path).unwrap_err();
            assert!(matches!(error, PrivateFileError::ForeignDirectory { owner: 12345, .. }), "{error}");
        }
        let file = home.path().join("file");
        create(&file, b"").unwrap();
        assert!(inspect_directory(&file).is_err() && inspect_directory(&file.join("below")).is_err());
    }

    #[test]
    fn a_file_of_ours_is_taken_from_others_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        own(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::write(&path, b"kept").unwrap();
        mode(&path, 0o644);
        own(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        for target in [path.clone(), directory.path().join("nothing")] {
            let link = directory.path().join("link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(matches!(own(&link), Err(PrivateFileError::Link(_))));
            fs::remove_file(link).unwrap();
        }
        assert!(!directory.path().join("nothing").exists());
        assert!(matches!(own(directory.path()), Err(PrivateFileError::NotAFile(_))));
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(matches!(own(&path), Err(PrivateFileError::Foreign { owner: 12345, .. })));
        }
    }

    #[test]
    fn other_writers_of_a_file_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.toml");
        assert!(check_writers(&path).unwrap().is_none());
        create(&path, b"").unwrap();
        for (bits, expected) in
            [(0o600, ""), (0o644, ""), (0o664, "chmod go-w"), (0o646, "no"), (0o666, "no")]
        {
            mode(&path, bits);
            match check_writers(&path) {
                Ok(warning) => assert_eq!(warning.is_some(), !expected.is_empty(), "{bits:o} {warning:?}"),
                Err(error) => assert!(expected == "no" && error.to_string().contains("chmod o-w"), "{error}"),
            }
        }
        mode(&path, 0o644);
        mode(directory.path(), 0o777);
        assert!(matches!(check_writers(&path), Err(PrivateFileError::Directory(_))));
        mode(directory.path(), 0o700);
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(check_writers(&path).unwrap().unwrap().contains("12345"));
        }
    }
}
