//! Driver: which programs are compilers, told by their names, and which are other caches that stand before compilers.
//! The one place that says so: for links in PATH, for the guide that redirects what a build starts, and for the client.
//! Compiled into the guide too, so it is `no_std`, without dependencies, and compares bytes by itself.

/// A family of compilers, by how they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// gcc, clang, zig and their kin.
    C,
    /// rustc, and clippy's in its place.
    Rust,
}

/// Drivers of C, alone or between a target and a version.
const C: [&[u8]; 9] = [b"cc", b"c++", b"gcc", b"g++", b"clang", b"clang++", b"c89", b"c99", b"zig"];
/// Wrappers of such drivers that have a name of their own.
const OTHERS: [&[u8]; 2] = [b"musl-gcc", b"musl-clang"];
const RUST: [&[u8]; 2] = [b"rustc", b"clippy-driver"];

/// Other caches and distributors: what stands behind them is theirs.
const CACHES: [&[u8]; 7] = [b"buildcache", b"cachepot", b"ccache", b"distcc", b"icecc", b"kache", b"sccache"];
/// Those among them whose compiles run in a server of theirs, which outlives the build.
const SERVED: [&[u8]; 3] = [b"cachepot", b"kache", b"sccache"];

impl Driver {
    /// What a program of this name compiles; none where it does not. `gcc`, `gcc-12`, `x86_64-linux-gnu-gcc-12` do.
    pub fn of(name: &[u8]) -> Option<Driver> {
        if is_one_of(name, &RUST) {
            return Some(Driver::Rust);
        }
        is_c(name).then_some(Driver::C)
    }
}

/// Whether a file of this name is another cache or distributor.
pub fn is_cache(name: &[u8]) -> bool {
    is_one_of(unversioned(name), &CACHES)
}

/// Whether a file of this name is a cache that hands its compiles to a server of its own.
pub fn is_served(name: &[u8]) -> bool {
    is_one_of(unversioned(name), &SERVED)
}

/// The part after the last slash.
pub fn file_name(path: &[u8]) -> &[u8] {
    split_last(path, b'/').map_or(path, |(_, name)| name)
}

fn is_c(name: &[u8]) -> bool {
    if is_one_of(name, &OTHERS) {
        return true;
    }
    let bare = unversioned(name);
    match split_last(bare, b'-') {
        Some((target, base)) => is_target(target) && is_one_of(base, &C),
        None => is_one_of(bare, &C),
    }
}

fn unversioned(name: &[u8]) -> &[u8] {
    split_last(name, b'-').filter(|(_, version)| is_version(version)).map_or(name, |(bare, _)| bare)
}

fn is_version(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

/// Whether this names a target, as `arm-none-eabi` does and the `my` of `my-cc` does not.
fn is_target(text: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.')
    };
    text.contains(&b'-') && text.split(|byte| *byte == b'-').all(is_part)
}

fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|other| name.len() == other.len() && name.iter().zip(*other).all(|(a, b)| a == b))
}

fn split_last(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let middle = text.iter().rposition(|byte| *byte == at)?;
    Some((&text[..middle], &text[middle + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_by_name() {
        let compilers = "cc c++ gcc g++ clang clang++ c89 c99 zig gcc-12 clang++-14 clang-14.0.6 zig-0.13.0 musl-gcc \
                         musl-clang x86_64-linux-gnu-gcc x86_64-linux-gnu-gcc-12 arm-none-eabi-g++ x86_64-w64-mingw32-c++";
        for name in compilers.split_whitespace() {
            assert_eq!(Driver::of(name.as_bytes()), Some(Driver::C), "{name}");
        }
        let others = "gcc-ar gcc-ar-12 gcc-nm x86_64-linux-gnu-gcc-ar-12 c++filt my-cc ccache sccache distcc clangd \
                      clang-format-14 clang-cpp-14 clang-cl cc1 gcc- gcc-. gcc-.12 gcc-12a -gcc --gcc a--gcc -a-gcc 12 \
                      avr-gcc a/b-c-gcc musl-gcc-12 Gcc rustc-1 rustdoc c99-gcc cargo";
        for name in others.split_whitespace() {
            assert_eq!(Driver::of(name.as_bytes()), None, "{name}");
        }
        assert!(!is_c(b"") && !is_c(b"\xff-\xff-gcc") && !is_c(b"gcc-12\n"));
        assert_eq!((Driver::of(b"rustc"), Driver::of(b"clippy-driver")), (Some(Driver::Rust), Some(Driver::Rust)));
    }

    #[test]
    fn caches_by_name() {
        assert!(
            is_cache(b"ccache")
                && is_cache(b"ccache-4.8.2")
                && is_cache(b"sccache")
                && !is_cache(b"zcache")
                && !is_cache(b"gcc")
        );
        assert!(SERVED.iter().all(|name| is_cache(name)) && !is_served(b"ccache"));
        assert_eq!((file_name(b"/a/b"), file_name(b"b"), file_name(b"/")), (&b"b"[..], &b"b"[..], &b""[..]));
    }
}
