//! Surroundings: the variables that lead every compiler of a build through zcache where no guide does, and what each is
//! for. None of them names a compiler: a CC or CXX would do so for every target of a cross build. Knows not who sets them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use zcache_client::command::NAME;
use zcache_daemon::server::variable;

use crate::daemon::program;
use crate::failure::Failure;
use crate::links::{DEFAULT_PATH, Links, identity, is_ours, program_of};
use crate::text;

/// Where cargo looks for what to put in front of rustc.
pub const WRAPPER: &str = "RUSTC_WRAPPER";
const KNOWN: &str = "CC_KNOWN_WRAPPER_CUSTOM";

/// One variable.
struct Variable {
    name: &'static str,
    value: fn(&Surroundings) -> OsString,
    purpose: &'static str,
}

const VARIABLES: [Variable; 7] = [
    Variable {
        name: "PATH",
        value: |around| around.path.clone(),
        purpose: "first a directory of links to zcache-client, named like the C compilers and zig that PATH has",
    },
    Variable {
        name: WRAPPER,
        value: |around| around.links.wrapper().into(),
        purpose: "put in front of rustc by cargo, and of C compilers by the cc crate, which knows the name sccache",
    },
    Variable { name: "CMAKE_C_COMPILER_LAUNCHER", value: launcher, purpose: "put in front of C compilers by CMake" },
    Variable { name: "CMAKE_CXX_COMPILER_LAUNCHER", value: launcher, purpose: "the same for C++" },
    Variable { name: "CMAKE_OBJC_COMPILER_LAUNCHER", value: launcher, purpose: "the same for Objective-C" },
    Variable { name: "CMAKE_OBJCXX_COMPILER_LAUNCHER", value: launcher, purpose: "the same for Objective-C++" },
    Variable {
        name: KNOWN,
        // There is room for one name, and whoever has taken it needs it.
        value: |_| variable(KNOWN).filter(|name| !name.is_empty()).unwrap_or_else(|| NAME.into()),
        purpose: "lets the cc crate understand CC=\"zcache-client gcc\"",
    },
];

/// What the values are made of.
#[derive(Debug)]
pub struct Surroundings {
    client: PathBuf,
    links: Links,
    path: OsString,
}

impl Surroundings {
    /// For this environment.
    pub fn prepare(client: &Path) -> Result<Self, Failure> {
        let path = variable("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        // Links of an earlier time give way to those of today, wherever they stand.
        let others: Vec<PathBuf> = std::env::split_paths(&path).filter(|entry| !is_ours(entry)).collect();
        let links = Links::prepare(client, &others)?;
        let path = std::env::join_paths([links.bin()].into_iter().chain(others))
            .map_err(|_| Failure::new(format!("PATH cannot hold {}: there is a colon in it", links.bin().display())))?;
        Ok(Self { client: client.to_owned(), links, path })
    }

    /// Names and values.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        VARIABLES.iter().map(|variable| (variable.name, (variable.value)(self))).collect()
    }
}

fn launcher(around: &Surroundings) -> OsString {
    around.client.clone().into()
}

/// The client's file.
pub fn client() -> Result<PathBuf, Failure> {
    let client = program(NAME).ok_or_else(|| Failure::new(format!("{NAME} is neither beside zcache nor in PATH")))?;
    fs::canonicalize(&client).map_err(|error| Failure::new(format!("{}: {error}", client.display())))
}

/// Says which wrappers of someone else `variables` do away with.
pub fn note_replaced(variables: &[(&'static str, OsString)], client: &Path) {
    for (name, _) in variables.iter().filter(|(name, _)| *name == WRAPPER || name.ends_with("_LAUNCHER")) {
        if let Some(other) = variable(name).filter(|other| is_foreign(other, client)) {
            text::note(&format!("{} takes the place of {name}={}", client.display(), other.display()));
        }
    }
}

/// Whether a wrapper is one that the user would miss: any file but the client, whatever its name.
fn is_foreign(wrapper: &OsStr, client: &Path) -> bool {
    let found = match wrapper.as_encoded_bytes().contains(&b'/') {
        true => Some(PathBuf::from(wrapper)),
        false => program_of(wrapper),
    };
    let is_client = found.is_some_and(|file| identity(&file).is_some_and(|file| Some(file) == identity(client)));
    !wrapper.is_empty() && !is_client
}

/// What the variables are for, for people.
pub fn help() -> String {
    let lines = VARIABLES.map(|Variable { name, purpose, .. }| format!("    {name:<32}{purpose}\n"));
    format!(
        "The variables:\n\n{}\nFor a POSIX shell: eval \"$(zcache env)\"\n\n\
         Builds see these, and may write them down: CMake its launchers, configure the paths of our links. cargo builds\n\
         again what declares PATH or RUSTC_WRAPPER. `zcache run` needs none of them.",
        lines.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrapper_of_someone_else_is_worth_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("client"), "").unwrap();
        fs::write(file(NAME), "").unwrap();
        std::os::unix::fs::symlink(file("client"), file("sccache")).unwrap();
        for (wrapper, foreign) in [
            ("".into(), false),
            (file("client"), false),
            (file("sccache"), false),
            (file(NAME), true),
            (file("none"), true),
            ("/none/ccache;--verbose".into(), true),
            ("no-such-wrapper".into(), true),
        ] {
            assert_eq!(is_foreign(wrapper.as_os_str(), &file("client")), foreign, "{wrapper:?}");
        }
        assert!(is_foreign(OsStr::new("no-such-wrapper"), Path::new("/no/such")));
    }

    #[test]
    fn no_variable_names_a_compiler() {
        for name in ["CC", "CXX", "CMAKE_C_COMPILER", "RUSTC"] {
            assert!(VARIABLES.iter().all(|variable| variable.name != name), "{name}");
        }
    }
}
