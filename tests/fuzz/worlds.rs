//! What the fuzz targets share: commands of each family, and the fuzzer's bytes cut into pieces. Knows no target.

use zcache_daemon::compilers::{Command, parse};
use zcache_daemon::invocation::{Env, Invocation};
use zcache_daemon::roles::{Role, Root, Roots};

/// The client's process in [`invocation`].
pub const CLIENT: u32 = 77;

/// Commands of all families, and how their compilers' programs are called.
const COMMANDS: [(&str, &str); 3] = [
    (
        "/t/bin/rustc",
        "rustc --crate-name x src/lib.rs --out-dir /w/t/debug/deps -C incremental=/w/t/i -L dependency=/w/d",
    ),
    ("/usr/bin/gcc", "gcc -c src/x.c -o x.o -MD -MF x.d -Iinc"),
    ("/opt/zig", "zig cc -c src/x.c -o x.o -target x86_64-linux-gnu -Iinc -I/i"),
];

/// What the texts that compilers read and write are made of. A byte stands for each, so that one change of the fuzzer's
/// makes another command or another list rather than noise.
const WORDS: &[&str] = &[
    "\0",
    "\n",
    " ",
    "/",
    "../",
    "./",
    "//",
    "..",
    "@a",
    "@b",
    "-",
    "-c\n",
    "gcc\n",
    "rustc\n",
    "zig\ncc\n",
    "clang\n",
    "/usr/bin/cc\n",
    "--crate-name\n",
    "x.c",
    "x.h",
    "x.o",
    ".d",
    "-o\n",
    "-o",
    "-MD",
    "-MF\n",
    "-I",
    "-x\n",
    "-target\n",
    "--out-dir\n",
    "-C\n",
    "incremental=",
    "-L\n",
    "dependency=",
    "/deps",
    "/build/",
    "=",
    ":",
    "\\",
    "\\\n",
    "\\ ",
    "$$",
    "#",
    "\"",
    "'",
    "/w",
    "/w/p",
    "/w/p/t g",
    "/w/p/t\\ g",
    "/w/p\"q\\",
    "/usr",
    "/include/",
    ". ",
    ".. ",
    "A=",
    "CPATH=",
    "-Wp,-MD,",
    "--print",
    "-E",
    "-S",
    "lib.rs",
    "_",
    "\u{e9}",
    "\r",
];

/// The text that `data` spells: words by their number, and other bytes as they are.
pub fn spelled(data: &[u8]) -> Vec<u8> {
    let word = |byte: &u8| WORDS.get(usize::from(*byte)).map_or_else(|| vec![*byte], |word| word.as_bytes().to_vec());
    data.iter().flat_map(word).collect()
}

/// An invocation of one of the families.
pub fn invocation(choice: u8) -> Invocation {
    let (program, line) = COMMANDS[usize::from(choice) % COMMANDS.len()];
    Invocation {
        argv: line.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
        program: program.into(),
        cwd: b"/w/p".into(),
        pwd: b"/w/p".into(),
        env: Env::new(vec![b"PATH=/usr/bin:/bin".into(), b"A=1".into(), b"CPATH=/c:rel".into()]),
        pid: CLIENT,
        ..Invocation::default()
    }
}

/// What that means.
pub fn command(invocation: &Invocation) -> Command {
    parse(invocation, |_| None).expect("a command of a family")
}

/// A checkout.
pub fn roots() -> Roots {
    Roots::new([
        Root::named(Role::Workspace, b"/w/p".to_vec(), b"/l/p".to_vec()),
        Root::plain(Role::Target, b"/w/p/t g".to_vec()),
        Root::plain(Role::Probe, b"/w/p\"q\\".to_vec()),
    ])
    .with_output(b"/w/p/o ut/x", b"o ut/x")
}

/// The bytes up to the next `separator`, which is taken away.
pub fn piece<'a>(data: &mut &'a [u8], separator: u8) -> &'a [u8] {
    let end = data.iter().position(|&b| b == separator).unwrap_or(data.len());
    let piece = &data[..end];
    *data = data.get(end + 1..).unwrap_or_default();
    piece
}
