//! Way: how a command's compilers are led to zcache. By a guide that is preloaded into the build's programs and leaves
//! what the build sees as it is; where no guide can enter the command, by links and variables. Starts nothing.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use zcache_client::command::NAME;
use zcache_client::guide::{self, Guide, IN_PLACE_OF, enters};
use zcache_client::observe::GUIDE;
use zcache_daemon::server::variable;
use zcache_proto::driver::{self, Driver};

use crate::daemon::endpoint;
use crate::links::{identity, program_of};
use crate::surroundings::{Surroundings, WRAPPER, note_replaced};
use crate::text;

/// Turns ccache off, which alone reads it. meson and many a CMakeLists.txt take ccache unasked where it is installed;
/// behind it every compile that it has not seen would be stored twice.
const CCACHE_OFF: (&str, &str) = ("CCACHE_DISABLE", "1");
/// Who sets one of these has decided about ccache.
const CCACHE_DECIDED: [&str; 2] = [CCACHE_OFF.0, "CCACHE_NODISABLE"];
/// Distributors, whose links stand for compilers.
const DISTRIBUTORS: [&str; 2] = ["distcc", "icecc"];

/// The command of these words as it is, also where a guide led here.
pub fn bare(words: &[OsString]) -> Command {
    let [name, arguments @ ..] = words else { return Command::new("") };
    let mut command = Command::new(name);
    command.args(arguments).env_remove(guide::VARIABLE);
    command
}

/// The command of these words, its compilers led through the cache.
pub fn lead(client: &Path, words: &[OsString]) -> Command {
    // What is not there ends in the same error either way.
    let Some(program) = words.first().and_then(|name| program_of(name)) else { return bare(words) };
    let mut command = bare(words);
    match guide_for(client, &program, words) {
        Ok(guide) if is_compiler(&program, client, words) => {
            command = Command::new(client);
            command.arg0(NAME).arg(IN_PLACE_OF).arg(&program).args(words);
            command.envs(guide.for_client());
        }
        Ok(guide) if identity(&program) == identity(client) => drop(command.envs(guide.for_client())),
        Ok(guide) => drop(command.envs(guide.variables())),
        Err(why) => {
            text::note(&format!("compilers are found by links in PATH, since {why}"));
            command.envs(linked(client));
        }
    }
    if CCACHE_DECIDED.iter().all(|name| variable(name).is_none()) {
        command.env(CCACHE_OFF.0, CCACHE_OFF.1);
    }
    note_distributor();
    command
}

/// The guide, or why there is none for this program.
fn guide_for(client: &Path, program: &Path, words: &[OsString]) -> Result<Guide, String> {
    if !is_compiler(program, client, words) && !enters(program) {
        return Err(format!("nothing can be loaded into {} (it is static, or another machine's)", program.display()));
    }
    let endpoint = endpoint();
    let library = GUIDE.install(&endpoint).map_err(|error| format!("the guide cannot be put anywhere: {error}"))?;
    Guide::new(client, &endpoint, &library).ok_or_else(|| "a path of zcache's holds a line's end".to_owned())
}

/// Whether the command is itself a compiler, and not what another cache or rustup stands for. The guide decides so for
/// what it sees started; this start it does not see.
fn is_compiler(program: &Path, client: &Path, words: &[OsString]) -> bool {
    let real = fs::canonicalize(program).unwrap_or_default();
    let stands_before = driver::is_cache(name_of(&real)) || name_of(&real) == b"rustup";
    let is_other_zig =
        name_of(program).starts_with(b"zig") && !words.get(1).is_some_and(|verb| verb == "cc" || verb == "c++");
    Driver::of(name_of(program)).is_some() && !is_other_zig && !stands_before && identity(&real) != identity(client)
}

fn name_of(program: &Path) -> &[u8] {
    driver::file_name(program.as_os_str().as_bytes())
}

/// The variables that do without a guide. Without the links rustc alone can be led through zcache.
fn linked(client: &Path) -> Vec<(&'static str, OsString)> {
    let variables = Surroundings::prepare(client).map(|around| around.variables()).unwrap_or_else(|failure| {
        text::note(&format!("only rustc goes through the cache: {}", text::one_line(&failure.to_string())));
        vec![(WRAPPER, client.into())]
    });
    note_replaced(&variables, client);
    variables
}

/// Says that compilers in PATH are a distributor's: it runs as it would without zcache.
fn note_distributor() {
    let links =
        ["cc", "c++", "gcc", "g++", "clang", "clang++"].into_iter().filter_map(|name| program_of(name.as_ref()));
    let distributor = |link: &PathBuf| {
        let real = fs::canonicalize(link).ok()?;
        DISTRIBUTORS.into_iter().find(|other| name_of(&real) == other.as_bytes())
    };
    if let Some((link, other)) = links.into_iter().find_map(|link| distributor(&link).map(|other| (link, other))) {
        text::note(&format!(
            "{} is {other}'s: what it compiles here goes through the cache, what it sends elsewhere does not",
            link.display()
        ));
    }
}

/// Variables that name what stands before compilers, and those that name compilers.
const WRAPPERS: [&str; 4] =
    ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"];
const COMPILERS: [&str; 3] = ["CC", "CXX", "RUSTC"];

/// Why no compile may have come through.
pub fn unseen() -> String {
    let set = |names: &[&'static str]| -> Vec<(&'static str, OsString, Vec<u8>)> {
        let values = names.iter().filter_map(|&name| Some((name, variable(name).filter(|value| !value.is_empty())?)));
        let called = |value: &OsString| {
            let word = value.as_bytes().split(|&byte| byte == b' ').next().unwrap_or_default();
            driver::file_name(word).to_vec()
        };
        values.map(|(name, value)| (name, value.clone(), called(&value))).collect()
    };
    let wrapper = set(&[&WRAPPERS[..], &COMPILERS].concat()).into_iter().find(|(.., called)| driver::is_cache(called));
    let compiler = set(&COMPILERS).into_iter().find(|(.., called)| Driver::of(called).is_none());
    let why = match (wrapper, compiler) {
        (Some((name, value, _)), _) => format!("{name}={} stands before the compilers", value.display()),
        (_, Some((name, value, _))) => {
            format!("{name}={} is no compiler that zcache knows by its name", value.display())
        }
        _ => "everything is up to date, or a static program starts the compilers, or their names are none that zcache \
              knows, or another cache stands before them"
            .to_owned(),
    };
    format!("no compile came through the cache: {why}")
}
