//! zig: a static program that no observer can enter. It is made to list the headers it opens; what it looked for and
//! missed is derived from the include path, and a command of which that would not tell enough is not stored. Pure.

use std::collections::BTreeSet;

use super::toolchain::{file_name, is_below, join, parent};
use crate::invocation::Invocation;

/// Options that change what is made of the sources and read no file besides: a prefix each.
const HARMLESS: &[&[u8]] = &[
    b"-D", b"-E", b"-MD", b"-MP", b"-O", b"-S", b"-U", b"-W", b"-ansi", b"-c", b"-f", b"-g", b"-m", b"-n", b"-p",
    b"-std=", b"-w",
];

/// Those among them that read or write more than is listed, or hand arguments on.
const HARMFUL: &[&[u8]] = &[
    b"-Wa,",
    b"-Wl,",
    b"-Wp,",
    b"-fapinotes",
    b"-fbuild-session",
    b"-fcoverage",
    b"-fcrash",
    b"-fembed",
    b"-flto",
    b"-fmodule",
    b"-foptimization-record",
    b"-fpass",
    b"-fplugin",
    b"-fproc",
    b"-fprofile",
    b"-fsanitize-",
    b"-fsave",
    b"-fstack-usage",
    b"-ftest-coverage",
    b"-fthinlto",
    b"-ftime",
    b"-fxray",
    b"-gcc-",
    b"-gsplit",
    b"-gz",
    b"-march=native",
    b"-mcpu=native",
    b"-pg",
    b"-save",
];

/// Longest list of places in which headers are looked for, bytes: a large program has a tenth of it.
const CANDIDATES_MAX: usize = 64 << 20;

/// Variables that name directories of headers.
const PATHS: &[&[u8]] =
    &[b"CPATH", b"C_INCLUDE_PATH", b"CPLUS_INCLUDE_PATH", b"OBJC_INCLUDE_PATH", b"OBJCPLUS_INCLUDE_PATH"];

/// Where headers are without being asked for.
const SYSTEM: &[&[u8]] = &[b"/usr/local/include", b"/usr/include"];

/// What a native compile learns of the machine.
const NATIVE: &[&[u8]] = &[
    b"/usr/bin/env",
    b"/lib64/ld-linux-x86-64.so.2",
    b"/lib/ld-linux-aarch64.so.1",
    b"/lib/x86_64-linux-gnu/libc.so.6",
    b"/lib/aarch64-linux-gnu/libc.so.6",
    b"/lib64/libc.so.6",
];

/// What of a command matters because zig cannot be watched.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Zig {
    cwd: Vec<u8>,
    sources: Vec<Vec<u8>>,
    dirs: Vec<Vec<u8>>,
    /// It chose the target from the machine.
    native: bool,
    /// The first argument that may do more than can be told.
    unknown: Option<Vec<u8>>,
}

/// Whether `name` is zig's, or that of a script that starts it.
pub fn is_behind(name: &[u8]) -> bool {
    memchr::memmem::find(file_name(name), b"zig").is_some()
}

/// Whether `program` is zig.
pub fn is_zig(program: &[u8]) -> bool {
    file_name(program) == b"zig"
}

/// Whether `program` only starts zig: cargo-zigbuild, often static itself, and Python for the package that brings zig.
/// They read the clock for purposes of their own.
pub fn is_launcher(program: &[u8]) -> bool {
    let name = file_name(program);
    name == b"cargo-zigbuild" || name.starts_with(b"python")
}

/// Variables that make zig's compiler list its headers in `list`, and not skip its work for a result in its own cache.
pub fn variables(list: &[u8], cache: &[u8]) -> Vec<Vec<u8>> {
    let variable = |name: &[u8], value: &[u8]| [name, b"=", value].concat();
    vec![
        variable(b"CC_PRINT_HEADERS", b"1"),
        variable(b"CC_PRINT_HEADERS_FILE", list),
        variable(b"ZIG_LOCAL_CACHE_DIR", cache),
    ]
}

impl Zig {
    /// Reads the arguments that follow `cc`.
    pub fn of(arguments: &[Vec<u8>], invocation: &Invocation) -> Self {
        let cwd = &invocation.cwd;
        let named = PATHS.iter().filter_map(|name| invocation.env.get(name));
        let dirs = named.flat_map(|list| list.split(|&b| b == b':')).map(|dir| join(cwd, dir)).collect();
        let mut zig = Self { cwd: cwd.clone(), dirs, native: true, ..Self::default() };
        let mut rest = arguments.iter().map(Vec::as_slice);
        while let Some(argument) = rest.next() {
            if argument.starts_with(b"-") && argument != b"-" {
                zig.option(argument, &mut rest);
            } else {
                zig.sources.push(join(cwd, argument));
            }
        }
        zig
    }

