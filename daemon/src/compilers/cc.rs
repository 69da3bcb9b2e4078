//! Drivers of the C family: gcc, clang, zig's `cc`, and scripts that are called as they are. Command line, habits and
//! outputs; what zig needs besides is in `zig`. Pure.

use zcache_proto::driver;

use super::cc_words::{Reach, Word, words};
use super::depfile::prerequisites;
use super::toolchain::{self, file_name, is_below, join, parent};
use super::zig::{self, Zig};
use super::{Bypass, EnvRule, Family, OutputRule};
use crate::binding::Exposed;
use crate::invocation::Invocation;
use crate::paths::without_parents;
use crate::roles::{Role, Root, Roots};
use crate::template::Template;

/// One command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cc {
    name: &'static str,
    cwd: Vec<u8>,
    exposed: Exposed,
    sources: Vec<Vec<u8>>,
    output: Option<Vec<u8>>,
    depfile: Option<Vec<u8>>,
    language: Option<Vec<u8>>,
    /// It stops before linking.
    compiles: bool,
    /// It makes an object or assembly, rather than text for a reader.
    makes_code: bool,
    /// What its outputs' names end in where none is given.
    suffix: &'static [u8],
    precompiles: bool,
    modules: bool,
    /// It measures itself.
    profiles: bool,
    zig: Option<Zig>,
}

/// Whether `name` is that of a driver: `cc`, `x86_64-linux-gnu-g++-12`, `zig`.
pub fn is_driver(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[b"c++", b"c89", b"c99", b"cc", b"clang", b"clang++", b"g++", b"gcc", b"zig"];
    let name = toolchain::plain_name(name);
    NAMES.contains(&name)
}

/// Reads a command. A program by another name is one of these if it is called as they are.
pub fn parse(invocation: &Invocation, argv: &[Vec<u8>]) -> Result<(Cc, Roots, String), Bypass> {
    let called = file_name(&argv[0]);
    if driver::is_cache(called) {
        return Err(Bypass::OtherWrapper);
    }
    let mut arguments = &argv[1..];
    if toolchain::plain_name(called) == b"zig" {
        arguments = match arguments {
            [verb, rest @ ..] if verb == b"cc" || verb == b"c++" => rest,
            _ => return Err(Bypass::UnknownCompiler),
        };
    }
    let zig = zig::is_behind(called).then(|| Zig::of(arguments, invocation));
    let exposed = Exposed { all: arguments.to_vec(), mangles: true, ..Exposed::default() };
    let mut cc = Cc { name: family_name(called), cwd: invocation.cwd.clone(), exposed, zig, ..Cc::default() };
    cc.read(arguments);
    let stands_in = cc.compiles && cc.names_source();
    if !is_driver(called) && !stands_in {
        return Err(Bypass::UnknownCompiler);
    }
    cc.decide()?;
    let roots = cc.roots(&invocation.pwd);
    let summary = cc.summary(called, arguments);
    Ok((cc, roots, summary))
}

fn family_name(called: &[u8]) -> &'static str {
    match toolchain::plain_name(called) {
        b"gcc" | b"g++" => "gcc",
        b"clang" | b"clang++" => "clang",
        _ if zig::is_behind(called) => "zig",
        _ => "cc",
    }
}

impl Cc {
    fn read(&mut self, arguments: &[Vec<u8>]) {
        for word in words(arguments) {
            match word.reach() {
                Reach::Nowhere => {}
                Reach::Path => self.exposed.paths.push(word.text().to_vec()),
                Reach::Value => self.exposed.values.push(word.text().to_vec()),
            }
            match word {
                Word::File(file) => self.sources.push(file.to_vec()),
                Word::Option(name, value, _) => self.option(name, value),
                Word::Flag(flag) => self.flag(flag),
            }
        }
    }

