//! Drivers of the C family: gcc, clang, zig's `cc`, and scripts that are called as they are. Command line, habits and
//! outputs; what zig needs besides is in `zig`. Pure.

use zcache_proto::driver;

use super::depfile::prerequisites;
use super::toolchain::{self, file_name, is_below, join, parent};
use super::zig::{self, Zig};
use super::{Bypass, EnvRule, Family, OutputRule};
use crate::invocation::Invocation;
use crate::paths::without_parents;
use crate::roles::{Role, Roots};

/// Options whose value is the next argument.
const VALUED: &[&[u8]] = &[
    b"--config",
    b"--param",
    b"--serialize-diagnostics",
    b"--sysroot",
    b"--target",
    b"-A",
    b"-B",
    b"-D",
    b"-F",
    b"-G",
    b"-I",
    b"-L",
    b"-MF",
    b"-MJ",
    b"-MQ",
    b"-MT",
    b"-T",
    b"-U",
    b"-Xassembler",
    b"-Xclang",
    b"-Xlinker",
    b"-Xpreprocessor",
    b"-arch",
    b"-aux-info",
    b"-dumpbase",
    b"-dumpbase-ext",
    b"-dumpdir",
    b"-e",
    b"-framework",
    b"-gcc-toolchain",
    b"-idirafter",
    b"-iframework",
    b"-imacros",
    b"-imultilib",
    b"-include",
    b"-include-pch",
    b"-iprefix",
    b"-iquote",
    b"-isysroot",
    b"-isystem",
    b"-iwithprefix",
    b"-iwithprefixbefore",
    b"-l",
    b"-mllvm",
    b"-o",
    b"-target",
    b"-u",
    b"-wrapper",
    b"-x",
    b"-z",
];

/// One command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cc {
    name: &'static str,
    cwd: Vec<u8>,
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
    compresses: bool,
    precompiles: bool,
    modules: bool,
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
    let mut cc = Cc { name: family_name(called), cwd: invocation.cwd.clone(), zig, ..Cc::default() };
    cc.read(arguments);
    let stands_in = cc.compiles && cc.names_source();
    if !is_driver(called) && !stands_in {
        return Err(Bypass::UnknownCompiler);
    }
    cc.decide()?;
    let roots = cc.roots();
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
        let mut rest = arguments.iter().map(Vec::as_slice);
        let mut all_files = false;
        while let Some(argument) = rest.next() {
            if all_files || argument == b"-" || !argument.starts_with(b"-") {
                self.sources.push(argument.to_vec());
            } else if argument == b"--" {
                all_files = true;
            } else if VALUED.contains(&argument) {
                self.option(argument, rest.next().unwrap_or_default());
            } else {
                match argument {
                    [b'-', b'o' | b'x', value @ ..] if !value.is_empty() => self.option(&argument[..2], value),
                    [b'-', b'M', b'F', value @ ..] => self.option(b"-MF", value),
                    _ => self.flag(argument),
                }
            }
        }
    }

    fn option(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"-o" => self.output = Some(value.to_vec()),
            b"-x" => self.language = Some(value.to_vec()),
            b"-MF" => self.depfile = Some(join(&self.cwd, value)),
            b"-include-pch" => self.precompiles = true,
            b"-Xclang" => self.precompiles |= value.ends_with(b"-pch"),
            _ => {}
        }
    }

    fn flag(&mut self, flag: &[u8]) {
        match flag {
            b"-c" => (self.compiles, self.makes_code, self.suffix) = (true, true, b".o"),
            b"-S" => (self.compiles, self.makes_code, self.suffix) = (true, true, b".s"),
            b"-E" | b"-M" | b"-MM" | b"-fsyntax-only" => self.compiles = true,
            b"-fmodules" | b"-fmodules-ts" | b"-fcxx-modules" | b"--precompile" => self.modules = true,
            b"-emit-pch" => self.precompiles = true,
            _ => {}
        }
        let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| flag.starts_with(prefix));
        self.modules |= starts(&[b"-fmodule-", b"-fprebuilt-module"]);
        let packed: &[&[u8]] =
            &[b"-gz", b"-flto", b"-emit-llvm", b"-fembed-bitcode", b"-Wa,--compress-debug", b"-Wa,-gz"];
        self.compresses |= starts(packed);
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
            Cc { compiles: false, sources, .. } if !sources.is_empty() => Err(Bypass::Link),
            _ => Ok(()),
        }
    }

    /// The workspace holds the source and the directory that the compiler runs in; the target is where the output goes.
    fn roots(&self) -> Roots {
        let source = self.sources.first().map(|source| join(&self.cwd, source));
        let common = source.and_then(|source| common(&self.cwd, parent(&source)));
        let workspace = common.unwrap_or_else(|| self.cwd.clone());
        let output = self.output.as_deref().filter(|output| output.starts_with(b"/") && !is_below(output, b"/dev"));
        let target = output.map(|output| (Role::Target, parent(output).to_vec()));
        let probe = self.sources.iter().find(|source| source.starts_with(b"/") && is_probe(file_name(source)));
        let probe = probe.map(|source| (Role::Probe, source.clone()));
        Roots::new([(Role::Workspace, workspace)].into_iter().chain(target).chain(probe))
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
        let stem = |path: &[u8]| path[..path.len() - extension(path).len()].strip_suffix(b".").unwrap_or(path).to_vec();
        let named = self.output.as_deref().filter(|output| *output != b"-");
        let made: Vec<Vec<u8>> = match named {
            Some(output) => vec![output.to_vec()],
            None if self.output.is_some() => Vec::new(),
            None => self.sources.iter().map(|source| [&stem(file_name(source))[..], self.suffix].concat()).collect(),
        };
        let depfiles = made.iter().map(|made| [&stem(made)[..], b".d"].concat());
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

impl Family for Cc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_arguments<'a>(&self, argv: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        // Which program it is stands in the action besides.
        let name = file_name(&argv[0]);
        std::iter::once(name).chain(argv[1..].iter().map(Vec::as_slice)).collect()
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
            b"MAKEFLAGS" | b"MFLAGS" | b"TMPDIR" | b"TMP" | b"TEMP" | b"PATH" => EnvRule::Ignore,
            b"PWD" => EnvRule::ByRole,
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

    fn hides_paths(&self) -> bool {
        self.compresses
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
