//! Sccache: what sccache's own options ask for, in the words of the people's command. A link of that name stands where
//! scripts call `sccache --show-stats --stats-format=json` and the like. Reads arguments; runs nothing.

use std::ffi::{OsStr, OsString};

/// What a command line of sccache's asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// This, of the people's command.
    Manage(Vec<&'static str>),
    /// A compile, whose command begins at this argument.
    Compile(usize),
}

/// Why it asks for nothing that is to be had here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// An option of sccache's that means nothing here, or of nobody's.
    #[error("{0} is an option of sccache's that zcache does not have; see `zcache help`")]
    Foreign(String),
    /// An option that needs another value.
    #[error("--stats-format is `text` or `json`, not {0:?}")]
    Format(String),
    /// Options that exclude each other.
    #[error("{0} and {1} cannot be had at once")]
    Both(&'static str, &'static str),
    /// Options, and nothing to do.
    #[error("nothing to do: name a compiler, or one of sccache's options such as --show-stats")]
    Nothing,
}

/// Reads the arguments that follow the name, in any order.
pub fn read(arguments: &[OsString]) -> Result<Asked, NotAsked> {
    let (mut verb, mut json): (Option<&'static str>, bool) = (None, false);
    let mut rest = arguments.iter().enumerate();
    while let Some((at, argument)) = rest.next() {
        let text = argument.to_str().unwrap_or_default();
        let found = match text {
            "--show-stats" | "-s" | "--show-adv-stats" => "status",
            "--zero-stats" | "-z" => "zero",
            "--start-server" => "start",
            "--stop-server" => "stop",
            "--version" | "-V" => return Ok(Asked::Manage(vec!["--version"])),
            "--help" | "-h" => return Ok(Asked::Manage(vec!["--help"])),
            "--stats-format" => {
                json = is_json(rest.next().map_or(OsStr::new(""), |(_, value)| value))?;
                continue;
            }
            _ if text.starts_with("--stats-format=") => {
                json = is_json(OsStr::new(&text["--stats-format=".len()..]))?;
                continue;
            }
            "--" if verb.is_none() && at + 1 < arguments.len() => return Ok(Asked::Compile(at + 1)),
            _ if verb.is_none() && !argument.as_encoded_bytes().starts_with(b"-") => return Ok(Asked::Compile(at)),
            _ => return Err(NotAsked::Foreign(argument.to_string_lossy().into_owned())),
        };
        match verb.replace(found) {
            Some(other) if other != found => return Err(NotAsked::Both(other, found)),
            _ => {}
        }
    }
    Ok(Asked::Manage(match verb.ok_or(NotAsked::Nothing)? {
        "status" if json => vec!["status", "--as-sccache"],
        "stop" => vec!["stop", "--as-sccache"],
        verb => vec![verb],
    }))
}

fn is_json(value: &OsStr) -> Result<bool, NotAsked> {
    match value.to_str() {
        Some("json") => Ok(true),
        Some("text") => Ok(false),
        _ => Err(NotAsked::Format(value.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Asked, NotAsked> {
        super::read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_in_any_order() {
        for (line, words) in [
            ("--show-stats", "status"),
            ("-s", "status"),
            ("--show-adv-stats", "status"),
            ("-s --stats-format text", "status"),
            ("--show-stats --stats-format=json", "status --as-sccache"),
            ("--stats-format=json --show-stats", "status --as-sccache"),
            ("--stats-format json -s", "status --as-sccache"),
            ("-s --stats-format json", "status --as-sccache"),
            ("--show-adv-stats --stats-format=json", "status --as-sccache"),
            ("-s --stats-format=json --stats-format=text", "status"),
            ("--zero-stats --stats-format=text", "zero"),
            ("-z", "zero"),
            ("--start-server", "start"),
            ("--stop-server", "stop --as-sccache"),
            ("--stats-format=json --version", "--version"),
            ("-h", "--help"),
        ] {
            assert_eq!(read(line), Ok(Asked::Manage(words.split(' ').collect())), "{line}");
        }
    }

    #[test]
    fn a_command_is_a_compile() {
        for (line, at) in
            [("gcc -c x.c -s", 0), ("--stats-format=json gcc -s", 1), ("-- gcc", 1), ("/bin/cc --help", 0)]
        {
            assert_eq!(read(line), Ok(Asked::Compile(at)), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let foreign = |option: &str| Err(NotAsked::Foreign(option.to_owned()));
        assert_eq!(read("--dist-status"), foreign("--dist-status"));
        assert_eq!(read("-s --package-toolchain a b"), foreign("--package-toolchain"));
        assert_eq!(read("-s gcc"), foreign("gcc"));
        assert_eq!(read("--stats-format=xml -s"), Err(NotAsked::Format("xml".into())));
        assert_eq!(read("-s --stats-format"), Err(NotAsked::Format(String::new())));
        assert_eq!(read("-s -z"), Err(NotAsked::Both("status", "zero")));
        assert_eq!(read("--stats-format=json"), Err(NotAsked::Nothing));
    }
}
