//! The copy of the chain's head, in a file beside the journal: with it, rows that were removed from the end are missed even
//! if the head in the journal was changed too.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ethers_core::utils::hex;

use super::seal::RowSeal;
use crate::protocol::Address;

/// The name of the file, without the payer.
pub(in crate::payments) const HEAD_FILE: &str = "ledger-head";

/// The file for a payer; `base` is its name without the payer.
pub(in crate::payments) fn head_file(base: &Path, payer: Address) -> PathBuf {
    base.with_extension(payer.to_string().to_lowercase())
}

/// Replaces the copy at once, so that a reader sees the old one or the new one.
pub(super) fn copy_head(path: &Path, seq: u64, RowSeal(seal): RowSeal) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{seq} {}", hex::encode(seal))?;
    fs::rename(new, path)
}

/// The copied head; `None` if there is none, or it is unreadable.
pub(in crate::payments) fn read_head(path: &Path) -> Option<(u64, RowSeal)> {
    let text = fs::read_to_string(path).ok()?;
    let (seq, seal) = text.trim_end().split_once(' ')?;
    let mut code = [0; 32];
    hex::decode_to_slice(seal, &mut code).ok()?;
    Some((seq.parse().ok()?, RowSeal(code)))
}
