//! Toolchain: the programs that compilers start, whose reading of the clock, of the kernel's files and of the
//! environment they hand on is known not to show in what they make. Pure.

/// Names without target prefix and version suffix, in order.
const PROGRAMS: &[&[u8]] = &[
    b"ar",
    b"as",
    b"c++",
    b"c89",
    b"c99",
    b"cc",
    b"cc1",
    b"cc1obj",
    b"cc1objplus",
    b"cc1plus",
    b"clang",
    b"clang++",
    b"clippy-driver",
    b"collect2",
    b"g++",
    b"gcc",
    b"ld",
    b"ld.bfd",
    b"ld.gold",
    b"ld.lld",
    b"ld.mold",
    b"lld",
    b"lto-wrapper",
    b"lto1",
    b"mold",
    b"objcopy",
    b"ranlib",
    b"rust-lld",
    b"rustc",
    b"strip",
    b"wasm-ld",
    b"wild",
];

/// Whether `path` is a compiler, assembler or linker: `/usr/bin/x86_64-linux-gnu-gcc-12` is.
pub fn is_tool(path: &[u8]) -> bool {
    is_program(plain_name(path))
}

fn is_program(name: &[u8]) -> bool {
    PROGRAMS.binary_search(&name).is_ok()
}

/// A program's name without target prefix and version suffix; a name with a dash of its own, such as `rust-lld`, as it is.
pub fn plain_name(path: &[u8]) -> &[u8] {
    let name = file_name(path);
    let unversioned = match name.iter().rposition(|&b| b == b'-') {
        Some(at) if name[at + 1..].iter().all(|b| b.is_ascii_digit() || *b == b'.') => &name[..at],
        _ => name,
    };
    if is_program(unversioned) {
        return unversioned;
    }
    unversioned.rsplit(|&b| b == b'-').next().unwrap_or(unversioned)
}

/// Whether `module`, mapped in a process that runs `program`, is part of the toolchain.
pub fn owns(program: &[u8], module: &[u8]) -> bool {
    is_tool(program) && (is_below(module, installation(program)) || is_system_library(module) || module == program)
}

/// The directory that a compiler was installed to: rustc brings a linker below `lib/rustlib`, gcc its compilers below
/// `lib/gcc` or `libexec/gcc`.
fn installation(program: &[u8]) -> &[u8] {
    let inner = [b"/lib/rustlib/".as_slice(), b"/lib/gcc/", b"/libexec/gcc/"];
    match inner.iter().find_map(|inner| memchr::memmem::find(program, inner)) {
        Some(at) if &program[..at] != b"/usr" => &program[..at],
        _ => parent(parent(program)),
    }
}

fn is_system_library(module: &[u8]) -> bool {
    [b"/lib/".as_slice(), b"/lib64/", b"/usr/lib/", b"/usr/lib64/"].iter().any(|dir| module.starts_with(dir))
}

/// Whether a header came with the compiler or its C++ library: it names words for paths in macros that a source would
/// have to use by names of their own.
pub fn is_compilers_header(path: &[u8]) -> bool {
    [b"/include/c++/".as_slice(), b"/lib/gcc/", b"/lib/clang/"]
        .iter()
        .any(|dir| memchr::memmem::find(path, dir).is_some())
}

/// Whether `module` is the library by which programs ask what a terminal can do. It measures time.
pub fn is_terminal_library(module: &[u8]) -> bool {
    let name = file_name(module);
    name.starts_with(b"libtinfo") || name.starts_with(b"libncurses")
}

/// `path`, which may be relative to `cwd`, without a slash at its end.
pub fn join(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    let path = if path.starts_with(b"/") { path.to_vec() } else { [cwd, b"/", path].concat() };
    path.strip_suffix(b"/").filter(|rest| !rest.is_empty()).map_or(path.clone(), <[u8]>::to_vec)
}

/// The part after the last slash.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// The part before the last slash.
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => b"/",
        Some(at) => &path[..at],
        None => b"",
    }
}

/// Whether `path` lies in or is `directory`.
pub fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || directory.ends_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_without_prefix_and_version() {
        for tool in
            ["/usr/bin/x86_64-linux-gnu-gcc-12", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "/opt/clang-14", "ld.lld"]
        {
            assert!(is_tool(tool.as_bytes()), "{tool}");
        }
        for other in ["/bin/dash", "/usr/bin/git", "/usr/bin/python3.11", "/ws/rustc.sh", "/x/my-cc.sh"] {
            assert!(!is_tool(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn names_stand_in_order() {
        assert!(PROGRAMS.is_sorted());
    }

    #[test]
    fn below_is_by_component() {
        assert!(is_below(b"/a/b", b"/a") && is_below(b"/a", b"/a") && is_below(b"/a", b"/"));
        assert!(!is_below(b"/ab", b"/a"));
        assert_eq!((parent(b"/a/b"), parent(b"/a"), parent(b"a")), (b"/a".as_slice(), b"/".as_slice(), b"".as_slice()));
    }
}
