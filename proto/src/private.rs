//! Private: whether a directory is the user's alone. The one rule for sockets, stores and what is loaded from a
//! directory, so that daemon, client and command never disagree about one. Knows no socket and no store.
//!
//! Who could write there could put something of theirs in the place of ours: nothing is trusted then, whoever asks. Who
//! could only read there is kept out as well where zcache has the choice; a file system without permissions leaves none.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

/// What other users may do in a directory that is still taken for private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    Nothing,
    /// Look, and change nothing.
    Look,
}

impl Others {
    /// The permission bits that say more.
    fn forbidden(self) -> u32 {
        match self {
            Self::Nothing => 0o077,
            Self::Look => 0o022,
        }
    }
}

/// Why a directory is not the user's alone.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// It is no directory, or another user's.
    #[error("{} does not belong to you alone; nothing there is trusted", .0.display())]
    Foreign(PathBuf),
    /// Its permissions let others in.
    #[error(
        "{0} must be a directory owned by you with mode 0700, and has {mode:04o}; `chmod 700 {0}` makes it so",
        dir.display()
    )]
    Open {
        /// The directory.
        dir: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system does not let it be looked at, or made.
    #[error("{}: {error}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// Whether `dir` is a directory of the user's in which others can do no more than they `may`.
pub fn check(dir: &Path, may: Others) -> Result<(), NotPrivate> {
    let meta = fs::symlink_metadata(dir).map_err(|error| NotPrivate::Io { dir: dir.to_owned(), error })?;
    match meta.mode() & 0o7777 {
        _ if !meta.is_dir() || meta.uid() != geteuid().as_raw() => Err(NotPrivate::Foreign(dir.to_owned())),
        mode if mode & may.forbidden() != 0 => Err(NotPrivate::Open { dir: dir.to_owned(), mode }),
        _ => Ok(()),
    }
}

/// Whether `dir` is private, or could be made so.
pub fn check_place(dir: &Path) -> Result<(), NotPrivate> {
    match nearest(dir) {
        Some((above, owner, others_write)) if above != dir => {
            // Root may do so anywhere, and in a directory that another user keeps to himself (`sudo` with his
            // environment) would be in his way ever after.
            if geteuid().is_root() && owner != 0 && !others_write {
                return Err(NotPrivate::Foreign(above.to_owned()));
            }
            let may = access(above, AccessFlags::W_OK | AccessFlags::X_OK);
            may.map_err(|errno| NotPrivate::Io { dir: dir.to_owned(), error: errno.into() })
        }
        _ => check(dir, Others::Nothing),
    }
}

/// Makes `dir` where it is not there, and sees to it that it is private.
pub fn make(dir: &Path) -> Result<(), NotPrivate> {
    check_place(dir)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| NotPrivate::Io { dir: dir.to_owned(), error })?;
    // Another user may have been faster.
    check(dir, Others::Nothing)
}

/// The user who called root by `sudo`, where `dir` would be made among what is his: it would be root's, and in his way.
/// `variable` tells a variable's value. (A container's root is in nobody's way, whoever owns its home.)
pub fn sudo_intrudes(dir: &Path, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<u32> {
    let caller = variable("SUDO_UID")?.to_str()?.parse().ok().filter(|caller| *caller != 0)?;
    let (above, owner, _) = nearest(dir)?;
    (geteuid().is_root() && above != dir && owner == caller).then_some(caller)
}

/// The nearest of `dir` and the directories above it that is there, its owner, and whether everybody may write to it.
fn nearest(dir: &Path) -> Option<(&Path, u32, bool)> {
    let of = |meta: fs::Metadata| (meta.uid(), meta.mode() & 0o002 != 0);
    dir.ancestors().find_map(|above| fs::metadata(above).ok().map(of).map(|(uid, open)| (above, uid, open)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("zcache-private-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn others_are_kept_out() {
        let dir = dir("modes");
        for (mode, looked_at, changed) in [
            (0o700, false, false),
            (0o500, false, false),
            (0o750, true, false),
            (0o710, true, false),
            (0o701, true, false),
            (0o755, true, false),
            (0o770, true, true),
            (0o702, true, true),
            (0o1777, true, true),
        ] {
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            let refused = [Others::Nothing, Others::Look].map(|may| check(&dir, may).is_err());
            assert_eq!(refused, [looked_at, changed], "{mode:o}");
        }
        let said = check(&dir, Others::Nothing).unwrap_err().to_string();
        assert!(said.contains(&format!("chmod 700 {}", dir.display())) && said.contains("1777"), "{said}");
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn only_a_directory_is_one() {
        let dir = dir("kinds");
        let at = |name: &str| dir.join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("real")).unwrap();
        symlink("real", at("link")).unwrap();
        for name in ["file", "link"] {
            assert!(matches!(check(&at(name), Others::Look), Err(NotPrivate::Foreign(_))), "{name}");
            assert!(make(&at(name)).is_err(), "{name}");
        }
        assert!(matches!(check(&at("none"), Others::Look), Err(NotPrivate::Io { .. })));
        assert!(make(&at("file/deep")).is_err());
        assert!(check_place(&at("deep/er")).is_ok() && !at("deep").exists());
        make(&at("deep/er")).unwrap();
        check(&at("deep/er"), Others::Nothing).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
