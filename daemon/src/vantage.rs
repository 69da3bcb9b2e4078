//! Vantage: where a caller stands, as the daemon sees it: whether both mean the same files by the same paths, and what the
//! caller's relative names and argument files come to. Knows no compiler.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use crate::compilers::Bypass;
use crate::compilers::argfile::BYTES_MAX;
use crate::inputs::path;
use crate::invocation::Invocation;
use crate::process::{self, Root};

/// Whether the process finds the same files as the daemon by the same paths.
pub fn sees_as_we_do(pid: u32, cwd: &[u8]) -> Result<(), Bypass> {
    static OWN: OnceLock<Option<Root>> = OnceLock::new();
    let own = OWN.get_or_init(|| process::root(std::process::id()));
    match own.is_some() && process::root(pid) == *own {
        false => Err(Bypass::OtherNamespace),
        true if !process::is_in(pid, path(cwd)) => Err(Bypass::DirectoryGone),
        true => Ok(()),
    }
}

/// What `PWD` calls the current directory. One that names another directory, or none, is passed over by compilers.
pub fn name_of_cwd(invocation: &Invocation) -> Vec<u8> {
    let cwd = &invocation.cwd;
    let named = invocation.env.get(b"PWD").filter(|pwd| pwd.starts_with(b"/") && pwd != cwd);
    let identity = |at: &[u8]| fs::metadata(path(at)).map(|meta| (meta.dev(), meta.ino())).ok();
    let named = named.filter(|pwd| identity(pwd).is_some_and(|there| Some(there) == identity(cwd)));
    named.unwrap_or(cwd).to_vec()
}

/// A file's path, which may be relative to `cwd`.
pub fn absolute(cwd: &[u8], file: &[u8]) -> Vec<u8> {
    if file.starts_with(b"/") { file.to_vec() } else { [cwd, b"/", file].concat() }
}

/// The text of an argument file, as far as one is read.
pub fn argument_file(cwd: &[u8], file: &[u8]) -> Option<Vec<u8>> {
    let at = absolute(cwd, file);
    fs::metadata(path(&at)).ok().filter(fs::Metadata::is_file)?;
    // One byte more than is taken in, whatever the file has grown to meanwhile.
    let mut text = Vec::new();
    fs::File::open(path(&at)).ok()?.take(BYTES_MAX as u64 + 1).read_to_end(&mut text).ok()?;
    Some(text)
}
