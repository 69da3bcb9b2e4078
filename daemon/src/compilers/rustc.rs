//! rustc, clippy-driver and chains of wrappers around them: command line, habits and outputs. The only file that
//! knows rustc and what cargo makes of it. Pure.

use std::collections::BTreeSet;

use super::toolchain::{file_name, is_below, join, parent};
use super::{Bypass, EnvRule, Family, OutputRule};
use crate::binding::Exposed;
use crate::invocation::Invocation;
use crate::paths::without_parents;
use crate::roles::{Role, Root, Roots};
use crate::template::Template;

/// One rustc command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rustc {
    out_dir: Option<Vec<u8>>,
    output: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    crate_name: Option<Vec<u8>>,
    incremental: Option<Vec<u8>>,
    dependency_dirs: Vec<Vec<u8>>,
    probe: bool,
    /// It writes a file that lists, besides its inputs, the variables that its sources ask for.
    lists: bool,
    /// It prints what is `-Z` for people who look at rustc itself.
    profiles: bool,
    exposed: Exposed,
    /// Arguments that change what is printed.
    display: Vec<Vec<u8>>,
    /// What it tells in JSON besides diagnostics; rustc counts that into the hash of a crate.
    tells: BTreeSet<Vec<u8>>,
}

/// Options that change how a diagnostic looks, and nothing where there is none.
const DISPLAY: &[&[u8]] = &[b"--color", b"--diagnostic-width", b"--error-format", b"--json"];

/// What a notice of an output begins with, which no such option changes.
const NOTICES: &[&[u8]] = &[b"{\"$message_type\":\"artifact\",", b"{\"artifact\":"];

/// Reads a command. Its shape decides, not its program's name: a stand-in script is called as rustc is.
pub fn parse(invocation: &Invocation, argv: &[Vec<u8>]) -> Result<(Rustc, Roots, String), Bypass> {
    if invocation.env.get(b"__CARGO_FIX_PLZ").is_some() {
        return Err(Bypass::CargoFix);
    }
    let exposed = Exposed { all: argv[1..].to_vec(), ..Exposed::default() };
    let mut rustc = Rustc { exposed, ..Rustc::default() };
    let mut named = is_rustc(&argv[0]);
    let mut arguments = argv[1..].iter().peekable();
    // A workspace wrapper gets the path of rustc as its first argument.
    if let Some(inner) = arguments.next_if(|argument| is_rustc(argument)) {
        named = named || !inner.is_empty();
    }
    while let Some(argument) = arguments.next() {
        rustc.argument(argument, &mut arguments, &invocation.cwd);
    }
    if rustc.profiles {
        return Err(Bypass::Profiling);
    }
    if !(named || rustc.crate_name.is_some() || rustc.probe) || arguments_missing(argv) {
        return Err(Bypass::UnknownCompiler);
    }
    let roots = rustc.roots(invocation);
    let summary = rustc.summary(argv);
    Ok((rustc, roots, summary))
}

/// Whether `path` is rustc's or a stand-in's that clippy brings.
pub fn is_rustc(path: &[u8]) -> bool {
    matches!(file_name(path), b"rustc" | b"clippy-driver")
}

fn arguments_missing(argv: &[Vec<u8>]) -> bool {
    argv.len() < 2
}