    fn option<'a>(&mut self, option: &'a [u8], rest: &mut impl Iterator<Item = &'a [u8]>) {
        for name in [b"-iquote".as_slice(), b"-isystem", b"-idirafter", b"-I"] {
            if let Some(joined) = option.strip_prefix(name) {
                let dir = if joined.is_empty() { rest.next().unwrap_or_default() } else { joined };
                self.dirs.push(join(&self.cwd, dir));
                return;
            }
        }
        match option {
            b"-include" | b"-imacros" => {
                let file = rest.next().unwrap_or_default();
                self.sources.push(join(&self.cwd, file));
            }
            b"-target" | b"--target" => self.native = rest.next().is_none_or(|target| target.starts_with(b"native")),
            b"-o" | b"-x" | b"-D" | b"-U" | b"-MF" | b"-MT" | b"-MQ" => drop(rest.next()),
            _ if option.starts_with(b"--target=") => self.native = option.starts_with(b"--target=native"),
            _ if starts(option, HARMFUL) || !starts(option, HARMLESS) => {
                self.unknown.get_or_insert_with(|| option.to_vec());
            }
            _ => {}
        }
    }

    /// The first argument that may do more than zig tells, or of which the list of headers would change the effect: that
    /// of `-MMD` would name them all.
    pub fn unknown(&self) -> Option<&[u8]> {
        self.unknown.as_deref()
    }

    /// Whether the result depends on the machine.
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// All files read, by the list that zig made: a path a line, after dots that tell the depth.
    pub fn inputs(&self, list: &[u8]) -> BTreeSet<Vec<u8>> {
        let name = |line: &[u8]| {
            let dots = line.iter().take_while(|&&b| b == b'.').count();
            let path = if line.get(dots) == Some(&b' ') { &line[dots + 1..] } else { line };
            (!path.is_empty()).then(|| join(&self.cwd, path))
        };
        let native = NATIVE.iter().filter(|_| self.native).map(|path| path.to_vec());
        list.split(|&b| b == b'\n').filter_map(name).chain(self.sources.iter().cloned()).chain(native).collect()
    }

    /// Where `inputs` were looked for, or would have been found first: in every directory of the include path, and
    /// beside every file that may include them. None where there is no end of such places.
    pub fn candidates(&self, inputs: &BTreeSet<Vec<u8>>) -> Option<BTreeSet<Vec<u8>>> {
        let beside: BTreeSet<&[u8]> = inputs.iter().map(|input| parent(input)).collect();
        let mut searched: BTreeSet<&[u8]> = self.dirs.iter().map(Vec::as_slice).chain(SYSTEM.iter().copied()).collect();
        searched.extend(inputs.iter().filter_map(|input| include_root(input)));
        let mut left = CANDIDATES_MAX;
        let mut all = BTreeSet::new();
        for input in inputs {
            left = left.checked_sub(searched.len() + beside.len())?;
            let found_in = searched.iter().chain(&beside).filter(|dir| is_below(input, dir));
            let names: BTreeSet<&[u8]> =
                found_in.map(|dir| &input[dir.len()..]).filter(|name| !name.is_empty()).collect();
            for name in names {
                for dir in searched.iter().chain(&beside) {
                    left = left.checked_sub(dir.len() + name.len())?;
                    all.insert([dir, name].concat());
                }
            }
        }
        all.retain(|path| !inputs.contains(path));
        Some(all)
    }

    /// Whether a header belongs to zig's installation, where nobody adds any.
    pub fn brings(program: &[u8], path: &[u8]) -> bool {
        is_below(path, &[parent(program), b"/lib"].concat()) || is_below(path, b"/usr/lib/zig")
    }
}

/// The directory of the include path that a header seems to lie in.
fn include_root(path: &[u8]) -> Option<&[u8]> {
    memchr::memmem::rfind(path, b"/include/").map(|at| &path[..at + b"/include".len()])
}

fn starts(option: &[u8], prefixes: &[&[u8]]) -> bool {
    prefixes.iter().any(|prefix| option.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zig(command: &str) -> Zig {
        let arguments: Vec<Vec<u8>> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        Zig::of(&arguments, &Invocation { cwd: b"/w".into(), ..Invocation::default() })
    }

    fn paths(list: &[&str]) -> BTreeSet<Vec<u8>> {
        list.iter().map(|path| path.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_header_that_would_be_found_first_is_looked_for() {
        let zig = zig("-c src/a.c -Ib -I /x/a -target aarch64-linux-gnu");
        assert!(!zig.is_native() && zig.unknown().is_none());
        let inputs = zig.inputs(b"./a/sub/f.h\n/x/a/g.h\n");
        assert_eq!(inputs, paths(&["/w/src/a.c", "/w/./a/sub/f.h", "/x/a/g.h"]));
        let candidates = zig.candidates(&inputs).unwrap();
        for path in ["/w/b/g.h", "/w/src/g.h", "/usr/include/g.h"] {
            assert!(candidates.contains(path.as_bytes()), "{path} of {candidates:?}");
        }
        assert!(!candidates.contains(b"/x/a/g.h".as_slice()));
    }

    #[test]
    fn what_may_do_more_is_not_told() {
        for option in ["-fplugin=x.so", "-Xclang", "-save-temps", "-gsplit-dwarf", "@f", "-fprofile-use=x", "-Wp,-MD,x"]
        {
            let known = zig(&format!("-c a.c {option}")).unknown().is_none();
            assert_eq!(known, option == "@f", "{option}");
        }
        let usual = "-O3 -g -fPIC -DX=1 -Iinc -std=c11 -Wall -ffunction-sections -o x.o -MD -MF x.d -c a.c -pedantic";
        assert_eq!(zig(usual).unknown(), None);
    }

    #[test]
    fn lists_with_and_without_depth_are_read() {
        let zig = zig("-c a.c -target x");
        assert_eq!(zig.inputs(b". /i/a.h\n.. ../b.h\n/i/c.h\n"), paths(&["/w/a.c", "/i/a.h", "/w/../b.h", "/i/c.h"]));
    }
}