    fn option(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"-o" => self.output = Some(value.to_vec()),
            b"-x" => self.language = Some(value.to_vec()),
            b"-MF" => self.depfile = Some(join(&self.cwd, value)),
            b"-Xclang" => self.precompiles |= value == b"-emit-pch",
            _ => {}
        }
    }

    fn flag(&mut self, flag: &[u8]) {
        match flag {
            b"-c" | b"--compile" => (self.compiles, self.makes_code, self.suffix) = (true, true, b".o"),
            b"-S" | b"--assemble" => (self.compiles, self.makes_code, self.suffix) = (true, true, b".s"),
            b"-E"
            | b"-M"
            | b"-MM"
            | b"--preprocess"
            | b"--dependencies"
            | b"--user-dependencies"
            | b"-fsyntax-only" => {
                self.compiles = true;
            }
            b"--analyze" => (self.compiles, self.suffix) = (true, b".plist"),
            b"-ftime-report" | b"-ftime-trace" | b"-Q" | b"-time" | b"-fmem-report" | b"-stats" => self.profiles = true,
            b"-fmodules" | b"-fmodules-ts" | b"-fcxx-modules" | b"--precompile" => self.modules = true,
            b"-emit-pch" => self.precompiles = true,
            _ => {}
        }
        let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| flag.starts_with(prefix));
        self.modules |= starts(&[b"-fmodule-", b"-fprebuilt-module"]);
        for prefix in [b"-Wp,-MD,".as_slice(), b"-Wp,-MMD,"] {
            if let Some(file) = flag.strip_prefix(prefix) {
                self.depfile = Some(join(&self.cwd, file));
            }
        }
    }

    fn names_source(&self) -> bool {
        const KINDS: &[&[u8]] = &[
            b"c", b"C", b"cc", b"cp", b"cpp", b"cxx", b"c++", b"i", b"ii", b"m", b"mi", b"mm", b"mii", b"s", b"S",
            b"sx",
        ];
        self.language.is_some() || self.sources.iter().any(|source| KINDS.contains(&extension(source)))
    }

    /// What zcache does not do, and what it would do wrong.
    fn decide(&mut self) -> Result<(), Bypass> {
        let language = self.language.as_deref().unwrap_or_default();
        let is_header = |source: &Vec<u8>| matches!(extension(source), b"h" | b"hh" | b"hpp" | b"hxx" | b"H" | b"tcc");
        let headers = language.ends_with(b"-header") || language.is_empty() && self.sources.iter().any(is_header);
        // Reading a header with -E or -M makes nothing of it.
        self.precompiles |= headers && (self.makes_code || !self.compiles);
        self.modules |= language.ends_with(b"-module") || self.sources.iter().any(|s| extension(s) == b"cppm");
        match self {
            Cc { precompiles: true, .. } => Err(Bypass::PrecompiledHeader),
            Cc { modules: true, .. } => Err(Bypass::Modules),
            Cc { profiles: true, .. } => Err(Bypass::Profiling),
            Cc { compiles: false, sources, .. } if !sources.is_empty() => Err(Bypass::Link),
            _ => Ok(()),
        }
    }

    /// The workspace holds the source and the directory that the compiler runs in.
    fn roots(&self, pwd: &[u8]) -> Roots {
        let source = self.sources.first().map(|source| join(&self.cwd, source));
        let common = source.and_then(|source| common(&self.cwd, parent(&source)));
        let workspace = Root::plain(Role::Workspace, common.unwrap_or_else(|| self.cwd.clone()));
        let cwd = Root::named(Role::Cwd, self.cwd.clone(), pwd.to_vec());
        let probe = self.sources.iter().find(|source| source.starts_with(b"/") && is_probe(file_name(source)));
        let probe = probe.map(|source| Root::plain(Role::Probe, source.clone()));
        let roots = Roots::new([workspace, cwd].into_iter().chain(probe));
        match self.given() {
            Some(given) => roots.with_output(&without_parents(&join(&self.cwd, &given)), &given),
            None => roots,
        }
    }

    /// The one output as the command spells it or implies it, without the last extension.
    fn given(&self) -> Option<Vec<u8>> {
        let [source] = self.sources.as_slice() else { return None };
        match &self.output {
            Some(output) if output == b"-" || output == b"/dev/null" => None,
            Some(output) => Some(stem(output).to_vec()),
            None if self.suffix.is_empty() => None,
            None => Some(stem(file_name(source)).to_vec()),
        }
    }

    fn summary(&self, called: &[u8], arguments: &[Vec<u8>]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tool = text(called);
        match self.sources.first() {
            Some(source) => format!("{tool} {}", text(file_name(source))),
            None => arguments.iter().take(3).fold(tool, |line, argument| format!("{line} {}", text(argument))),
        }
    }

    /// Sources as named.
    pub fn sources(&self) -> &[Vec<u8>] {
        &self.sources
    }

    /// Files that the command makes, where that has to be known without watching it.
    fn outputs(&self) -> Vec<Vec<u8>> {
        let named = self.output.as_deref().filter(|output| *output != b"-");
        let made: Vec<Vec<u8>> = match named {
            Some(output) => vec![output.to_vec()],
            None if self.output.is_some() => Vec::new(),
            None => self.sources.iter().map(|source| [stem(file_name(source)), self.suffix].concat()).collect(),
        };
        let depfiles = made.iter().map(|made| [stem(made), b".d"].concat());
        let all = made.iter().cloned().chain(depfiles).map(|made| join(&self.cwd, &made));
        all.chain(self.depfile.clone()).collect()
    }
}

