//! Rules that the source tree keeps: where `unsafe` may stand, that the daemon starts no program, and where sled is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold `unsafe`, and why each has to.
const UNSAFE: &[(&str, &str)] = &[
    ("client/main.rs", "is called by the C library itself, since the standard library's beginning takes too long"),
    ("client/command/run.rs", "sets the signal mask between fork and exec, so that the build has its own"),
    ("client/observer/", "lives in other programs, below their C library: every function is called by C and calls C"),
    ("client/src/compile.rs", "makes system calls between fork and exec, and resets a signal's handler"),
    ("client/src/given.rs", "looks at descriptors by number"),
    ("client/src/interrupt.rs", "sets what signals do while a compiler runs"),
    ("client/src/materialize.rs", "the ioctl that clones a file"),
    ("client/src/parent.rs", "calls what the observer in its own process exports"),
    ("client/src/start.rs", "makes system calls between fork and exec, so that the daemon outlives the client"),
    ("client/src/terminal.rs", "the ioctl that tells a terminal's width"),
    ("daemon/src/confine.rs", "ignores the signal of the limit on the length of files"),
    ("daemon/src/cas.rs", "the ioctl that clones a file"),
    ("daemon/src/occupied.rs", "the call that lists a file's extended attributes"),
    ("daemon/src/ingest.rs", "the niceness of one thread"),
];

/// Every source of the product, by its path from the top.
fn sources() -> BTreeMap<PathBuf, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending: Vec<PathBuf> = ["client", "daemon", "proto"].map(|dir| top.join(dir)).into();
    let mut found = BTreeMap::new();
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                found.insert(path.strip_prefix(top).expect("below").to_owned(), code(&text));
            }
        }
    }
    assert!(found.len() > 50, "the tree is here");
    found
}

/// The text without its comments.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Whether `text` has `word` with nothing around it that would make it another.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next()))
}

#[test]
fn unsafe_stands_only_where_a_reason_is_given() {
    let sources = sources();
    let holding: Vec<_> = sources.iter().filter(|(_, text)| names(text, "unsafe")).map(|(path, _)| path).collect();
    let covers =
        |file: &str, path: &Path| if file.ends_with('/') { path.starts_with(file) } else { path == Path::new(file) };
    for path in &holding {
        let allowed = UNSAFE.iter().any(|(file, _)| covers(file, path));
        assert!(allowed, "{} holds `unsafe` and stands in no list with its reason", path.display());
    }
    for (file, reason) in UNSAFE {
        assert!(holding.iter().any(|path| covers(file, path)), "{file} needs no `unsafe` any more ({reason})");
    }
}

#[test]
fn the_daemon_starts_no_program() {
    const STARTS: [&str; 12] = [
        "process::Command",
        "Command::new",
        "CommandExt",
        "posix_spawn",
        "posix_spawnp",
        "fork",
        "vfork",
        "execv",
        "execve",
        "execvp",
        "execveat",
        "fexecve",
    ];
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("daemon")) {
        let tested = text.split("#[cfg(test)]").next().unwrap_or(text);
        let found: Vec<_> = STARTS.into_iter().filter(|word| names(tested, word)).collect();
        assert!(found.is_empty(), "{}: {found:?}", path.display());
        // `process` of the standard library only for what this process itself is and how it ends.
        let uses = tested.match_indices("process::").map(|(at, _)| &tested[at + "process::".len()..]);
        let own = ["id", "ExitCode", "Process", "ancestors", "root", "are_shown", "is_in", "{", "abort", "exit"];
        for used in uses {
            assert!(own.iter().any(|name| used.starts_with(name)), "{}: process::{:.20}", path.display(), used);
        }
    }
}

#[test]
fn sled_is_named_in_one_file() {
    let sources = sources();
    let naming: Vec<_> = sources.iter().filter(|(_, text)| names(text, "sled")).map(|(path, _)| path).collect();
    assert_eq!(naming, [Path::new("daemon/src/index.rs")]);
}

#[test]
fn the_lists_are_read_as_code_is() {
    assert!(names("unsafe { x }", "unsafe") && names("(unsafe", "unsafe"));
    assert!(!names("unsafe_op_in_unsafe_fn", "unsafe"));
    assert_eq!(code("// unsafe\nlet x = 1; // unsafe"), "let x = 1;");
}
