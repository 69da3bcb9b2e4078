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

/// The command of these words, its compilers led through the cache.
pub fn lead(client: &Path, words: &[OsString]) -> Command {
    let [name, arguments @ ..] = words else { return Command::new("") };
    let program = program_of(name);
    let mut command = match guide_for(client, program.as_deref()) {
        Ok(guide) => guided(client, &guide, name, program.as_deref()),
        Err(why) => {
            text::note(&format!("compilers are found by links in PATH, since {why}"));
            let mut command = Command::new(name);
            command.envs(linked(client));
            command
        }
    };
    if CCACHE_DECIDED.iter().all(|name| variable(name).is_none()) {
        command.env(CCACHE_OFF.0, CCACHE_OFF.1);
    }
    note_distributor();
    command.args(arguments);
    command
}

/// The guide, or why there is none for this program.
fn guide_for(client: &Path, program: Option<&Path>) -> Result<Guide, String> {
    if let Some(program) = program.filter(|program| Driver::of(name_of(program)).is_none() && !enters(program)) {
        return Err(format!("nothing can be loaded into {} (it is static, or another machine's)", program.display()));
    }
    let endpoint = endpoint();
    let library = GUIDE.install(&endpoint).map_err(|error| format!("the guide cannot be put anywhere: {error}"))?;
    Guide::new(client, &endpoint, &library).ok_or_else(|| "a path of zcache's holds a line's end".to_owned())
}

/// What a guided program would start for this command, and what it would give to it.
fn guided(client: &Path, guide: &Guide, name: &OsString, program: Option<&Path>) -> Command {
    let mut command = Command::new(name);
    let Some(program) = program else { return command };
    let is_alone = if is_compiler(program, client) {
        command = Command::new(client);
        command.arg0(NAME).arg(IN_PLACE_OF).arg(program).arg(name);
        true
    } else {
        let real = fs::canonicalize(program).unwrap_or_default();
        identity(&real) == identity(client) || real.parent() == client.parent() && name_of(&real).starts_with(b"zcache")
    };
    // zcache's own programs hand it on by themselves.
    let variables = guide.variables().into_iter().filter(|(name, _)| !is_alone || *name == guide::VARIABLE);
    command.envs(variables);
    command
}

/// Whether the command is itself a compiler, and not what another cache or rustup stands for.
fn is_compiler(program: &Path, client: &Path) -> bool {
    let real = fs::canonicalize(program).unwrap_or_default();
    let stands_before = driver::is_cache(name_of(&real)) || name_of(&real) == b"rustup";
    let zig = name_of(program).starts_with(b"zig");
    Driver::of(name_of(program)).is_some() && !zig && !stands_before && identity(&real) != identity(client)
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