/// The directory above both, where there is one worth a name.
fn common(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let b = without_parents(b);
    let mut at = a;
    while !is_below(&b, at) {
        at = parent(at);
    }
    (at.iter().filter(|&&byte| byte == b'/').count() > 1).then(|| at.to_vec())
}

/// The `cc` crate asks each compiler what it is with a source under a random name.
fn is_probe(name: &[u8]) -> bool {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && matches!(&name[digits..], b"detect_compiler_family.c" | b"detect_cpp_stdlib.cpp")
}

fn extension(path: &[u8]) -> &[u8] {
    let name = file_name(path);
    name.iter().rposition(|&b| b == b'.').map_or(b"", |at| &name[at + 1..])
}

/// A path without the last extension; a name that begins with its only dot has none.
fn stem(path: &[u8]) -> &[u8] {
    let name = file_name(path);
    match name.iter().rposition(|&b| b == b'.') {
        Some(at) if at > 0 => &path[..path.len() - name.len() + at],
        _ => path,
    }
}

impl Family for Cc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_arguments(&self, argv: &[Vec<u8>], roots: &Roots) -> Vec<Template> {
        // Which program it is stands in the action besides.
        let name = Template::of(file_name(&argv[0]), roots);
        std::iter::once(name).chain(words(&argv[1..]).flat_map(|word| word.key(roots))).collect()
    }

    fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    fn is_compiler(&self, program: &[u8]) -> bool {
        matches!(
            toolchain::plain_name(program),
            b"cc1" | b"cc1plus" | b"cc1obj" | b"cc1objplus" | b"clang" | b"clang++"
        )
    }

    fn is_state(&self, path: &[u8]) -> bool {
        // Python's, where the driver is a script: compiled from files that are inputs themselves.
        file_name(parent(path)) == b"__pycache__"
    }

    fn lists_for_candidates(&self, path: &[u8]) -> bool {
        // `python -m ziglang` looks for its modules in the current directory too, where objects appear.
        self.zig.is_some() && path == self.cwd
    }

    fn env_rule(&self, name: &[u8]) -> EnvRule {
        match name {
            // `PWD` names the current directory, or it is passed over: see `Invocation::pwd`.
            b"MAKEFLAGS" | b"MFLAGS" | b"TMPDIR" | b"TMP" | b"TEMP" | b"PATH" | b"PWD" => EnvRule::Ignore,
            b"TERM" | b"COLORTERM" | b"COLUMNS" | b"GCC_COLORS" | b"GCC_URLS" | b"TERM_URLS" => EnvRule::Messages,
            b"NO_COLOR" | b"CLICOLOR" | b"CLICOLOR_FORCE" | b"LC_MESSAGES" | b"LANGUAGE" => EnvRule::Messages,
            b"GCC_EXTRA_DIAGNOSTIC_OUTPUT" => EnvRule::Messages,
            _ => EnvRule::Exact,
        }
    }

    fn unseen_env(&self) -> &'static [&'static [u8]] {
        // The C library asks itself for them.
        &[b"LC_ALL", b"LC_CTYPE", b"LC_MESSAGES", b"LANG", b"LANGUAGE"]
    }

    fn output_rule(&self, path: &[u8]) -> OutputRule {
        match extension(path) {
            b"d" => OutputRule::Text,
            _ if self.depfile.as_deref() == Some(path) => OutputRule::Text,
            _ => OutputRule::Plain,
        }
    }

    fn declared_inputs(&self, _: &[u8], text: &[u8]) -> Vec<Vec<u8>> {
        prerequisites(text)
    }

    fn sources(&self) -> Vec<Vec<u8>> {
        self.sources.iter().filter(|source| *source != b"-").map(|source| join(&self.cwd, source)).collect()
    }

    fn keeps_failure(&self) -> bool {
        self.sources.is_empty()
    }

    fn zig(&self) -> Option<(&Zig, Vec<Vec<u8>>)> {
        self.zig.as_ref().map(|zig| (zig, self.outputs()))
    }
}

#[cfg(test)]
#[path = "cc_tests.rs"]
mod tests;