impl Rustc {
    /// Takes in one argument, and its value where that is the next one.
    fn argument<'a>(
        &mut self,
        argument: &'a [u8],
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'a Vec<u8>>>,
        cwd: &[u8],
    ) {
        const VALUED: &[&[u8]] = &[
            b"--out-dir",
            b"--target",
            b"--crate-name",
            b"-C",
            b"--codegen",
            b"-L",
            b"-o",
            b"--error-format",
            b"--color",
            b"--diagnostic-width",
            b"--print",
            b"--emit",
            b"--extern",
            b"--cfg",
            b"--check-cfg",
            b"--edition",
            b"--crate-type",
            b"-l",
            b"-Z",
            b"--cap-lints",
            b"-A",
            b"-W",
            b"-D",
            b"-F",
            b"--json",
            b"--remap-path-prefix",
            b"--sysroot",
            b"--explain",
        ];
        let (name, value) = if VALUED.contains(&argument) {
            (argument, rest.next().map_or(b"".as_slice(), Vec::as_slice))
        } else if let Some(at) = argument.iter().position(|&b| b == b'=').filter(|_| argument.starts_with(b"--")) {
            (&argument[..at], &argument[at + 1..])
        } else if argument.len() > 2 && matches!(&argument[..2], b"-C" | b"-L" | b"-o" | b"-Z") {
            argument.split_at(2)
        } else {
            (argument, b"".as_slice())
        };
        if DISPLAY.contains(&name) {
            self.display.extend([name.to_vec(), value.to_vec()]);
        }
        self.expose(name, value);
        self.option(name, value, cwd);
    }

    /// Notes an argument whose text may reach an output. That it reaches none is proven for those that say where things
    /// are or go, and for those that only messages follow.
    fn expose(&mut self, name: &[u8], value: &[u8]) {
        const NOWHERE: &[&[u8]] = &[b"--out-dir", b"-L", b"-o", b"--extern", b"--emit", b"--sysroot"];
        let is_state = matches!(name, b"-C" | b"--codegen") && value.starts_with(b"incremental=");
        match name {
            _ if is_state || NOWHERE.contains(&name) || DISPLAY.contains(&name) => {}
            b"--remap-path-prefix" => self.exposed.paths.push(value.to_vec()),
            b"-C" | b"--codegen" if value.starts_with(b"linker=") => self.exposed.paths.push(value.to_vec()),
            // A source named from the root among them: `file!()` and a caller's location are constants.
            _ => self.exposed.values.push([name, b"=", value].concat()),
        }
    }

    fn option(&mut self, name: &[u8], value: &[u8], cwd: &[u8]) {
        match name {
            b"--out-dir" => self.out_dir = Some(join(cwd, value)),
            b"-o" => self.output = Some(join(cwd, value)),
            b"--target" => self.target = Some(value.to_vec()),
            b"--crate-name" => self.crate_name = Some(value.to_vec()),
            b"--emit" => {
                let is_list =
                    |kind: &[u8]| kind == b"dep-info" || kind.starts_with(b"dep-info=") && kind != b"dep-info=-";
                self.lists |= value.split(|&b| b == b',').any(is_list);
            }
            b"-vV" | b"-V" | b"--version" | b"--print" => self.probe = true,
            b"-L" => {
                if let Some(dir) = value.strip_prefix(b"dependency=") {
                    self.dependency_dirs.push(join(cwd, dir));
                }
            }
            b"-C" | b"--codegen" => {
                if let Some(dir) = value.strip_prefix(b"incremental=") {
                    self.incremental = Some(join(cwd, dir));
                }
            }
            b"--json" => {
                let kinds = value.split(|&b| b == b',').filter(|kind| !kind.starts_with(b"diagnostic-"));
                self.tells.extend(kinds.map(<[u8]>::to_vec));
            }
            b"-Z" => {
                let name = value.split(|&b| b == b'=').next().unwrap_or_default();
                const PROFILES: [&[u8]; 3] = [b"time-", b"self-profile", b"print-"];
                self.profiles |= PROFILES.iter().any(|kind| name.starts_with(kind)) || name.ends_with(b"-stats");
            }
            _ => {}
        }
    }

    fn roots(&self, invocation: &Invocation) -> Roots {
        let target = match (&self.out_dir, &self.output) {
            (Some(dir), _) => Some(target_root(dir, self.target.as_deref())),
            (None, Some(output)) => Some(parent(output).to_vec()),
            (None, None) => None,
        };
        let target = target.map(|dir| Root::named(Role::Target, without_parents(&dir), dir));
        let workspace = Root::named(Role::Workspace, invocation.cwd.clone(), invocation.pwd.clone());
        Roots::new([workspace].into_iter().chain(target))
    }

    fn summary(&self, argv: &[Vec<u8>]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tool = text(file_name(&argv[0]));
        match &self.crate_name {
            Some(name) => format!("{tool} {}", text(name)),
            None => argv[1..].iter().take(3).fold(tool, |line, argument| format!("{line} {}", text(argument))),
        }
    }
}

