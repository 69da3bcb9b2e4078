//! The words of a C driver's command line: which is a file, which an option with a value, and what can become of each
//! one's text. Knows gcc's and clang's options, not what a command as a whole is. Pure.

use crate::roles::Roots;
use crate::template::Template;

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

/// Options whose value may stand in the same argument, without a sign between.
const JOINED: &[&[u8]] = &[b"-MF", b"-MQ", b"-MT", b"-o", b"-x"];

/// Options whose value names the output, or what goes with it.
const OF_OUTPUT: &[&[u8]] = &[b"-MF", b"-MQ", b"-MT", b"-o"];

/// Beginnings of options that say where things are or go and whose text reaches no output: the names of dependency
/// files and of their targets, which are kept as text, and where libraries are.
const NOWHERE: &[&[u8]] = &[b"-L", b"-MF", b"-MJ", b"-MQ", b"-MT", b"-Wp,-MD,", b"-Wp,-MMD,", b"-o"];

/// Beginnings of options whose text is a path, which debug information, messages and `__FILE__` name.
const PATHS: &[&[u8]] = &[
    b"--sysroot",
    b"-B",
    b"-F",
    b"-I",
    b"-fcoverage-prefix-map=",
    b"-fdebug-prefix-map=",
    b"-ffile-prefix-map=",
    b"-fmacro-prefix-map=",
    b"-fprofile-prefix-map=",
    b"-idirafter",
    b"-iframework",
    b"-imacros",
    b"-include",
    b"-iquote",
    b"-isysroot",
    b"-isystem",
];

/// One word, with the value that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// A file to compile; `-` is standard input.
    File(&'a [u8]),
    /// An option and its value, and whether both are one argument.
    Option(&'a [u8], &'a [u8], bool),
    /// Any other option.
    Flag(&'a [u8]),
}

/// What can become of a word's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It reaches no output.
    Nowhere,
    /// It is a path, and reaches outputs as such.
    Path,
    /// Code may compute on it.
    Value,
}

/// The words of a command, without the driver.
pub fn words(arguments: &[Vec<u8>]) -> impl Iterator<Item = Word<'_>> {
    let mut rest = arguments.iter().map(Vec::as_slice);
    let mut all_files = false;
    std::iter::from_fn(move || {
        let mut argument = rest.next()?;
        if argument == b"--" && !all_files {
            all_files = true;
            argument = rest.next()?;
        }
        if all_files || argument == b"-" || !argument.starts_with(b"-") {
            return Some(Word::File(argument));
        }
        if VALUED.contains(&argument) {
            return Some(Word::Option(argument, rest.next().unwrap_or_default(), false));
        }
        let joined = JOINED.iter().find(|name| argument.starts_with(name) && argument.len() > name.len());
        Some(joined.map_or(Word::Flag(argument), |name| Word::Option(name, &argument[name.len()..], true)))
    })
}

impl Word<'_> {
    /// What can become of its text. What is not known may be computed on.
    pub fn reach(&self) -> Reach {
        let (Self::Option(text, ..) | Self::Flag(text)) = *self else { return Reach::Path };
        let begins = |list: &[&[u8]]| list.iter().any(|start| text.starts_with(start));
        match () {
            () if begins(NOWHERE) => Reach::Nowhere,
            () if begins(PATHS) => Reach::Path,
            () => Reach::Value,
        }
    }

    /// Its text: the value, where it has one.
    pub fn text(&self) -> &[u8] {
        match *self {
            Self::File(text) | Self::Option(_, text, _) | Self::Flag(text) => text,
        }
    }

    /// What it adds to the question, by role.
    pub fn key(&self, roots: &Roots) -> Vec<Template> {
        match *self {
            Self::Option(name, value, joined) if OF_OUTPUT.contains(&name) => {
                let name = [name, if joined { b"=" } else { b"" }].concat();
                vec![Template::of(&name, roots), Template::of_output_argument(value, roots)]
            }
            Self::Option(name, value, false) => vec![Template::of(name, roots), Template::of(value, roots)],
            Self::Option(name, value, true) => vec![Template::of(&[name, value].concat(), roots)],
            Self::File(text) => vec![Template::of(text, roots)],
            Self::Flag(flag) => {
                let depfile = [b"-Wp,-MD,".as_slice(), b"-Wp,-MMD,"].into_iter().find(|name| flag.starts_with(name));
                let (name, value) = flag.split_at(depfile.map_or(0, <[u8]>::len));
                match depfile {
                    Some(_) => vec![Template::of(name, roots), Template::of_output_argument(value, roots)],
                    None => vec![Template::of(flag, roots)],
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_with_their_values() {
        let arguments = ["-c", "-o", "x.o", "-ox", "-MFd", "-I", "inc", "-Iinc", "x.c", "-", "--", "-y.c"];
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|word| word.as_bytes().to_vec()).collect();
        let want = [
            Word::Flag(b"-c"),
            Word::Option(b"-o", b"x.o", false),
            Word::Option(b"-o", b"x", true),
            Word::Option(b"-MF", b"d", true),
            Word::Option(b"-I", b"inc", false),
            Word::Flag(b"-Iinc"),
            Word::File(b"x.c"),
            Word::File(b"-"),
            Word::File(b"-y.c"),
        ];
        assert_eq!(words(&arguments).collect::<Vec<_>>(), want);
    }

    #[test]
    fn what_is_not_known_may_be_computed_on() {
        for (word, reach) in [
            (Word::Flag(b"-I/w/inc"), Reach::Path),
            (Word::Option(b"-MF", b"/w/x.d", false), Reach::Nowhere),
            (Word::Flag(b"-Wp,-MMD,/w/x.d"), Reach::Nowhere),
            (Word::File(b"/w/x.c"), Reach::Path),
            (Word::Option(b"-D", b"DIR=\"/w\"", false), Reach::Value),
            (Word::Flag(b"-DDIR=\"/w\""), Reach::Value),
            (Word::Flag(b"-specs=/w/specs"), Reach::Value),
        ] {
            assert_eq!(word.reach(), reach, "{word:?}");
        }
    }
}