impl Family for Rustc {
    fn name(&self) -> &'static str {
        "rustc"
    }

    fn key_arguments(&self, argv: &[Vec<u8>], roots: &Roots) -> Vec<Template> {
        let mut key = Vec::with_capacity(argv.len() + 1);
        let mut arguments = argv.iter().map(Vec::as_slice);
        while let Some(argument) = arguments.next() {
            let name = argument.split(|&b| b == b'=').next().unwrap_or_default();
            if DISPLAY.contains(&name) {
                if name == argument {
                    arguments.next();
                }
                continue;
            }
            // Of an incremental directory only that it is there.
            let states = [b"incremental=".as_slice(), b"-Cincremental=", b"--codegen=incremental="];
            let state = states.into_iter().find(|prefix| argument.starts_with(prefix));
            key.push(Template::of(state.unwrap_or(argument), roots));
        }
        key.extend(self.tells.iter().map(|kind| Template::of(kind, roots)));
        key
    }

    fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    fn display(&self) -> &[Vec<u8>] {
        &self.display
    }

    fn prints(&self, stdout: &[u8], stderr: &[u8]) -> bool {
        let is_notice = |line: &[u8]| line.is_empty() || NOTICES.iter().any(|notice| line.starts_with(notice));
        // What is asked about the compiler itself is answered in plain text.
        !(stdout.is_empty() || self.probe) || !stderr.split(|&b| b == b'\n').all(is_notice)
    }

    fn is_state(&self, path: &[u8]) -> bool {
        self.incremental.as_ref().is_some_and(|dir| is_below(path, dir))
    }

    fn lists_for_candidates(&self, path: &[u8]) -> bool {
        let in_sysroot = contains(path, b"/lib/rustlib/");
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        in_sysroot || self.dependency_dirs.iter().any(|dir| dir == trimmed) || self.out_dir.as_deref() == Some(trimmed)
    }

    fn out_dir(&self) -> Option<&[u8]> {
        self.out_dir.as_deref().or(self.output.as_deref().map(parent))
    }

    fn env_rule(&self, name: &[u8]) -> EnvRule {
        match name {
            // The jobserver, where temporary files go, and PATH, whose effect is seen as resolved programs. Where a source
            // asks for one with `env!`, nothing but the list tells.
            b"CARGO_MAKEFLAGS" | b"MAKEFLAGS" | b"MFLAGS" | b"RUST_RECURSION_COUNT" => EnvRule::Ignore,
            b"TMPDIR" | b"TMP" | b"TEMP" | b"PATH" if self.lists => EnvRule::Ignore,
            // Whether messages are coloured.
            b"TERM" | b"COLORTERM" | b"CI" | b"NO_COLOR" | b"CLICOLOR" | b"CLICOLOR_FORCE"
                if self.lists || self.probe =>
            {
                EnvRule::Messages
            }
            // What succeeds has no backtrace.
            b"RUST_BACKTRACE" | b"RUST_LIB_BACKTRACE" if self.lists || self.probe => EnvRule::Ignore,
            // It names the workspace, or it is passed over: see `Invocation::pwd`.
            b"PWD" if self.lists => EnvRule::Ignore,
            b"OUT_DIR" => EnvRule::ByRole,
            _ => EnvRule::Exact,
        }
    }

    fn output_rule(&self, path: &[u8]) -> OutputRule {
        match file_name(path).rsplit(|&b| b == b'.').next() {
            Some(b"d") => OutputRule::Text,
            Some(b"rlib" | b"rmeta") => OutputRule::Replaced,
            _ => OutputRule::Plain,
        }
    }

    fn declared_inputs(&self, path: &[u8], text: &[u8]) -> Vec<Vec<u8>> {
        if self.output_rule(path) != OutputRule::Text {
            return Vec::new();
        }
        // rustc repeats every input as a rule without prerequisites: `src/lib.rs:`.
        let lines = text.split(|&b| b == b'\n').filter(|line| !line.starts_with(b"#"));
        lines.filter_map(|line| line.strip_suffix(b":")).map(unescape).collect()
    }

    fn declared_variables(&self, path: &[u8], text: &[u8]) -> Vec<Vec<u8>> {
        if self.output_rule(path) != OutputRule::Text {
            return Vec::new();
        }
        let asked = text.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"# env-dep:"));
        let names = asked.filter_map(|variable| variable.split(|&b| b == b'=').next());
        names.filter(|name| self.env_rule(name) != EnvRule::ByRole).map(<[u8]>::to_vec).collect()
    }
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if bytes.peek() == Some(&b' ') => plain.extend(bytes.next()),
            _ => plain.push(byte),
        }
    }
    plain
}

/// Where cargo's target directory begins, above `<profile>/deps`, `<triple>/<profile>/build/<package>` and the like.
fn target_root(out_dir: &[u8], triple: Option<&[u8]>) -> Vec<u8> {
    let profile = match file_name(out_dir) {
        b"deps" | b"examples" => parent(out_dir),
        _ if file_name(parent(out_dir)) == b"build" => parent(parent(out_dir)),
        _ => return out_dir.to_vec(),
    };
    let above = parent(profile);
    let stem = triple.map(|triple| file_name(triple.strip_suffix(b".json").unwrap_or(triple)));
    if stem.is_some_and(|stem| stem == file_name(above)) { parent(above).to_vec() } else { above.to_vec() }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

#[cfg(test)]
#[path = "rustc_tests.rs"]
mod tests;
